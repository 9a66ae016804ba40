"""Tune one classifier with the ordinary ``Trainer``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    EvalPrediction,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from hf_prompting.training.callbacks import QuietProgress, StopOnNonFinite

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What one run of training did.

    Attributes:
        num_steps: optimiser steps made.
        best_step: the step whose weights the model has now.
        dev_score: the best dev loss (negated, so that more is better) or accuracy; ``None`` without dev rows.
        curve: ``trainer.state.log_history``.
        seconds: time of the training loop.
    """

    num_steps: int
    best_step: int
    dev_score: float | None
    curve: list[dict[str, float]]
    seconds: float


def tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    train: Dataset,
    dev: Dataset | None,
    arguments: TrainingArguments,
    early_stopping_patience: int | None = None,
) -> Tuning:
    """Train the model's trainable weights in place; with dev rows, end with the weights of the best moment.

    Args:
        model: a sequence classifier whose base is frozen (or not).
        tokenizer: its tokenizer; it pads the batches and is saved with every checkpoint.
        train: tokenised rows with ``labels``.
        dev: the same, to choose the best moment; must be given if and only if ``arguments`` evaluate.
        arguments: from ``make_arguments``.
        early_stopping_patience: stop after so many dev measurements without a better one.
    Returns:
        Steps, best dev score, learning curve and time.
    Raises:
        TrainingError: the loss or a gradient is not a number; the last good checkpoint stays in ``output_dir``.
    Example:
        >>> tune(model, tokenizer, train=rows, dev=dev_rows, arguments=arguments).best_step  # doctest: +SKIP
        16
    """
    callbacks: list[TrainerCallback] = [StopOnNonFinite()]
    if early_stopping_patience is not None and dev is not None:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience))
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=dev,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=_dev_accuracy,
        callbacks=callbacks,
    )
    progress = QuietProgress()
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(progress)
    try:
        output = trainer.train()
    finally:
        progress.close()
    state = trainer.state
    best = state.best_metric if dev is not None else None
    return Tuning(
        num_steps=state.global_step,
        best_step=state.best_global_step if best is not None else state.global_step,
        dev_score=None if best is None else (best if arguments.greater_is_better else -best),
        curve=[finite_numbers(entry) for entry in state.log_history],
        seconds=output.metrics["train_runtime"],
    )


def _dev_accuracy(prediction: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((np.argmax(prediction.predictions, axis=-1) == prediction.label_ids).mean())}


def finite_numbers(entry: dict[str, Any]) -> dict[str, float]:
    """Return the finite numbers of one entry of ``trainer.state.log_history``."""
    return {key: value for key, value in entry.items() if isinstance(value, int | float) and math.isfinite(value)}
