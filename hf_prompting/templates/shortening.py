"""Shortens the fields of joined texts until their prompts fit, where the tokenizer cannot do so by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerFast

from hf_prompting.errors import TemplateLengthError
from hf_prompting.templates.rendering import TEXT_KEYS, TextGroup, render_groups
from hf_prompting.templates.segments import Field

Values = Mapping[str, str]


def shorten_rows(
    groups: Sequence[TextGroup], rows: Sequence[Values], tokenizer: PreTrainedTokenizerFast, max_length: int
) -> list[Values]:
    """Cut fields at token borders, the longest first, until each whole prompt has at most ``max_length`` tokens.

    Text between the fields is never cut. The side that is cut is the tokenizer's ``truncation_side``.

    Args:
        groups: the template's text groups.
        rows: N rows of field name -> text.
        tokenizer: a tokenizer compiled from the same template.
        max_length: tokens allowed for a whole prompt.
    Returns:
        N rows, some with shorter texts.
    Raises:
        TemplateLengthError: if a prompt is too long even with all fields empty that may be shortened.
    """
    lengths = _prompt_lengths(groups, rows, tokenizer)
    return [
        row if length <= max_length else _shorten(groups, row, tokenizer, max_length)
        for row, length in zip(rows, lengths, strict=True)
    ]


def _shorten(
    groups: Sequence[TextGroup], row: Values, tokenizer: PreTrainedTokenizerFast, max_length: int
) -> dict[str, str]:
    texts = dict(row)
    shortenable = [part.name for group in groups for part in group if isinstance(part, Field) and part.may_shorten]
    while (excess := _prompt_lengths(groups, [texts], tokenizer)[0] - max_length) > 0:
        borders = {name: _token_borders(texts[name], tokenizer) for name in shortenable if texts[name]}
        if not borders:
            raise TemplateLengthError(
                f"the prompt has {max_length + excess} tokens with every field that may be shortened empty, but"
                f" max_length is {max_length}; raise max_length, shorten the template, or drop a ':fixed'"
            )
        kept = _fair_shares({name: len(spans) for name, spans in borders.items()}, excess)
        for name, spans in borders.items():
            if kept[name] < len(spans):
                texts[name] = _cut(texts[name], spans, kept[name], tokenizer.truncation_side)
    return texts


def _prompt_lengths(
    groups: Sequence[TextGroup], rows: Sequence[Values], tokenizer: PreTrainedTokenizerFast
) -> list[int]:
    if not rows:
        return []
    rendered = [render_groups(groups, row) for row in rows]
    texts = {key: [row[key] for row in rendered] for key in TEXT_KEYS[: len(groups)]}
    return [len(ids) for ids in tokenizer(**texts, truncation=False, verbose=False)["input_ids"]]


def _token_borders(text: str, tokenizer: PreTrainedTokenizerFast) -> list[tuple[int, int]]:
    """Character spans of the tokens of a text; never empty, so that a text of no tokens can be cut as well."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False)
    return [(int(start), int(end)) for start, end in encoded["offset_mapping"]] or [(0, len(text))]


def _fair_shares(lengths: Mapping[str, int], excess: int) -> dict[str, int]:
    """How many tokens each field keeps when the longest ones are cut down to one common length.

    Example:
        >>> _fair_shares({"a": 10, "b": 2, "c": 7}, excess=9)
        {'b': 2, 'c': 4, 'a': 4}
    """
    remaining = max(0, sum(lengths.values()) - excess)
    kept: dict[str, int] = {}
    for name in sorted(lengths, key=lambda field: lengths[field]):
        kept[name] = min(lengths[name], remaining // (len(lengths) - len(kept)))
        remaining -= kept[name]
    return kept


def _cut(text: str, spans: list[tuple[int, int]], num_kept: int, side: str) -> str:
    """Keep so many tokens, or fewer where several tokens make up one character, so that the text gets shorter."""
    for kept in range(num_kept, 0, -1):
        shorter = text[: spans[kept - 1][1]] if side == "right" else text[spans[-kept][0] :]
        if len(shorter) < len(text):
            return shorter
    return ""
