"""PromptTokenizer: an ordinary fast tokenizer whose post-processor is a template, with guards on its calls."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tokenizers import Encoding
from transformers import BatchEncoding, TokenizersBackend
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils import PaddingStrategy

from hf_prompting.checksums import KEY as CHECKSUMS
from hf_prompting.checksums import SealsWhatItSaves, verify_pretrained
from hf_prompting.errors import FieldError, HfPromptingError, InputTextError, TemplateLengthError
from hf_prompting.templates.encoding import PromptEncoding, needs_no_offsets
from hf_prompting.templates.layout import PartKind, installed_parts
from hf_prompting.templates.rendering import TEXT_KEYS
from hf_prompting.templates.segments import Field
from hf_prompting.templates.template import SOURCE_KEY, PromptTemplate

PIPELINE_KEY = "prompt_original_components"  # tokenizer_config.json: what the chosen field pipeline replaced
_LENGTH_OPTIONS = (
    "padding_strategy", "truncation_strategy", "max_length", "stride", "pad_to_multiple_of", "padding_side",
)  # fmt: skip
_DO_NOT_TRUNCATE = TruncationStrategy.DO_NOT_TRUNCATE
_EXCERPT = 40


class PromptTokenizer(SealsWhatItSaves, TokenizersBackend):  # type: ignore[misc]
    """A tokenizer that puts a template around the texts it is given.

    It is made by :func:`hf_prompting.templates.compile_template` and loaded by ``AutoTokenizer``. Everything that makes
    the ids is in tokenizer.json, so plain transformers and Rust servers give the same ones; this class adds
    clear errors where those would go wrong in silence. It has no ``__init__``, because transformers would then rebuild
    the pipeline on loading.

    ``add_special_tokens=False`` leaves the whole template out, as transformers itself relies on. Special tokens inside
    a field are plain text (``split_special_tokens``); ordinary added tokens, such as ``<think>``, keep their ids there.

    Raises on a call:
        FieldError: for a missing or superfluous ``text_pair``.
        InputTextError: for something that is no text, or a text with a lone surrogate.
        TemplateLengthError: if truncation is asked for and the template, or its ``:fixed`` fields, cannot fit.
    """

    settings_file = "tokenizer_config.json"
    sealed_files = ("tokenizer.json", "chat_template.jinja")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *inputs: Any, **kwargs: Any) -> PromptTokenizer:
        """Load a saved tokenizer as transformers does, after making sure that it is as it was saved.

        Raises:
            ArtifactError: if a file is damaged or was changed.
        """
        verify_pretrained(pretrained_model_name_or_path, cls.settings_file, kwargs)
        tokenizer: PromptTokenizer = super().from_pretrained(pretrained_model_name_or_path, *inputs, **kwargs)
        tokenizer.init_kwargs.pop(CHECKSUMS, None)  # of the files, not of what becomes of the tokenizer
        return tokenizer

    @property
    def prompt_template(self) -> PromptTemplate | None:
        """The template, or None for a tokenizer that was not compiled.

        Raises:
            TemplateSyntaxError: if tokenizer_config.json holds a malformed one.
        """
        source = self.init_kwargs.get(SOURCE_KEY)
        return None if source is None else _parse_once(str(source))

    @property
    def soft_token_ids(self) -> tuple[int, ...]:
        """The ids of the template's soft tokens, in order."""
        parts = installed_parts(self.backend_tokenizer)
        return tuple(token_id for part in parts if part.kind is PartKind.SOFT for token_id in part.ids)

    @property
    def num_template_tokens(self) -> int:
        """How many tokens a prompt has when all its fields are empty."""
        return int(self.backend_tokenizer.num_special_tokens_to_add(False))

    def _encode_plus(
        self,
        text: Any,
        text_pair: Any = None,
        add_special_tokens: bool = True,
        padding_strategy: PaddingStrategy = PaddingStrategy.DO_NOT_PAD,
        truncation_strategy: TruncationStrategy = _DO_NOT_TRUNCATE,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        **kwargs: Any,
    ) -> BatchEncoding:
        template = self.prompt_template if add_special_tokens else None
        limit = max_length if template and truncation_strategy is not _DO_NOT_TRUNCATE else None
        if template:
            _check_texts(template, text, text_pair, is_split_into_words)
        if template and limit is not None:
            room = self._room(limit, stride)
            truncation_strategy = _strategy(template, truncation_strategy, room)
        options = {
            "add_special_tokens": add_special_tokens,
            "padding_strategy": padding_strategy,
            "truncation_strategy": truncation_strategy,
            "max_length": max_length,
            "stride": stride,
            "is_split_into_words": is_split_into_words,
            **kwargs,
        }
        try:
            if needs_no_offsets(text, text_pair, options):
                encoded = self._encode_without_offsets(list(text), text_pair and list(text_pair), options)
            else:
                encoded = super()._encode_plus(text, text_pair, **options)
        except BaseException as error:  # a panic in Rust is no Exception
            if explained := _explain(error, text, text_pair, limit, stride):
                raise explained from error
            raise
        if template and limit is not None and truncation_strategy is _DO_NOT_TRUNCATE:
            _check_lengths(template, encoded, limit)
        return encoded

    def _encode_without_offsets(
        self, texts: list[str], second_texts: list[str] | None, options: dict[str, Any]
    ) -> PromptEncoding:
        """Do what transformers does for a batch of texts, by the faster of its backend's two calls."""
        split, verbose = options.get("split_special_tokens"), options.get("verbose", True)
        self.set_truncation_and_padding(**{name: options.get(name) for name in _LENGTH_OPTIONS})
        self._tokenizer.encode_special_tokens = self.split_special_tokens if split is None else split
        prompts = self._tokenizer.encode_batch_fast(
            texts if second_texts is None else list(zip(texts, second_texts, strict=True)),
            add_special_tokens=options["add_special_tokens"],
        )
        columns = {"input_ids": [prompt.ids for prompt in prompts]}
        for name, attribute in (("token_type_ids", "type_ids"), ("attention_mask", "attention_mask")):
            wished = options.get(f"return_{name}")
            if name in self.model_input_names if wished is None else wished:
                columns[name] = [getattr(prompt, attribute) for prompt in prompts]
        self._eventual_warn_about_too_long_sequence(max(columns["input_ids"], key=len), options["max_length"], verbose)

        def again() -> Sequence[Encoding]:
            quietly = {**options, "return_tensors": None, "verbose": False}
            encoded = TokenizersBackend._encode_plus(self, texts, second_texts, **quietly)
            return encoded.encodings or ()

        return PromptEncoding.of(prompts, columns, again=again, return_tensors=options.get("return_tensors"))

    def _room(self, max_length: int, stride: int) -> int:
        """How many tokens a limit leaves for the fields."""
        room = max_length - self.num_template_tokens
        if room < 0:
            raise TemplateLengthError(
                f"max_length is {max_length}, but the template alone has {self.num_template_tokens} tokens:"
                f" {str(self.prompt_template)!r}; raise max_length or shorten the template"
            )
        if 0 < stride >= room:
            raise TemplateLengthError(
                f"stride is {stride}, but max_length {max_length} leaves {room} tokens beside the template's"
                f" {self.num_template_tokens}; allowed: a stride below that"
            )
        return room


