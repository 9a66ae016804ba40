"""Copies of a compiled tokenizer that share its vocabulary, the one large part, instead of writing and reading it.

A vocabulary of 262,000 pieces takes 1.1 s and some 70 MB to copy; a bank may hold thousands of templates over one base.
"""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, models

_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")


def empty_tokenizer() -> Tokenizer:
    """Return a tokenizer without a vocabulary, to carry the parts of another one into JSON and back.

    Example:
        >>> empty_tokenizer().get_vocab_size()
        0
    """
    return Tokenizer(models.WordLevel({}, unk_token=""))


def share_vocabulary(backend: Tokenizer) -> Tokenizer:
    """Return a tokenizer of its own, with its own parts and added tokens, over the same vocabulary (``model``).

    Truncation and padding are left out. Whoever changes the vocabulary itself (its dropout, ``train``) changes both.

    Example:
        >>> share_vocabulary(tokenizer.backend_tokenizer).get_vocab_size()  # doctest: +SKIP
        262145
    """
    carrier = empty_tokenizer()
    for name in _PARTS:
        setattr(carrier, name, getattr(backend, name))
    copy = Tokenizer.from_str(carrier.to_str())
    copy.model = backend.model
    copy.encode_special_tokens = backend.encode_special_tokens
    added = backend.get_added_tokens_decoder()
    copy.add_tokens([added[token_id] for token_id in sorted(added)])
    return copy


class SharedVocabulary:
    """Given to a tokenizer class as its ``tokenizer_object``, which that class copies: the copy shares the vocabulary.

    Args:
        backend: the tokenizer to copy.
    Example:
        >>> TokenizersBackend(tokenizer_object=SharedVocabulary(backend))  # doctest: +SKIP
    """

    def __init__(self, backend: Tokenizer) -> None:
        self._backend = backend

    def __deepcopy__(self, memo: dict[int, Any]) -> Tokenizer:
        return share_vocabulary(self._backend)
