"""Tuning with the ordinary Trainer: the best moment is kept, and a broken loss stops it in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tiny_models import tiny_model
from tiny_recipes import labelled_rows
from tiny_tokenizers import smollm_bpe
from torch import nn
from tqdm.auto import tqdm
from transformers import TrainingArguments

from hf_prompting.classifier import PromptForSequenceClassification
from hf_prompting.data import Rows, tokenize_rows
from hf_prompting.errors import TrainingError
from hf_prompting.soft_prompts import SoftPromptConfig
from hf_prompting.templates import PromptTemplate
from hf_prompting.training import QuietProgress, make_arguments, tune
from hf_prompting.verbalizers import Verbalizer

TEMPLATE = PromptTemplate.parse("{soft:3}Review: {text}\nThe movie was{mask}")


def classifier() -> tuple[Any, Any, Dataset]:
    tokenizer = smollm_bpe()
    model, tokenizer = PromptForSequenceClassification.from_base(
        tiny_model("llama", vocab_size=len(tokenizer)),
        template=TEMPLATE,
        verbalizer=Verbalizer({"negative": "terrible", "positive": "great"}),
        soft_prompt=SoftPromptConfig(seed=0),
        tokenizer=tokenizer,
    )
    rows = Rows(Dataset.from_list(labelled_rows(8)), "made.jsonl")
    return (
        model,
        tokenizer,
        tokenize_rows(rows, template=TEMPLATE, tokenizer=tokenizer, max_length=64, labels=[0, 1] * 4),
    )


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    values = {
        "seed": 0,
        "learning_rate": 0.05,
        "max_steps": 6,
        "num_train_epochs": 1.0,
        "train_batch_size": 4,
        "eval_batch_size": 8,
        "eval_steps": 1,
    }
    return make_arguments(output_dir=folder, **{**values, **changes})


class BreaksAtStep:
    """A forward hook that makes the training loss infinite at one step, as an overflow would."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.calls = 0

    def __call__(self, model: nn.Module, inputs: Any, output: Any) -> None:
        self.calls += model.training
        if model.training and self.calls == self.step:
            output["loss"] = output["loss"] * float("inf")


def test_the_model_ends_with_the_weights_of_the_best_dev_score(tmp_path: Path) -> None:
    model, tokenizer, rows = classifier()
    result = tune(model, tokenizer, train=rows, dev=rows, arguments=arguments(tmp_path))
    losses = {entry["step"]: entry["eval_loss"] for entry in result.curve if "eval_loss" in entry}
    assert result.num_steps == 6
    assert result.dev_score == pytest.approx(-min(losses.values()))
    assert losses[result.best_step] == min(losses.values())
    model.eval()
    with torch.inference_mode():
        batch = tokenizer.pad({"input_ids": rows["input_ids"]}, return_tensors="pt")
        loss = model(**batch, labels=torch.tensor(rows["labels"])).loss
    assert loss.item() == pytest.approx(-(result.dev_score or 0), abs=1e-4)


def test_the_same_seed_gives_the_same_curve(tmp_path: Path) -> None:
    curves = []
    for name in ("a", "b"):
        model, tokenizer, rows = classifier()
        curve = tune(model, tokenizer, train=rows, dev=None, arguments=arguments(tmp_path / name, best_by=None)).curve
        curves.append([entry["loss"] for entry in curve if "loss" in entry])
    assert curves[0] == curves[1]
    assert len(curves[0]) == 6


def test_early_stopping_ends_before_the_last_step(tmp_path: Path) -> None:
    model, tokenizer, rows = classifier()
    slow = arguments(tmp_path, learning_rate=1e-12, max_steps=6, best_by="accuracy")
    result = tune(model, tokenizer, train=rows, dev=rows, arguments=slow, early_stopping_patience=1)
    assert result.num_steps == 2


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    model, tokenizer, rows = classifier()
    model.register_forward_hook(BreaksAtStep(3))
    with pytest.raises(TrainingError, match=r"stopped at step 3: .*checkpoint-2.*learning_rate"):
        tune(model, tokenizer, train=rows, dev=rows, arguments=arguments(tmp_path))
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    kept = tmp_path / "checkpoint-2"
    reloaded = PromptForSequenceClassification.from_pretrained(
        kept, base_model=tiny_model("llama", vocab_size=model.config.vocab_size)
    )
    assert all(parameter.isfinite().all() for parameter in reloaded.parameters())


def test_a_learning_rate_that_explodes_is_a_training_error_or_stays_finite(tmp_path: Path) -> None:
    model, tokenizer, rows = classifier()
    wild = arguments(tmp_path, learning_rate=1e38, extra={"max_grad_norm": 0.0})
    with pytest.raises(TrainingError, match="training stopped at step"):
        tune(model, tokenizer, train=rows, dev=rows, arguments=wild)


def test_bars_that_an_error_left_open_are_closed() -> None:
    progress = QuietProgress()
    progress.close()
    progress.training_bar = bar = tqdm(total=2)
    progress.close()
    assert bar.disable  # tqdm's sign of a closed bar