@lru_cache(maxsize=64)
def _parse_once(source: str) -> PromptTemplate:
    return PromptTemplate.parse(source)


def _strategy(template: PromptTemplate, asked: TruncationStrategy, room: int) -> TruncationStrategy:
    own = _STRATEGIES[_native_shortening(template)]
    if own is None:
        return asked
    return own if room else _DO_NOT_TRUNCATE  # with no room at all, Rust empties both texts whatever the strategy


def _native_shortening(template: PromptTemplate) -> tuple[bool, ...]:
    """For each text, whether the tokenizer itself may shorten it; joined fields only :meth:`render` can shorten."""
    return tuple(
        not template.joins_fields and all(part.may_shorten for part in group if isinstance(part, Field))
        for group in template.text_groups
    )


# None: as the caller asked.
_STRATEGIES: dict[tuple[bool, ...], TruncationStrategy | None] = {
    (True,): None,
    (True, True): None,
    (True, False): TruncationStrategy.ONLY_FIRST,
    (False, True): TruncationStrategy.ONLY_SECOND,
    (False, False): _DO_NOT_TRUNCATE,
    (False,): _DO_NOT_TRUNCATE,
}


def _check_texts(template: PromptTemplate, text: Any, text_pair: Any, is_split_into_words: bool) -> None:
    if is_split_into_words:
        raise FieldError("is_split_into_words=True: fields are whole texts; join the words first")
    wanted = TEXT_KEYS[: len(template.text_groups)]
    are_pairs = isinstance(text, list | tuple) and bool(text) and isinstance(text[0], list | tuple)
    given = TEXT_KEYS if text_pair is not None or are_pairs else TEXT_KEYS[:1]
    if given != wanted:
        names = ", ".join(repr(field.name) for field in template.fields)
        raise FieldError(
            f"the template takes {' and '.join(wanted)} (fields {names}), but the call has {' and '.join(given)}:"
            f" {str(template)!r}; use tokenizer(**template.render(row)), or pass the texts in the order of the fields"
        )


