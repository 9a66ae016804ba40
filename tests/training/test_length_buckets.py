"""Buckets of similar length: every row once, the same order for the same seed and epoch, less padding."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler
from transformers import TrainingArguments

from hf_prompting.training.length_buckets import LengthBucketSampler, epoch_padding, padding_share, rows_of_a_step

RNG = random.Random(0)
LENGTHS = [(length, length + RNG.randint(0, 5)) for length in (RNG.randint(1, 60) for _ in range(1003))]


def test_every_row_comes_once_and_only_the_last_batch_is_smaller() -> None:
    order = list(LengthBucketSampler(LENGTHS, 16, seed=3))
    assert sorted(order) == list(range(1003))
    assert len(LengthBucketSampler(LENGTHS, 16, seed=3)) == 1003


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    sampler, same = LengthBucketSampler(LENGTHS, 16, seed=3), LengthBucketSampler(LENGTHS, 16, seed=3)
    first = list(sampler)
    assert first == list(sampler) == list(same)
    sampler.set_epoch(1)
    assert list(sampler) != first
    same.set_epoch(1)
    assert list(sampler) == list(same)
    assert list(LengthBucketSampler(LENGTHS, 16, seed=4)) != first


def test_batches_of_similar_length_need_much_less_padding_than_blind_ones() -> None:
    blind = random.Random(1).sample(range(1003), 1003)
    bucketed = list(LengthBucketSampler(LENGTHS, 16, seed=3))
    assert padding_share(LENGTHS, bucketed, 16) < 0.3 * padding_share(LENGTHS, blind, 16)


def test_long_and_short_batches_are_mixed() -> None:
    order = list(LengthBucketSampler(LENGTHS, 16, seed=3))
    longest = [max(LENGTHS[row][1] for row in order[i : i + 16]) for i in range(0, 800, 16)]
    assert longest != sorted(longest, reverse=True)
    assert max(longest[:10]) > 2 * min(longest[:10])


def test_the_share_of_padding_is_counted_on_both_sides() -> None:
    # sources 2 and 4, padded to 8; targets 1 and 3, padded to 6: 10 tokens of 14
    assert padding_share([(2, 1), (4, 3)], [0, 1], 2) == pytest.approx(4 / 14)
    assert padding_share([(2, 1), (4, 3)], [0, 1], 1) == 0


@pytest.mark.parametrize("processes", [2, 4])
def test_the_rows_of_a_step_are_the_same_in_one_process_and_in_several(processes: int) -> None:
    """As ``Trainer`` shares a sampler out: whole batches in turn, several of them to a step."""
    accumulation, num_rows = 2, 1003
    per_device = 16 // processes // accumulation
    order = list(LengthBucketSampler(LENGTHS, 16, seed=3))
    shares = [
        list(BatchSamplerShard(BatchSampler(order, per_device, drop_last=False), processes, process))
        for process in range(processes)
    ]
    for step in range(num_rows // 16):
        parts = [share[step * accumulation : (step + 1) * accumulation] for share in shares]
        assert sorted(row for part in parts for batch in part for row in batch) == sorted(order[step * 16 :][:16])


def test_a_step_counts_the_rows_of_all_processes_and_batches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arguments = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=4, gradient_accumulation_steps=3, use_cpu=True, report_to="none"
    )
    assert rows_of_a_step(arguments) == 12
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    assert rows_of_a_step(arguments) == 24


def test_pools_of_half_an_epoch_give_other_batches_in_each_epoch() -> None:
    def batches(pool_batches: int, epoch: int) -> set[frozenset[int]]:
        sampler = LengthBucketSampler([(n, 0) for n in range(32)], 8, seed=0, pool_batches=pool_batches)
        sampler.set_epoch(epoch)
        order = list(sampler)
        return {frozenset(order[first : first + 8]) for first in range(0, 32, 8)}

    assert batches(4, 0) == batches(4, 1), "sorted as a whole"
    assert batches(2, 0) != batches(2, 1)


def test_what_is_read_of_the_padding_is_one_of_both_or_none() -> None:
    buckets = LengthBucketSampler(LENGTHS, 16, seed=3)
    shares = epoch_padding(buckets, 16, read="bucketed")
    assert shares["read"] == shares["bucketed"] == round(padding_share(LENGTHS, list(buckets), 16), 4)
    assert epoch_padding(buckets, 16, read="blind") == {**shares, "read": shares["blind"]}
    assert epoch_padding(buckets, 16, read=None) == {**shares, "read": 0.0}
