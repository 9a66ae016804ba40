"""Compiles a template into a tokenizer, for one kind of answer slot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import count, islice

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hf_prompting.errors import TemplateError
from hf_prompting.templates.alignment import Ids, TokenizationDifference, align
from hf_prompting.templates.layout import (
    Part,
    PartKind,
    has_space_before_slot,
    install_parts,
    prompt_parts,
    token_names,
)
from hf_prompting.templates.rendering import TEXT_KEYS
from hf_prompting.templates.segments import AnswerSlot, SoftTokens, Text
from hf_prompting.templates.shared_vocabulary import SharedVocabulary
from hf_prompting.templates.template import SOURCE_KEY, PromptTemplate, too_many_texts
from hf_prompting.templates.tokenizer import PIPELINE_KEY, PromptTokenizer

SENTINEL = "<extra_id_0>"
_SHOWN_DIFFERENCES = 5
_AFFIX_PROBE = "a"


class SlotKind(StrEnum):
    """How a family of models is asked for a label word."""

    CAUSAL = "causal"  # the word continues the prompt; the slot costs no token and nothing may follow it
    DECODER_START = "decoder_start"  # an encoder-decoder's decoder begins with the word; the encoder keeps its EOS
    MASK = "mask"  # one mask token for each token of the word
    SENTINEL = "sentinel"  # T5: <extra_id_0> in the encoder, the decoder answers after the same sentinel


@dataclass(frozen=True)
class SoftRun:
    """One ``{soft:N}`` of the template: the ids of its tokens and the text that initialises them."""

    token_ids: tuple[int, ...]
    initial_text: str | None


@dataclass(frozen=True)
class CompiledTemplate:
    """A template, the tokenizer that inserts it, and what a model has to know about its ids.

    Attributes:
        template: what was compiled.
        tokenizer: a new tokenizer; ``tokenizer(text, text_pair, truncation=True)`` gives whole prompts.
        slot: the kind of answer slot.
        soft_runs: the runs of soft tokens in template order.
        slot_token_id: the mask or sentinel id; None where the slot costs no token.
        num_slot_tokens: how many tokens the slot costs.
        answer_prefix: what has to precede the label word, " " or "", before it is tokenised.
        differences: probe texts whose prompt differs from the rendered string's tokens, a handful at most.
    """

    template: PromptTemplate
    tokenizer: PromptTokenizer
    slot: SlotKind
    soft_runs: tuple[SoftRun, ...]
    slot_token_id: int | None
    num_slot_tokens: int
    answer_prefix: str
    differences: tuple[TokenizationDifference, ...]

    @property
    def soft_token_ids(self) -> tuple[int, ...]:
        """The ids of all soft tokens in template order."""
        return tuple(token_id for run in self.soft_runs for token_id in run.token_ids)


def compile_template(
    template: PromptTemplate, tokenizer: PreTrainedTokenizerFast, *, slot: SlotKind, num_slot_tokens: int = 1
) -> CompiledTemplate:
    """Turn a template into a tokenizer whose post-processor inserts it.

    The tokenizer's own affixes (``[CLS]``, BOS, EOS) stay around the prompt, except that nothing follows the slot of a
    causal model and that an affix which the template writes itself is not doubled. Soft tokens become new special
    tokens ``<|soft_0|>`` and so on. :mod:`hf_prompting.templates.alignment` tells how ids come close to the rendered
    string's.

    Args:
        template: with one or two fields, or more where neighbours can be joined (:attr:`PromptTemplate.text_groups`).
        tokenizer: a fast tokenizer of the base model; it is not changed, and the new one shares its vocabulary.
        slot: the kind of answer slot that the base model needs.
        num_slot_tokens: mask tokens in the slot; only for :attr:`SlotKind.MASK`.
    Returns:
        The compiled template.
    Raises:
        TemplateError: if the template does not fit the tokenizer or the kind of slot.
    Example:
        >>> template = PromptTemplate.parse("{text} It was{mask}")
        >>> compile_template(template, tokenizer, slot=SlotKind.CAUSAL).answer_prefix  # doctest: +SKIP
        ''
    """
    slot = SlotKind(slot)
    _check_tokenizer(tokenizer)
    _check_template(template, slot, num_slot_tokens)
    slot_ids = SLOT_TOKENS[slot](tokenizer, num_slot_tokens)

    compiled = PromptTokenizer(
        tokenizer_object=SharedVocabulary(tokenizer.backend_tokenizer), **_init_kwargs(template, tokenizer)
    )
    backend = compiled.backend_tokenizer
    _forget_length_settings(compiled)
    affixes = text_affixes(backend)
    soft_ids = iter(_add_soft_tokens(backend, template))
    soft_runs = tuple(
        SoftRun(tuple(islice(soft_ids, segment.num_tokens)), segment.initial_text)
        for segment in template.segments
        if isinstance(segment, SoftTokens)
    )

    backend.post_processor = None
    alignment = align(backend, _known_parts(template, backend, soft_runs, slot_ids))
    _check_joined_text(template, backend)
    before, after = _affixes_to_add(alignment.parts, affixes, slot)
    special = PartKind.SPECIAL
    install_parts(backend, [Part(special, ids=before), *alignment.parts, Part(special, ids=after)])
    compiled.init_kwargs[PIPELINE_KEY] = alignment.original_components
    return CompiledTemplate(
        template=template,
        tokenizer=compiled,
        slot=slot,
        soft_runs=soft_runs,
        slot_token_id=slot_ids[0] if slot_ids else None,
        num_slot_tokens=len(slot_ids),
        answer_prefix=" " if has_space_before_slot(template) else "",
        differences=tuple(
            replace(
                found,
                native_ids=before + found.native_ids + after,
                rendered_ids=before + found.rendered_ids + after,
            )
            for found in alignment.differences[:_SHOWN_DIFFERENCES]
        ),
    )


def _no_slot_token(tokenizer: PreTrainedTokenizerFast, num_slot_tokens: int) -> Ids:
    return ()


def _mask_tokens(tokenizer: PreTrainedTokenizerFast, num_slot_tokens: int) -> Ids:
    if tokenizer.mask_token_id is None:
        raise TemplateError(
            "the tokenizer has no mask token, so the model is no masked language model;"
            " load it as a causal or encoder-decoder model instead"
        )
    return (int(tokenizer.mask_token_id),) * num_slot_tokens


def _sentinel_token(tokenizer: PreTrainedTokenizerFast, num_slot_tokens: int) -> Ids:
    sentinel_id = tokenizer.backend_tokenizer.token_to_id(SENTINEL)
    if sentinel_id is None:
        raise TemplateError(f"the tokenizer has no {SENTINEL}; use SlotKind.DECODER_START for this encoder-decoder")
    return (int(sentinel_id),)


SLOT_TOKENS: dict[SlotKind, Callable[[PreTrainedTokenizerFast, int], Ids]] = {
    SlotKind.CAUSAL: _no_slot_token,
    SlotKind.DECODER_START: _no_slot_token,
    SlotKind.MASK: _mask_tokens,
    SlotKind.SENTINEL: _sentinel_token,
}

SLOT_MUST_BE_LAST: dict[SlotKind, str] = {
    SlotKind.CAUSAL: "a causal model reads only what stands to the left of the slot and answers there, so whatever"
    " comes after {mask} would never be seen. Move {mask} to the end",
    SlotKind.DECODER_START: "this encoder-decoder answers in its decoder, after the whole prompt was read."
    " Move {mask} to the end",
}


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise TemplateError(
            f"{type(tokenizer).__name__} is a slow tokenizer, and templates are compiled into fast ones"
            " (tokenizer.json); load it with AutoTokenizer.from_pretrained, or convert it once with"
            " transformers.convert_slow_tokenizer.convert_slow_tokenizer and save the result"
        )
    if SOURCE_KEY in tokenizer.init_kwargs:
        raise TemplateError(
            f"the tokenizer already holds the template {tokenizer.init_kwargs[SOURCE_KEY]!r};"
            " compile from the base model's own tokenizer"
        )
    if tokenizer.pad_token is None and tokenizer.eos_token is None:
        raise TemplateError(
            "the tokenizer has neither a padding nor an end-of-sequence token, so rows cannot be batched;"
            " set one first, for instance tokenizer.pad_token = tokenizer.unk_token"
        )


def _check_template(template: PromptTemplate, slot: SlotKind, num_slot_tokens: int) -> None:
    if num_slot_tokens < 1:
        raise TemplateError(f"num_slot_tokens is {num_slot_tokens}; allowed: 1 or more")
    if not template.fields:
        raise TemplateError(
            f"the template {str(template)!r} has no field, so every row gives the same prompt; add {{text}}"
        )
    if len(template.text_groups) > len(TEXT_KEYS):
        raise TemplateError(too_many_texts(template))
    if slot in SLOT_MUST_BE_LAST and not isinstance(template.segments[-1], AnswerSlot):
        raise TemplateError(f"{str(template)!r} goes on after {{mask}}: {SLOT_MUST_BE_LAST[slot]}.")


def _check_joined_text(template: PromptTemplate, backend: Tokenizer) -> None:
    """Text between joined fields is tokenised as part of a field, where special tokens are only text."""
    special = [token.content for token in backend.get_added_tokens_decoder().values() if token.special]
    for group in template.text_groups:
        for text in (segment.text for segment in group if isinstance(segment, Text)):
            if found := next((token for token in special if token in text), None):
                raise TemplateError(
                    f"the special token {found!r} stands between fields that have to be joined into one text, where"
                    f" it would be read as plain text: {str(template)!r} has {len(template.fields)} fields, and a"
                    f" tokenizer takes {len(TEXT_KEYS)} texts. Join columns before the template."
                )


def _init_kwargs(template: PromptTemplate, tokenizer: PreTrainedTokenizerFast) -> dict[str, object]:
    """What the new tokenizer keeps of the old one, by name: other settings may rebuild the pipeline on loading."""
    kept = {
        "model_max_length": tokenizer.model_max_length,
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
        "model_input_names": list(tokenizer.model_input_names),
        "clean_up_tokenization_spaces": tokenizer.clean_up_tokenization_spaces,
        "extra_special_tokens": list(tokenizer.extra_special_tokens),
        "chat_template": tokenizer.chat_template,
    }
    special = {"pad_token": tokenizer.eos_token, **tokenizer.special_tokens_map}
    state = {SOURCE_KEY: str(template), PIPELINE_KEY: {}, "split_special_tokens": True}
    return {**{name: value for name, value in kept.items() if value}, **special, **state}


def _forget_length_settings(tokenizer: PromptTokenizer) -> None:
    """Truncation and padding baked into a tokenizer.json would be applied to every prompt, and saved again."""
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    for name in ("max_length", "stride", "truncation_strategy", "pad_to_multiple_of", "pad_token_type_id"):
        tokenizer.init_kwargs.pop(name, None)


def _add_soft_tokens(backend: Tokenizer, template: PromptTemplate) -> list[int]:
    taken = str(template)
    free = (name for i in count() if backend.token_to_id(name := f"<|soft_{i}|>") is None and name not in taken)
    names = list(islice(free, template.num_soft_tokens))
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    vocabulary = {token.content: token_id for token_id, token in backend.get_added_tokens_decoder().items()}
    return [vocabulary[name] for name in names]


def _known_parts(
    template: PromptTemplate, backend: Tokenizer, soft_runs: tuple[SoftRun, ...], slot_ids: Ids
) -> tuple[Part, ...]:
    soft_names = token_names(backend, [token_id for run in soft_runs for token_id in run.token_ids])
    slot_text = "".join(token_names(backend, slot_ids))
    runs = iter(soft_runs)
    ids_of: dict[PartKind, Callable[[], Ids]] = {
        PartKind.SOFT: lambda: next(runs).token_ids,
        PartKind.SLOT: lambda: slot_ids,
    }
    parts = prompt_parts(template, soft_names, slot_text)
    return tuple(replace(part, ids=ids_of[part.kind]()) if part.kind in ids_of else part for part in parts)


def text_affixes(backend: Tokenizer) -> tuple[Ids, Ids]:
    """Return the ids that the tokenizer puts before and after a text.

    Raises:
        TemplateError: if its post-processor does more than add tokens.
    Example:
        >>> text_affixes(tokenizer.backend_tokenizer)  # doctest: +SKIP
        ((), (1,))
    """
    plain = backend.encode(_AFFIX_PROBE, add_special_tokens=False).ids
    whole = backend.encode(_AFFIX_PROBE, add_special_tokens=True).ids
    for start in range(len(whole) - len(plain) + 1):
        if plain and whole[start : start + len(plain)] == plain:
            return tuple(whole[:start]), tuple(whole[start + len(plain) :])
    raise TemplateError(
        f"cannot tell what the tokenizer puts around a text: {_AFFIX_PROBE!r} is {plain} without and {whole} with"
        " special tokens; use a tokenizer whose post-processor only adds tokens"
    )


def _affixes_to_add(parts: tuple[Part, ...], affixes: tuple[Ids, Ids], slot: SlotKind) -> tuple[Ids, Ids]:
    before, after = affixes
    if before and parts[0].ids[: len(before)] == before:
        before = ()
    if slot is SlotKind.CAUSAL or (after and parts[-1].ids[-len(after) :] == after):
        after = ()
    return before, after
