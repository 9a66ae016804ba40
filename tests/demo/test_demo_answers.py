"""The answers behind the page: scores equal those of ``predict``, and a mistake becomes words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_recipes import write_rows

from hf_prompting.demo.answers import MAX_CELL, MAX_ROWS_SHOWN, answer_file, answer_texts, lines_of, table_of
from hf_prompting.recipe.prediction import Classifier, InputRow, predict_rows

TEXTS = ["great, moving story", "I hated it", "", "这部电影很好看"]


def ignore(done: int, total: int) -> None:
    """Take no notice of progress."""


def test_one_text_has_the_scores_of_predict(classifier: Classifier) -> None:
    for text in TEXTS:
        (expected,) = predict_rows(classifier, [InputRow("", {"text": text})], batch_size=1)
        answer = answer_texts(classifier, {"text": text})
        assert answer.scores == expected["scores"]
        assert answer.problem == ""
        assert answer.pieces[-1].kind == "slot"


def test_a_text_that_cannot_be_read_becomes_words(classifier: Classifier) -> None:
    answer = answer_texts(classifier, {"text": "a\ud800"})
    assert "half of a surrogate pair" in answer.problem
    assert not answer.scores


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_a_file_is_scored_in_its_order(classifier: Classifier, tmp_path: Path, name: str) -> None:
    texts = [text or "-" for text in TEXTS] * 5
    if name.endswith("csv"):
        (tmp_path / name).write_text("review\n" + "".join(f'"{text}"\n' for text in texts), encoding="utf-8")
    else:
        write_rows(tmp_path / name, [{"review": text} for text in texts])
    told: list[tuple[int, int]] = []
    answer = answer_file(classifier, tmp_path / name, ["review"], lambda *numbers: told.append(numbers))
    assert told == [(number, 20) for number in range(1, 21)]
    assert [row.values["text"] for row in answer.rows] == texts
    for text, result in zip(texts, answer.results, strict=True):
        assert result["scores"] == pytest.approx(answer_texts(classifier, {"text": text}).scores, abs=2e-6)
    lines = [json.loads(line) for line in lines_of(answer).splitlines()]
    assert lines[3] == {**answer.results[3], "row": {"text": texts[3]}}


def test_rows_before_a_bad_one_are_kept_and_its_line_is_named(classifier: Classifier, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.csv", [])
    file.write_text("text\ngood\nbad\n", encoding="utf-8")
    assert answer_file(classifier, file, [], ignore).problem == ""
    rows = "".join(json.dumps({"text": text}) + "\n" for text in ["good", "a\ud800b", "bad"])
    (tmp_path / "rows.jsonl").write_text(rows, encoding="utf-8")
    answer = answer_file(classifier, tmp_path / "rows.jsonl", [], ignore)
    assert "rows.jsonl" in answer.problem
    assert len(answer.rows) == len(answer.results) < 3


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', "line 2"),
        ("b.csv", b"review\ngood\n", "no column 'text'"),
        ("c.parquet", b"PAR1 not really", "cannot be read as parquet"),
        ("d.txt", b"x", "no known format"),
        ("e.jsonl", b"", "has no rows"),
        ("f.csv", b"text\n\xff\n", "UTF-8"),
    ],
)
def test_a_bad_file_becomes_words_without_its_path(
    classifier: Classifier, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    answer = answer_file(classifier, tmp_path / name, [], ignore)
    assert said in answer.problem
    assert str(tmp_path) not in answer.problem
    assert not answer.rows


def test_the_table_is_short_and_has_nothing_invisible(classifier: Classifier, tmp_path: Path) -> None:
    texts = ["good " * 60, "a\u202eb", *["good"] * MAX_ROWS_SHOWN]
    answer = answer_file(classifier, write_rows(tmp_path / "r.jsonl", [{"text": text} for text in texts]), [], ignore)
    table = table_of(answer)
    assert len(table) == MAX_ROWS_SHOWN
    assert table[0][0] == ("good " * 60)[:MAX_CELL] + "…"
    assert table[1][0] == "a\\u202eb"
    label, scores = table[1][1:]
    assert scores.startswith(f"{label} 0.")
    assert len(lines_of(answer).splitlines()) == len(texts)
