"""Batches of ids without character offsets, which a third of the time goes into and which hardly anyone reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tokenizers import Encoding
from transformers import BatchEncoding

from hf_prompting.errors import TemplateError

# Options of a call that change nothing about offsets; any other that is set needs transformers' own way.
_PLAIN_OPTIONS = frozenset(
    (
        "add_special_tokens", "max_length", "pad_to_multiple_of", "padding_side", "padding_strategy",
        "return_attention_mask", "return_tensors", "return_token_type_ids", "split_special_tokens", "stride",
        "truncation_strategy", "verbose",
    )
)  # fmt: skip


class PromptEncoding(BatchEncoding):  # type: ignore[misc]
    """A ``BatchEncoding`` that finds out only when asked which characters its tokens stand for.

    The first use of ``encodings``, ``tokens()``, ``char_to_token()``, a pickle and so on tokenises the texts again,
    with offsets this time. Made by calling a :class:`hf_prompting.templates.PromptTokenizer` with a list of texts.

    Raises:
        TemplateError: on that first use, if the tokenizer now makes other ids.
    """

    prompts: Sequence[Encoding] = ()
    """Everything but offsets, one for each text."""
    _again: Callable[[], Sequence[Encoding]] | None = None
    _with_offsets: Sequence[Encoding] | None = None

    @classmethod
    def of(
        cls,
        prompts: Sequence[Encoding],
        columns: Mapping[str, list[list[int]]],
        *,
        again: Callable[[], Sequence[Encoding]],
        return_tensors: Any = None,
    ) -> PromptEncoding:
        """Wrap what was tokenised.

        Args:
            prompts: B encodings without offsets.
            columns: what the model takes, such as ``input_ids``: B lists of T ids each.
            again: tokenises the same texts with offsets.
            return_tensors: as for any call of a tokenizer.
        """
        encoded = cls(columns, tensor_type=return_tensors, n_sequences=prompts[0].n_sequences)
        encoded.prompts, encoded._again = prompts, again
        return encoded

    @property
    def is_fast(self) -> bool:
        """True: offsets can be had."""
        return self._again is not None or self._with_offsets is not None

    @property
    def _encodings(self) -> Sequence[Encoding] | None:  # where transformers keeps and reads them
        if self._with_offsets is None and self._again is not None:
            found = self._again()
            if [encoding.ids for encoding in found] != [encoding.ids for encoding in self.prompts]:
                raise TemplateError(
                    "the tokenizer was changed after it made these ids, so it cannot tell their characters any more;"
                    " call it again, or read .encodings before the change"
                )
            self._with_offsets, self._again = found, None
        return self._with_offsets

    @_encodings.setter
    def _encodings(self, encodings: Sequence[Encoding] | None) -> None:
        self._with_offsets = encodings


def needs_no_offsets(text: Any, text_pair: Any, options: Mapping[str, Any]) -> bool:
    """Whether a tokenizer was called with a batch of texts and without any option that needs offsets.

    Args:
        text: as given to the tokenizer.
        text_pair: as given to the tokenizer.
        options: of the call, by name.
    Example:
        >>> needs_no_offsets(["good", "bad"], None, {"return_offsets_mapping": True})
        False
    """
    is_batch = isinstance(text, list | tuple) and bool(text) and isinstance(text[0], str)
    has_pairs = isinstance(text_pair, list | tuple) and is_batch and len(text_pair) == len(text)
    asked_for = {name for name, value in options.items() if value}
    return is_batch and (text_pair is None or has_pairs) and asked_for <= _PLAIN_OPTIONS
