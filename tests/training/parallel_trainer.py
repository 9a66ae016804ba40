"""What each process of ``test_several_processes.py`` runs: a tiny model in the ordinary ``Trainer``.

Usage: parallel_trainer.py KIND FOLDER PROCESSES [CHECKPOINT]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from tiny_models import tiny_model
from transformers import Trainer, TrainingArguments, default_data_collator

from hf_prompting import Seq2SeqTransformerConfig, Seq2SeqTransformerForConditionalGeneration, SoftPromptConfig
from hf_prompting.processes import is_main_process, join_processes, leave_processes
from hf_prompting.training.sharding import one_embedding_module, shard_on_cpu_too, whole_state

GLOBAL_BATCH, NUM_TRAIN, NUM_DEV = 8, 32, 7  # seven dev rows: the last batch of two processes is uneven


def prompt_without_a_classifier(reparameterization: str | None = None) -> Any:
    config = SoftPromptConfig(num_virtual_tokens=4, task_type="CAUSAL_LM", reparameterization=reparameterization)
    torch.manual_seed(0)
    return get_peft_model(tiny_model("llama", tie_word_embeddings=True), config)


def encoder_decoder() -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 99, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    config = Seq2SeqTransformerConfig(num_encoder_layers=2, num_decoder_layers=2, dropout=0.0, **sizes)
    model = Seq2SeqTransformerForConditionalGeneration(config)
    one_embedding_module(model)
    return model


MODELS = {
    "prompt": prompt_without_a_classifier,
    "lstm-prompt": lambda: prompt_without_a_classifier("lstm"),
    "encoder-decoder": encoder_decoder,
}


def rows(kind: str, num_rows: int, seed: int) -> list[dict[str, list[int]]]:
    """Return rows of which, for prompts, one in eight holds soft tokens: in most steps one process has none."""
    ids = torch.randint(5, 90, (num_rows, 6), generator=torch.Generator().manual_seed(seed))
    if kind != "encoder-decoder":
        ids[::8, :4] = torch.tensor([300, 301, 302, 303])
    labels = ids.where(ids < 300, -100)
    return [
        {"input_ids": row, "attention_mask": [1] * 6, "labels": targets}
        for row, targets in zip(ids.tolist(), labels.tolist(), strict=True)
    ]


def count_rows(prediction: Any) -> dict[str, float]:
    return {"rows": float(len(prediction.label_ids))}


def main(kind: str, folder: str, processes: str, checkpoint: str | None = None) -> None:
    join_processes()
    arguments = TrainingArguments(
        folder,
        max_steps=4,
        learning_rate=0.02,
        optim="sgd" if kind == "encoder-decoder" else "adamw_torch",  # AdamW turns noise of rounding into steps
        per_device_train_batch_size=GLOBAL_BATCH // int(processes) // 2,
        gradient_accumulation_steps=2,
        per_device_eval_batch_size=4,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=2,
        save_steps=2,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        label_names=["labels"],
        seed=0,
    )
    shard_on_cpu_too()
    trainer = Trainer(
        model=MODELS[kind](),
        args=arguments,
        train_dataset=rows(kind, NUM_TRAIN, seed=1),
        eval_dataset=rows(kind, NUM_DEV, seed=2),
        data_collator=default_data_collator,
        compute_metrics=count_rows,
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    whole = whole_state(trainer.model)
    state = {name: value.flatten().tolist() for name, value in whole.items() if "soft_tokens" in name}
    split = any(type(value).__name__ == "DTensor" for value in trainer.model.parameters())
    if is_main_process():
        history = trainer.state.log_history
        found = {
            "processes": trainer.args.world_size,
            "split": split,
            "losses": {entry["step"]: entry["loss"] for entry in history if "loss" in entry},
            "dev_rows": [entry["eval_rows"] for entry in history if "eval_rows" in entry],
            "state": state,
        }
        Path(folder, "found.json").write_text(json.dumps(found), encoding="utf-8")
    leave_processes()


if __name__ == "__main__":
    main(*sys.argv[1:])
