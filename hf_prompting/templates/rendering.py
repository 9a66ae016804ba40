"""From a row to texts: which fields the tokenizer fills by itself, and what the others are rendered into.

A fast tokenizer's post-processor knows two sequences only, $A and $B. A template with one or two fields uses them
directly. With more fields, neighbours that only plain text separates are rendered into one text, so that two remain.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Number
from typing import TypeVar

from hf_prompting.errors import FieldError, did_you_mean
from hf_prompting.templates.segments import Field, Segment, Text

TEXT_KEYS = ("text", "text_pair")  # the names that every transformers tokenizer gives its two texts
TextGroup = tuple[Segment, ...]
Column = TypeVar("Column")

# A grouping must not depend on the tokenizer, so that rendering needs none. Compiling checks it against the real ones.
_LOOKS_SPECIAL = re.compile(r"<[^<>\s]+>|\[[A-Z_]+\]")


def collapse_fields(segments: Sequence[Segment]) -> tuple[Segment | TextGroup, ...]:
    """Replace the fields by the groups that become the tokenizer's texts, and keep every other segment.

    Args:
        segments: all segments of a template.
    Returns:
        Segments and groups in order; a group begins and ends with a field. More than two groups mean that the template
        cannot be compiled.
    Example:
        >>> collapse_fields([Field("a"), Text("?")])
        ((Field(name='a', may_shorten=True),), Text(text='?'))
    """
    if sum(isinstance(segment, Field) for segment in segments) <= len(TEXT_KEYS):
        return tuple((segment,) if isinstance(segment, Field) else segment for segment in segments)
    careful = _collapse(segments, _separates_like_special)
    num_groups = sum(isinstance(piece, tuple) for piece in careful)
    return careful if num_groups <= len(TEXT_KEYS) else _collapse(segments, _separates)


def _separates(segment: Segment) -> bool:
    return not isinstance(segment, Text | Field)


def _separates_like_special(segment: Segment) -> bool:
    return _separates(segment) or (isinstance(segment, Text) and bool(_LOOKS_SPECIAL.search(segment.text)))


def _collapse(segments: Sequence[Segment], separates: Callable[[Segment], bool]) -> tuple[Segment | TextGroup, ...]:
    pieces: list[Segment | TextGroup] = []
    for separating, run in itertools.groupby(segments, separates):
        members = list(run)
        pieces.extend(members if separating else _with_group(members))
    return tuple(pieces)


def _with_group(run: list[Segment]) -> list[Segment | TextGroup]:
    places = [index for index, segment in enumerate(run) if isinstance(segment, Field)]
    if not places:
        return [*run]
    first, last = places[0], places[-1] + 1
    return [*run[:first], tuple(run[first:last]), *run[last:]]


def field_values(fields: Iterable[Field], row: Mapping[str, object]) -> dict[str, str]:
    """The text of each field of one row.

    Args:
        fields: the fields of a template.
        row: column name -> value; text is taken as it is and numbers are written out.
    Returns:
        Field name -> text.
    Raises:
        FieldError: if a column is absent, empty (None or NaN), or neither text nor number.
    Example:
        >>> field_values([Field("stars")], {"stars": 4})
        {'stars': '4'}
    """
    return {field.name: _as_text(field.name, column_of(field.name, row)) for field in fields}


def column_of(name: str, row: Mapping[str, Column]) -> Column:
    """A field's column of a row, or of a batch of columns.

    Raises:
        FieldError: naming the columns there are.
    """
    try:
        return row[name]
    except KeyError:
        present = [str(column) for column in row]
        raise FieldError(
            f"the template names the column {name!r}, but there is {', '.join(map(repr, present)) or 'none'};"
            f" rename the column or the field.{did_you_mean(name, present)}"
        ) from None


def column_texts(name: str, values: Iterable[object]) -> list[str]:
    """The texts of one field for a batch of rows.

    Raises:
        FieldError: as for :func:`field_values`, naming the row of the batch.
    Example:
        >>> column_texts("stars", [4, "five"])
        ['4', 'five']
    """
    texts = []
    for row, value in enumerate(values):
        try:
            texts.append(_as_text(name, value))
        except FieldError as error:
            raise FieldError(f"row {row} of the batch: {error}") from None
    return texts


def _as_text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise FieldError(
            f"column {name!r} is {value!r} in this row; allowed: text or a number. Drop or fill such rows."
        )
    if isinstance(value, Number) and not isinstance(value, bool):
        return str(value)
    raise FieldError(
        f"column {name!r} holds a {type(value).__name__} ({str(value)[:40]!r}); allowed: text or a number."
        " Turn it into text first."
    )


def render_group(group: TextGroup, values: Mapping[str, str]) -> str:
    """Write one group out as text, for example ``"a, b"`` for ``{x}, {y}``."""
    return "".join(
        values[part.name] if isinstance(part, Field) else part.text for part in group if isinstance(part, Field | Text)
    )


def render_groups(groups: Sequence[TextGroup], values: Mapping[str, str]) -> dict[str, str]:
    """The tokenizer's keyword arguments for one row: ``{"text": ...}`` and, for two groups, ``"text_pair"``."""
    return {key: render_group(group, values) for key, group in zip(TEXT_KEYS, groups, strict=False)}


def render_column(group: TextGroup, texts: Mapping[str, list[str]]) -> list[str]:
    """:func:`render_group` for a batch: field name -> its texts in N rows."""
    written = (
        texts[part.name] if isinstance(part, Field) else itertools.repeat(part.text)
        for part in group
        if isinstance(part, Field | Text)
    )
    return list(map("".join, zip(*written, strict=False)))
