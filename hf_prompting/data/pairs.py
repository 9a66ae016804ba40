"""Pairs of source and target text to token ids, and to padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from torch import Tensor

from hf_prompting.data.rows import Rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100


def texts_of(rows: Rows, column: str) -> list[str]:
    """Return one column as texts; numbers are written out.

    Raises:
        DataError: the column is missing, or a row lacks a text.
    Example:
        >>> texts_of(load_rows("data", "train.jsonl"), "en")  # doctest: +SKIP
        ['How old are your kids?']
    """
    rows.require_texts([column])
    return [str(value) for value in rows.values(column)]


def tokenize_pairs(
    sources: Sequence[str],
    targets: Sequence[str],
    *,
    tokenizer: PreTrainedTokenizerBase,
    target_tokenizer: PreTrainedTokenizerBase | None = None,
    max_source_length: int,
    max_target_length: int,
) -> Dataset:
    """Tokenise N pairs; a text that is too long is cut, its last token stays the tokenizer's end.

    Args:
        sources: N texts.
        targets: N texts.
        tokenizer: of the sources, with whatever it puts around them.
        target_tokenizer: of the targets; the same by default.
        max_source_length: tokens, the tokenizer's own included.
        max_target_length: the same for targets.
    Returns:
        N rows with ``input_ids``, ``attention_mask``, ``labels`` and ``lengths``, the two numbers of tokens.
    Example:
        >>> tokenize_pairs(["a b"], ["c"], tokenizer=tokenizer, max_source_length=8,
        ...                max_target_length=8)["lengths"]  # doctest: +SKIP
        [[3, 2]]
    """
    encoded = tokenizer(list(sources), truncation=True, max_length=max_source_length)
    of_targets = (target_tokenizer or tokenizer)(list(targets), truncation=True, max_length=max_target_length)
    labels = of_targets["input_ids"]
    return Dataset.from_dict(
        {
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "labels": labels,
            "lengths": [[len(ids), len(target)] for ids, target in zip(encoded["input_ids"], labels, strict=True)],
        }
    )


@dataclass(frozen=True, kw_only=True)
class PairCollator:
    """Pad rows of ``tokenize_pairs`` on the right into a batch, with the decoder's input.

    The decoder reads its start, the soft tokens of the target side, if any, and the labels but for the last one; soft
    tokens have the label -100.

    Attributes:
        pad_token_id: what padding is, on both sides.
        decoder_start_token_id: what the decoder reads first.
        decoder_prefix: ids of soft tokens behind it.
    Example:
        >>> collate = PairCollator(pad_token_id=0, decoder_start_token_id=2, decoder_prefix=(9,))
        >>> batch = collate([{"input_ids": [5], "labels": [6, 1]}])
        >>> batch["decoder_input_ids"].tolist(), batch["labels"].tolist()
        ([[2, 9, 6]], [[-100, 6, 1]])
    """

    pad_token_id: int
    decoder_start_token_id: int
    decoder_prefix: tuple[int, ...] = ()

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Return (B, S) ``input_ids`` and ``attention_mask``, (B, T) ``labels`` and ``decoder_input_ids``."""
        sources = [list(row["input_ids"]) for row in rows]
        ignored = [IGNORED] * len(self.decoder_prefix)
        read = [[self.decoder_start_token_id, *self.decoder_prefix, *row["labels"]][:-1] for row in rows]
        return {
            "input_ids": _padded(sources, self.pad_token_id),
            "attention_mask": _padded([[1] * len(ids) for ids in sources], 0),
            "labels": _padded([[*ignored, *row["labels"]] for row in rows], IGNORED),
            "decoder_input_ids": _padded(read, self.pad_token_id),
        }


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], dtype=torch.long)
