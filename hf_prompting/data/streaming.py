"""Rows of a file one at a time, so that a file larger than memory can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hf_prompting.data.line_checks import other_separator, read_json_document, read_json_lines, read_separated
from hf_prompting.data.rows import DELIMITED
from hf_prompting.errors import DataError, did_you_mean

BATCH_ROWS = 1024  # rows of a Parquet file that are decoded together


class PlacedRow(NamedTuple):
    """Where a row came from, and the columns that were asked for."""

    place: str
    values: dict[str, Any]


def stream_rows(file: Path, columns: Sequence[str]) -> Iterator[PlacedRow]:
    """Yield the rows of a file in its order, holding a few at a time; only a .json file that is one list is held whole.

    Args:
        file: .jsonl, .json, .csv, .tsv or .parquet.
        columns: the columns wanted.
    Yields:
        The place of each row (``rows.jsonl, line 7``) and the values, which are texts or numbers.
    Raises:
        DataError: the file or a column is missing, or a row is bad; all rows before it have been yielded.
    Example:
        >>> next(stream_rows(Path("rows.jsonl"), ["text"]))  # doctest: +SKIP
        PlacedRow(place='rows.jsonl, line 1', values={'text': 'great fun'})
    """
    if not file.is_file():
        raise DataError(f"no such file: {file}")
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise DataError(f"{file.name!r} is of no known format; allowed: {', '.join(READERS)}")
    number = 0
    for number, (line, row) in enumerate(reader(file, columns), start=1):
        if number == 1:
            _require_columns(file.name, list(row), columns)
        place = f"{file.name}, row {number}" if line is None else f"{file.name}, line {line}"
        values = {column: row.get(column) for column in columns}
        for column, value in values.items():
            if not isinstance(value, str | int | float):
                found = "missing or null" if value is None else f"{type(value).__name__} {value!r:.40}"
                raise DataError(f"{place}: column {column!r} is {found}; a text or a number is needed")
        yield PlacedRow(place, values)
    if not number:
        raise DataError(f"{file.name} has no rows; at least one is needed")


def _parquet(file: Path, columns: Sequence[str]) -> Iterator[tuple[None, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            _require_columns(file.name, table.schema_arrow.names, columns)
            for batch in table.iter_batches(batch_size=BATCH_ROWS, columns=list(columns)):
                for row in batch.to_pylist():
                    yield None, row
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file.name} cannot be read as parquet: {str(error).splitlines()[0][:300]}") from error


def _delimited(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    delimiter, quoting = DELIMITED[file.suffix.lower()]
    return read_separated(file, delimiter=delimiter, quoting=quoting)


READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[tuple[int | None, dict[str, Any]]]]] = {
    ".jsonl": lambda file, columns: read_json_lines(file),
    ".json": lambda file, columns: read_json_document(file),
    ".csv": _delimited,
    ".tsv": _delimited,
    ".parquet": _parquet,
}


def _require_columns(name: str, present: list[str], wanted: Sequence[str]) -> None:
    for column in wanted:
        if column not in present:
            raise DataError(
                f"{name} has no column {column!r}; its columns are {present}.{did_you_mean(column, present)}"
                f"{other_separator(present)}"
            )
