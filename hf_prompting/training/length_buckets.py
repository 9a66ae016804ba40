"""Batches of rows of similar length, in a seeded order: less padding, and so less time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Sampler

if TYPE_CHECKING:
    from transformers import TrainingArguments

POOL_BATCHES = 100  # rows are sorted inside pools of so many batches, so that batches differ from epoch to epoch

Lengths = Sequence[tuple[int, int]]


class LengthBucketSampler(Sampler[int]):
    """Order rows so that every ``batch_size`` consecutive ones have similar lengths.

    The rows are shuffled, cut into pools, sorted by source and then target length inside each pool, and cut into
    batches; then the batches are shuffled. (transformers' ``group_by_length`` keeps the batches of a pool in falling
    order of length and looks at the source alone.) The order depends on ``seed`` and the epoch only, so a run that is
    resumed in the middle of an epoch goes on with the batches that were left.

    Args:
        lengths: (source, target) tokens of every row.
        batch_size: B.
        seed: of the order.
        pool_batches: batches of a pool. A pool of the whole epoch would give the same batches in every epoch.
    Example:
        >>> order = list(LengthBucketSampler([(1, 1), (9, 9), (1, 2), (8, 9)], batch_size=2, seed=0))
        >>> sorted(sorted(order[i : i + 2]) for i in (0, 2))
        [[0, 2], [1, 3]]
    """

    def __init__(self, lengths: Lengths, batch_size: int, *, seed: int, pool_batches: int = POOL_BATCHES) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.pool_batches = pool_batches
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; ``Trainer`` calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        shuffled = torch.randperm(len(self.lengths), generator=generator).tolist()
        pool_size = self.batch_size * self.pool_batches
        batches = []
        for start in range(0, len(shuffled), pool_size):
            pool = sorted(shuffled[start : start + pool_size], key=lambda row: self.lengths[row])
            batches += [pool[first : first + self.batch_size] for first in range(0, len(pool), self.batch_size)]
        order = torch.randperm(len(batches), generator=generator).tolist()
        # A smaller batch comes last: it would shift the borders of all batches behind it.
        order.sort(key=lambda number: len(batches[number]) < self.batch_size)
        return (row for number in order for row in batches[number])


def rows_of_a_step(arguments: TrainingArguments) -> int:
    """Return the rows of an optimiser step over all processes.

    Buckets of this size hold the same rows in one process as in several that share a step.

    Example:
        >>> rows_of_a_step(TrainingArguments("out", per_device_train_batch_size=4))  # doctest: +SKIP
        4
    """
    size: int = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    return size


def padding_share(lengths: Lengths, order: Sequence[int], batch_size: int) -> float:
    """Return the share of padding among all tokens, where each batch is padded to its longest source and target.

    Args:
        lengths: (source, target) tokens of every row.
        order: row numbers, as a sampler gives them.
        batch_size: B.
    Example:
        >>> padding_share([(1, 1), (3, 1)], [0, 1], batch_size=2)  # sources 1 + 3 of 6 tokens, targets 2 of 2
        0.25
    """
    tokens = padded = 0
    for first in range(0, len(order), batch_size):
        batch = [lengths[row] for row in order[first : first + batch_size]]
        tokens += sum(source + target for source, target in batch)
        padded += len(batch) * (max(source for source, _ in batch) + max(target for _, target in batch))
    return 1 - tokens / padded


def epoch_padding(buckets: LengthBucketSampler, batch_size: int, *, read: str | None) -> dict[str, float]:
    """Measure the share of padding in the batches of the first epoch.

    Args:
        buckets: their order.
        batch_size: rows that are padded together; a step may have several such batches.
        read: ``bucketed`` or ``blind``, the batches that the model reads; None where it reads none of their padding.
    Returns:
        Shares of ``bucketed`` batches, of ``blind`` ones (drawn at random), and of what is ``read``.
    Example:
        >>> epoch_padding(LengthBucketSampler([(1, 0), (1, 0)], 2, seed=0), 2, read="blind")
        {'bucketed': 0.0, 'blind': 0.0, 'read': 0.0}
    """
    generator = torch.Generator().manual_seed(buckets.seed)
    orders = {"bucketed": list(buckets), "blind": torch.randperm(len(buckets), generator=generator).tolist()}
    shares = {name: round(padding_share(buckets.lengths, order, batch_size), 4) for name, order in orders.items()}
    return {**shares, "read": 0.0 if read is None else shares[read]}
