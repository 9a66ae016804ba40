"""Ways to tokenise a field as if it still stood inside the prompt's text, all of them kept in tokenizer.json.

A field is tokenised apart from the text around it, which shows at its first token: in "Review: {text}" the space
belongs to that token in byte-level BPE, and sentencepiece tokenizers put a dummy space before every text. Each pipeline
below is one remedy, an edit of the normalizer and pre-tokenizer; which one fits is found out by trying
(:mod:`hf_prompting.templates.alignment`). Rust servers and plain transformers apply them as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tokenizers import Tokenizer

from hf_prompting.errors import TemplateError
from hf_prompting.templates.shared_vocabulary import empty_tokenizer, share_vocabulary

Json = dict[str, Any]
_LONGEST_REMEMBERED = 4_000  # characters; a sentencepiece character map has hundreds of thousands


@dataclass(frozen=True)
class FieldPipeline:
    """The normalizer and the pre-tokenizer of a tokenizer, as their JSON (None where there is none)."""

    normalizer: Json | None
    pre_tokenizer: Json | None

    @classmethod
    def of(cls, backend: Tokenizer) -> FieldPipeline:
        """Read the pipeline of a tokenizer, without touching it."""
        carrier = empty_tokenizer()
        carrier.normalizer, carrier.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
        state = json.loads(carrier.to_str())
        return cls(state["normalizer"], state["pre_tokenizer"])

    def install(self, backend: Tokenizer) -> None:
        """Put the pipeline into a tokenizer that the caller owns."""
        carrier = json.loads(empty_tokenizer().to_str())
        carrier["normalizer"], carrier["pre_tokenizer"] = self.normalizer, self.pre_tokenizer
        built = Tokenizer.from_str(json.dumps(carrier))
        backend.normalizer, backend.pre_tokenizer = built.normalizer, built.pre_tokenizer

    def changes_from(self, original: FieldPipeline) -> dict[str, Json | None]:
        """What of the original has to be remembered so that it can be restored from this pipeline."""
        return {
            name: getattr(original, name)
            for name in ("normalizer", "pre_tokenizer")
            if getattr(original, name) != getattr(self, name)
        }


def as_it_is(original: FieldPipeline) -> FieldPipeline:
    """No remedy; right for WordPiece, and for sentencepiece where a space stands before the field."""
    return original


def space_before_text(original: FieldPipeline) -> FieldPipeline:
    """Begin every text with a space; the normalizer runs again after an ordinary added token inside the text."""
    before = [{"type": "Prepend", "prepend": " "}]
    return FieldPipeline(_sequence("normalizers", before, original.normalizer), original.pre_tokenizer)


def space_before_first_piece(original: FieldPipeline) -> FieldPipeline:
    """Begin every text with a space unless it has one; other pieces of the text are left alone."""
    space = "▁" if "▁" in json.dumps(original.normalizer, ensure_ascii=False) else " "
    before = [{"type": "Metaspace", "replacement": space, "prepend_scheme": "first", "split": False}]
    return FieldPipeline(original.normalizer, _sequence("pretokenizers", before, original.pre_tokenizer))


def no_dummy_space(original: FieldPipeline) -> FieldPipeline:
    """Leave out the space that the tokenizer itself would put before every text."""
    return FieldPipeline(_without_dummy(original.normalizer), _without_dummy(original.pre_tokenizer))


CANDIDATES: tuple[Callable[[FieldPipeline], FieldPipeline], ...] = (
    as_it_is,
    no_dummy_space,
    space_before_text,
    space_before_first_piece,
)


def field_pipelines(original: FieldPipeline) -> list[FieldPipeline]:
    """All pipelines worth trying, the simplest first.

    Example:
        >>> len(field_pipelines(FieldPipeline(None, {"type": "ByteLevel", "add_prefix_space": False})))
        3
    """
    distinct: list[FieldPipeline] = []
    for candidate in CANDIDATES:
        pipeline = candidate(original)
        remembered = len(json.dumps(pipeline.changes_from(original)))
        if pipeline not in distinct and remembered <= _LONGEST_REMEMBERED:
            distinct.append(pipeline)
    return distinct


def original_backend(backend: Tokenizer, remembered: dict[str, Json | None]) -> Tokenizer:
    """A copy of the tokenizer with its remembered components restored and nothing added around a text.

    Raises:
        TemplateError: if what a saved tokenizer_config.json remembers is no such component.
    """
    copy = share_vocabulary(backend)
    try:
        replace(FieldPipeline.of(copy), **remembered).install(copy)
    except Exception as error:  # the Rust parser raises nothing narrower
        raise TemplateError(
            "the tokenizer's configuration remembers components that cannot be read,"
            f" {str(remembered)[:80]!r}: {error}; compile the template again"
        ) from error
    copy.post_processor = None
    return copy


def _sequence(key: str, before: list[Json], component: Json | None) -> Json:
    if component is None:
        return {"type": "Sequence", key: before}
    return {"type": "Sequence", key: before + (component[key] if component["type"] == "Sequence" else [component])}


def _without_dummy(component: Json | None) -> Json | None:
    if component is None:
        return None
    match component["type"]:
        case "Sequence":
            key = "normalizers" if "normalizers" in component else "pretokenizers"
            return {**component, key: [kept for part in component[key] if (kept := _without_dummy(part))]}
        case "Prepend":
            return None
        case "Metaspace":
            return {**component, "prepend_scheme": "never"}
        case "ByteLevel":
            return {**component, "add_prefix_space": False}
        case _:
            return component
