"""From scores of pieces to scores of words to scores of classes; plain functions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hf_prompting.errors import ShapeError

Aggregation = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def mean_over_words(scores_BCW: Tensor, is_word_CW: Tensor, weights_CW: Tensor | None = None) -> Tensor:
    """Average each class over its real label words, ignoring padding. -> (B, C)

    Example:
        >>> mean_over_words(torch.tensor([[[1.0, 3.0], [5.0, 0.0]]]), torch.tensor([[True, True], [True, False]]))
        tensor([[2., 5.]])
    """
    return (scores_BCW * is_word_CW).sum(-1) / is_word_CW.sum(-1)


def max_over_words(scores_BCW: Tensor, is_word_CW: Tensor, weights_CW: Tensor | None = None) -> Tensor:
    """Take the best real label word of each class. -> (B, C)"""
    return scores_BCW.masked_fill(~is_word_CW, -torch.inf).amax(-1)


def weighted_over_words(scores_BCW: Tensor, is_word_CW: Tensor, weights_CW: Tensor | None = None) -> Tensor:
    """Average with the softmax of ``weights_CW`` over the real words of each class. -> (B, C)

    Raises:
        ShapeError: if there are no weights.
    """
    if weights_CW is None:
        raise ShapeError("aggregation 'weighted' needs weights_CW of shape (C, W), got None")
    shares_CW = weights_CW.masked_fill(~is_word_CW, -torch.inf).softmax(-1)
    return (scores_BCW * shares_CW).sum(-1)


AGGREGATIONS: dict[str, Aggregation] = {
    "mean": mean_over_words,
    "max": max_over_words,
    "weighted": weighted_over_words,
}


def pad_words(scores_BN: Tensor, num_words: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Arrange scores of all words, class after class, as (B, C, W) with a mask of the real words.

    Args:
        scores_BN: (B, N) scores, N the number of words of all classes.
        num_words: words per class; they sum to N.
    Returns:
        scores (B, C, W), zero where padded, and (C, W) bool.
    Raises:
        ShapeError: if the counts do not sum to N.
    """
    if sum(num_words) != scores_BN.shape[1]:
        raise ShapeError(f"{scores_BN.shape[1]} word scores for classes of {num_words} words (sum {sum(num_words)})")
    width = max(num_words)
    is_word_CW = torch.arange(width, device=scores_BN.device)[None] < torch.tensor(
        num_words, device=scores_BN.device
    ).unsqueeze(1)
    scores_BCW = scores_BN.new_zeros(scores_BN.shape[0], len(num_words), width)
    scores_BCW[:, is_word_CW] = scores_BN
    return scores_BCW, is_word_CW
