"""BERT's masks and pairs: shares, exceptions, and who is paired with whom."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import bert_wordpiece, t5_unigram

from hf_prompting.errors import ObjectiveError
from hf_prompting.training.objectives import MaskedLM, NextSentence

TOKENIZER = bert_wordpiece()
CLS, SEP, MASK = TOKENIZER.cls_token_id, TOKENIZER.sep_token_id, TOKENIZER.mask_token_id
ORDINARY = sorted(set(range(len(TOKENIZER))) - set(TOKENIZER.all_special_ids))
texts = st.lists(st.lists(st.sampled_from(ORDINARY), min_size=1, max_size=60), min_size=1, max_size=6)


@settings(deadline=None)
@given(texts, st.integers(0, 99), st.sampled_from([0.15, 0.5]))
def test_so_many_tokens_have_labels_and_all_others_stay(rows: list[list[int]], seed: int, density: float) -> None:
    objective = MaskedLM(tokenizer=TOKENIZER, seed=seed, noise_density=density)
    batch = objective([{"input_ids": row} for row in rows])
    for number, row in enumerate(rows):
        whole = [CLS, *row, SEP]
        labels, shown = batch["labels"][number].tolist(), batch["input_ids"][number].tolist()
        chosen = [place for place, label in enumerate(labels) if label != -100]
        assert len(chosen) == max(round(len(row) * density), 1)
        assert all(0 < place <= len(row) and labels[place] == whole[place] for place in chosen)
        assert all(shown[place] == token for place, token in enumerate(whole) if place not in chosen)


def test_of_the_chosen_tokens_80_percent_are_masks_10_random_and_10_the_same() -> None:
    batch = MaskedLM(tokenizer=TOKENIZER)([{"input_ids": ORDINARY[:100]}] * 800)
    chosen = batch["labels"] != -100
    shown, labels = batch["input_ids"][chosen], batch["labels"][chosen]
    assert chosen.sum() == 800 * 15
    masked, same = (shown == MASK).float().mean().item(), (shown == labels).float().mean().item()
    assert masked == pytest.approx(0.8, abs=0.02)
    assert same == pytest.approx(0.1 + 0.1 / len(ORDINARY), abs=0.02)
    replaced = shown[(shown != MASK) & (shown != labels)]
    assert set(replaced.tolist()) <= set(ORDINARY)
    assert len(set(replaced.tolist())) > 0.9 * len(ORDINARY)


def test_special_tokens_inside_a_row_are_never_hidden() -> None:
    batch = MaskedLM(tokenizer=TOKENIZER, noise_density=0.9)([{"input_ids": [CLS, 50, SEP, 51, SEP]}])
    assert batch["labels"][0, [0, 2, 4]].tolist() == [-100] * 3
    assert batch["input_ids"][0, [0, 2, 4]].tolist() == [CLS, SEP, SEP]


def pair(first: int, second: int, document: int, length: int = 3) -> dict[str, Any]:
    return {"input_ids": [first] * length, "next_input_ids": [second] * length, "document": document}


def shown_texts(batch: dict[str, torch.Tensor], number: int) -> tuple[int, int]:
    """The tokens of both texts, with what is hidden put back."""
    whole = torch.where(batch["labels"] == -100, batch["input_ids"], batch["labels"])[number]
    types = batch["token_type_ids"][number]
    ordinary = torch.isin(whole, torch.tensor(ORDINARY))
    (first,) = set(whole[ordinary & (types == 0)].tolist())
    (second,) = set(whole[ordinary & (types == 1)].tolist())
    return first, second


def test_half_of_the_pairs_are_false_and_their_second_text_is_of_another_document() -> None:
    rows = [pair(ORDINARY[2 * i], ORDINARY[2 * i + 1], document=i // 3) for i in range(9)]
    document_of_second = {row["next_input_ids"][0]: row["document"] for row in rows}
    objective, num_false = NextSentence(tokenizer=TOKENIZER), 0
    for _ in range(100):
        batch = objective(rows)
        for number, row in enumerate(rows):
            first, second = shown_texts(batch, number)
            assert first == row["input_ids"][0]
            if batch["next_sentence_label"][number]:
                num_false += 1
                assert document_of_second[second] != row["document"]
            else:
                assert second == row["next_input_ids"][0]
    assert 380 < num_false < 520


def test_a_batch_of_one_document_has_only_true_pairs() -> None:
    batch = NextSentence(tokenizer=TOKENIZER)([pair(50, 51, 0), pair(52, 53, 0)])
    assert batch["next_sentence_label"].tolist() == [0, 0]
    assert batch["token_type_ids"].tolist() == [[0] * 5 + [1] * 4] * 2


@pytest.mark.parametrize(("first", "second", "kept"), [(9, 2, (5, 2)), (2, 9, (2, 5)), (9, 9, (4, 3)), (3, 4, (3, 4))])
def test_the_longer_text_is_shortened_until_the_pair_fits(first: int, second: int, kept: tuple[int, int]) -> None:
    row = {"input_ids": [50] * first, "next_input_ids": [51] * second, "document": 0}
    batch = NextSentence(tokenizer=TOKENIZER, max_length=10)([row])
    assert batch["input_ids"].shape == (1, 10)
    assert (batch["token_type_ids"][0] == 0).sum() == kept[0] + 2
    assert (batch["token_type_ids"][0] == 1).sum() == kept[1] + 1


def test_rows_without_a_second_text_or_a_document_are_refused() -> None:
    objective = NextSentence(tokenizer=TOKENIZER)
    with pytest.raises(ObjectiveError, match="no 'next_input_ids'"):
        objective([{"input_ids": [50], "document": 0}])
    with pytest.raises(ObjectiveError, match="needs 'document'"):
        objective([{"input_ids": [50], "next_input_ids": [51]}])
    with pytest.raises(ObjectiveError, match="mask_token"):
        MaskedLM(tokenizer=t5_unigram())
