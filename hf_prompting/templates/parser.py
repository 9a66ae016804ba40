"""Template strings to segments and back; the text is read, never run.

Grammar::

    template := (text | "{{" | "}}" | braces)*
    braces   := "{mask}" | "{column}" | "{column:fixed}" | "{soft:N}" | "{soft:N:initial text}"
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NoReturn

from hf_prompting.errors import TemplateSyntaxError, did_you_mean
from hf_prompting.templates.segments import MAX_SOFT_TOKENS, AnswerSlot, Field, Segment, SoftTokens, Text

SLOT_NAME = "mask"
SOFT_NAME = "soft"
FIXED = "fixed"

_SOFT_WITH_TEXT = re.compile(r"\{\s*soft\s*:([^:{}]*):")
_SURROGATE = re.compile("[\ud800-\udfff]")
_EXCERPT_RADIUS = 30


def parse_segments(source: str) -> tuple[Segment, ...]:
    """Read a template string.

    Args:
        source: for example ``"{soft:20}Review: {text}\\nThe movie was{mask}"``.
    Returns:
        The segments in order; neighbouring pieces of text are one segment.
    Raises:
        TemplateSyntaxError: with the column (from 1), the excerpt and a caret under the place.
    Example:
        >>> parse_segments("{text} It was {mask}")
        (Field(name='text', may_shorten=True), Text(text=' It was '), AnswerSlot())
    """
    if lone := _SURROGATE.search(source):
        _fail(source, lone.start(), f"character {lone.group()!r} is half of a surrogate pair, which no tokenizer reads")
    segments: list[Segment] = []
    starts: list[int] = []
    text: list[str] = []
    position = 0
    while position < len(source):
        character = source[position]
        if source[position : position + 2] in ("{{", "}}"):
            text.append(character)
            position += 2
        elif character == "}":
            _fail(source, position, "'}' closes nothing; write '}}' for a brace in the text")
        elif character == "{":
            if text:
                segments.append(Text("".join(text)))
                starts.append(-1)
                text = []
            segment, end = _parse_braces(source, position)
            segments.append(segment)
            starts.append(position)
            position = end
        else:
            text.append(character)
            position += 1
    if text:
        segments.append(Text("".join(text)))
        starts.append(-1)
    _check_counts(source, segments, starts)
    return tuple(segments)


def write_segments(segments: Sequence[Segment]) -> str:
    """The template string of some segments: the inverse of :func:`parse_segments`.

    Example:
        >>> write_segments([Field("text", may_shorten=False), AnswerSlot()])
        '{text:fixed}{mask}'
    """
    return "".join(_write(segment) for segment in segments)


def _write(segment: Segment) -> str:
    match segment:
        case Text(text):
            return _escape(text)
        case Field(name, may_shorten):
            return f"{{{name}}}" if may_shorten else f"{{{name}:{FIXED}}}"
        case SoftTokens(num_tokens, None):
            return f"{{{SOFT_NAME}:{num_tokens}}}"
        case SoftTokens(num_tokens, str(initial_text)):
            return f"{{{SOFT_NAME}:{num_tokens}:{_escape(initial_text)}}}"
        case _:
            return f"{{{SLOT_NAME}}}"


def _escape(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _parse_braces(source: str, start: int) -> tuple[Segment, int]:
    """Parse the braces that open at ``start``; returns the segment and the position after the closing brace."""
    if soft := _SOFT_WITH_TEXT.match(source, start):
        initial_text, end = _read_initial_text(source, start, soft.end())
        if not initial_text:
            _fail(source, soft.end(), "the initial text of the soft tokens is empty; drop the last ':' or write a text")
        return SoftTokens(_soft_count(source, start, soft.group(1)), initial_text), end
    end = start + 1
    while end < len(source) and source[end] not in "{}":
        end += 1
    if end == len(source):
        _fail(source, start, f"'{{' at column {start + 1} is never closed; write '{{{{' for a brace in the text")
    if source[end] == "{":
        _fail(source, end, f"'{{' inside the braces opened at column {start + 1}, which are not closed yet")
    name, colon, modifier = source[start + 1 : end].partition(":")
    name, modifier = name.strip(), modifier.strip()
    return _segment_of(source, start, name, modifier if colon else None), end + 1


def _segment_of(source: str, start: int, name: str, modifier: str | None) -> Segment:
    if not name:
        _fail(source, start, "the braces name no column; write {column}, {mask} or {soft:N}")
    if name == SLOT_NAME:
        if modifier is not None:
            _fail(source, start, f"{{mask}} takes nothing after a ':', found {modifier!r}")
        return AnswerSlot()
    if name == SOFT_NAME:
        if modifier is None:
            _fail(source, start, "{soft} needs a number of tokens: {soft:20} or {soft:20:initial text}")
        return SoftTokens(_soft_count(source, start, modifier))
    if modifier is None or modifier == FIXED:
        return Field(name, may_shorten=modifier is None)
    hint = did_you_mean(name, [SOFT_NAME]) if modifier[:1].isdigit() else did_you_mean(modifier, [FIXED])
    _fail(source, start, f"unknown modifier {modifier!r} of field {name!r}; allowed: {FIXED!r}.{hint}")


def _soft_count(source: str, start: int, written: str) -> int:
    written = written.strip()
    if re.fullmatch("[0-9]{1,9}", written) and 1 <= int(written) <= MAX_SOFT_TOKENS:
        return int(written)
    _fail(source, start, f"number of soft tokens is {written!r}; allowed: a whole number from 1 to {MAX_SOFT_TOKENS}")


def _read_initial_text(source: str, start: int, position: int) -> tuple[str, int]:
    text: list[str] = []
    while position < len(source):
        if source[position : position + 2] in ("{{", "}}"):
            text.append(source[position])
            position += 2
        elif source[position] == "}":
            return "".join(text), position + 1
        elif source[position] == "{":
            _fail(source, position, "'{' inside the initial text of soft tokens; write '{{'")
        else:
            text.append(source[position])
            position += 1
    _fail(source, start, f"'{{' at column {start + 1} is never closed (a '}}}}' inside an initial text is a brace)")


def _check_counts(source: str, segments: list[Segment], starts: list[int]) -> None:
    names: set[str] = set()
    num_slots = 0
    for segment, start in zip(segments, starts, strict=True):
        if isinstance(segment, AnswerSlot):
            num_slots += 1
            if num_slots > 1:
                _fail(source, start, "a second {mask}; a template has exactly one answer slot")
        elif isinstance(segment, Field):
            if segment.name in names:
                _fail(source, start, f"field {segment.name!r} is used twice; each column may stand once in a template")
            names.add(segment.name)
    if not num_slots:
        hint = did_you_mean(SLOT_NAME, [name.lower() for name in names])
        _fail(
            source,
            len(source),
            f"no answer slot; write {{mask}} where the label word belongs.{hint and ' (' + hint.strip() + ')'}",
        )


def _fail(source: str, position: int, problem: str) -> NoReturn:
    first = max(0, position - _EXCERPT_RADIUS)
    last = position + _EXCERPT_RADIUS
    before = ("…" if first else "") + _visible(source[first:position])
    after = _visible(source[position:last]) + ("…" if last < len(source) else "")
    indent = " " * sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in before)
    raise TemplateSyntaxError(f"column {position + 1}: {problem}\n  {before}{after}\n  {indent}^")


def _visible(text: str) -> str:
    text = text.replace("\n", "⏎").replace("\t", " ")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
