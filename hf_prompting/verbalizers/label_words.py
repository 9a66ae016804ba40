"""Label words as token ids, in the place where the model will meet them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

from hf_prompting.errors import LabelWordError
from hf_prompting.verbalizers.verbalizer import Verbalizer

# ids of the pieces of each word of each label: [class][word][piece]
LabelWordIds = tuple[tuple[tuple[int, ...], ...], ...]

_OPENING = "([{<\"'“‘（《「『【"


def tokenize_label_words(verbalizer: Verbalizer, tokenizer: Any, *, context: str = "") -> LabelWordIds:
    """Tokenise every label word as the continuation of the text before the answer slot.

    Args:
        verbalizer: the labels and words.
        tokenizer: the base model's own tokenizer, without a template.
        context: the template's text directly before the slot; "" at the start of a decoder's answer. A space at its
            end is taken as part of the word.
    Returns:
        [class][word][piece] token ids.
    Raises:
        LabelWordError: if a word is lost by the tokenizer, holds an unknown token, or cannot be told from another
            label's word.
    Example:
        >>> tokenize_label_words(Verbalizer({"no": "bad", "yes": "good"}), tokenizer)  # doctest: +SKIP
        (((3841,),), ((1782,),))
    """
    unknown = tokenizer.unk_token_id
    owner_of: dict[tuple[int, ...], tuple[str, str]] = {}
    ids: list[tuple[tuple[int, ...], ...]] = []
    for label in verbalizer.labels:
        of_label = []
        for word in verbalizer.words[label]:
            pieces = _pieces(word, tokenizer, context, verbalizer.leading_space)
            if not pieces or unknown in pieces:
                raise LabelWordError(
                    f"label word {word!r} of label {label!r} is lost by the tokenizer (pieces {list(pieces)}); "
                    "choose a word that the base model's vocabulary can spell"
                )
            if pieces in owner_of:
                other_label, other_word = owner_of[pieces]
                raise LabelWordError(
                    f"label word {word!r} of label {label!r} becomes the same tokens {list(pieces)} as {other_word!r} "
                    f"of label {other_label!r}; the model could not tell them apart: change one of them"
                )
            owner_of[pieces] = (label, word)
            of_label.append(pieces)
        ids.append(tuple(of_label))
    return tuple(ids)


def needs_leading_space(word: str, context: str) -> bool:
    """Tell whether running text would have a space between the context and the word.

    Chinese, Japanese and Thai words follow without a space; so does anything after a line break or an opening bracket.

    Example:
        >>> needs_leading_space("great", "It was"), needs_leading_space("正面", "情感：")
        (True, False)
    """
    if not context or context[-1].isspace() or context[-1] in _OPENING:
        return False
    return _takes_spaces(word[0]) and (_takes_spaces(context[-1]) or context[-1].isascii())


def _takes_spaces(character: str) -> bool:
    name = unicodedata.name(character, "")
    unspaced = (
        "CJK",
        "HIRAGANA",
        "KATAKANA",
        "FULLWIDTH",
        "IDEOGRAPHIC",
        "THAI",
        "LAO",
        "KHMER",
        "MYANMAR",
        "BOPOMOFO",
    )
    return character.isalnum() and not name.startswith(unspaced)


def _pieces(word: str, tokenizer: Any, context: str, leading_space: bool | None) -> tuple[int, ...]:
    bare = context.rstrip(" ")
    spaced = bare != context or (needs_leading_space(word, context) if leading_space is None else leading_space)
    text = f" {word}" if spaced and not word[0].isspace() else word
    # A tokenizer may join the context's end and the word to one token, which prompt and answer never are: then the
    # word is taken as behind a line break, not alone, where Llama's would put a space before it.
    for start in (bare, "\n") if bare else ():
        before, together = _encode(tokenizer, start), _encode(tokenizer, start + text)
        if before and together[: len(before)] == before:
            return tuple(together[len(before) :])
    return tuple(_encode(tokenizer, text))


def _encode(tokenizer: Any, text: str) -> Sequence[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids
