"""Bring every batch to one padding side, so that the user's side, and the amount of padding, never change an answer."""

from __future__ import annotations

import torch
from torch import Tensor


def align(input_ids: Tensor, keep: Tensor, *, side: str, pad_id: int) -> tuple[Tensor, Tensor]:
    """Move the kept tokens of each row to one side, in order, and fill the rest with padding.

    Args:
        input_ids: (B, T).
        keep: (B, T) bool; False also where padding stands now.
        side: where the padding goes, "left" or "right".
        pad_id: id to fill with.
    Returns:
        ids (B, T) and attention mask (B, T), 1 for kept tokens.
    Example:
        >>> align(torch.tensor([[0, 5, 6]]), torch.tensor([[False, True, True]]), side="right", pad_id=9)
        (tensor([[5, 6, 9]]), tensor([[1, 1, 0]]))
    """
    order = torch.argsort((keep if side == "left" else ~keep).to(torch.int8), dim=1, stable=True)
    mask = keep.gather(1, order)
    return input_ids.gather(1, order).masked_fill(~mask, pad_id), mask.to(torch.long)
