"""Rows from files: what is read, and what is said about a bad line."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_recipes import write_rows

from hf_prompting.data import Rows, load_rows
from hf_prompting.errors import DataError, HfPromptingError


def bad(folder: Path, name: str, content: str | bytes) -> str:
    """Return the message of loading a file with this content."""
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    (folder / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        load_rows(folder, name)
    return str(caught.value)


def test_the_values_of_a_column_come_in_the_order_of_the_selected_rows() -> None:
    rows = Rows(Dataset.from_dict({"n": range(3000), "other": [None] * 3000}), "made.csv").select(range(2500, 0, -1))
    assert list(rows.values("n")) == list(range(2500, 0, -1))


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    expected = {"text": ["好 film", 'a "quoted", text'], "label": ["pos", "neg"]}
    write_rows(
        tmp_path / "a.jsonl", [{"text": "好 film", "label": "pos"}, {"text": 'a "quoted", text', "label": "neg"}]
    )
    (tmp_path / "a.json").write_text(
        '[{"text": "好 film", "label": "pos"},\n {"text": "a \\"quoted\\", text", "label": "neg"}]', encoding="utf-8"
    )
    (tmp_path / "a.csv").write_text('text,label\n好 film,pos\n"a ""quoted"", text",neg\n', encoding="utf-8")
    (tmp_path / "a.tsv").write_text('text\tlabel\n好 film\tpos\na "quoted", text\tneg\n', encoding="utf-8")
    pyarrow.parquet.write_table(pa.table(expected), tmp_path / "a.parquet")
    for suffix in ("jsonl", "json", "csv", "tsv", "parquet"):
        found = load_rows(tmp_path, f"a.{suffix}")
        assert {name: list(found.table[name]) for name in found.columns} == expected, suffix


def test_cells_of_a_csv_file_stay_as_written(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\nnull,01\nNA,1.0\n", encoding="utf-8")
    rows = load_rows(tmp_path, "a.csv")
    assert list(rows.table["text"]) == ["null", "NA"]
    assert list(rows.table["label"]) == ["01", "1.0"]


def test_a_row_knows_its_line_past_blank_lines_and_quoted_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('\n{"text": "x"}\n\n{"text": "y"}\n', encoding="utf-8")
    (tmp_path / "a.csv").write_text('text\n"x\nx"\ny\n', encoding="utf-8")
    assert load_rows(tmp_path, "a.jsonl").place(1) == "a.jsonl, line 4"
    assert load_rows(tmp_path, "a.csv").place(1) == "a.csv, line 4"
    assert load_rows(tmp_path, "a.jsonl").select([1]).place(0) == "a.jsonl, line 4"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "a"}\n{"text": "b" "c"}\n', "line 2: not valid JSON at column 14"),
        ('{"text": "a"}\n[1]\n', "line 2: expected an object"),
        ('{"text": "a"}\n{"text": 1}\n', "line 2: column 'text' is a number here but a string before (first at 1)"),
        ('{"text": "\\ud800"}\n', "line 1: column 'text' holds half a surrogate pair (U+D800)"),
        (b'{"text": "a"}\n{"text": "\xff"}\n', "line 2: byte 11 is not UTF-8"),
        ("", "is empty"),
        ("\n\n", "has no rows"),
        ("[" * 100_000 + "\n", "line 1"),
    ],
)
def test_a_bad_line_of_jsonl_is_named(tmp_path: Path, content: str | bytes, said: str) -> None:
    assert said in bad(tmp_path, "rows.jsonl", content)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "text,label\na,b\nc\n", "line 3: 1 cells, but the header has 2"),
        ("a.csv", 'text,label\n"a,b\n', "line 2: unexpected end of data"),
        ("a.csv", "text,text\na,b\n", "column 'text' is named twice"),
        ("a.tsv", "text\tlabel\na\tb\tc\n", "line 2: 3 cells"),
        ("a.json", '[{"text": "a"},\n{"text" "b"}]', "line 2: not valid JSON"),
        ("a.json", '[{"text": "a"}, 3]', "row 2: expected an object"),
        ("a.parquet", "no parquet", "cannot be read as parquet"),
        ("a.docx", "x", "of no known format; allowed: .jsonl"),
    ],
)
def test_a_bad_file_of_another_format_is_one_clear_error(tmp_path: Path, name: str, content: str, said: str) -> None:
    assert said in bad(tmp_path, name, content)


def test_a_missing_file_folder_or_column_names_the_nearest(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [{"text": "a", "label": "x"}])
    with pytest.raises(DataError, match=r"no file 'trian\.jsonl'.*Did you mean 'train\.jsonl'"):
        load_rows(tmp_path, "trian.jsonl")
    with pytest.raises(DataError, match="no such folder of data"):
        load_rows("/no/such/folder", "train.jsonl")
    with pytest.raises(DataError, match=r"no column 'txt'.*Did you mean 'text'"):
        load_rows(tmp_path, "train.jsonl").require_columns(["txt"])


def test_an_id_that_cannot_be_loaded_is_one_clear_error() -> None:
    with pytest.raises(DataError, match="'nobody/nothing' is neither a folder that exists nor a `datasets` id"):
        load_rows("nobody/nothing", "train")


def test_a_missing_text_or_a_list_is_named_by_its_line(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"text": "a"}, {"other": "b"}])
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: column 'text' is missing or null"):
        load_rows(tmp_path, "a.jsonl").require_texts(["text"])
    write_rows(tmp_path / "b.jsonl", [{"text": ["a"]}])
    with pytest.raises(DataError, match=r"b\.jsonl, line 1: column 'text' is list"):
        load_rows(tmp_path, "b.jsonl").require_texts(["text"])


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["jsonl", "csv", "tsv", "json"]))
def test_any_bytes_give_rows_or_our_own_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, kind: str
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / f"rows.{kind}").write_bytes(content)
    try:
        assert len(load_rows(folder, f"rows.{kind}"))
    except HfPromptingError as error:
        assert str(error)
