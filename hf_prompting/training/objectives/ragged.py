"""Rows of unequal length as one flat array, so that a whole batch is changed by a few array operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_prompting.errors import ObjectiveError

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Ragged:
    """B rows of tokens behind each other, without any padding.

    Attributes:
        values: (N,) ids of all rows.
        lengths: (B,) tokens of each row, summing to N.
    Example:
        >>> Ragged(np.array([5, 6, 7]), np.array([1, 2])).padded(0).tolist()
        [[5, 0], [6, 7]]
    """

    values: Ints
    lengths: Ints

    @classmethod
    def of_features(cls, features: Sequence[Mapping[str, Any]], column: str = "input_ids") -> Ragged:
        """Read one column of a batch; positions with ``attention_mask`` 0 are padding on any side and are dropped.

        Raises:
            ObjectiveError: a row lacks the column.
        """
        if not features:
            raise ObjectiveError("the batch is empty; at least one row is needed")
        missing = next((number for number, feature in enumerate(features) if column not in feature), None)
        if missing is not None:
            raise ObjectiveError(
                f"row {missing} of the batch has no {column!r}; its columns are {sorted(features[missing])}. Tokenise "
                "the rows first, and give Trainer remove_unused_columns=False"
            )
        rows = [np.asarray(feature[column], dtype=np.int64) for feature in features]
        ragged = cls(np.concatenate(rows), np.array([len(row) for row in rows], dtype=np.int64))
        if column != "input_ids" or "attention_mask" not in features[0]:
            return ragged
        masks = np.concatenate([np.asarray(feature["attention_mask"], dtype=np.int64) for feature in features])
        return ragged.kept(masks == 1)

    @property
    def row_of(self) -> Ints:
        """(N,) the row of each token."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def starts(self) -> Ints:
        """(B,) where each row begins in ``values``."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def position_of(self) -> Ints:
        """(N,) the place of each token in its row, from 0."""
        return np.arange(len(self.values)) - np.repeat(self.starts, self.lengths)

    @property
    def is_token(self) -> Bools:
        """(B, T) which places of the padded matrix hold a token."""
        is_token_BT: Bools = np.arange(self.lengths.max(initial=0)) < self.lengths[:, None]
        return is_token_BT

    def kept(self, keep: Bools) -> Ragged:
        """Return only the tokens where (N,) ``keep`` is true; the others' places close up."""
        return Ragged(self.values[keep], np.bincount(self.row_of[keep], minlength=len(self.lengths)))

    def framed(self, before: Sequence[int], after: Sequence[int]) -> Ragged:
        """Put the same ids before and after every row."""
        lengths = self.lengths + len(before) + len(after)
        framed = Ragged(np.empty(int(lengths.sum()), dtype=np.int64), lengths)
        position, remaining = framed.position_of, np.repeat(lengths, lengths) - framed.position_of
        is_text = (position >= len(before)) & (remaining > len(after))
        framed.values[is_text] = self.values
        for place, token_id in enumerate(before):
            framed.values[position == place] = token_id
        for place, token_id in enumerate(reversed(after), start=1):
            framed.values[remaining == place] = token_id
        return framed

    def unframed(self, before: Sequence[int], after: Sequence[int]) -> Ragged:
        """Take these ids away from each row that begins, or ends, with all of them."""
        position, remaining = self.position_of, np.repeat(self.lengths, self.lengths) - self.position_of
        keep = np.ones(len(self.values), dtype=np.bool_)
        for places, ids in ((position, list(before)), (remaining - 1, list(after)[::-1])):
            matches = np.zeros(len(self.lengths), dtype=np.int64)
            for place, token_id in enumerate(ids):
                hit = (places == place) & (self.values == token_id)
                matches += np.bincount(self.row_of[hit], minlength=len(self.lengths))
            whole = np.repeat(matches == len(ids), self.lengths)
            keep &= ~(whole & (places < len(ids)))
        return self.kept(keep)

    def padded(self, fill: int) -> Ints:
        """Return the (B, T) matrix with padding on the right."""
        padded_BT = np.full((len(self.lengths), int(self.lengths.max(initial=0))), fill, dtype=np.int64)
        padded_BT[self.is_token] = self.values
        return padded_BT

    def tensors(self, pad_id: int) -> dict[str, Tensor]:
        """Return ``input_ids`` and ``attention_mask``, (B, T) each."""
        return {
            "input_ids": torch.from_numpy(self.padded(pad_id)),
            "attention_mask": torch.from_numpy(self.is_token.astype(np.int64)),
        }
