"""Finds the ids of a template's text and the pipeline for its fields that come nearest to the rendered string.

The yardstick is the prompt written out as one string and tokenised at once, because that is what a base model was
trained on. Parts are tokenised inside such strings, for a dozen probe texts of different kinds; every combination of a
field pipeline and of giving a space to the text or to the field is held against the yardstick, and the best is taken.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tokenizers import Tokenizer

from hf_prompting.templates.field_pipeline import FieldPipeline, Json, field_pipelines
from hf_prompting.templates.layout import Part, PartKind

Ids = tuple[int, ...]

PROBES = (
    "The movie was great",
    "i hated it, every minute of it",
    "这部电影很好",
    "服务很差，不推荐。",
    "1999 was good, 2 hours long",
    "It was good.",
    "(a bad story?)",
    "Don't",
    "first line\nsecond line",
    "first part\n\nsecond part",
    " a space before",
    "a space behind ",
    "😀 great",
    "",
)


@dataclass(frozen=True)
class TokenizationDifference:
    """A field text for which the compiled prompt and the rendered string have different ids."""

    text: str
    native_ids: Ids
    rendered_ids: Ids


@dataclass(frozen=True)
class Alignment:
    """The parts with their ids, what the chosen pipeline replaced, and the probes that still differ."""

    parts: tuple[Part, ...]
    original_components: dict[str, Json | None]
    differences: tuple[TokenizationDifference, ...]


@dataclass(frozen=True)
class _Rendering:
    written: tuple[str, ...]
    ids: Ids
    offsets: tuple[tuple[int, int], ...]


def rendered_ids(backend: Tokenizer, parts: Sequence[Part], texts: Sequence[str]) -> Ids:
    """Tokenise a prompt as one string.

    Args:
        backend: a tokenizer with its original pipeline and no post-processor.
        parts: the prompt's parts.
        texts: the text of each field part.
    """
    return _render(backend, parts, texts).ids


def _render(backend: Tokenizer, parts: Sequence[Part], texts: Sequence[str]) -> _Rendering:
    remaining = iter(texts)
    written = tuple(next(remaining) if part.kind is PartKind.FIELD else part.written for part in parts)
    backend.encode_special_tokens = False
    encoding = backend.encode("".join(written), add_special_tokens=False)
    return _Rendering(written, tuple(encoding.ids), tuple(encoding.offsets))


def align(backend: Tokenizer, parts: tuple[Part, ...]) -> Alignment:
    """Choose ids and pipeline for some parts.

    Args:
        backend: a tokenizer that the caller owns, without post-processor, truncation and padding. Its pipeline is the
            chosen one afterwards.
        parts: the prompt's parts; soft tokens and the slot have their ids, text does not yet.
    Returns:
        The best combination; where two are as good, the one with the simpler pipeline.
    """
    original = FieldPipeline.of(backend)
    num_fields = sum(part.kind is PartKind.FIELD for part in parts)
    renderings = [_render(backend, parts, [probe] * num_fields) for probe in PROBES]
    rendered = {probe: rendering.ids for probe, rendering in zip(PROBES, renderings, strict=True)}
    filled_parts = _text_candidates(backend, parts, renderings)
    best: tuple[tuple[int, int], tuple[Part, ...], FieldPipeline, dict[str, Ids]] | None = None
    for pipeline in field_pipelines(original):
        pipeline.install(backend)
        field_ids = {probe: _plain_ids(backend, probe) for probe in PROBES}
        for filled in filled_parts:
            native = {probe: _join(filled, field_ids[probe]) for probe in PROBES}
            distance = _distance(native, rendered)
            if best is None or distance < best[0]:
                best = (distance, filled, pipeline, native)
    assert best is not None
    _, filled, pipeline, native = best
    pipeline.install(backend)
    differences = (TokenizationDifference(probe, native[probe], rendered[probe]) for probe in PROBES)
    differing = tuple(found for found in differences if found.native_ids != found.rendered_ids)
    return Alignment(filled, pipeline.changes_from(original), differing)


def _text_candidates(
    backend: Tokenizer, parts: tuple[Part, ...], renderings: Sequence[_Rendering]
) -> list[tuple[Part, ...]]:
    """The parts with ids for all text, once for each way to share out the spaces before fields."""
    choices: list[list[Part]] = []
    for index, part in enumerate(parts):
        if part.kind is not PartKind.TEMPLATE:
            choices.append([part])
            continue
        before_field = index + 1 < len(parts) and parts[index + 1].kind is PartKind.FIELD
        ends = [0, 1] if before_field and part.written.endswith(" ") else [0]
        choices.append([replace(part, ids=_ids_in_context(backend, renderings, index, end)) for end in ends])
    return [tuple(choice) for choice in itertools.product(*choices)]


def _ids_in_context(backend: Tokenizer, renderings: Sequence[_Rendering], index: int, num_left_out: int) -> Ids:
    """The ids that a part's text has in most renderings, leaving characters at its end to the field behind it."""
    votes = Counter(ids for rendering in renderings if (ids := _ids_inside(rendering, index, num_left_out)) is not None)
    if votes:
        return votes.most_common(1)[0][0]
    text = renderings[0].written[index]
    return tuple(backend.encode(text[: len(text) - num_left_out], add_special_tokens=False).ids)


def _ids_inside(rendering: _Rendering, index: int, num_left_out: int) -> Ids | None:
    """The ids of one part within a rendering, or None if a token reaches over its border."""
    start = sum(map(len, rendering.written[:index]))
    end = start + len(rendering.written[index]) - num_left_out
    inside: list[int] = []
    for token_id, (token_start, token_end) in zip(rendering.ids, rendering.offsets, strict=True):
        if token_end <= start or token_start >= end:
            continue
        if token_start < start or token_end > end:
            return None
        inside.append(token_id)
    return tuple(inside)


def _plain_ids(backend: Tokenizer, text: str) -> Ids:
    """The ids of a field's text: special tokens in it are text."""
    backend.encode_special_tokens = True
    ids = tuple(backend.encode(text, add_special_tokens=False).ids)
    backend.encode_special_tokens = False
    return ids


def _distance(native: Mapping[str, Ids], rendered: Mapping[str, Ids]) -> tuple[int, int]:
    """How many tokens differ over all probes, and in how many probes: a stray token is worse than a changed one."""
    gaps = [
        (Counter(native[probe]) - Counter(rendered[probe])).total()
        + (Counter(rendered[probe]) - Counter(native[probe])).total()
        for probe in PROBES
    ]
    return sum(gaps), sum(native[probe] != rendered[probe] for probe in PROBES)


def _join(parts: Sequence[Part], field_ids: Ids) -> Ids:
    return tuple(
        itertools.chain.from_iterable(field_ids if part.kind is PartKind.FIELD else part.ids for part in parts)
    )
