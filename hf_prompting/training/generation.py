"""Train an encoder-decoder on pairs of texts with the ordinary ``Seq2SeqTrainer``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from hf_prompting.training.length_buckets import LengthBucketSampler, epoch_padding, rows_of_a_step
from hf_prompting.training.schedules import make_schedule
from hf_prompting.training.tuning import Tuning, run_trainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


# Takes the model and the dev batches, and returns the mean loss of a token.
DevLoss = Callable[[Any, Any], float]
SECONDS = "seconds.txt"  # beside the checkpoints: time spent so far, also before an interruption


class PairTrainer(Seq2SeqTrainer):  # type: ignore[misc]
    """``Seq2SeqTrainer`` with a schedule by name and batches of similar length.

    Args:
        schedule: a key of ``SCHEDULES``.
        bucket_by_length: whether batches hold rows of similar length; the rows then need a column ``lengths``.
        dev_loss: measures the dev batches; ``Trainer``'s own way is the mean over batches.
        **kwargs: those of ``Seq2SeqTrainer``.
    Example:
        >>> PairTrainer(schedule="cosine", bucket_by_length=True, model=model, args=arguments)  # doctest: +SKIP
    """

    lr_scheduler: Any

    def __init__(
        self, *, schedule: str, bucket_by_length: bool, dev_loss: DevLoss | None = None, **kwargs: Any
    ) -> None:
        self.schedule = schedule
        self.bucket_by_length = bucket_by_length
        self.dev_loss = dev_loss
        super().__init__(**kwargs)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Return the named schedule; called once, when the number of steps is known."""
        if self.lr_scheduler is None:
            self.lr_scheduler = make_schedule(
                self.schedule,
                self.optimizer if optimizer is None else optimizer,
                num_warmup_steps=self.args.get_warmup_steps(num_training_steps),
                num_training_steps=num_training_steps,
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def evaluation_loop(self, dataloader: Any, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """Measure the dev batches with ``dev_loss``, where that is given."""
        if self.dev_loss is None:
            return super().evaluation_loop(dataloader, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        loss = self.dev_loss(self.model, dataloader)
        return EvalLoopOutput(None, None, {f"{metric_key_prefix}_loss": loss}, len(dataloader.dataset))

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int] | None:
        if not self.bucket_by_length:
            sampler: Sampler[int] | None = super()._get_train_sampler(train_dataset)
            return sampler
        # the argument is the same rows without the columns that the model does not take
        return pair_buckets(self.train_dataset, self.args)


def train_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    train: Dataset,
    dev: Dataset | None,
    collator: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]],
    arguments: Seq2SeqTrainingArguments,
    schedule: str = "inverse_sqrt",
    bucket_by_length: bool = True,
    early_stopping_patience: int | None = None,
    dev_metrics: Callable[[Any], dict[str, float]] | None = None,
    dev_loss: DevLoss | None = None,
    resume: bool = False,
) -> Tuning:
    """Train the model's trainable weights in place; with dev rows, end with the weights of the best moment.

    Args:
        model: any encoder-decoder with a generating head.
        tokenizer: its tokenizer, saved with every checkpoint.
        train: rows with ``input_ids``, ``labels`` and ``lengths``, from ``tokenize_pairs``.
        dev: the same, to choose the best moment; given if and only if ``arguments`` evaluate.
        collator: makes padded batches of rows.
        arguments: from ``make_generation_arguments``.
        schedule: a key of ``SCHEDULES``.
        bucket_by_length: rows of similar length share a batch.
        early_stopping_patience: stop after so many dev measurements without a better one.
        dev_metrics: scores of the generated dev rows, where ``arguments.predict_with_generate``.
        dev_loss: measures the dev batches instead of ``Trainer``'s mean over batches.
        resume: go on from the newest whole checkpoint in ``arguments.output_dir``, if there is one.
    Returns:
        Steps, best dev score, learning curve and time.
    Raises:
        TrainingError, Interrupted: as ``tune``.
    Example:
        >>> train_pairs(model, tokenizer, train=rows, dev=None, collator=pad, arguments=arguments)  # doctest: +SKIP
    """
    trainer = PairTrainer(
        schedule=schedule,
        bucket_by_length=bucket_by_length,
        dev_loss=dev_loss,
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=dev,
        processing_class=tokenizer,
        data_collator=collator,
        compute_metrics=dev_metrics if arguments.predict_with_generate else None,
    )
    tuning = run_trainer(trainer, early_stopping_patience=early_stopping_patience, resume=resume)
    if "lengths" not in train.column_names:  # blocks of one length
        return tuning
    read = "bucketed" if bucket_by_length else "blind"
    return replace(tuning, padding=epoch_padding(pair_buckets(train, arguments), arguments.train_batch_size, read=read))


def pair_buckets(rows: Dataset, arguments: Seq2SeqTrainingArguments) -> LengthBucketSampler:
    """Return the order in which rows of ``tokenize_pairs`` with similar length share a step."""
    lengths = [(source, target) for source, target in rows["lengths"]]
    return LengthBucketSampler(lengths, rows_of_a_step(arguments), seed=arguments.seed)
