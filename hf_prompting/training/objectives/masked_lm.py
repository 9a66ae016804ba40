"""BERT's two tasks: words behind masks, and whether one text follows another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_prompting.errors import ObjectiveError
from hf_prompting.training.objectives.noise import Noise
from hf_prompting.training.objectives.objective import IGNORED, Objective
from hf_prompting.training.objectives.ragged import Ints, Ragged

MASKED, RANDOM = 0.8, 0.1  # of the chosen tokens; the rest stays as it is


@dataclass(frozen=True, kw_only=True)
class MaskedLM(Objective):
    """Predict ``round(noise_density * n)`` of a row's n tokens, at least one (Devlin et al., 2019, arXiv:1810.04805).

    Of the chosen tokens 80 % become the mask, 10 % a random token and 10 % stay. Special tokens are never chosen and
    never put in.

    Attributes:
        noise_density: share of the tokens to predict.
    Example:
        >>> MaskedLM(tokenizer=tokenizer)(rows)["labels"]  # doctest: +SKIP
    """

    noise_density: float = 0.15

    def check(self) -> None:
        """See ``Objective.check``."""
        self.require("noise_density", 0 < self.noise_density < 1, "above 0 and below 1")
        self.require_tokens("pad_token", "mask_token")

    def corrupt(self, text: Ragged, noise: Noise) -> dict[str, Tensor]:
        """See ``Objective.corrupt``."""
        return self.masked(text.framed(*self.affixes), noise)

    def masked(self, rows: Ragged, noise: Noise) -> dict[str, Tensor]:
        """Choose among all tokens of the rows that are not special, and mask them."""
        ids_BT = rows.padded(self.pad_id)
        eligible_BT = rows.is_token & ~np.isin(ids_BT, self._special_ids)
        num_eligible = eligible_BT.sum(axis=1)
        num_chosen = np.minimum(np.maximum(np.rint(num_eligible * self.noise_density), 1), num_eligible)
        chosen_BT = noise.chosen(eligible_BT, num_chosen.astype(np.int64))
        fate_BT = noise.uniform(ids_BT.shape[1])
        others = self._ordinary_ids
        random_BT = others[(noise.uniform(ids_BT.shape[1]) * len(others)).astype(np.int64)]
        is_random_BT = chosen_BT & (fate_BT >= MASKED) & (fate_BT < MASKED + RANDOM)
        shown_BT = np.where(chosen_BT & (fate_BT < MASKED), self.special_id("mask_token"), ids_BT)
        return {
            "input_ids": torch.from_numpy(np.where(is_random_BT, random_BT, shown_BT)),
            "attention_mask": torch.from_numpy(rows.is_token.astype(np.int64)),
            "labels": torch.from_numpy(np.where(chosen_BT, ids_BT, IGNORED)),
        }

    @cached_property
    def _special_ids(self) -> Ints:
        return np.array(sorted(self.tokenizer.all_special_ids), dtype=np.int64)

    @cached_property
    def _ordinary_ids(self) -> Ints:
        return np.setdiff1d(np.fromiter(self.tokenizer.get_vocab().values(), dtype=np.int64), self._special_ids)


@dataclass(frozen=True, kw_only=True)
class NextSentence(MaskedLM):
    """``[CLS] first [SEP] second [SEP]``: does the second text follow the first, and what is masked? (Same source.)

    A row has ``input_ids``, ``next_input_ids`` (the text that really follows) and ``document`` (any number that tells
    the documents apart). With probability one half the second text is replaced by that of a row of another document in
    the batch; where the batch holds one document only, all pairs stay true. The longer text of a pair is shortened
    until the pair fits. ``next_sentence_label`` is 0 for a true pair and 1 for a false one, as in
    ``BertForPreTraining``. (Noise keys fix masks and coins, but not the partner, which comes from the batch.)

    Attributes:
        max_length: tokens of a pair at most, special ones included.
    Example:
        >>> NextSentence(tokenizer=tokenizer)(pairs)["next_sentence_label"]  # doctest: +SKIP
    """

    max_length: int = 128

    def check(self) -> None:
        """See ``Objective.check``."""
        super().check()
        self.require("max_length", self.max_length >= 5, "at least 5, for one token of each text")
        self.require_tokens("cls_token", "sep_token")

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make one batch; see ``Objective.__call__``."""
        first = Ragged.of_features(features).unframed(*self.affixes)
        second = Ragged.of_features(features, "next_input_ids").unframed(*self.affixes)
        for text in (first, second):
            self._refuse_empty(text)
        if not all("document" in feature for feature in features):
            raise ObjectiveError("every row of NextSentence needs 'document', the number of the text it is from")
        noise = self._source.next_batch(features)
        partner, is_false = _partners(np.array([feature["document"] for feature in features]), noise)
        return {
            **self._pairs(first, _rows_at(second, partner), noise),
            "next_sentence_label": torch.from_numpy(is_false.astype(np.int64)),
        }

    def _pairs(self, first: Ragged, second: Ragged, noise: Noise) -> dict[str, Tensor]:
        room = self.max_length - 3
        half = np.maximum(room - second.lengths, (room + 1) // 2)
        num_first = np.minimum(first.lengths, half)
        num_second = np.minimum(second.lengths, room - num_first)
        first, second = _shortened(first, num_first), _shortened(second, num_second)
        cls, sep = self.special_id("cls_token"), self.special_id("sep_token")
        left, right = first.framed([cls], [sep]), second.framed([], [sep])
        pair = Ragged(np.empty(len(left.values) + len(right.values), dtype=np.int64), left.lengths + right.lengths)
        is_left = pair.position_of < np.repeat(left.lengths, pair.lengths)
        pair.values[is_left], pair.values[~is_left] = left.values, right.values
        types = Ragged((~is_left).astype(np.int64), pair.lengths)
        return {**self.masked(pair, noise), "token_type_ids": torch.from_numpy(types.padded(0))}


def _partners(document: Ints, noise: Noise) -> tuple[Ints, Ints]:
    """(B,) the row whose second text each row gets, and whether it is a false one."""
    stranger_BB = document[:, None] != document
    keys_BB = np.where(stranger_BB, noise.uniform(len(document)), -1.0)
    is_false = (noise.uniform(1)[:, 0] < 0.5) & stranger_BB.any(axis=1)
    return np.where(is_false, keys_BB.argmax(axis=1), np.arange(len(document))), is_false.astype(np.int64)


def _rows_at(rows: Ragged, order: Ints) -> Ragged:
    lengths = rows.lengths[order]
    chosen = Ragged(np.repeat(rows.starts[order], lengths), lengths)
    return Ragged(rows.values[chosen.values + chosen.position_of], lengths)


def _shortened(rows: Ragged, num_kept: Ints) -> Ragged:
    return rows.kept(rows.position_of < np.repeat(num_kept, rows.lengths))
