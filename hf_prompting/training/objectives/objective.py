"""What all pre-training objectives share: rows in, tensors out, special ids from the tokenizer, a seed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hf_prompting.errors import ObjectiveError
from hf_prompting.templates.compiler import text_affixes
from hf_prompting.training.objectives.noise import Noise, NoiseSource
from hf_prompting.training.objectives.ragged import Ragged

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """A data collator that makes a task out of plain text.

    Rows need ``input_ids``, with or without the tokenizer's own special tokens around the text and with or without
    padding (then with ``attention_mask``): both are taken off first, and the result has the special tokens again and
    padding on the right. Give ``Trainer`` ``remove_unused_columns=False``.

    Attributes:
        tokenizer: a fast tokenizer; all special ids come from it.
        seed: of the noise. The same seed and step give the same batch; no two steps share their noise.
        first_step: number of the first batch, for a run that goes on after an interruption.
    """

    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    seed: int = 0
    first_step: int = 0
    _source: NoiseSource = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_source", NoiseSource(self.seed, self.first_step))
        self.check()

    @abstractmethod
    def check(self) -> None:
        """Raise ``ObjectiveError`` where an option, or a token that the tokenizer lacks, makes the task impossible."""

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make one batch.

        Args:
            features: B rows.
        Returns:
            (B, T) tensors that the model takes, ``labels`` among them.
        Raises:
            ObjectiveError: a row has no text, or needs more sentinels than there are.
        """
        text = Ragged.of_features(features).unframed(*self.affixes)
        self._refuse_empty(text)
        return self.corrupt(text, self._source.next_batch(features))

    @abstractmethod
    def corrupt(self, text: Ragged, noise: Noise) -> dict[str, Tensor]:
        """Turn bare text into the inputs and labels of the task."""

    @cached_property
    def affixes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids that the tokenizer puts before and after a text."""
        return text_affixes(self.tokenizer.backend_tokenizer)

    @cached_property
    def pad_id(self) -> int:
        """Id of padding."""
        return self.special_id("pad_token")

    def special_id(self, name: str) -> int:
        """Return the id of ``pad_token``, ``mask_token`` and so on.

        Raises:
            ObjectiveError: the tokenizer has no such token.
        """
        token_id = getattr(self.tokenizer, f"{name}_id")
        if token_id is None:
            raise ObjectiveError(
                f"{type(self).__name__} needs a {name}, and the tokenizer has none; set tokenizer.{name}, or train a "
                "tokenizer with `hf-prompting tokenizer`"
            )
        return int(token_id)

    def require_tokens(self, *names: str) -> None:
        """Raise ``ObjectiveError`` unless the tokenizer has all of these special tokens."""
        for name in names:
            self.special_id(name)

    def ended(self, rows: Ragged) -> Ragged:
        """Put the tokenizer's own tokens around each row, and always the one that ends a text."""
        before, after = self.affixes
        end = self.special_id("eos_token")
        return rows.framed(before, after if end in after else (*after, end))

    def encoder_decoder_batch(self, inputs: Ragged, labels: Ragged) -> dict[str, Tensor]:
        """Pad what the encoder reads and what the decoder shall say; the model shifts the labels itself."""
        return {**inputs.tensors(self.pad_id), "labels": torch.from_numpy(labels.padded(IGNORED))}

    def require(self, name: str, holds: bool, allowed: str) -> None:
        """Raise ``ObjectiveError`` about the option ``name`` unless it holds."""
        if not holds:
            raise ObjectiveError(f"{type(self).__name__}.{name} is {getattr(self, name)!r}; allowed: {allowed}")

    def _refuse_empty(self, text: Ragged) -> None:
        empty = np.flatnonzero(text.lengths == 0)
        if len(empty):
            raise ObjectiveError(
                f"row {empty[0]} of the batch has no token beside special ones and padding; drop empty texts first, "
                "for instance with chunk_texts"
            )
