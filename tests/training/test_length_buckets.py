"""Buckets of similar length: every row once, the same order for the same seed and epoch, less padding."""

from __future__ import annotations

import random

import pytest

from hf_prompting.training.length_buckets import LengthBucketSampler, padding_share

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
