"""Rows to token ids, with the template put around them by the tokenizer itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from hf_prompting.data.rows import Rows, quiet_if
from hf_prompting.errors import HfPromptingError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hf_prompting.templates.template import PromptTemplate

BATCH_ROWS = 256
SMALL_TABLE = 2000  # rows, tokenised in a moment


def tokenize_rows(
    rows: Rows,
    *,
    template: PromptTemplate,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    labels: Sequence[int] | None = None,
) -> Dataset:
    """Tokenise every row with its template.

    The result feeds ``Trainer`` with ``DataCollatorWithPadding`` as it is. Nothing is padded here, and nothing is
    written to the cache of ``datasets``: the tables are small and the tokenizer may change between runs.

    Args:
        rows: N rows that have the template's columns.
        template: names the columns.
        tokenizer: the tokenizer that the template was compiled into.
        max_length: T at most; only fields are shortened.
        labels: N class numbers, for training and evaluation.
    Returns:
        A dataset of N rows with ``input_ids``, ``attention_mask``, ``length`` and, where given, ``labels``.
    Raises:
        DataError: a column is missing, or a row lacks a text.
        FieldError, InputTextError, TemplateLengthError: from the template, for a row that cannot be rendered.
    Example:
        >>> tokenize_rows(rows, template=template, tokenizer=tokenizer, max_length=128)  # doctest: +SKIP
    """
    columns = [field.name for field in template.fields]
    rows.require_texts(columns)

    def encode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        texts = template.render_batch(batch, tokenizer=tokenizer, max_length=max_length)
        return dict(tokenizer(**texts, truncation=True, max_length=max_length, return_attention_mask=True))

    def tokenize(batch: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        try:
            encoded = encode(batch)
        except HfPromptingError:
            _name_the_row(encode, batch, [rows.place(index) for index in indices])
            raise
        encoded["length"] = [len(ids) for ids in encoded["input_ids"]]
        if labels is not None:
            encoded["labels"] = [labels[index] for index in indices]
        return encoded

    with quiet_if(len(rows) < SMALL_TABLE):
        return rows.table.select_columns(columns).map(
            tokenize,
            batched=True,
            with_indices=True,
            batch_size=BATCH_ROWS,
            remove_columns=columns,
            keep_in_memory=True,
            load_from_cache_file=False,
            new_fingerprint="tokenised",  # else `datasets` would pickle the tokenizer to make one, for a cache
            desc=f"Tokenise {rows.source}",
        )


def row_lengths(rows: Dataset) -> list[int]:
    """Return the tokens of every tokenised row: its column ``length``, or where there is none, what its ids say.

    Example:
        >>> row_lengths(Dataset.from_dict({"input_ids": [[5, 6], [7]]}))
        [2, 1]
    """
    return list(rows["length"]) if "length" in rows.column_names else [len(ids) for ids in rows["input_ids"]]


def _name_the_row(
    encode: Callable[[dict[str, list[Any]]], Any], batch: dict[str, list[Any]], places: list[str]
) -> None:
    """Encode row by row to find the one that fails, and raise its error with its file and line."""
    for number, place in enumerate(places):
        try:
            encode({name: [values[number]] for name, values in batch.items()})
        except HfPromptingError as error:
            raise type(error)(f"{place}: {error}") from error
