"""Span corruption: by hand, undone, and whatever the lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import byte_level_bpe, t5_unigram
from torch import Tensor

from hf_prompting.errors import ObjectiveError
from hf_prompting.training.objectives import SpanCorruption
from hf_prompting.training.objectives.ragged import Ragged

TOKENIZER = t5_unigram()
EOS, PAD = TOKENIZER.eos_token_id, TOKENIZER.pad_token_id
SENTINELS = TOKENIZER.convert_tokens_to_ids([f"<extra_id_{number}>" for number in range(10)])
ORDINARY = sorted(set(range(len(TOKENIZER))) - set(TOKENIZER.all_special_ids) - set(SENTINELS))
texts = st.lists(st.lists(st.sampled_from(ORDINARY), min_size=1, max_size=60), min_size=1, max_size=6)


def rows_of(matrix: Tensor, keep: Tensor) -> list[list[int]]:
    return [row[kept].tolist() for row, kept in zip(matrix, keep, strict=True)]


def parts(batch: dict[str, Tensor]) -> tuple[list[list[int]], list[list[int]]]:
    inputs = rows_of(batch["input_ids"], batch["attention_mask"].bool())
    return inputs, rows_of(batch["labels"], batch["labels"] != -100)


def restored(inputs: list[int], labels: list[int]) -> list[int]:
    """Put every span back where its sentinel stands."""
    assert inputs[-1] == labels[-1] == EOS
    spans: dict[int, list[int]] = {}
    for token in labels[:-1]:
        if token in SENTINELS:
            spans[token] = last = []
        else:
            last.append(token)
    return [back for token in inputs[:-1] for back in (spans[token] if token in SENTINELS else [token])]


def test_the_example_of_the_paper_worked_out_by_hand() -> None:
    a, b, c, d, e, f = ORDINARY[:6]
    text = Ragged(np.array([a, b, c, d, e, f]), np.array([6]))
    is_noise = np.array([False, False, True, True, False, True])
    read, said = SpanCorruption(tokenizer=TOKENIZER).divided(text, is_noise)
    assert read.values.tolist() == [a, b, SENTINELS[0], e, SENTINELS[1]]
    assert said.values.tolist() == [SENTINELS[0], c, d, SENTINELS[1], f]


def test_sentinels_begin_again_in_every_row_and_no_span_crosses_into_the_next() -> None:
    a, b, c, d = ORDINARY[:4]
    text = Ragged(np.array([a, b, c, d]), np.array([2, 2]))
    read, said = SpanCorruption(tokenizer=TOKENIZER).divided(text, np.array([False, True, True, False]))
    assert read.padded(-1).tolist() == [[a, SENTINELS[0]], [SENTINELS[0], d]]
    assert said.padded(-1).tolist() == [[SENTINELS[0], b], [SENTINELS[0], c]]


def test_a_hundred_tokens_have_fifteen_in_five_spans() -> None:
    inputs, labels = parts(SpanCorruption(tokenizer=TOKENIZER)([{"input_ids": ORDINARY[:100]}]))
    assert len(inputs[0]) == 100 - 15 + 5 + 1
    assert len(labels[0]) == 15 + 5 + 1


@settings(deadline=None)
@given(texts, st.integers(0, 99), st.sampled_from([0.05, 0.15, 0.5]), st.sampled_from([3.0, 6.0]))
def test_input_and_labels_give_the_text_back(
    rows: list[list[int]], seed: int, density: float, mean_length: float
) -> None:
    objective = SpanCorruption(tokenizer=TOKENIZER, seed=seed, noise_density=density, mean_span_length=mean_length)
    inputs, labels = parts(objective([{"input_ids": row} for row in rows]))
    for row, read, said in zip(rows, inputs, labels, strict=True):
        num_noise = sum(token not in SENTINELS for token in said) - 1
        if len(row) == 1:
            assert (read, said) == ([*row, EOS], [EOS])
            continue
        assert restored(read, said) == row
        assert num_noise == min(max(round(len(row) * density), 1), len(row) - 1)
        used = [token for token in read if token in SENTINELS]
        assert used == SENTINELS[: len(used)] == [token for token in said if token in SENTINELS]


@settings(deadline=None)
@given(texts, st.integers(0, 5), st.integers(0, 5), st.booleans())
def test_padding_on_either_side_and_special_tokens_change_nothing(
    rows: list[list[int]], left: int, right: int, ended: bool
) -> None:
    bare = SpanCorruption(tokenizer=TOKENIZER)([{"input_ids": row} for row in rows])
    dressed = [
        {
            "input_ids": [PAD] * left + row + [EOS] * ended + [PAD] * right,
            "attention_mask": [0] * left + [1] * (len(row) + ended) + [0] * right,
        }
        for row in rows
    ]
    again = SpanCorruption(tokenizer=TOKENIZER)(dressed)
    assert {name: value.tolist() for name, value in bare.items()} == {n: v.tolist() for n, v in again.items()}


@pytest.mark.parametrize("num_tokens", [10, 40])
def test_every_place_is_hidden_now_and_then_also_in_texts_with_one_span(num_tokens: int) -> None:
    objective = SpanCorruption(tokenizer=TOKENIZER, noise_density=0.3)
    text = ORDINARY[:num_tokens]
    hidden = np.zeros(len(text))
    for _ in range(20):
        for read in parts(objective([{"input_ids": text}] * 20))[0]:
            hidden += [token not in read for token in text]
    assert hidden.min() > 25
    assert hidden.sum() == 400 * 0.3 * num_tokens


def test_more_spans_than_sentinels_is_an_error_that_says_the_way_out() -> None:
    objective = SpanCorruption(tokenizer=TOKENIZER, noise_density=0.5, mean_span_length=1)
    with pytest.raises(ObjectiveError, match=r"30 spans, but the tokenizer has only 10 sentinels.*more sentinels"):
        objective([{"input_ids": ORDINARY[:60]}])


def test_a_tokenizer_without_sentinels_is_refused() -> None:
    tokenizer = byte_level_bpe()
    with pytest.raises(ObjectiveError, match=r"has none; set tokenizer\.pad_token"):
        SpanCorruption(tokenizer=tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    with pytest.raises(ObjectiveError, match="no <extra_id_0>"):
        SpanCorruption(tokenizer=tokenizer)
