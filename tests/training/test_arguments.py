"""Training arguments: good defaults, and every key has one owner."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from hf_prompting.errors import RecipeError
from hf_prompting.training import check_extra_arguments, make_arguments
from hf_prompting.training.arguments import OWNED

BASE: dict[str, Any] = {
    "seed": 3,
    "learning_rate": 0.1,
    "max_steps": 4,
    "num_train_epochs": 1.0,
    "train_batch_size": 4,
    "eval_batch_size": 8,
}


def test_with_dev_rows_the_best_moment_is_loaded_at_the_end(tmp_path: Path) -> None:
    arguments = make_arguments(output_dir=tmp_path, **BASE, eval_steps=2, best_by="accuracy")
    assert arguments.load_best_model_at_end
    assert arguments.greater_is_better
    assert arguments.eval_steps == arguments.save_steps == 2
    assert arguments.report_to == []
    assert not arguments.logging_nan_inf_filter
    assert make_arguments(output_dir=tmp_path, **BASE).greater_is_better is False


def test_without_dev_rows_nothing_is_evaluated(tmp_path: Path) -> None:
    arguments = make_arguments(output_dir=tmp_path, **BASE, best_by=None)
    assert arguments.eval_strategy == "no"
    assert not arguments.load_best_model_at_end


def test_extra_arguments_are_passed_on(tmp_path: Path) -> None:
    assert make_arguments(output_dir=tmp_path, **BASE, extra={"max_grad_norm": 0.3}).max_grad_norm == 0.3


def test_unknown_owned_and_refused_arguments_are_errors(tmp_path: Path) -> None:
    assert check_extra_arguments({"max_grad_norn": 1})[0][1].endswith("Did you mean 'max_grad_norm'?")
    assert "use training.seeds" in check_extra_arguments({"seed": 1})[0][1]
    with pytest.raises(RecipeError, match="Did you mean"):
        make_arguments(output_dir=tmp_path, **BASE, extra={"weight_decy": 1})
    with pytest.raises(RecipeError, match="TrainingArguments refuses"):
        make_arguments(output_dir=tmp_path, **{**BASE, "lr_scheduler_type": "liner"})


def test_every_owned_key_is_still_an_argument_of_transformers() -> None:
    """If this fails, transformers renamed an argument: rename it in OWNED and make_arguments."""
    assert set(OWNED) <= {field.name for field in dataclasses.fields(TrainingArguments)}
