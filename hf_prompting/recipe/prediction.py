"""Classify rows with a saved folder, a batch at a time, in the order they came."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hf_prompting.bases import hub_problem
from hf_prompting.classifier import PromptForSequenceClassification
from hf_prompting.data import load_rows
from hf_prompting.errors import ArtifactError, DataError, FieldError, HfPromptingError, HubError
from hf_prompting.recipe.reader import RECIPE_FILE
from hf_prompting.templates import PromptTemplate

CLASSIFIER_TYPE = "prompt_classifier"
UNLIMITED = 10**9  # tokenizers without a limit of their own say 10**30


@dataclass(frozen=True)
class Classifier:
    """A saved classifier, ready to use."""

    model: PromptForSequenceClassification
    tokenizer: PreTrainedTokenizerFast
    template: PromptTemplate


@dataclass(frozen=True)
class InputRow:
    """One row to classify: where it came from, and the text of each field."""

    place: str
    values: dict[str, Any]


def load_classifier(folder: str, *, base_model: str | None = None) -> Classifier:
    """Load a saved folder (or Hub id) and the base model it names.

    Args:
        folder: what ``hf-prompting run`` or ``save_pretrained`` wrote.
        base_model: id or folder of the base to use instead of the recorded one.
    Raises:
        ArtifactError: it is no folder of a prompt classifier.
        BaseModelError, BaseModelMismatchError: the base is not there, or another one.
    Example:
        >>> load_classifier("outputs/movie-reviews-soft-prompt").model.config.id2label  # doctest: +SKIP
        {0: 'negative', 1: 'positive'}
    """
    tokenizer = load_tokenizer(folder)
    model = PromptForSequenceClassification.from_pretrained(folder, base_model=base_model)
    if torch.cuda.is_available():
        model.to("cuda")
    return Classifier(model, tokenizer, tokenizer.prompt_template)


def load_tokenizer(folder: str) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a saved folder alone, with its template.

    Raises:
        ArtifactError: it is no folder of a prompt classifier, or its tokenizer is damaged.
        HubError: the Hub does not give it.
    """
    _check_folder(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except HfPromptingError:
        raise
    except Exception as error:  # tokenizers raises bare exceptions for a damaged tokenizer.json
        if problem := hub_problem(folder, error):
            raise HubError(problem) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ArtifactError(f"the tokenizer of {folder!r} cannot be loaded: {reason}; save the folder again") from error
    if getattr(tokenizer, "prompt_template", None) is None:
        raise ArtifactError(f"the tokenizer of {folder!r} holds no template; save it with the classifier")
    return tokenizer


def rows_of_texts(template: PromptTemplate, texts: Sequence[str], pairs: Sequence[str]) -> list[InputRow]:
    """Return a row for every text given on the command line.

    Raises:
        FieldError: the template has another number of fields than texts were given for.
    """
    names = [field.name for field in template.fields]
    if len(names) > 2:
        raise FieldError(f"the template has {len(names)} fields, {names}; give the rows with --file")
    if len(names) == 2 and len(pairs) != len(texts):
        raise FieldError(
            f"the template has two fields, {names}, so every --text needs a --text-pair; there are {len(texts)} and "
            f"{len(pairs)}"
        )
    if len(names) == 1 and pairs:
        raise FieldError(f"the template has one field, {names[0]!r}, so --text-pair has no place to go")
    columns = [texts, pairs][: len(names)]
    return [
        InputRow(f"text {number}", dict(zip(names, values, strict=True)))
        for number, values in enumerate(zip(*columns, strict=True), start=1)
    ]


def rows_of_file(template: PromptTemplate, file: Path, columns: Sequence[str]) -> list[InputRow]:
    """Return the rows of a .jsonl, .json, .csv, .tsv or .parquet file.

    Args:
        template: names the fields.
        file: the file.
        columns: the file's columns in the order of the template's fields; empty for columns of the same names.
    Raises:
        DataError: the file, a column or a text is missing.
    """
    names = _columns(template, columns)
    if not file.is_file():
        raise DataError(f"no such file: {file}")
    rows = load_rows(file.parent, file.name)
    rows.require_texts(names.values())
    table = {name: list(rows.table[column]) for name, column in names.items()}
    return [
        InputRow(rows.place(index), {name: values[index] for name, values in table.items()})
        for index in range(len(rows))
    ]


def rows_of_lines(template: PromptTemplate, lines: Iterable[bytes], columns: Sequence[str]) -> Iterator[InputRow]:
    """Return a row for every line of standard input, as it comes: a plain text, or a JSON object.

    Lines are JSON objects where ``columns`` are given or the template has several fields.

    Raises:
        DataError: a line is not UTF-8, no JSON object, or lacks a column.
    """
    names = _columns(template, columns)
    as_json = bool(columns) or len(names) > 1
    for number, raw in enumerate(lines, start=1):
        place = f"standard input, line {number}"
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{place}: byte {error.start + 1} is not UTF-8") from error
        if not as_json:
            yield InputRow(place, {next(iter(names)): text})
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: not valid JSON; one object a line is needed") from error
        missing = [column for column in names.values() if not isinstance(row, dict) or column not in row]
        if missing:
            raise DataError(f"{place}: an object with {sorted(names.values())} is needed; missing: {missing}")
        yield InputRow(place, {name: row[column] for name, column in names.items()})


def predict_rows(classifier: Classifier, rows: Iterable[InputRow], *, batch_size: int) -> Iterator[dict[str, Any]]:
    """Classify rows, a batch at a time.

    Args:
        classifier: from ``load_classifier``.
        rows: any number of rows; they are read as batches are needed.
        batch_size: B rows at a time.
    Yields:
        ``{"label": ..., "scores": {label: probability}}`` for each row, in order.
    Raises:
        HfPromptingError: a row cannot be tokenised; its place is named, and all rows before it have been yielded.
    Example:
        >>> next(predict_rows(classifier, [InputRow("text 1", {"text": "great fun"})], batch_size=1))  # doctest: +SKIP
        {'label': 'positive', 'scores': {'negative': 0.11, 'positive': 0.89}}
    """
    remaining = iter(rows)
    while batch := list(itertools.islice(remaining, batch_size)):
        try:
            encoded = _encode(classifier, batch)
        except HfPromptingError:
            good, error = _rows_before_the_bad_one(classifier, batch)
            if good:
                yield from _scored(classifier, _encode(classifier, good))
            raise error from None
        yield from _scored(classifier, encoded)


def _check_folder(folder: str) -> None:
    path = Path(folder)
    if not path.exists() and (folder.startswith((".", "/", "~")) or folder.count("/") != 1):
        raise ArtifactError(f"no such folder: {folder}; give a folder that `hf-prompting run` saved, or a Hub id")
    if not path.is_dir():
        return
    config = path / "config.json"
    if not config.is_file():
        hint = f"; it is a recipe: run it first (hf-prompting run {folder})" if (path / RECIPE_FILE).is_file() else ""
        raise ArtifactError(f"{folder} has no config.json, so it is no saved classifier{hint}")
    try:
        kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError, OSError) as error:
        raise ArtifactError(f"{config} is unreadable or no JSON object; save the folder again") from error
    if kind != CLASSIFIER_TYPE:
        raise ArtifactError(f"{folder} holds a model of type {kind!r}; a {CLASSIFIER_TYPE!r} is needed")


