"""A prompt and its soft tokens in pieces that a reader can look at."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hf_prompting.artifacts.escaping import visible
from hf_prompting.recipe.prediction import UNLIMITED, Classifier
from hf_prompting.soft_prompts.nearest import nearest_rows
from hf_prompting.templates import PartKind, PromptToken, describe_prompt

MAX_SHARING = 4  # tokens that can share one character: a character of UTF-8 has at most so many bytes
MAX_SHOWN = 400  # pieces; a browser draws thousands slowly, and nobody reads them
UNFINISHED = "\ufffd"  # what a tokenizer decodes a part of a character to
SPACE = "␣"  # a word with a space before it is another one than the word without
ANSWER = "…"  # stands where a causal model answers, behind the last token


@dataclass(frozen=True)
class Piece:
    """A stretch of a prompt: its visible text, and the kind of its tokens (None for a remark)."""

    text: str
    kind: str | None


def prompt_pieces(classifier: Classifier, row: Mapping[str, str]) -> list[Piece]:
    """Split a prompt as the model reads it into pieces with their kinds.

    A piece is one token, or the tokens that together make one character, as is common with Chinese.

    Args:
        classifier: gives the tokenizer and its template.
        row: field -> text.
    Returns:
        The pieces in order; for a causal model a last one of kind ``slot`` stands for its answer. In the middle of a
        very long prompt one piece without a kind says how many are not shown.
    Raises:
        FieldError, InputTextError, TemplateLengthError: the texts do not fit the template, or cannot be tokenised.
    Example:
        >>> prompt_pieces(classifier, {"text": "great"})[-2:]  # doctest: +SKIP
        [Piece(text=' was', kind='template'), Piece(text='…', kind='slot')]
    """
    tokenizer: Any = classifier.tokenizer
    limit = tokenizer.model_max_length if tokenizer.model_max_length < UNLIMITED else None
    texts = classifier.template.render(row, tokenizer=tokenizer, max_length=limit)
    tokens = describe_prompt(tokenizer, texts["text"], texts.get("text_pair"), max_length=limit)
    pieces = list(whole_characters(tokenizer, tokens))
    if not any(token.kind is PartKind.SLOT for token in tokens):
        pieces.append(Piece(ANSWER, PartKind.SLOT.value))
    if len(pieces) <= MAX_SHOWN:
        return pieces
    half = MAX_SHOWN // 2
    return [*pieces[:half], Piece(f" … {len(pieces) - 2 * half:,} … ", None), *pieces[-half:]]


def whole_characters(tokenizer: Any, tokens: Sequence[PromptToken]) -> Iterator[Piece]:
    """Join the tokens that share a character, so that every piece can be read; a soft token is its number.

    Example:
        >>> [piece.text for piece in whole_characters(tokenizer, tokens)]  # doctest: +SKIP
        ['好', '看']
    """
    number_of = {token_id: number for number, token_id in enumerate(tokenizer.soft_token_ids)}
    for kind, run in itertools.groupby(tokens, key=lambda token: token.kind):
        rest = list(run)
        if kind is PartKind.SOFT:
            yield from (Piece(str(number_of[token.id]), kind.value) for token in rest)
            continue
        while rest:
            size = _tokens_of_first_character(tokenizer, rest)
            text = rest[0].text if size == 1 else _decode(tokenizer, rest[:size])
            yield Piece(visible(text), kind.value)
            rest = rest[size:]


def soft_token_words(classifier: Classifier, *, num_words: int = 3) -> list[list[tuple[str, float]]]:
    """Find the vocabulary words nearest to each soft token, by cosine over the base's input embedding.

    Returns:
        For each soft token, in order, its words with their cosines; an empty list for a template without soft tokens.
    Example:
        >>> soft_token_words(classifier)[0][0]  # doctest: +SKIP
        ('␣Review', 0.83)
    """
    model, tokenizer = classifier.model, classifier.tokenizer
    if model.soft_prompt is None:
        return []
    weight_VH = model.base.get_input_embeddings().weight
    known = torch.tensor(sorted(set(tokenizer.get_vocab().values()) - set(model.soft_prompt.token_ids)))
    is_word_V = torch.zeros(len(weight_VH), dtype=torch.bool)
    is_word_V[known[known < len(weight_VH)]] = True  # rows behind the vocabulary are padding
    rows_PH = model.soft_prompt.materialize()
    cosines_PK, ids_PK = nearest_rows(rows_PH, weight_VH, num_nearest=num_words, is_allowed_V=is_word_V)
    return [
        [(_word(tokenizer, token_id), cosine) for token_id, cosine in zip(ids, cosines, strict=True)]
        for ids, cosines in zip(ids_PK.tolist(), cosines_PK.tolist(), strict=True)
    ]


def _tokens_of_first_character(tokenizer: Any, tokens: Sequence[PromptToken]) -> int:
    """Return how many tokens to join so that the first piece is whole; 1 where no number of them is."""
    if UNFINISHED not in tokens[0].text:
        return 1
    sizes = range(2, min(MAX_SHARING, len(tokens)) + 1)
    return next((size for size in sizes if UNFINISHED not in _decode(tokenizer, tokens[:size])), 1)


def _decode(tokenizer: Any, tokens: Sequence[PromptToken]) -> str:
    return str(tokenizer.backend_tokenizer.decode([token.id for token in tokens], skip_special_tokens=False))


def _word(tokenizer: Any, token_id: int) -> str:
    text = str(tokenizer.backend_tokenizer.decode([token_id], skip_special_tokens=False))
    word = visible(text if text and UNFINISHED not in text else tokenizer.convert_ids_to_tokens(token_id))
    return word.replace(" ", SPACE)
