"""BART's denoising: the encoder reads a damaged text, the decoder says the whole text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from hf_prompting.training.objectives.noise import Noise
from hf_prompting.training.objectives.objective import Objective
from hf_prompting.training.objectives.ragged import Bools, Ints, Ragged

SENTENCE_ENDS = (".", "!", "?", "。", "！", "？")


@dataclass(frozen=True, kw_only=True)
class Denoising(Objective):
    """Text infilling, with the sentences shuffled first if wished (Lewis et al., 2020, arXiv:1910.13461, section 2.2).

    ``ceil(noise_density * n)`` of n tokens lie in spans whose lengths are drawn from a Poisson distribution; each span
    becomes one mask token. A span of length 0 puts a mask where nothing is missing. The labels are the whole text.

    Attributes:
        noise_density: share of the tokens in spans.
        mean_span_length: of the Poisson distribution.
        permute_sentences: shuffle the sentences; they end with a token whose text ends with one of ``. ! ? 。 ！ ？``.
    Example:
        >>> Denoising(tokenizer=tokenizer, permute_sentences=True)(rows)["labels"]  # doctest: +SKIP
    """

    noise_density: float = 0.3
    mean_span_length: float = 3.0
    permute_sentences: bool = False

    def check(self) -> None:
        """See ``Objective.check``."""
        self.require("noise_density", 0 < self.noise_density < 1, "above 0 and below 1")
        self.require("mean_span_length", 1 <= self.mean_span_length <= 100, "from 1 to 100")
        self.require_tokens("pad_token", "eos_token", "mask_token")

    def corrupt(self, text: Ragged, noise: Noise) -> dict[str, Tensor]:
        """See ``Objective.corrupt``."""
        damaged = self._permuted(text, noise) if self.permute_sentences else text
        return self.encoder_decoder_batch(self.ended(self._infilled(damaged, noise)), self.ended(text))

    def _infilled(self, text: Ragged, noise: Noise) -> Ragged:
        """Draw the result as a row of units, each a kept token or a span, and fill the units in."""
        num_noise = np.ceil(text.lengths * self.noise_density).astype(np.int64)
        span_lengths_BK, num_spans = self._span_lengths(num_noise, noise)
        units = Ragged(np.ones(0, dtype=np.int64), text.lengths - num_noise + num_spans)
        is_span = noise.chosen(units.is_token, num_spans)[units.is_token]
        tokens_of_unit = np.ones(len(is_span), dtype=np.int64)
        tokens_of_unit[is_span] = span_lengths_BK[np.arange(span_lengths_BK.shape[1]) < num_spans[:, None]]
        is_noise = np.repeat(is_span, tokens_of_unit)
        values = np.full(len(is_span), self.special_id("mask_token"), dtype=np.int64)
        values[~is_span] = text.values[~is_noise]
        return Ragged(values, units.lengths)

    def _span_lengths(self, num_noise: Ints, noise: Noise) -> tuple[Ints, Ints]:
        """Draw lengths until they sum to ``num_noise``, the last one cut. (B,) -> (B, K) in random order, counts"""
        draws = noise.uniform(2 * int(num_noise.max()) + 16)
        lengths = np.searchsorted(self._poisson_steps, draws, side="right").astype(np.int64)
        lengths[:, -1] = num_noise  # so that the sum is always reached
        before = np.cumsum(lengths, axis=1) - lengths
        is_used = before < num_noise[:, None]
        lengths = np.where(is_used, np.minimum(lengths, num_noise[:, None] - before), 0)
        shuffled = np.argsort(np.where(is_used, noise.uniform(lengths.shape[1]), np.inf), axis=1)
        return np.take_along_axis(lengths, shuffled, axis=1), is_used.sum(axis=1)

    @cached_property
    def _poisson_steps(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """The distribution function at 0, 1, 2, …: as many of a uniform draw's steps as lie below it is the length."""
        largest = int(self.mean_span_length + 12 * math.sqrt(self.mean_span_length))
        chances = [
            math.exp(length * math.log(self.mean_span_length) - self.mean_span_length - math.lgamma(length + 1))
            for length in range(largest)
        ]
        return np.cumsum(chances)

    def _permuted(self, text: Ragged, noise: Noise) -> Ragged:
        begins = np.concatenate(([True], self._ends_sentence[text.values][:-1])) | (text.position_of == 0)
        sentence = np.cumsum(begins) - 1
        keys = noise.uniform(int(text.lengths.max()))[text.is_token][begins]
        return Ragged(text.values[np.lexsort((sentence, keys[sentence], text.row_of))], text.lengths)

    @cached_property
    def _ends_sentence(self) -> Bools:
        """(V,) whether a token ends a sentence."""
        backend = self.tokenizer.backend_tokenizer
        vocabulary = backend.get_vocab(with_added_tokens=True)
        ends = np.zeros(max(vocabulary.values()) + 1, dtype=np.bool_)
        special = set(self.tokenizer.all_special_ids)
        for token_id in vocabulary.values():
            ends[token_id] = token_id not in special and backend.decode([token_id]).endswith(SENTENCE_ENDS)
        return ends
