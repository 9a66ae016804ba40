"""Train a classifier with the ordinary ``Trainer``: batches of similar length, and a dev loss that counts rows once."""

from __future__ import annotations

import math
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import Trainer, TrainingArguments

from hf_prompting.data import row_lengths
from hf_prompting.training.length_buckets import POOL_BATCHES, LengthBucketSampler, rows_of_a_step


class ClassifierTrainer(Trainer):  # type: ignore[misc]
    """``Trainer`` with batches of rows of similar length and a dev loss that counts every row once.

    Where the last batch does not fill all of several processes, ``accelerate`` fills it with rows from the beginning.
    ``Trainer`` takes them out of the predictions again, but not out of the mean loss of their batch.

    Args:
        bucket_by_length: whether a step's rows are of similar length.
        **kwargs: those of ``Trainer``.
    Example:
        >>> ClassifierTrainer(bucket_by_length=True, model=classifier, args=arguments).train()  # doctest: +SKIP
    """

    def __init__(self, *, bucket_by_length: bool, **kwargs: Any) -> None:
        self.bucket_by_length = bucket_by_length
        super().__init__(**kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Measure as ``Trainer`` does, and replace the loss by that of the predictions."""
        output = super().evaluation_loop(*args, **kwargs)
        name = f"{kwargs.get('metric_key_prefix', 'eval')}_loss"
        if self.args.world_size > 1 and name in output.metrics and output.predictions is not None:
            logits, labels = torch.from_numpy(output.predictions), torch.from_numpy(output.label_ids)
            output.metrics[name] = float(self.model.mean_loss(logits, labels))
        return output

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int] | None:
        if self.bucket_by_length:
            # the argument is the same rows without the columns that the model does not take
            return bucket_sampler(self.train_dataset, self.args)
        sampler: Sampler[int] | None = super()._get_train_sampler(train_dataset)
        return sampler


def bucket_sampler(rows: Dataset, arguments: TrainingArguments) -> LengthBucketSampler:
    """Return the order in which rows of similar length share a step, the same for any number of processes.

    Pools hold at most half of an epoch: a few rows, sorted as a whole, would share the same batches in every epoch.

    Args:
        rows: tokenised rows.
        arguments: say how many rows make a step, and the seed.
    Example:
        >>> list(bucket_sampler(rows, arguments))[:2]  # doctest: +SKIP
        [17, 4]
    """
    num_rows = rows_of_a_step(arguments)
    num_steps = math.ceil(len(rows) / num_rows)
    pool = max(1, min(POOL_BATCHES, num_steps // 2))
    return LengthBucketSampler(
        [(length, 0) for length in row_lengths(rows)], num_rows, seed=arguments.seed, pool_batches=pool
    )
