"""From word scores to class scores, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from hf_prompting.errors import ShapeError
from hf_prompting.verbalizers.scoring import (
    AGGREGATIONS,
    max_over_words,
    mean_over_words,
    pad_words,
    weighted_over_words,
)

SCORES = torch.tensor([[-1.0, -3.0, -5.0], [-2.0, -4.0, -0.5]])  # words: two of class 0, one of class 1


def test_words_are_arranged_by_class_with_a_mask() -> None:
    scores, is_word = pad_words(SCORES, (2, 1))
    assert scores.tolist() == [[[-1.0, -3.0], [-5.0, 0.0]], [[-2.0, -4.0], [-0.5, 0.0]]]
    assert is_word.tolist() == [[True, True], [True, False]]


def test_each_aggregation_by_hand() -> None:
    scores, is_word = pad_words(SCORES, (2, 1))
    assert mean_over_words(scores, is_word).tolist() == [[-2.0, -5.0], [-3.0, -0.5]]
    assert max_over_words(scores, is_word).tolist() == [[-1.0, -5.0], [-2.0, -0.5]]
    weights = torch.tensor([[math.log(3.0), 0.0], [9.0, 100.0]])  # shares 3/4 and 1/4; the padding counts nothing
    got = weighted_over_words(scores, is_word, weights)
    torch.testing.assert_close(got, torch.tensor([[-1.5, -5.0], [-2.5, -0.5]]))


def test_equal_weights_are_the_mean() -> None:
    scores, is_word = pad_words(SCORES, (2, 1))
    torch.testing.assert_close(
        weighted_over_words(scores, is_word, torch.zeros(2, 2)), mean_over_words(scores, is_word)
    )


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_gradients_are_finite_and_padding_gets_none(name: str) -> None:
    words = SCORES.clone().requires_grad_()
    scores, is_word = pad_words(words, (1, 2))
    weights = torch.zeros(2, 2, requires_grad=True)
    AGGREGATIONS[name](scores, is_word, weights).sum().backward()
    assert words.grad is not None and words.grad.isfinite().all()
    if name == "weighted":
        assert weights.grad is not None and weights.grad.isfinite().all() and weights.grad[0, 1] == 0


def test_learned_weights_are_needed_for_the_weighted_mean() -> None:
    scores, is_word = pad_words(SCORES, (2, 1))
    with pytest.raises(ShapeError, match=r"weights_CW of shape \(C, W\)"):
        weighted_over_words(scores, is_word)


def test_counts_that_do_not_add_up_are_an_error() -> None:
    with pytest.raises(ShapeError, match=r"3 word scores for classes of \(2, 2\) words"):
        pad_words(SCORES, (2, 2))
