"""Tune one classifier with the ordinary ``Trainer``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset
from peft import set_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    EvalPrediction,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.utils import SAFE_WEIGHTS_NAME

from hf_prompting.data import row_lengths
from hf_prompting.training.callbacks import QuietProgress, StopOnNonFinite
from hf_prompting.training.checkpoints import (
    TRAINER_STATE,
    SealCheckpoints,
    drop_partial_checkpoints,
    newest_whole_checkpoint,
)
from hf_prompting.training.classification import ClassifierTrainer, bucket_sampler
from hf_prompting.training.interruption import SaveBeforeStop
from hf_prompting.training.length_buckets import epoch_padding
from hf_prompting.training.memory import out_of_memory_says

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


ADVICE = (
    "lower training.per_device_train_batch_size (raising training.gradient_accumulation_steps keeps a step's rows), "
    "lower training.max_length, lower evaluation.batch_size if it happened on the dev rows, or set "
    "training.arguments.activation_checkpointing=true, which takes more time instead"
)


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What one run of training did.

    Attributes:
        num_steps: optimiser steps made.
        best_step: the step whose weights the model has now.
        dev_score: the best dev loss (negated, so that more is better) or accuracy; ``None`` without dev rows.
        curve: ``trainer.state.log_history``.
        seconds: time of the training loop; after a resume, of its last part.
        padding: share of padding in the training batches, see ``epoch_padding``; empty where it was not measured.
    """

    num_steps: int
    best_step: int
    dev_score: float | None
    curve: list[dict[str, float]]
    seconds: float
    padding: dict[str, float] = field(default_factory=dict)


def tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    train: Dataset,
    dev: Dataset | None,
    arguments: TrainingArguments,
    bucket_by_length: bool | None = None,
    early_stopping_patience: int | None = None,
    resume: bool = False,
) -> Tuning:
    """Train the model's trainable weights in place; with dev rows, end with the weights of the best moment.

    Ctrl-C and SIGTERM save a checkpoint at the end of the step and raise. Every checkpoint is sealed
    (``training/checkpoints.py``); one that is not whole is never gone on from.

    Args:
        model: a sequence classifier whose base is frozen (or not).
        tokenizer: its tokenizer; it pads the batches and is saved with every checkpoint.
        train: tokenised rows with ``labels``.
        dev: the same, to choose the best moment; must be given if and only if ``arguments`` evaluate.
        arguments: from ``make_arguments``.
        bucket_by_length: rows of similar length share a batch; ``None``: where padding costs time,
            which is not so where a causal base reads a batch in one line (never with checkpointed activations).
        early_stopping_patience: stop after so many dev measurements without a better one.
        resume: go on from the newest whole checkpoint in ``arguments.output_dir``, if there is one. The result is that
            of an unbroken run, to the last bit on a CPU.
    Returns:
        Steps, best dev score, learning curve and time.
    Raises:
        TrainingError: the loss or a gradient is not a number, or memory ran out; the last good checkpoint stays in
            ``output_dir``.
        Interrupted: a signal came.
    Example:
        >>> tune(model, tokenizer, train=rows, dev=dev_rows, arguments=arguments).best_step  # doctest: +SKIP
        16
    """
    is_padded = bool(arguments.activation_checkpointing or model.reads_padding)
    if bucket_by_length is None:
        bucket_by_length = is_padded
    read = ("bucketed" if bucket_by_length else "blind") if is_padded else None
    padding = epoch_padding(bucket_sampler(train, arguments), arguments.train_batch_size, read=read)
    if dev is not None and bucket_by_length:
        dev = dev.select(np.argsort(row_lengths(dev), kind="stable"))  # loss and accuracy are means over rows
    trainer = ClassifierTrainer(
        bucket_by_length=bucket_by_length,
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=dev,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=_dev_accuracy,
    )
    tuning = run_trainer(trainer, early_stopping_patience=early_stopping_patience, resume=resume)
    return replace(tuning, padding=padding)


def run_trainer(trainer: Trainer, *, early_stopping_patience: int | None = None, resume: bool = False) -> Tuning:
    """Let any ``Trainer`` train in a way that survives what goes wrong; see ``tune``.

    Args:
        trainer: ready to train; its arguments leave ``save_total_limit`` unset.
        early_stopping_patience: stop after so many dev measurements without a better one, where there are dev rows.
        resume: go on from the newest whole checkpoint, if there is one.
    Returns:
        Steps, best dev score, learning curve and time.
    Raises:
        TrainingError, Interrupted: as ``tune``.
    Example:
        >>> run_trainer(Seq2SeqTrainer(model=model, args=arguments, train_dataset=rows))  # doctest: +SKIP
    """
    arguments = trainer.args
    stop, progress = SaveBeforeStop(), QuietProgress()
    callbacks: list[TrainerCallback] = [StopOnNonFinite(), SealCheckpoints(), stop]
    if early_stopping_patience is not None and trainer.eval_dataset is not None:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience))
    if trainer.pop_callback(ProgressCallback) is not None:
        callbacks.append(progress)
    for callback in callbacks:
        trainer.add_callback(callback)
    checkpoint = newest_whole_checkpoint(Path(arguments.output_dir)) if resume else None
    with arguments.main_process_first():
        if arguments.should_save:
            drop_partial_checkpoints(Path(arguments.output_dir))
    if checkpoint is not None and _was_finished(checkpoint):
        return _finished(checkpoint, trainer)
    try:
        with stop, out_of_memory_says(ADVICE):
            output = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    finally:
        progress.close()
    return _tuning(trainer.state, arguments, seconds=output.metrics["train_runtime"])


def _was_finished(checkpoint: Path) -> bool:
    """Tell whether nothing is left to train; ``Trainer`` itself would go on where an epoch is not at its end."""
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE))
    return bool(state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"])


def _finished(checkpoint: Path, trainer: Trainer) -> Tuning:
    """Take up a training that was cut between its last step and its end."""
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE))
    best = checkpoint.with_name(f"checkpoint-{state.best_global_step}") if state.best_global_step else checkpoint
    if (best / SAFETENSORS_WEIGHTS_NAME).is_file():  # PEFT's: its model saves the adapter alone
        set_peft_model_state_dict(trainer.model, load_file(best / SAFETENSORS_WEIGHTS_NAME))
    else:
        trainer.model.load_state_dict(load_file(best / SAFE_WEIGHTS_NAME), strict=False)
    return _tuning(state, trainer.args, seconds=0.0)


def _tuning(state: TrainerState, arguments: TrainingArguments, *, seconds: float) -> Tuning:
    best = state.best_metric
    return Tuning(
        num_steps=state.global_step,
        best_step=state.best_global_step if best is not None else state.global_step,
        dev_score=None if best is None else (best if arguments.greater_is_better else -best),
        curve=[_numbers(entry) for entry in state.log_history],
        seconds=seconds,
    )


def _dev_accuracy(prediction: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((np.argmax(prediction.predictions, axis=-1) == prediction.label_ids).mean())}


def _numbers(entry: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in entry.items() if isinstance(value, int | float) and math.isfinite(value)}
