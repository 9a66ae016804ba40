"""``Seq2SeqTrainingArguments`` for pairs of texts: from a recipe's words to those of transformers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import Seq2SeqTrainingArguments

from hf_prompting.errors import RecipeError, did_you_mean
from hf_prompting.training.arguments import OWNED

# What the keys of a generation recipe own beside those of ``OWNED``.
GENERATION_OWNED: dict[str, str] = {
    **OWNED,
    "lr_scheduler_type": "training.schedule",
    "lr_scheduler_kwargs": "training.schedule",
    "bf16": "training.mixed_precision",
    "fp16": "training.mixed_precision",
    "predict_with_generate": "training.best_by",
    "generation_max_length": "evaluation.max_new_tokens",
    "generation_num_beams": "evaluation.num_beams",
    "generation_config": "evaluation",
    "resume_from_checkpoint": "nothing: add --resume on the command line",
}


def check_generation_arguments(extra: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Find the keys that cannot be passed on to ``Seq2SeqTrainingArguments``.

    Returns:
        Pairs of key and what is wrong with it; empty if all is well.
    Example:
        >>> check_generation_arguments({"bf16": True})[0][1]
        "'bf16' is set elsewhere: use training.mixed_precision"
    """
    known = [field.name for field in dataclasses.fields(Seq2SeqTrainingArguments) if field.init]
    problems = []
    for key in extra:
        if key in GENERATION_OWNED:
            problems.append((key, f"{key!r} is set elsewhere: use {GENERATION_OWNED[key]}"))
        elif key not in known:
            problems.append((key, f"{key!r} is not an argument of Seq2SeqTrainingArguments.{did_you_mean(key, known)}"))
    return problems


def precision_of(choice: str) -> dict[str, bool]:
    """Return the arguments of ``auto``, ``bf16``, ``fp16`` or ``no``; ``auto`` is nothing on the CPU.

    Example:
        >>> precision_of("bf16")
        {'bf16': True}
    """
    if choice == "auto":
        if not torch.cuda.is_available():
            return {}
        choice = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return {} if choice == "no" else {choice: True}


def make_generation_arguments(
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
    label_smoothing: float = 0.0,
    mixed_precision: str = "auto",
    eval_steps: int | None = None,
    best_by: str | None = "loss",
    max_new_tokens: int = 64,
    extra: Mapping[str, Any] | None = None,
) -> Seq2SeqTrainingArguments:
    """Build the arguments of one run of training; the learning-rate schedule belongs to ``train_pairs``.

    With dev rows (``best_by`` given) the model is measured and saved at the same moments, and the best moment is loaded
    at the end. Where ``bleu`` or ``chrf`` chooses it, the dev rows are generated, greedily. Two checkpoints are kept:
    the best and the last, from which training can go on.

    Args:
        output_dir: folder of the checkpoints.
        seed: of the order of rows and everything random.
        learning_rate: of AdamW, at its peak.
        max_steps: optimiser steps; ``None`` to count epochs.
        num_train_epochs: passes over the rows, where ``max_steps`` is ``None``.
        train_batch_size: rows of a training batch.
        eval_batch_size: rows of a dev batch.
        gradient_accumulation_steps: batches of an optimiser step.
        warmup_steps: steps of rising learning rate; below 1, a share of all steps.
        weight_decay: of AdamW.
        label_smoothing: share of the target spread over the vocabulary.
        mixed_precision: ``auto``, ``bf16``, ``fp16`` or ``no``.
        eval_steps: measure every so many steps; ``None`` for every epoch.
        best_by: ``loss``, ``bleu`` or ``chrf`` of the dev rows; ``None`` where there are none.
        max_new_tokens: of a generated dev row.
        extra: any further arguments, by their own names.
    Raises:
        RecipeError: an extra argument is unknown, owned by another key, or refused.
    Example:
        >>> arguments = make_generation_arguments(output_dir=Path("out"), seed=0, learning_rate=1e-3, max_steps=9,
        ...     num_train_epochs=1, train_batch_size=8, eval_batch_size=8, best_by="chrf")  # doctest: +SKIP
        >>> arguments.predict_with_generate  # doctest: +SKIP
        True
    """
    problems = check_generation_arguments(extra or {})
    if problems:
        raise RecipeError("training.arguments: " + "; ".join(text for _, text in problems))
    moments: dict[str, Any] = {"save_strategy": "epoch"}
    if eval_steps is not None:
        moments = {"save_strategy": "steps", "save_steps": eval_steps, "eval_steps": eval_steps}
    if best_by is not None:
        moments |= {
            "eval_strategy": moments["save_strategy"],
            "load_best_model_at_end": True,
            "metric_for_best_model": best_by,
            "greater_is_better": best_by != "loss",
        }
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
        "label_smoothing_factor": label_smoothing,
        "predict_with_generate": best_by in ("bleu", "chrf"),
        "generation_num_beams": 1,
        "generation_max_length": max_new_tokens + 1,  # the start token counts
        "report_to": "none",
        "logging_strategy": "steps",
        "logging_steps": 10,
        "logging_nan_inf_filter": False,
        "restore_callback_states_from_checkpoint": True,  # patience goes on where it was
        "dataloader_pin_memory": torch.cuda.is_available(),
        **precision_of(mixed_precision),
        **moments,
        **(extra or {}),
    }
    try:
        return Seq2SeqTrainingArguments(**arguments)
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise RecipeError(f"Seq2SeqTrainingArguments refuses the training section: {error}") from error
