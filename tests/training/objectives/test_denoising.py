"""BART's denoising: what survives, how much is hidden, and how sentences move."""

from __future__ import annotations

import math
from collections import Counter
from itertools import chain, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import roberta_bpe, t5_unigram

from hf_prompting.errors import ObjectiveError
from hf_prompting.training.objectives import Denoising
from hf_prompting.training.objectives.noise import Noise
from hf_prompting.training.objectives.ragged import Ragged

TOKENIZER = roberta_bpe()
BOS, EOS, MASK = TOKENIZER.bos_token_id, TOKENIZER.eos_token_id, TOKENIZER.mask_token_id
ORDINARY = sorted(set(range(len(TOKENIZER))) - set(TOKENIZER.all_special_ids))
texts = st.lists(st.lists(st.sampled_from(ORDINARY), min_size=1, max_size=60, unique=True), min_size=1, max_size=6)


def damaged_of(objective: Denoising, rows: list[list[int]]) -> list[list[int]]:
    batch = objective([{"input_ids": row} for row in rows])
    labels = [[*filter(lambda token: token != -100, row)] for row in batch["labels"].tolist()]
    assert labels == [[BOS, *row, EOS] for row in rows]
    inputs = [ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    assert all((row[0], row[-1]) == (BOS, EOS) for row in inputs)
    return [row[1:-1] for row in inputs]


@settings(deadline=None)
@given(texts, st.integers(0, 99), st.sampled_from([0.1, 0.3, 0.7]), st.sampled_from([1.0, 3.0, 9.0]))
def test_what_is_not_hidden_survives_in_order(
    rows: list[list[int]], seed: int, density: float, mean_length: float
) -> None:
    objective = Denoising(tokenizer=TOKENIZER, seed=seed, noise_density=density, mean_span_length=mean_length)
    for row, damaged in zip(rows, damaged_of(objective, rows), strict=True):
        survivors = [token for token in damaged if token != MASK]
        assert survivors == [token for token in row if token in survivors]
        assert len(row) - len(survivors) == math.ceil(len(row) * density)
        assert MASK in damaged


def test_span_lengths_are_poisson() -> None:
    objective = Denoising(tokenizer=TOKENIZER)
    lengths, counts = objective._span_lengths(np.full(300, 200), Noise([(5,)], 300))
    drawn = lengths[np.arange(lengths.shape[1]) < counts[:, None]]
    assert (lengths.sum(axis=1) == 200).all()
    shares = np.bincount(drawn, minlength=8)[:8] / len(drawn)
    expected = [math.exp(-3) * 3**k / math.factorial(k) for k in range(8)]
    np.testing.assert_allclose(shares, expected, atol=0.01)


def test_a_span_of_length_zero_puts_a_mask_where_nothing_is_missing() -> None:
    class Fixed(Denoising):
        def _span_lengths(self, num_noise, noise):  # type: ignore[no-untyped-def]
            return np.array([[0, 2]]), np.array([2])

    text = Ragged(np.array(ORDINARY[:4]), np.array([4]))
    found = set()
    for seed in range(40):
        result = Fixed(tokenizer=TOKENIZER, noise_density=0.5)._infilled(text, Noise([(seed,)], 1))
        found.add(tuple(result.values.tolist()))
    a, b, c, d = ORDINARY[:4]
    assert found == {
        (MASK, MASK, c, d),
        (MASK, a, MASK, d),
        (MASK, a, b, MASK),
        (a, MASK, MASK, d),
        (a, MASK, b, MASK),
        (a, b, MASK, MASK),
    }


def test_sentences_move_as_wholes_and_every_order_is_as_likely() -> None:
    sentences = [TOKENIZER(text, add_special_tokens=False)["input_ids"] for text in ("It was good.", "好。", "Bad!")]
    objective = Denoising(tokenizer=TOKENIZER, permute_sentences=True)
    row = Ragged(np.concatenate(sentences), np.array([sum(map(len, sentences))]))
    orders = Counter(tuple(objective._permuted(row, Noise([(seed,)], 1)).values.tolist()) for seed in range(600))
    assert set(orders) == {tuple(chain.from_iterable(order)) for order in permutations(sentences)}
    assert min(orders.values()) > 60


def test_sentences_stay_in_their_row() -> None:
    ids = TOKENIZER("no. end", add_special_tokens=False)["input_ids"]
    rows = Ragged(np.array([*ids, *ids[::-1]]), np.array([len(ids)] * 2))
    moved = Denoising(tokenizer=TOKENIZER, permute_sentences=True)._permuted(rows, Noise([(1,)], 2))
    assert [sorted(row) for row in moved.padded(-1).tolist()] == [sorted(row) for row in rows.padded(-1).tolist()]


def test_a_tokenizer_without_a_mask_is_refused() -> None:
    with pytest.raises(ObjectiveError, match="Denoising needs a mask_token"):
        Denoising(tokenizer=t5_unigram())
