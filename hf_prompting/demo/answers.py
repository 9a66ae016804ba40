"""What the page answers: the class scores of one row or of a file, or the words of what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_prompting.artifacts.escaping import visible
from hf_prompting.demo.pieces import Piece, prompt_pieces
from hf_prompting.errors import HfPromptingError
from hf_prompting.recipe.prediction import Classifier, InputRow, predict_rows, rows_of_file

BATCH_SIZE = 16
MAX_ROWS_SHOWN = 200
MAX_CELL = 160  # characters of a text in the table
MAX_SCORES = 5  # of a row in the table; the file to download has all


@dataclass(frozen=True)
class TextAnswer:
    """The scores of one row, label -> probability, and its prompt; or what is wrong with it."""

    scores: Mapping[str, float]
    pieces: tuple[Piece, ...]
    problem: str = ""


@dataclass(frozen=True)
class FileAnswer:
    """The rows of a file that could be scored, their results, and what is wrong with the next one, if anything."""

    rows: tuple[InputRow, ...]
    results: tuple[Mapping[str, Any], ...]
    problem: str = ""


def answer_texts(classifier: Classifier, row: Mapping[str, str]) -> TextAnswer:
    """Score one row, field -> text, and show its prompt.

    Example:
        >>> answer_texts(classifier, {"text": "great fun"}).scores  # doctest: +SKIP
        {'negative': 0.11, 'positive': 0.89}
    """
    try:
        (result,) = predict_rows(classifier, [InputRow("text", dict(row))], batch_size=1)
        return TextAnswer(result["scores"], tuple(prompt_pieces(classifier, row)))
    except HfPromptingError as error:
        return TextAnswer({}, (), said(error))


def answer_file(
    classifier: Classifier, file: Path, columns: Sequence[str], on_row: Callable[[int, int], None]
) -> FileAnswer:
    """Score the rows of a file, as far as they are in order.

    Args:
        classifier: scores them.
        file: .jsonl, .json, .csv, .tsv or .parquet.
        columns: the file's columns in the order of the template's fields; empty for columns of the same names.
        on_row: is told the number of rows done and of all rows.
    Example:
        >>> answer_file(classifier, Path("rows.csv"), [], print).results[0]["label"]  # doctest: +SKIP
        'positive'
    """
    rows: list[InputRow] = []
    results: list[Mapping[str, Any]] = []
    try:
        rows = list(rows_of_file(classifier.template, file, columns))
        for result in predict_rows(classifier, rows, batch_size=BATCH_SIZE):
            results.append(result)
            on_row(len(results), len(rows))
    except HfPromptingError as error:
        return FileAnswer(tuple(rows[: len(results)]), tuple(results), said(error))
    return FileAnswer(tuple(rows), tuple(results))


def table_of(answer: FileAnswer) -> list[list[str]]:
    """Return cells to show for the first rows: the texts, the label, and the scores, greatest first."""
    shown = zip(answer.rows[:MAX_ROWS_SHOWN], answer.results, strict=False)
    return [
        [*(_cell(value) for value in row.values.values()), visible(result["label"]), _scores(result["scores"])]
        for row, result in shown
    ]


def lines_of(answer: FileAnswer) -> str:
    """Return all results as JSONL: what ``hf-prompting predict`` prints, and the row itself."""
    return "".join(
        json.dumps({**result, "row": row.values}, ensure_ascii=False) + "\n"
        for row, result in zip(answer.rows, answer.results, strict=True)
    )


def said(error: HfPromptingError) -> str:
    """Return an error's message with its lines, without characters that hide or reorder text."""
    return "\n".join(visible(line) for line in str(error).splitlines())


def _scores(scores: Mapping[str, float]) -> str:
    greatest = sorted(scores.items(), key=lambda item: -item[1])[:MAX_SCORES]
    return ", ".join(f"{visible(label)} {value:.3f}" for label, value in greatest)


def _cell(value: object) -> str:
    text = visible(str(value))
    return text if len(text) <= MAX_CELL else f"{text[:MAX_CELL]}…"
