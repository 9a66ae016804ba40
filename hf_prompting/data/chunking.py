"""Long texts cut into blocks that a model can read, for pre-training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from datasets import Dataset

from hf_prompting.data.rows import Rows
from hf_prompting.errors import DataError
from hf_prompting.templates.compiler import text_affixes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def chunk_texts(
    rows: Rows, column: str, *, tokenizer: PreTrainedTokenizerBase, max_length: int, pack: bool = False
) -> Dataset:
    """Tokenise a column and cut it into blocks of at most ``max_length`` tokens.

    Every block stands between the special tokens that the tokenizer puts around a text; they count. No token is lost
    and none appears twice.

    Args:
        rows: the texts, one document a row; empty ones are left out.
        column: names the texts.
        tokenizer: a fast tokenizer.
        max_length: T at most.
        pack: join all documents, with the token that ends a text between them, so that every block but the last is
            full; by default no block holds two documents.
    Returns:
        Blocks in order, with ``input_ids`` and, unless packed, ``document``, the number of the row.
    Raises:
        DataError: there is no such column or no text, a block has no room for text, or the tokenizer has no token to
            put between documents.
    Example:
        >>> chunk_texts(rows, "text", tokenizer=tokenizer, max_length=128)["input_ids"]  # doctest: +SKIP
    """
    rows.require_texts([column])
    before, after = text_affixes(tokenizer.backend_tokenizer)
    room = max_length - len(before) - len(after)
    if room < 1:
        raise DataError(
            f"max_length is {max_length}, but the tokenizer's own special tokens take {len(before) + len(after)}; "
            f"allowed: at least {len(before) + len(after) + 1}"
        )
    texts = [str(text) for text in rows.values(column)]
    documents = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    numbered = [(number, ids) for number, ids in enumerate(documents) if ids]
    if not numbered:
        raise DataError(f"{rows.source}: column {column!r} holds no text; at least one is needed")
    if pack:
        packed = _joined([ids for _, ids in numbered], _separator(tokenizer))
        return Dataset.from_dict({"input_ids": [[*before, *block, *after] for block in _blocks(packed, room)]})
    blocks = [(number, block) for number, ids in numbered for block in _blocks(ids, room)]
    return Dataset.from_dict(
        {
            "input_ids": [[*before, *block, *after] for _, block in blocks],
            "document": [number for number, _ in blocks],
        }
    )


def following_pairs(blocks: Dataset) -> Dataset:
    """Pair every block with the one that follows it in its document, for the next-sentence objective.

    Args:
        blocks: from ``chunk_texts`` without ``pack``.
    Returns:
        Rows with ``input_ids``, ``next_input_ids`` and ``document``.
    Raises:
        DataError: no document has two blocks.
    Example:
        >>> blocks = Dataset.from_dict({"input_ids": [[1], [2], [3]], "document": [0, 0, 1]})
        >>> following_pairs(blocks)["next_input_ids"][:]
        [[2]]
    """
    pairs = [
        {"input_ids": first["input_ids"], "next_input_ids": second["input_ids"], "document": first["document"]}
        for first, second in pairwise(blocks)
        if first["document"] == second["document"]
    ]
    if not pairs:
        raise DataError("no document has two blocks; choose a smaller max_length, or longer documents")
    return Dataset.from_list(pairs)


def _blocks(ids: Sequence[int], room: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), room):
        yield ids[start : start + room]


def _joined(documents: Sequence[Sequence[int]], separator: int) -> list[int]:
    return [token for ids in documents for token in (*ids, separator)][:-1]


def _separator(tokenizer: PreTrainedTokenizerBase) -> int:
    for token_id in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        if token_id is not None:
            return int(token_id)
    raise DataError(
        "the tokenizer has neither eos_token nor sep_token to put between documents; set one, or do not pack"
    )
