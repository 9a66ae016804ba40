"""Rows that are read one at a time are those that are read together, and each format names a bad line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from hf_prompting.data import load_rows, stream_rows
from hf_prompting.errors import DataError

TEXTS = ["plain", 'with "quotes" and, commas', "好，看", "two\nlines", ""]


def write(folder: Path, suffix: str, texts: list[str]) -> Path:
    file = folder / f"rows{suffix}"
    table = Dataset.from_dict({"id": list(range(len(texts))), "text": texts})
    if suffix == ".parquet":
        table.to_parquet(file)
    elif suffix == ".csv":
        table.to_csv(file, index=False)
    elif suffix == ".tsv":
        file.write_text("id\ttext\n" + "".join(f"{n}\t{text}\n" for n, text in enumerate(texts)), encoding="utf-8")
    else:
        rows = [{"id": number, "text": text} for number, text in enumerate(texts)]
        lines = "\n".join(json.dumps(row) for row in rows) if suffix == ".jsonl" else json.dumps(rows)
        file.write_text(lines + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_streamed_rows_are_the_loaded_ones_with_the_same_places(suffix: str, tmp_path: Path) -> None:
    texts = [text for text in TEXTS if suffix != ".tsv" or "\n" not in text]
    file = write(tmp_path, suffix, texts)
    streamed = list(stream_rows(file, ["text"]))
    loaded = load_rows(tmp_path, file.name)
    assert [row.values for row in streamed] == [{"text": text} for text in loaded.table["text"]]
    assert [row.place for row in streamed] == [loaded.place(number) for number in range(len(loaded))]


def test_only_what_is_needed_is_read(tmp_path: Path) -> None:
    file = write(tmp_path, ".jsonl", ["good"] * 3)
    with file.open("ab") as more:
        more.write(b'{"id": 3, "text": null}\nnot JSON\n')
    rows = stream_rows(file, ["text"])
    assert [next(rows).place for _ in range(3)] == [f"rows.jsonl, line {number}" for number in (1, 2, 3)]
    with pytest.raises(DataError, match="line 4: column 'text' is missing or null"):
        next(rows)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.jsonl", '{"txt": "a"}\n', r"no column 'text'.*Did you mean 'txt'"),
        ("rows.jsonl", "\n", "has no rows"),
        ("rows.csv", "text;label\na;b\n", "no column 'text'.*looks cut by ';'"),
        ("rows.csv", "text;label\na, b;c\n", "line 2: 2 cells, but the header has 1.*looks cut by ';'"),
        ("rows.parquet", "no parquet", "cannot be read as parquet"),
        ("rows.txt", "a", "no known format"),
    ],
)
def test_a_file_that_does_not_fit_is_one_clear_error(name: str, content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        list(stream_rows(tmp_path / name, ["text"]))


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        next(stream_rows(tmp_path / "none.jsonl", ["text"]))


def test_a_semicolon_file_for_training_gets_the_same_hint(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text;label\na;b\n", encoding="utf-8")
    with pytest.raises(DataError, match="save it with commas"):
        load_rows(tmp_path, "rows.csv").require_texts(["text"])


def test_columns_that_are_not_asked_for_may_hold_anything(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "a", "more": [1, {"b": None}]}, {"text": 2.5}]
    (tmp_path / "rows.json").write_text("".join(json.dumps(row) + "\n" for row in rows[:1]), encoding="utf-8")
    assert next(stream_rows(tmp_path / "rows.json", ["text"])).values == {"text": "a"}
