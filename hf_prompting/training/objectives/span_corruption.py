"""T5's span corruption: the encoder reads gaps, the decoder says what was in them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import count, takewhile

import numpy as np
from torch import Tensor

from hf_prompting.errors import ObjectiveError
from hf_prompting.training.objectives.noise import Noise
from hf_prompting.training.objectives.objective import Objective
from hf_prompting.training.objectives.ragged import Bools, Ints, Ragged


@dataclass(frozen=True, kw_only=True)
class SpanCorruption(Objective):
    """Replace random spans by sentinels; the labels are the sentinels, each followed by its span (Raffel et al., 2020,
    arXiv:1910.10683, sections 3.1.4 and 3.3).

    As in T5's own code, ``round(noise_density * n)`` of n tokens (at least 1, at most n - 1) lie in
    ``round(that / mean_span_length)`` spans, cut at random. Unlike there, a text need not begin with a kept token and
    end with a span: a short text with one span would always lose its end. No sentinel follows the last span; the token
    that ends a text does. A text of one token is kept.

    Attributes:
        noise_density: share of the tokens in spans.
        mean_span_length: tokens of a span on average.
    Example:
        >>> objective = SpanCorruption(tokenizer=tokenizer)  # doctest: +SKIP
        >>> objective([tokenizer("Thank you for inviting me to your party last week.")])["labels"]  # doctest: +SKIP
    """

    noise_density: float = 0.15
    mean_span_length: float = 3.0

    def check(self) -> None:
        """See ``Objective.check``."""
        self.require("noise_density", 0 < self.noise_density < 1, "above 0 and below 1")
        self.require("mean_span_length", self.mean_span_length >= 1, "at least 1")
        self.require_tokens("pad_token", "eos_token")
        if not len(self.sentinel_ids):
            raise ObjectiveError(
                "SpanCorruption needs sentinels, and the tokenizer has no <extra_id_0>; add <extra_id_0>, "
                "<extra_id_1>, … as special tokens, or train a tokenizer with `hf-prompting tokenizer`"
            )

    @cached_property
    def sentinel_ids(self) -> Ints:
        """Ids of ``<extra_id_0>``, ``<extra_id_1>`` and so on."""
        vocabulary = self.tokenizer.get_vocab()
        names = takewhile(vocabulary.__contains__, (f"<extra_id_{number}>" for number in count()))
        return np.array([vocabulary[name] for name in names], dtype=np.int64)

    def corrupt(self, text: Ragged, noise: Noise) -> dict[str, Tensor]:
        """See ``Objective.corrupt``."""
        read, said = self.divided(text, self._is_noise(text, noise))
        return self.encoder_decoder_batch(self.ended(read), self.ended(said))

    def divided(self, text: Ragged, is_noise: Bools) -> tuple[Ragged, Ragged]:
        """Put a sentinel for each run of the (N,) noise; return what is left, and the runs behind their sentinels.

        Raises:
            ObjectiveError: a row has more runs than there are sentinels.
        """
        follows = np.concatenate(([False], is_noise[:-1])) & (text.position_of > 0)
        begins = is_noise & ~follows
        before_row: Ints = (np.cumsum(begins) - begins)[text.starts]
        sentinels = self._sentinels((np.cumsum(begins) - 1 - np.repeat(before_row, text.lengths))[begins], text)
        read = text.values.copy()
        read[begins] = sentinels
        copies = is_noise.astype(np.int64) + begins
        said = np.repeat(text.values, copies)
        said[(np.cumsum(copies) - 2)[begins]] = sentinels
        num_said = np.bincount(text.row_of, weights=copies, minlength=len(text.lengths)).astype(np.int64)
        return Ragged(read, text.lengths).kept(~is_noise | begins), Ragged(said, num_said)

    def _sentinels(self, numbers: Ints, text: Ragged) -> Ints:
        needed = int(numbers.max(initial=-1)) + 1
        if needed > len(self.sentinel_ids):
            raise ObjectiveError(
                f"a text of {text.lengths.max()} tokens has {needed} spans, but the tokenizer has only "
                f"{len(self.sentinel_ids)} sentinels <extra_id_…>; use shorter texts, a lower noise_density "
                f"(now {self.noise_density:g}), a larger mean_span_length (now {self.mean_span_length:g}), or more "
                "sentinels"
            )
        return self.sentinel_ids[numbers]

    def _is_noise(self, text: Ragged, noise: Noise) -> Bools:
        """(N,) which tokens lie in a span."""
        lengths = text.lengths
        num_noise = np.clip(np.rint(lengths * self.noise_density).astype(np.int64), 1, lengths - 1)
        num_kept = lengths - num_noise
        num_spans = np.clip(np.rint(num_noise / self.mean_span_length).astype(np.int64), 1, num_kept)
        # Spans stand apart, but the tokens before the first and behind the last may be none: parts of at least 0.
        kept_BK = _random_parts(num_kept + 2, num_spans + 1, noise)
        kept_BK[:, 0] -= 1
        kept_BK[np.arange(len(lengths)), num_spans] -= 1
        noise_BK = np.pad(_random_parts(num_noise, num_spans, noise), ((0, 0), (0, 1)))
        alternating = np.stack((kept_BK, noise_BK), axis=-1).reshape(-1)
        is_noise: Bools = np.repeat(np.arange(len(alternating)) % 2 == 1, alternating)
        return is_noise


def _random_parts(totals: Ints, num_parts: Ints, noise: Noise) -> Ints:
    """Cut each total into so many parts of at least 1, every way equally likely. (B,), (B,) -> (B, K), 0 behind them"""
    places = np.arange(int(totals.max()))
    is_place = places < totals[:, None]
    cuts_BT = noise.chosen(is_place & (places > 0), num_parts - 1)
    width = int(num_parts.max())
    part_BT = np.cumsum(cuts_BT, axis=1) + np.arange(len(totals))[:, None] * width
    return np.bincount(part_BT[is_place], minlength=len(totals) * width).reshape(len(totals), width)
