"""The parts of a compiled prompt, and how they are written into and read from the tokenizer's post-processor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice, pairwise

from tokenizers import Tokenizer, processors

from hf_prompting.templates.segments import AnswerSlot, SoftTokens, Text
from hf_prompting.templates.shared_vocabulary import empty_tokenizer
from hf_prompting.templates.template import PromptTemplate

SEQUENCES = ("A", "B")  # what a post-processor calls the texts that a tokenizer is given


class PartKind(StrEnum):
    """What a stretch of a prompt is; the value is what a reader is shown."""

    SPECIAL = "special"
    TEMPLATE = "template"
    SOFT = "soft"
    FIELD = "field"
    SLOT = "slot"


@dataclass(frozen=True)
class Part:
    """A stretch of the prompt: how it is written in the rendered string, and its ids once they are known."""

    kind: PartKind
    written: str = ""
    ids: tuple[int, ...] = ()


def prompt_parts(template: PromptTemplate, soft_names: Sequence[str], slot_text: str) -> tuple[Part, ...]:
    """Lay a template out as parts, with one part for each text that the tokenizer is given.

    Spaces right before the answer slot are left out: they belong to the label word (" great" is one token).

    Args:
        template: any template.
        soft_names: the soft tokens' names, as many as the template has.
        slot_text: how the slot is written, for instance ``"[MASK]"``; empty where it costs no token.
    Returns:
        Parts without ids, in order.
    """
    names = iter(soft_names)
    parts: list[Part] = []
    for piece, following in pairwise((*template.pieces, None)):
        match piece:
            case SoftTokens(num_tokens):
                parts.append(Part(PartKind.SOFT, "".join(islice(names, num_tokens))))
            case AnswerSlot():
                parts.append(Part(PartKind.SLOT, slot_text))
            case Text(text):
                text = text.rstrip(" ") if isinstance(following, AnswerSlot) else text
                parts.extend([Part(PartKind.TEMPLATE, text)] if text else [])
            case _:
                parts.append(Part(PartKind.FIELD))
    return tuple(parts)


def has_space_before_slot(template: PromptTemplate) -> bool:
    """Whether the template writes a space right before its answer slot."""
    return any(
        isinstance(piece, Text) and piece.text.endswith(" ") and isinstance(following, AnswerSlot)
        for piece, following in pairwise(template.pieces)
    )


def token_names(backend: Tokenizer, token_ids: Sequence[int]) -> list[str]:
    """The names of some tokens in the vocabulary."""
    return [backend.id_to_token(token_id) or "" for token_id in token_ids]


def install_parts(backend: Tokenizer, parts: Sequence[Part]) -> None:
    """Make the parts the tokenizer's post-processor; both for one text and for two.

    One post-processor entry may stand for many ids, so that each part is one entry. All token types are 0. Given one
    text, a prompt of two fields has an empty second one, since transformers takes ``text_pair=""`` for no pair at all.
    Given two, a prompt of one field puts the second right behind the first.
    """
    single: list[str] = []
    pair: list[str] = []
    entries = []
    fields = iter(SEQUENCES)
    num_fields = sum(part.kind is PartKind.FIELD for part in parts)
    for index, part in enumerate(parts):
        if part.kind is PartKind.FIELD:
            sequence = next(fields)
            single.extend([f"${sequence}:0"] if sequence == SEQUENCES[0] else [])
            pair.extend([f"${sequence}:0"] if num_fields == len(SEQUENCES) else [f"${name}:0" for name in SEQUENCES])
        elif part.ids:
            name = f"{part.kind.value}_{index}"
            entries.append({"id": name, "ids": list(part.ids), "tokens": token_names(backend, part.ids)})
            single.append(f"{name}:0")
            pair.append(f"{name}:0")
    backend.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=entries)


def installed_parts(backend: Tokenizer) -> tuple[Part, ...]:
    """Read the parts back from a tokenizer that :func:`install_parts` compiled, in this process or another.

    Returns:
        Parts with ids in prompt order; a field has none.
    """
    carrier = empty_tokenizer()  # spares writing out the whole vocabulary
    carrier.post_processor = backend.post_processor
    state = json.loads(carrier.to_str())["post_processor"]
    parts = []
    for piece in state["pair"] if state["type"] == "TemplateProcessing" else []:
        if "Sequence" in piece:
            parts.append(Part(PartKind.FIELD))
        else:
            name = piece["SpecialToken"]["id"]
            parts.append(Part(PartKind(name.partition("_")[0]), ids=tuple(state["special_tokens"][name]["ids"])))
    return tuple(parts)
