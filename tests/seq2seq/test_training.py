"""The stock Seq2SeqTrainer trains, evaluates with generation, resumes, and accumulates gradients rightly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_seq2seq import PRESETS, some_ids, tiny_config, tiny_model
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, default_data_collator

from hf_prompting.seq2seq import Seq2SeqTransformerForConditionalGeneration


def rows(num_rows: int) -> list[dict[str, Any]]:
    """Copy three tokens; labels of different length, so that a mean of means would be wrong."""
    made = []
    for number, ids in enumerate(some_ids(num_rows, 3).tolist()):
        labels = ids if number % 2 else [ids[0], -100, -100]
        made.append({"input_ids": ids, "attention_mask": [1, 1, 1], "labels": labels})
    return made


def trainer_for(model: Any, folder: Path, data: list[dict[str, Any]], **kwargs: Any) -> Seq2SeqTrainer:
    options = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "save_strategy": "no", **kwargs}
    arguments = Seq2SeqTrainingArguments(str(folder), seed=0, **options)
    return Seq2SeqTrainer(
        model, arguments, train_dataset=data, eval_dataset=data[:2], data_collator=default_data_collator
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_the_loss_falls_and_evaluation_generates(preset: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Seq2SeqTransformerForConditionalGeneration(tiny_config(preset))
    data = rows(4)
    options = {"max_steps": 25, "learning_rate": 1e-2, "lr_scheduler_type": "constant", "logging_steps": 5}
    trainer = trainer_for(model, tmp_path, data, predict_with_generate=True, generation_max_length=5, **options)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] / 3
    predicted = trainer.predict(data[:2])
    assert predicted.predictions.shape[0] == 2


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    weights = []
    for batch_size, steps in ((4, 1), (1, 4)):
        model = tiny_model("modern").train()
        options = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": steps, "max_steps": 2}
        trainer = trainer_for(model, tmp_path, rows(8), optim="sgd", learning_rate=0.1, max_grad_norm=0.0, **options)
        trainer.train()
        weights.append({name: parameter.detach() for name, parameter in model.named_parameters()})
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, msg=name, atol=1e-5, rtol=1e-4)
