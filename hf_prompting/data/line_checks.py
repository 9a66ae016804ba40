"""Read a text file of rows line by line, so that a bad line is named by its number and no more is held than one row.

The readers of ``datasets`` are fast but say "row 0 of the block" at best, and fill or guess where a line is short.
These checks run first; what they let through, the readers load. ``data/streaming.py`` needs no other reader.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hf_prompting.errors import DataError

JSON_KINDS: dict[type, str] = {
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


def json_lines(path: Path) -> tuple[int, ...]:
    """Check a JSONL file and return the line number of every row.

    Args:
        path: a UTF-8 file with one JSON object a line; blank lines are skipped.
    Returns:
        The 1-based line of each row, in order.
    Raises:
        DataError: a line is not a JSON object, holds half a surrogate pair, or gives a column another kind of value
            than an earlier line did.
    Example:
        >>> json_lines(Path("train.jsonl"))  # doctest: +SKIP
        (1, 2, 3)
    """
    return tuple(line for line, _ in read_json_lines(path))


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line number and the object of every row of a JSONL file; errors as in ``json_lines``."""
    kinds: dict[str, tuple[str, int]] = {}
    for number, text in _numbered_lines(path):
        if text.strip():
            place = f"{path.name}, line {number}"
            yield number, _checked_row(_parse_json(text, place), place, number, kinds)


def json_document(path: Path) -> None:
    """Check a JSON file that is one list of objects, or objects one a line.

    A list has no line for a row, so rows are counted instead.

    Raises:
        DataError: the file is neither, with the line where reading stopped.
    """
    for _ in read_json_document(path):
        pass


def read_json_document(path: Path) -> Iterator[tuple[int | None, dict[str, Any]]]:
    """Yield the line number (``None`` in a list) and the object of every row of a JSON file; a list is held whole."""
    first = next((text.lstrip() for _, text in _numbered_lines(path) if text.strip()), "")
    if not first.startswith("["):
        yield from read_json_lines(path)
        return
    document = _parse_json("".join(line for _, line in _numbered_lines(path)), path.name)
    kinds: dict[str, tuple[str, int]] = {}
    for number, row in enumerate(document if isinstance(document, list) else [], start=1):
        yield None, _checked_row(row, f"{path.name}, row {number}", number, kinds)


def comma_separated(path: Path) -> tuple[int, ...]:
    """Check a CSV file with a header; return the line where every row begins (a quoted row may span several)."""
    return tuple(line for line, _ in read_separated(path, delimiter=",", quoting=csv.QUOTE_MINIMAL))


def tab_separated(path: Path) -> tuple[int, ...]:
    """Check a TSV file with a header; quotation marks are ordinary characters there, as in its media type."""
    return tuple(line for line, _ in read_separated(path, delimiter="\t", quoting=csv.QUOTE_NONE))


def read_separated(path: Path, *, delimiter: str, quoting: int) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line where it begins, and the cells, of every row of a delimited file with a header.

    Raises:
        DataError: a row has more or fewer cells than the header, a quotation mark is open, or a name comes twice.
    """
    header: list[str] | None = None
    reader = csv.reader(
        (text for _, text in _numbered_lines(path)),
        delimiter=delimiter,
        quoting=quoting,  # type: ignore[arg-type]
        strict=True,
    )
    begins = 1
    try:
        for cells in reader:
            if header is None:
                header = _checked_header(cells, path)
            elif cells:
                if len(cells) != len(header):
                    raise DataError(
                        f"{path.name}, line {begins}: {len(cells)} cells, but the header has {len(header)}: {header}."
                        f"{other_separator(header)}"
                    )
                yield begins, dict(zip(header, cells, strict=True))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path.name}, line {begins}: {error}") from error


def other_separator(columns: list[str]) -> str:
    """Return a hint where the one column's name looks like several, cut by something else; else an empty string.

    Example:
        >>> other_separator(["text;label"])
        " Its header looks cut by ';': save it with commas as .csv, or with tabs as .tsv."
    """
    found = [mark for mark in (";", "\t", "|", ",") if len(columns) == 1 and mark in columns[0]]
    return f" Its header looks cut by {found[0]!r}: save it with commas as .csv, or with tabs as .tsv." if found else ""


def header_of(path: Path, *, delimiter: str, quoting: int) -> list[str]:
    """Return the column names on the first line of a delimited file."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return next(csv.reader(file, delimiter=delimiter, quoting=quoting), [])  # type: ignore[arg-type]


def plain_text(path: Path) -> tuple[int, ...]:
    """Check that a file is UTF-8; every line is a row."""
    return tuple(number for number, _ in _numbered_lines(path))


LINE_CHECKS: dict[str, Callable[[Path], tuple[int, ...] | None]] = {
    ".jsonl": json_lines,
    ".json": json_document,
    ".csv": comma_separated,
    ".tsv": tab_separated,
    ".txt": plain_text,
}


def _numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name}, line {number}: byte {error.start + 1} is not UTF-8; save the file as UTF-8"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _parse_json(text: str, place: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        inner = f", line {error.lineno}" if "\n" in text.strip() else ""
        raise DataError(f"{place}{inner}: not valid JSON at column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: this JSON is nested too deeply or holds too long a number") from error


def _checked_row(row: object, place: str, number: int, kinds: dict[str, tuple[str, int]]) -> dict[str, Any]:
    if not isinstance(row, dict):
        found = JSON_KINDS.get(type(row), "null")
        raise DataError(f'{place}: expected an object such as {{"text": "…", "label": "…"}}, found {found}')
    for column, value in row.items():
        if value is None:
            continue
        kind = JSON_KINDS[type(value)]
        known, first = kinds.setdefault(column, (kind, number))
        if kind != known:
            raise DataError(f"{place}: column {column!r} is {kind} here but {known} before (first at {first}); use one")
        _check_encodable(value, column, place)
    return row


def _check_encodable(value: object, column: str, place: str) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{place}: column {column!r} holds half a surrogate pair (U+{ord(error.object[error.start]):04X}), "
            "which is not text; remove it"
        ) from error


def _checked_header(cells: list[str], path: Path) -> list[str]:
    twice = sorted({name for name in cells if cells.count(name) > 1})
    if twice:
        raise DataError(f"{path.name}, line 1: column {twice[0]!r} is named twice; every column needs its own name")
    return cells