def _check_lengths(template: PromptTemplate, encoded: BatchEncoding, max_length: int) -> None:
    prompts = encoded.prompts if isinstance(encoded, PromptEncoding) else encoded.encodings
    for row, encoding in enumerate(prompts or ()):
        num_tokens = sum(encoding.attention_mask)
        if num_tokens > max_length:
            reason = "joins several fields into one text" if template.joins_fields else "has a ':fixed' field"
            raise TemplateLengthError(
                f"prompt {row} has {num_tokens} tokens and max_length is {max_length}, but the template {reason}, which"
                f" the tokenizer must not cut: {str(template)!r}; use template.render(row, tokenizer=tokenizer,"
                " max_length=...) to shorten other fields, or raise max_length"
            )


def _explain(
    error: BaseException, text: Any, text_pair: Any, limit: int | None, stride: int
) -> HfPromptingError | None:
    """This library's error for one that the Rust tokenizer raised, or None for an unknown one."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        return None
    if text == []:
        return InputTextError("the batch is empty; allowed: a text, or a list of one or more texts")
    for name, value in zip(TEXT_KEYS, (text, text_pair), strict=True):
        if problem := _text_problem(value):
            return InputTextError(f"{name}{problem}")
    if limit is not None and (stride or "Truncation error" in str(error)):
        return TemplateLengthError(
            f"max_length {limit} with stride {stride} cannot be kept by shortening the fields that may be shortened:"
            f" {error}; raise max_length, lower the stride, or drop a ':fixed'"
        )
    return None


def _text_problem(value: Any) -> str | None:
    """Where and why a text cannot be tokenised, as in ``[3] is None``."""
    if value is None:
        return None
    if isinstance(value, list | tuple):
        items: Sequence[Any] = value
        problems = (
            (index, " is None; allowed: text" if item is None else _text_problem(item))
            for index, item in enumerate(items)
        )
        return next((f"[{index}]{problem}" for index, problem in problems if problem), None)
    if not isinstance(value, str):
        return f" is {type(value).__name__} ({str(value)[:_EXCERPT]!r}); allowed: text"
    position = next((i for i, character in enumerate(value) if "\ud800" <= character <= "\udfff"), None)
    if position is None:
        return None
    return (
        f" has half of a surrogate pair, {value[position]!r}, at position {position}, which no tokenizer reads;"
        " decode the text with errors='replace', or drop the character"
    )
