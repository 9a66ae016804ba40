"""``hf-prompting tokenizer``: files to a folder, and one clear line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_tokenizers import SENTENCES
from transformers import AutoTokenizer
from typer.testing import CliRunner, Result

from hf_prompting.cli import app


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    jsonl, text, table = tmp_path / "rows.jsonl", tmp_path / "lines.txt", tmp_path / "table.csv"
    rows = [json.dumps({"en": sentence, "zh": "体育"}, ensure_ascii=False) for sentence in SENTENCES * 3]
    jsonl.write_text("\n".join(rows), encoding="utf-8")
    text.write_text("\n".join(SENTENCES * 3), encoding="utf-8")
    table.write_text("text\n" + "\n".join(["a good table"] * 9), encoding="utf-8")
    return {"jsonl": jsonl, "text": text, "table": table}


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["tokenizer", *map(str, arguments)], env={"COLUMNS": "200", "NO_COLOR": "1"})


def test_columns_of_several_files_become_a_folder_that_loads(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = call(files["text"], files["table"], "--output-dir", out, "--vocab-size", 640, "--model", "bpe")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("640 tokens; ") and str(out) in result.stdout
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.tokenize("a good table") == ["a", " good", " table"]


def test_fields_are_named(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = call(files["jsonl"], "--field", "zh", "--output-dir", out, "--vocab-size", 900)
    assert result.exit_code == 2
    assert "too large: these texts hold only" in result.stderr
    result = call(files["jsonl"], "--field", "en", "--field", "zh", "--output-dir", out, "--vocab-size", 560)
    assert result.exit_code == 0, result.stderr
    assert "育" in AutoTokenizer.from_pretrained(out).get_vocab()


def test_mistakes_are_one_line(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments, said in (
        ((tmp_path / "nothing.txt",), "no file 'nothing.txt'"),
        ((files["jsonl"],), "no column 'text'"),
        ((files["text"], "--vocab-size", 100), "vocab_size is 100, too small"),
        ((files["text"], "--character-coverage", 2), "character_coverage is 2.0"),
    ):
        result = call(*arguments, "--output-dir", out)
        assert result.exit_code == 2
        assert said in result.stderr and result.stderr.count("\n") == 1
        assert not out.exists()
    out.mkdir()
    (out / "precious").touch()
    result = call(files["text"], "--output-dir", out)
    assert result.exit_code == 2 and "not empty" in result.stderr
