"""The four things a template is made of, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass

MAX_SOFT_TOKENS = 10_000


@dataclass(frozen=True)
class Text:
    """Fixed text; special tokens written in it (``[SEP]``, ``<|im_start|>``) become their ids when compiled."""

    text: str


@dataclass(frozen=True)
class Field:
    """A place that a column of the row fills; ``may_shorten=False`` is written ``{name:fixed}``."""

    name: str
    may_shorten: bool = True


@dataclass(frozen=True)
class AnswerSlot:
    """The place where the model answers with a label word."""


@dataclass(frozen=True)
class SoftTokens:
    """A run of trainable tokens, optionally initialised from the embeddings of a text."""

    num_tokens: int
    initial_text: str | None = None


Segment = Text | Field | AnswerSlot | SoftTokens
