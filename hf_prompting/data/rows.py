"""Rows with named columns, from a local file or any ``datasets`` id, that know which line they came from."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import (
    Dataset,
    Features,
    Value,
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    load_dataset,
)

from hf_prompting.data.line_checks import LINE_CHECKS, header_of, other_separator
from hf_prompting.errors import DataError, did_you_mean

# A format: the reader of `datasets` that loads it, and how a delimited one is cut.
READERS: dict[str, str] = {
    ".jsonl": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".txt": "text",  # a row a line, in the column "text"
}
DELIMITED: dict[str, tuple[str, int]] = {".csv": (",", csv.QUOTE_MINIMAL), ".tsv": ("\t", csv.QUOTE_NONE)}
SMALL_FILE = 2**24  # bytes, read in a moment
_AT_ONCE = 1024  # rows decoded together


@dataclass(frozen=True)
class Rows:
    """A table of rows and the place of each, so that an error can name the file and line.

    Attributes:
        table: the ``datasets.Dataset``.
        source: what to call it in messages, for instance ``train.jsonl`` or ``stanfordnlp/imdb[test]``.
        lines: the line of every row where the format has lines.
    """

    table: Dataset
    source: str
    lines: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.table)

    @property
    def columns(self) -> list[str]:
        """The column names, in the file's order."""
        return list(self.table.column_names)

    def place(self, index: int) -> str:
        """Say where row ``index`` came from: ``train.jsonl, line 7`` or ``train.parquet, row 7`` (counted from 1)."""
        return f"{self.source}, line {self.lines[index]}" if self.lines else f"{self.source}, row {index + 1}"

    def select(self, indices: Sequence[int]) -> Rows:
        """Return the rows at ``indices``, in that order, with their places."""
        lines = None if self.lines is None else tuple(self.lines[index] for index in indices)
        return Rows(self.table.select(indices), self.source, lines)

    def head(self, num_rows: int | None) -> Rows:
        """Return the first ``num_rows`` rows, or all of them for ``None``."""
        return self if num_rows is None or num_rows >= len(self) else self.select(range(num_rows))

    def values(self, name: str) -> Iterator[Any]:
        """Yield a column's values, decoded some rows at a time; ``table[name]`` decodes one at a time.

        Example:
            >>> list(rows.values("text"))  # doctest: +SKIP
            ['great fun', 'far too long']
        """
        for batch in self.table.select_columns([name]).iter(batch_size=_AT_ONCE):
            yield from batch[name]

    def require_columns(self, names: Iterable[str]) -> None:
        """Raise ``DataError`` unless every named column exists; the message names the nearest one."""
        for name in names:
            if name not in self.columns:
                raise DataError(
                    f"{self.source} has no column {name!r}; its columns are {self.columns}."
                    f"{did_you_mean(name, self.columns)}{other_separator(self.columns)}"
                )

    def require_texts(self, names: Iterable[str]) -> None:
        """Raise ``DataError`` at the first row where one of the columns is empty (null) or is a list or an object."""
        names = list(names)
        self.require_columns(names)
        for name in names:
            for index, value in enumerate(self.values(name)):
                if not isinstance(value, str | int | float):
                    found = "missing or null" if value is None else f"{type(value).__name__} {value!r:.40}"
                    raise DataError(f"{self.place(index)}: column {name!r} is {found}; a text or a number is needed")


def load_rows(path: str | Path, name: str, *, config: str | None = None) -> Rows:
    """Load one split.

    Args:
        path: a folder of data files, or a ``datasets`` id such as ``stanfordnlp/imdb``. A folder that exists wins.
        name: the file in that folder (.jsonl, .json, .csv, .tsv, .parquet or .txt), or the split of that id
            (``train``, ``test[:100]``).
        config: the configuration of a ``datasets`` id that has several.
    Returns:
        The rows, in the file's order. Every cell of a CSV or TSV file is a string, exactly as written.
    Raises:
        DataError: the folder, file, id or split does not exist, the format is unknown, a line is bad (with its number),
            or there is no row.
    Example:
        >>> load_rows("recipes/movie-reviews-soft-prompt/data", "train.jsonl").columns  # doctest: +SKIP
        ['text', 'label']
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        rows = _load_file(folder, name)
    elif looks_like_dataset_id(str(path)):
        rows = _load_dataset_id(str(path), name, config)
    else:
        raise DataError(f"no such folder of data: {path}; give a folder that exists, or a `datasets` id")
    if not len(rows):
        raise DataError(f"{rows.source} has no rows; at least one is needed")
    return rows


def looks_like_dataset_id(path: str) -> bool:
    """Tell whether a text that is no existing folder can be a ``datasets`` id: ``name`` or ``owner/name``."""
    parts = path.split("/")
    return len(parts) <= 2 and all(part and part[0].isalnum() and part.isprintable() for part in parts)


@contextmanager
def quiet_if(small: bool) -> Iterator[None]:
    """Hide the progress bars of ``datasets`` while something small is done."""
    change = small and are_progress_bars_disabled() is False
    if change:
        disable_progress_bars()
    try:
        yield
    finally:
        if change:
            enable_progress_bars()


def _load_file(folder: Path, name: str) -> Rows:
    file = folder / name
    if not file.is_file():
        present = sorted(entry.name for entry in folder.iterdir() if entry.suffix in READERS)
        raise DataError(f"no file {name!r} in {folder}; data files there: {present}.{did_you_mean(name, present)}")
    suffix = file.suffix.lower()
    if suffix not in READERS:
        raise DataError(f"{name!r} is of no known format; allowed: {', '.join(READERS)}")
    if file.stat().st_size == 0:
        raise DataError(f"{name} is empty; at least one row is needed")
    check = LINE_CHECKS.get(suffix)
    lines = check(file) if check else None
    if lines == ():
        raise DataError(f"{name} has no rows; at least one is needed")
    options: dict[str, Any] = {}
    if suffix in DELIMITED:
        delimiter, quoting = DELIMITED[suffix]
        columns = header_of(file, delimiter=delimiter, quoting=quoting)
        strings = Features({column: Value("string") for column in columns})
        options = {
            "sep": delimiter,
            "quoting": quoting,
            "encoding": "utf-8-sig",
            "keep_default_na": False,  # a review that says "null" is a text
            "features": strings,
        }
    try:
        with quiet_if(file.stat().st_size < SMALL_FILE):
            table = load_dataset(READERS[suffix], data_files=str(file), split="train", keep_in_memory=True, **options)
    except Exception as error:  # each reader of `datasets` raises errors of its own libraries
        raise DataError(f"{name} cannot be read as {suffix[1:]}: {_innermost(error)}") from error
    if lines is not None and len(lines) != len(table):
        lines = None
    return Rows(table, name, lines)


def _load_dataset_id(path: str, split: str, config: str | None) -> Rows:
    try:
        table = load_dataset(path, config, split=split)
    except Exception as error:  # the Hub client, fsspec and every reader have errors of their own
        raise DataError(
            f"{path!r} is neither a folder that exists nor a `datasets` id that can be loaded "
            f"(split {split!r}): {_innermost(error)}"
        ) from error
    return Rows(table, f"{path}[{split}]")


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
