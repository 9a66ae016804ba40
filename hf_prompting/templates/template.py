"""PromptTemplate: a parsed template, which renders rows into the texts that its tokenizer takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerFast

from hf_prompting.errors import FieldError, TemplateError, TemplateSyntaxError
from hf_prompting.templates.parser import parse_segments, write_segments
from hf_prompting.templates.rendering import (
    TEXT_KEYS,
    TextGroup,
    collapse_fields,
    column_of,
    column_texts,
    field_values,
    render_column,
    render_groups,
)
from hf_prompting.templates.segments import AnswerSlot, Field, Segment, SoftTokens, Text
from hf_prompting.templates.shortening import shorten_rows

SOURCE_KEY = "prompt_template_source"  # where tokenizer_config.json keeps the template string


@dataclass(frozen=True)
class PromptTemplate:
    """A prompt with places for columns, soft tokens and one answer slot.

    ``PromptTemplate.parse(str(t)) == t`` for every template; segments that no string stands for are refused.

    Raises:
        TemplateSyntaxError: if the segments are not what their own template string says.
    Example:
        >>> PromptTemplate.parse("{soft:20}Review: {text}\\nThe movie was{mask}").num_soft_tokens
        20
    """

    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        if parse_segments(str(self)) != self.segments:
            raise TemplateSyntaxError(
                f"no template string stands for {self.segments!r}: it reads as {parse_segments(str(self))!r}."
                " Join neighbouring texts, drop empty ones, and put a space between {soft:N:text} and a '}'."
            )

    @classmethod
    def parse(cls, text: str) -> PromptTemplate:
        """Read a template string; see :mod:`hf_prompting.templates.parser` for the grammar.

        Raises:
            TemplateSyntaxError: showing the place.
        """
        return cls(parse_segments(text))

    def __str__(self) -> str:
        return write_segments(self.segments)

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields in order."""
        return tuple(segment for segment in self.segments if isinstance(segment, Field))

    @property
    def num_soft_tokens(self) -> int:
        """How many soft tokens all runs have together."""
        return sum(segment.num_tokens for segment in self.segments if isinstance(segment, SoftTokens))

    @cached_property
    def pieces(self) -> tuple[Segment | TextGroup, ...]:
        """The segments, with the fields collapsed into the groups that become the tokenizer's texts."""
        return collapse_fields(self.segments)

    @cached_property
    def text_groups(self) -> tuple[TextGroup, ...]:
        """What becomes the tokenizer's ``text`` and ``text_pair``: one field each, or neighbours rendered together."""
        return tuple(piece for piece in self.pieces if isinstance(piece, tuple))

    @property
    def joins_fields(self) -> bool:
        """Whether several fields are rendered into one text, so that only :meth:`render` can shorten them."""
        return any(len(group) > 1 for group in self.text_groups)

    def without_soft_tokens(self) -> PromptTemplate:
        """The same prompt in words only, for instance to measure a base model before tuning.

        Example:
            >>> str(PromptTemplate.parse("{soft:2}It was {soft:3}{mask}").without_soft_tokens())
            'It was {mask}'
        """
        return PromptTemplate.parse(write_segments([s for s in self.segments if not isinstance(s, SoftTokens)]))

    def render(
        self,
        row: Mapping[str, object],
        *,
        tokenizer: PreTrainedTokenizerFast | None = None,
        max_length: int | None = None,
    ) -> dict[str, str]:
        """One row as the tokenizer's keyword arguments, for any number of fields.

        Args:
            row: column name -> text or number; further columns are ignored.
            tokenizer: compiled from this template; needed with ``max_length`` only.
            max_length: where fields are joined into one text, shorten them, longest first, at token borders, until the
                whole prompt has at most so many tokens. Fields marked ``:fixed`` and the text between fields are never
                cut. Fields that are not joined are left to ``tokenizer(..., truncation=True)``.
        Returns:
            ``{"text": ...}``, and ``"text_pair"`` where the template has a second text.
        Raises:
            FieldError: if a column is missing, None, or neither text nor number.
            TemplateError: if ``max_length`` is given without this template's tokenizer, or there are too many fields.
            TemplateLengthError: if the prompt cannot be made short enough.
        Example:
            >>> PromptTemplate.parse("{a} or {b}? {mask}").render({"a": "tea", "b": 2})
            {'text': 'tea', 'text_pair': '2'}
        """
        values = field_values(self.fields, row)
        return render_groups(self.text_groups, self._fitting([values], tokenizer, max_length)[0])

    def render_batch(
        self,
        columns: Mapping[str, Sequence[object]],
        *,
        tokenizer: PreTrainedTokenizerFast | None = None,
        max_length: int | None = None,
    ) -> dict[str, list[str]]:
        """:meth:`render` for a batch given as columns, as ``datasets.map(batched=True)`` does.

        Returns:
            ``{"text": [...]}``, and ``"text_pair"`` where the template has a second text; N texts each.
        Raises:
            FieldError: as for :meth:`render`, naming the row of the batch; or if columns differ in length.
            TemplateError, TemplateLengthError: as for :meth:`render`.
        Example:
            >>> PromptTemplate.parse("{a} {mask}").render_batch({"a": ["x", "y"]})
            {'text': ['x', 'y']}
        """
        used = {field.name: column_of(field.name, columns) for field in self.fields}
        lengths = {name: len(values) for name, values in used.items()}
        if len(set(lengths.values())) > 1:
            raise FieldError(f"the columns of one batch must be equally long; their lengths are {lengths}")
        texts = {name: column_texts(name, values) for name, values in used.items()}
        if self.joins_fields and max_length is not None:
            rows = [dict(zip(texts, row, strict=True)) for row in zip(*texts.values(), strict=True)]
            fitting = self._fitting(rows, tokenizer, max_length)
            texts = {name: [row[name] for row in fitting] for name in texts}
        else:
            self._fitting((), tokenizer, max_length)
        return {key: render_column(group, texts) for key, group in zip(TEXT_KEYS, self.text_groups, strict=False)}

    def _fitting(
        self,
        rows: Sequence[Mapping[str, str]],
        tokenizer: PreTrainedTokenizerFast | None,
        max_length: int | None,
    ) -> Sequence[Mapping[str, str]]:
        if len(self.text_groups) > len(TEXT_KEYS):
            raise TemplateError(too_many_texts(self))
        if max_length is None:
            return rows
        if tokenizer is None or tokenizer.init_kwargs.get(SOURCE_KEY) != str(self):
            raise TemplateError(
                "max_length counts tokens of the whole prompt, so it needs tokenizer=, the one compiled from this"
                f" template ({str(self)!r}); got {type(tokenizer).__name__}"
            )
        return shorten_rows(self.text_groups, rows, tokenizer, max_length) if self.joins_fields else rows

    def render_string(self, row: Mapping[str, object], *, slot: str = "", soft: str = "") -> str:
        """The whole prompt as one string, as people write prompts by hand.

        Args:
            row: column name -> text or number.
            slot: what to write for the answer slot, for instance a label word.
            soft: what to write for each soft token.
        Example:
            >>> PromptTemplate.parse("{a}? {mask}").render_string({"a": "Tea"}, slot="yes")
            'Tea? yes'
        """
        values = field_values(self.fields, row)
        return "".join(_written(segment, values, slot, soft) for segment in self.segments)


def too_many_texts(template: PromptTemplate) -> str:
    """The words of the error for a template whose fields cannot be rendered into two texts."""
    return (
        f"the fields of {str(template)!r} make {len(template.text_groups)} separate texts, but a tokenizer takes"
        f" {len(TEXT_KEYS)}: neighbouring fields are joined only where plain text stands between them. Move soft"
        " tokens, special tokens or the answer slot out from between the fields, or join columns before the template."
    )


def _written(segment: Segment, values: Mapping[str, str], slot: str, soft: str) -> str:
    match segment:
        case Text(text):
            return text
        case Field(name):
            return values[name]
        case SoftTokens(num_tokens):
            return soft * num_tokens
        case AnswerSlot():
            return slot
