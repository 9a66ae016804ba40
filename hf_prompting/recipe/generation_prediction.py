"""Generate texts with the folder of a generation run, or of any encoder-decoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from hf_prompting.bases import BaseModelSource, load_base_model, load_base_tokenizer
from hf_prompting.errors import DataError, HfPromptingError, TemplateSyntaxError
from hf_prompting.evaluation.generation import generate_texts
from hf_prompting.recipe.prediction import InputRow
from hf_prompting.recipe.spreading import spread
from hf_prompting.templates import PromptTemplate


@dataclass(frozen=True)
class Generator:
    """A saved encoder-decoder, ready to use.

    Attributes:
        model: in evaluation mode; its ``generation_config`` says how texts are searched.
        tokenizer: puts soft tokens at the source, if there are any.
        prefix: text before every source.
        decoder_prefix: soft tokens behind the decoder's start.
        template: one field, named as the source column, so that rows are read as those of a classifier are.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    prefix: str
    decoder_prefix: tuple[int, ...]
    template: PromptTemplate


def generates_text(folder: str) -> bool:
    """Tell from its ``config.json`` whether a folder or Hub id is that of a generation run."""
    path = Path(folder)
    if not path.exists() and folder.count("/") != 1:
        return False
    try:
        config, _ = PreTrainedConfig.get_config_dict(folder)
    except Exception:  # whatever is wrong with it, or with the connection, is said where it is loaded
        return False
    return "text_to_text" in config


def load_generator(folder: str) -> Generator:
    """Load what a generation run saved.

    Raises:
        BaseModelError: the folder is damaged.
    Example:
        >>> load_generator("outputs/translation-en-zh-scratch").prefix  # doctest: +SKIP
        ''
    """
    source = BaseModelSource(folder)
    model = load_base_model(source, task="seq2seq")
    tokenizer = load_base_tokenizer(source)
    settings = model.config.text_to_text
    if torch.cuda.is_available():
        model.to("cuda")
    return Generator(
        model=model,
        tokenizer=tokenizer,
        prefix=str(settings.get("prefix", "")),
        decoder_prefix=tuple(settings.get("decoder_prefix", ())),
        template=_one_field(str(settings.get("source", "text"))),
    )


def generate_rows(
    generator: Generator, rows: Iterable[InputRow], *, batch_size: int, batches_ahead: int = 1
) -> Iterator[dict[str, Any]]:
    """Generate a text for every row, some batches at a time; several processes share them, and each yields all.

    Args:
        generator: from ``load_generator``.
        rows: any number of rows; they are read as they are needed, by process 0 alone.
        batch_size: B rows at a time.
        batches_ahead: batches of every process that are read together, so that rows of like length share one.
    Yields:
        ``{"text": ...}`` for each row, in order; ``{"text": None, "skipped": "blank line"}`` for a row that is none.
    Raises:
        DataError: a row holds no text; its place is named, and all rows before it have been yielded.
    Example:
        >>> next(generate_rows(generator, [InputRow("text 1", {"en": "Hello."})], batch_size=1))  # doctest: +SKIP
        {'text': '你好。'}
    """

    def work(chunk: list[InputRow]) -> tuple[list[dict[str, Any]], HfPromptingError | None]:
        return _generate_chunk(generator, chunk, batch_size)

    yield from spread(rows, batch_size * batches_ahead, work)


def _generate_chunk(
    generator: Generator, chunk: list[InputRow], batch_size: int
) -> tuple[list[dict[str, Any]], HfPromptingError | None]:
    """Generate for the rows up to the first that holds no text."""
    results: list[dict[str, Any]] = []
    sources: dict[int, str] = {}
    error = None
    for place, row in enumerate(chunk):
        results.append({"text": None, "skipped": row.skipped})
        if row.skipped is None:
            try:
                sources[place] = generator.prefix + _text(row)
            except HfPromptingError as found:
                results.pop()
                error = found
                break
    texts = generate_texts(
        generator.model,
        generator.tokenizer,
        list(sources.values()),
        batch_size=batch_size,
        decoder_prefix=generator.decoder_prefix,
    )
    for place, text in zip(sources, texts, strict=True):
        results[place] = {"text": text}
    return results, error


def _text(row: InputRow) -> str:
    (value,) = row.values.values()
    if not isinstance(value, str | int | float):
        raise DataError(f"{row.place}: {value!r:.40} is no text")
    text = str(value)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(f"{row.place}: half a surrogate pair is not text; remove it")
    return text


def _one_field(name: str) -> PromptTemplate:
    try:
        return PromptTemplate.parse(f"{{{name}}}{{mask}}")
    except TemplateSyntaxError:  # a column whose name no template can hold
        return PromptTemplate.parse("{text}{mask}")
