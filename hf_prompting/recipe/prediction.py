"""Classify rows with a saved folder, some batches at a time, in the order they came.

Rows are read as they are needed, so a file may be larger than memory; several processes share them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hf_prompting.bases import hub_problem
from hf_prompting.classifier import PromptForSequenceClassification
from hf_prompting.data import stream_rows
from hf_prompting.errors import ArtifactError, DataError, FieldError, HfPromptingError, HubError
from hf_prompting.processes import num_processes, one_first
from hf_prompting.recipe.reader import RECIPE_FILE
from hf_prompting.recipe.spreading import spread
from hf_prompting.templates import PromptTemplate
from hf_prompting.training import out_of_memory_says

CLASSIFIER_TYPE = "prompt_classifier"
UNLIMITED = 10**9  # tokenizers without a limit of their own say 10**30
BATCHES_AHEAD = 16  # batches of a file that are sorted by length together: less padding, and little to hold
BLANK = "blank line"


@dataclass(frozen=True)
class Classifier:
    """A saved classifier, ready to use."""

    model: PromptForSequenceClassification
    tokenizer: PreTrainedTokenizerFast
    template: PromptTemplate


@dataclass(frozen=True)
class InputRow:
    """One row to classify: where it came from, the text of each field, and why it is not classified, if so."""

    place: str
    values: dict[str, Any]
    skipped: str | None = None


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
    with one_first():
        model = PromptForSequenceClassification.from_pretrained(folder, base_model=base_model)
    if num_processes() > 1:
        from accelerate import PartialState

        model.to(PartialState().device)
    elif torch.cuda.is_available():
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


def rows_of_file(template: PromptTemplate, file: Path, columns: Sequence[str]) -> Iterator[InputRow]:
    """Yield the rows of a .jsonl, .json, .csv, .tsv or .parquet file, holding a few at a time.

    Args:
        template: names the fields.
        file: the file.
        columns: the file's columns in the order of the template's fields; empty for columns of the same names.
    Raises:
        DataError: the file, a column or a text is missing.
    """
    names = _columns(template, columns)
    for place, values in stream_rows(file, list(names.values())):
        yield InputRow(place, {name: values[column] for name, column in names.items()})


def rows_of_lines(template: PromptTemplate, lines: Iterable[bytes], columns: Sequence[str]) -> Iterator[InputRow]:
    """Return a row for every line of standard input, as it comes: a plain text, or a JSON object.

    Lines are JSON objects where ``columns`` are given or the template has several fields. A blank line is no text, but
    still gets its line of output, so that the two can be laid side by side.

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
        if not text.strip():
            yield InputRow(place, {}, skipped=BLANK)
            continue
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


def predict_rows(
    classifier: Classifier, rows: Iterable[InputRow], *, batch_size: int, batches_ahead: int = 1
) -> Iterator[dict[str, Any]]:
    """Classify rows, some batches at a time; several processes share them, and each yields all results.

    Args:
        classifier: from ``load_classifier``.
        rows: any number of rows; they are read as they are needed, by process 0 alone.
        batch_size: B rows at a time.
        batches_ahead: batches of every process that are read together, so that rows of like length share one. With 1,
            no row waits for more than a batch.
    Yields:
        ``{"label": ..., "scores": {label: probability}}`` for each row, in order; ``{"label": None, "scores": {},
        "skipped": "blank line"}`` for a row that is none.
    Raises:
        HfPromptingError: a row cannot be tokenised; its place is named, and all rows before it have been yielded.
    Example:
        >>> next(predict_rows(classifier, [InputRow("text 1", {"text": "great fun"})], batch_size=1))  # doctest: +SKIP
        {'label': 'positive', 'scores': {'negative': 0.11, 'positive': 0.89}}
    """

    def work(chunk: list[InputRow]) -> tuple[list[dict[str, Any]], HfPromptingError | None]:
        return _predict_chunk(classifier, chunk, batch_size)

    yield from spread(rows, batch_size * batches_ahead, work)


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
        raise ArtifactError(f"{folder} holds a model of type {kind!r}; this needs a prompt ({CLASSIFIER_TYPE!r})")


def _columns(template: PromptTemplate, columns: Sequence[str]) -> dict[str, str]:
    names = [field.name for field in template.fields]
    if columns and len(columns) != len(names):
        raise FieldError(
            f"the template has the fields {names}; give --field {len(names)} times, in their order, instead of "
            f"{len(columns)} times"
        )
    return dict(zip(names, columns or names, strict=True))


def _predict_chunk(
    classifier: Classifier, chunk: list[InputRow], batch_size: int
) -> tuple[list[dict[str, Any]], HfPromptingError | None]:
    """Classify the rows up to the first that cannot be tokenised, the longest first."""
    places = [number for number, row in enumerate(chunk) if row.skipped is None]
    error = None
    try:
        prompts = _encode(classifier, [chunk[place] for place in places])
    except HfPromptingError:
        end, error = _first_bad_row(classifier, chunk, places)
        chunk, places = chunk[:end], [place for place in places if place < end]
        prompts = _encode(classifier, [chunk[place] for place in places])
    results: list[dict[str, Any]] = [{"label": None, "scores": {}, "skipped": row.skipped} for row in chunk]
    order = sorted(range(len(places)), key=lambda number: -len(prompts[number]))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        for number, result in zip(batch, _scored(classifier, [prompts[number] for number in batch]), strict=True):
            results[places[number]] = result
    return results, error


def _encode(classifier: Classifier, rows: Sequence[InputRow]) -> list[list[int]]:
    if not rows:
        return []
    tokenizer = classifier.tokenizer
    max_length = tokenizer.model_max_length if tokenizer.model_max_length < UNLIMITED else None
    columns = {field.name: [row.values[field.name] for row in rows] for field in classifier.template.fields}
    texts = classifier.template.render_batch(columns, tokenizer=tokenizer, max_length=max_length)
    prompts: list[list[int]] = tokenizer(**texts, truncation=max_length is not None).input_ids
    return prompts


def _first_bad_row(classifier: Classifier, chunk: list[InputRow], places: list[int]) -> tuple[int, HfPromptingError]:
    for place in places:
        try:
            _encode(classifier, [chunk[place]])
        except HfPromptingError as error:
            return place, type(error)(f"{chunk[place].place}: {error}")
    raise AssertionError("rows failed together although each of them alone does not")


def _scored(classifier: Classifier, prompts: list[list[int]]) -> Iterator[dict[str, Any]]:
    model = classifier.model
    encoded = classifier.tokenizer.pad({"input_ids": prompts}, return_tensors="pt").to(model.device)
    with torch.inference_mode(), out_of_memory_says("lower --batch-size"):
        logits_BC = model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits
    for probabilities in logits_BC.float().softmax(-1).tolist():
        scores = {model.config.id2label[number]: round(value, 6) for number, value in enumerate(probabilities)}
        yield {"label": max(scores, key=scores.__getitem__), "scores": scores}
