"""Which words stand for which label. Text only; ``label_words.py`` turns it into token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from hf_prompting.errors import LabelWordError, did_you_mean
from hf_prompting.verbalizers.scoring import AGGREGATIONS


@dataclass(frozen=True)
class Verbalizer:
    """Map each label to one or more label words, each of one or several tokens.

    The order of the labels is the order of the classes: it becomes ``config.id2label``.

    Args:
        words: label -> label word or words. A bare string is one word.
        aggregation: how the scores of a label's words become the class score: "mean" of their log-probabilities,
            "max", or "weighted" (a mean with one trainable weight per word, equal to "mean" before training).
        leading_space: whether a label word is tokenised with a space before it. None decides per word: a space where
            running text of the word's script would have one (``was great``), none after Chinese or a line break.

    Raises:
        LabelWordError: for fewer than two labels, a label without words, an empty word, or one word of two labels.

    Source: Schick and Schütze, 2021, arXiv:2001.07676 (verbalizers); Hu et al., 2022, arXiv:2108.02035 (several words).

    Example:
        >>> Verbalizer({"negative": ["bad"], "positive": ["good", "great"]}).labels
        ('negative', 'positive')
    """

    words: Mapping[str, Sequence[str] | str]
    aggregation: str = "mean"
    leading_space: bool | None = None
    labels: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.words, Mapping) or len(self.words) < 2:
            raise LabelWordError(f"a verbalizer needs at least two labels with their words, got {self.words!r}")
        if self.aggregation not in AGGREGATIONS:
            raise LabelWordError(
                f"aggregation={self.aggregation!r} is unknown; allowed: {sorted(AGGREGATIONS)}."
                f"{did_you_mean(self.aggregation, AGGREGATIONS)}"
            )
        words: dict[str, tuple[str, ...]] = {}
        owner_of: dict[str, str] = {}
        for label, given in self.words.items():
            if not isinstance(label, str) or not label or _has_surrogate(label):
                raise LabelWordError(
                    f"label {label!r} must be a non-empty string; write it as text, e.g. {str(label)!r}"
                )
            if not isinstance(given, Sequence):
                raise LabelWordError(f"label words {given!r} of label {label!r} must be a string or a list of strings")
            words[label] = (given,) if isinstance(given, str) else tuple(given)
            if not words[label]:
                raise LabelWordError(f"label {label!r} has no label words; give it at least one")
            for word in words[label]:
                if not isinstance(word, str) or not word.strip():
                    raise LabelWordError(f"label word {word!r} of label {label!r} is empty; give it a visible text")
                if _has_surrogate(word):
                    raise LabelWordError(
                        f"label word {word!r} of label {label!r} holds half a character; mend its text"
                    )
                if word in owner_of:
                    raise LabelWordError(
                        f"label word {word!r} belongs to label {owner_of[word]!r} and to {label!r} (or twice to one); "
                        "a word must tell the labels apart: keep it once"
                    )
                owner_of[word] = label
        object.__setattr__(self, "words", MappingProxyType(words))
        object.__setattr__(self, "labels", tuple(words))

    def __reduce__(self) -> tuple[type[Verbalizer], tuple[dict[str, Sequence[str] | str], str, bool | None]]:
        return Verbalizer, (dict(self.words), self.aggregation, self.leading_space)

    def label_id(self, label: str) -> int:
        """Return the class number of a label.

        Raises:
            LabelWordError: for an unknown label; the message names the nearest one.
        """
        if label not in self.words:
            raise LabelWordError(
                f"label {label!r} is not in the verbalizer; its labels are {list(self.labels)}."
                f"{did_you_mean(str(label), self.labels)}"
            )
        return self.labels.index(label)


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
