"""``TrainingArguments`` with defaults that suit a few rows and a handful of trainable vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from hf_prompting.errors import RecipeError, did_you_mean
from hf_prompting.training.sharding import shard_on_cpu_too

# Arguments that other keys of a recipe own, and the key to use instead.
OWNED: dict[str, str] = {
    "output_dir": "output.dir",
    "seed": "training.seeds",
    "data_seed": "training.seeds",
    "learning_rate": "training.learning_rate",
    "max_steps": "training.max_steps",
    "num_train_epochs": "training.num_train_epochs",
    "per_device_train_batch_size": "training.per_device_train_batch_size",
    "per_device_eval_batch_size": "evaluation.batch_size",
    "gradient_accumulation_steps": "training.gradient_accumulation_steps",
    "warmup_steps": "training.warmup_steps",
    "weight_decay": "training.weight_decay",
    "lr_scheduler_type": "training.lr_scheduler_type",
    "label_smoothing_factor": "training.label_smoothing",
    "train_sampling_strategy": "training.bucket_by_length",
    "eval_strategy": "training.eval_steps",
    "eval_steps": "training.eval_steps",
    "save_strategy": "training.eval_steps",
    "save_steps": "training.eval_steps",
    "metric_for_best_model": "training.best_by",
    "greater_is_better": "training.best_by",
    "load_best_model_at_end": "training.best_by",
    "remove_unused_columns": "nothing: the rows are prepared by this library",
    "resume_from_checkpoint": "nothing: `hf-prompting run RECIPE --resume` goes on from the last whole checkpoint",
    "restore_callback_states_from_checkpoint": "nothing: --resume restores them",
    "save_only_model": "nothing: a checkpoint has to hold all that --resume needs",
    "logging_nan_inf_filter": "nothing: a loss that is not a number has to be seen",
    "push_to_hub": "nothing: push the saved folder with `hf-prompting push`",
    "hub_token": "nothing: log in with `hf auth login`",
}


def check_extra_arguments(extra: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Find the keys that cannot be passed on to ``TrainingArguments``.

    Args:
        extra: keys and values of ``training.arguments``.
    Returns:
        Pairs of key and what is wrong with it; empty if all is well.
    Example:
        >>> check_extra_arguments({"max_grad_norn": 1.0})[0][0]
        'max_grad_norn'
    """
    known = [field.name for field in dataclasses.fields(TrainingArguments) if field.init]
    problems = []
    for key in extra:
        if key in OWNED:
            problems.append((key, f"{key!r} is set elsewhere: use {OWNED[key]}"))
        elif key not in known:
            problems.append((key, f"{key!r} is not an argument of TrainingArguments.{did_you_mean(key, known)}"))
    return problems


def make_arguments(
    *,
    output_dir: Path,
    seed: int,
    learning_rate: float,
    max_steps: int | None,
    num_train_epochs: float,
    train_batch_size: int,
    eval_batch_size: int,
    gradient_accumulation_steps: int = 1,
    warmup_steps: float = 0.0,
    weight_decay: float = 0.0,
    lr_scheduler_type: str = "linear",
    eval_steps: int | None = None,
    best_by: str | None = "loss",
    extra: Mapping[str, Any] | None = None,
) -> TrainingArguments:
    """Build the arguments of one run.

    With dev rows (``best_by`` given) the model is measured and saved at the same moments, and the best moment is loaded
    at the end. Every step is logged, because a run has tens of steps rather than thousands; nothing is reported to a
    service unless ``extra`` says so.

    Args:
        output_dir: folder of the checkpoints; ``SealCheckpoints`` keeps the last and the best.
        seed: of the order of rows and everything random.
        learning_rate: of AdamW. Soft tokens need a much larger one than weights do.
        max_steps: optimiser steps; ``None`` to count epochs.
        num_train_epochs: passes over the rows, where ``max_steps`` is ``None``.
        train_batch_size: rows of a training batch.
        eval_batch_size: rows of a dev batch.
        gradient_accumulation_steps: batches of an optimiser step.
        warmup_steps: steps of rising learning rate; below 1, a share of all steps.
        weight_decay: of AdamW.
        lr_scheduler_type: any name that ``transformers`` knows.
        eval_steps: measure every so many steps; ``None`` for every epoch.
        best_by: ``loss`` or ``accuracy`` of the dev rows; ``None`` where there are none.
        extra: any further arguments, by their own names.
    Returns:
        The arguments.
    Raises:
        RecipeError: an extra argument is unknown, owned by another key, or refused by ``TrainingArguments``.
    Example:
        >>> make_arguments(output_dir=Path("out"), seed=0, learning_rate=0.01, max_steps=20, num_train_epochs=1,
        ...                train_batch_size=8, eval_batch_size=32).max_steps  # doctest: +SKIP
        20
    """
    problems = check_extra_arguments(extra or {})
    if problems:
        raise RecipeError("training.arguments: " + "; ".join(text for _, text in problems))
    arguments: dict[str, Any] = {
        "output_dir": str(output_dir),
        "seed": seed,
        "learning_rate": learning_rate,
        "max_steps": -1 if max_steps is None else max_steps,
        "num_train_epochs": num_train_epochs,
        "per_device_train_batch_size": train_batch_size,
        "per_device_eval_batch_size": eval_batch_size,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        "warmup_steps": warmup_steps,
        "weight_decay": weight_decay,
        "lr_scheduler_type": lr_scheduler_type,
        "report_to": "none",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "restore_callback_states_from_checkpoint": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": not torch.accelerator.is_available(),  # bf16 is refused on a CPU that was not asked for
        **_moments(eval_steps, best_by),
        **(extra or {}),
    }
    try:
        made = TrainingArguments(**arguments)
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise RecipeError(f"TrainingArguments refuses the training section: {error}") from error
    shard_on_cpu_too()
    return made


def _moments(eval_steps: int | None, best_by: str | None) -> dict[str, Any]:
    when: dict[str, Any] = {"save_strategy": "epoch"}
    if eval_steps is not None:
        when = {"save_strategy": "steps", "save_steps": eval_steps}
    if best_by is None:
        return when
    if eval_steps is not None:
        when["eval_steps"] = eval_steps
    return {
        **when,
        "eval_strategy": when["save_strategy"],
        "load_best_model_at_end": True,
        "metric_for_best_model": best_by,
        "greater_is_better": best_by != "loss",
    }
