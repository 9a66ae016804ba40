"""Language modelling from left to right: of the whole text, or of what follows a prefix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hf_prompting.training.objectives.noise import Noise
from hf_prompting.training.objectives.objective import IGNORED, Objective
from hf_prompting.training.objectives.ragged import Ragged


@dataclass(frozen=True, kw_only=True)
class CausalLM(Objective):
    """Predict every token from those before it (Radford et al., 2018, "Improving language understanding").

    For decoder-only models, which shift the labels themselves. The text stands between the tokenizer's own tokens.

    Example:
        >>> CausalLM(tokenizer=tokenizer)(rows)["labels"]  # doctest: +SKIP
    """

    def check(self) -> None:
        """See ``Objective.check``."""
        self.require_tokens("pad_token")

    def corrupt(self, text: Ragged, noise: Noise) -> dict[str, Tensor]:
        """See ``Objective.corrupt``."""
        whole = text.framed(*self.affixes)
        return {**whole.tensors(self.pad_id), "labels": torch.from_numpy(whole.padded(IGNORED))}


@dataclass(frozen=True, kw_only=True)
class PrefixLM(Objective):
    """Predict what follows a prefix of random length (Raffel et al., 2020, arXiv:1910.10683, section 3.2.2).

    Every length from 1 to n - 1 of n tokens is equally likely; of a text of one token nothing but its end is left.

    Attributes:
        decoder_only: make one sequence in which the prefix has no labels, for models without an encoder; by default
            the encoder reads the prefix and the decoder says the rest.
    Example:
        >>> PrefixLM(tokenizer=tokenizer)(rows)["labels"]  # doctest: +SKIP
    """

    decoder_only: bool = False

    def check(self) -> None:
        """See ``Objective.check``."""
        self.require_tokens("pad_token", "eos_token")

    def corrupt(self, text: Ragged, noise: Noise) -> dict[str, Tensor]:
        """See ``Objective.corrupt``."""
        length = 1 + (noise.uniform(1)[:, 0] * (text.lengths - 1)).astype(np.int64)
        if not self.decoder_only:
            is_prefix = text.position_of < np.repeat(length, text.lengths)
            return self.encoder_decoder_batch(self.ended(text.kept(is_prefix)), self.ended(text.kept(~is_prefix)))
        whole = self.ended(text)
        is_prefix = whole.position_of < np.repeat(length + len(self.affixes[0]), whole.lengths)
        labels = Ragged(np.where(is_prefix, IGNORED, whole.values), whole.lengths)
        return {**whole.tensors(self.pad_id), "labels": torch.from_numpy(labels.padded(IGNORED))}