def _columns(template: PromptTemplate, columns: Sequence[str]) -> dict[str, str]:
    names = [field.name for field in template.fields]
    if columns and len(columns) != len(names):
        raise FieldError(
            f"the template has the fields {names}; give --field {len(names)} times, in their order, instead of "
            f"{len(columns)} times"
        )
    return dict(zip(names, columns or names, strict=True))


def _encode(classifier: Classifier, rows: Sequence[InputRow]) -> Any:
    tokenizer = classifier.tokenizer
    max_length = tokenizer.model_max_length if tokenizer.model_max_length < UNLIMITED else None
    columns = {field.name: [row.values[field.name] for row in rows] for field in classifier.template.fields}
    texts = classifier.template.render_batch(columns, tokenizer=tokenizer, max_length=max_length)
    return tokenizer(**texts, truncation=max_length is not None, padding=True, return_tensors="pt")


def _rows_before_the_bad_one(classifier: Classifier, batch: list[InputRow]) -> tuple[list[InputRow], HfPromptingError]:
    for number, row in enumerate(batch):
        try:
            _encode(classifier, [row])
        except HfPromptingError as error:
            return batch[:number], type(error)(f"{row.place}: {error}")
    raise AssertionError("a batch failed although each of its rows alone does not")


def _scored(classifier: Classifier, encoded: Any) -> Iterator[dict[str, Any]]:
    model = classifier.model
    with torch.inference_mode():
        logits_BC = model(
            input_ids=encoded["input_ids"].to(model.device), attention_mask=encoded["attention_mask"].to(model.device)
        ).logits
    for probabilities in logits_BC.float().softmax(-1).tolist():
        scores = {model.config.id2label[number]: round(value, 6) for number, value in enumerate(probabilities)}
        yield {"label": max(scores, key=scores.__getitem__), "scores": scores}
