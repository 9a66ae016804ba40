"""One step of generation as one compiled graph, for up to 32 rows.

A product from a library costs a call, and what norms, activations and residual sums read and write goes through memory.
``step_graph.py`` is the step without all these; here it is compiled, and given what it reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.types import GuardFilterEntry
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler
from transformers import CompileConfig
from transformers.cache_utils import EncoderDecoderCache, StaticLayer
from transformers.utils import logging

from hf_prompting.seq2seq.decoding_layout import joined_biases
from hf_prompting.seq2seq.decoding_positions import PositionTable, position_table
from hf_prompting.seq2seq.layers import Seq2SeqTransformerDecoderLayer
from hf_prompting.seq2seq.stacks import Seq2SeqTransformerDecoder, check_length
from hf_prompting.seq2seq.step_graph import NUM_LANES, StepShape, scores

_FEW_ROWS = 2  # up to here, rows are rows; from three on they are columns
_MOST_ROWS = 32  # beyond, a library's products are faster
_FEWEST_PLACES = 2  # torch's compiler takes a size of 1 for a constant


def can_compile(
    decoder: Seq2SeqTransformerDecoder, head: nn.Linear, cache: EncoderDecoderCache, compiling: CompileConfig
) -> bool:
    """Tell whether a compiled step is worth it: few rows, static caches, weights by rows, and torch's own compiler.

    Example:
        >>> can_compile(model.model.decoder, model.lm_head, cache, CompileConfig())  # doctest: +SKIP
        True
    """
    layers = (*cache.self_attention_cache.layers, *cache.cross_attention_cache.layers)
    return (
        compiling.backend == "inductor"
        and all(type(layer) is StaticLayer and len(layer.keys) <= _MOST_ROWS for layer in layers)
        and all(weight.is_contiguous() for weight in (*decoder.parameters(), *head.parameters()))
        and not any([*layer.mlp.activation.parameters()] for layer in _layers(decoder))
        and _has_compiler()
    )


def _layers(decoder: Seq2SeqTransformerDecoder) -> list[Seq2SeqTransformerDecoderLayer]:
    return [cast(Seq2SeqTransformerDecoderLayer, layer) for layer in decoder.layers]


@cache
def _has_compiler() -> bool:
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        logging.get_logger(__name__).warning("compile_config changes nothing here: %s", error)
        return False
    return True


class CompiledStep:
    """Scores of the next token, from the last one and from a static cache that the step extends.

    It belongs to one call of ``generate``: of more rows than two, q, k, v and gate, up are copies. Models of one shape
    share the compiled graph; so do texts of all lengths, 3 to 15 rows, and 17 to 31.

    Args:
        decoder: the decoder; see ``decoding_step.can_decode``.
        head: (B, H) states -> (B, V) scores.
        output_scale: factor of the states before the head.
        cache: static; keys and values of each layer get into one tensor.
        encoder_mask: (B, 1, 1, S) to add to scores of the encoder's text, or None.
        compiling: what ``torch.compile`` gets, but for ``dynamic``: the sizes that vary are known.
    Example:
        >>> step = CompiledStep(model.model.decoder, model.lm_head, 1.0, cache, None, CompileConfig())  # doctest: +SKIP
        >>> step(torch.tensor([[5]])).shape  # doctest: +SKIP
        torch.Size([1, 1, 99])
    """

    def __init__(
        self,
        decoder: Seq2SeqTransformerDecoder,
        head: nn.Linear,
        output_scale: float,
        cache: EncoderDecoderCache,
        encoder_mask: Tensor | None,
        compiling: CompileConfig,
    ) -> None:
        own, cross = cache.self_attention_cache.layers, cache.cross_attention_cache.layers
        num_rows = len(own[0].keys)
        num_columns = 0 if num_rows <= _FEW_ROWS else NUM_LANES * math.ceil(num_rows / NUM_LANES)
        has_padding = num_rows < num_columns
        positions = position_table(decoder, own[0].max_cache_len)
        weights = _weights(decoder, head, join=num_columns > 0)
        self._config = decoder.config
        self._lengths = [layer.cumulative_length for layer in own]
        self._num_past = int(self._lengths[0])
        self._num_places: int = own[0].max_cache_len
        self._place = torch.zeros(1, dtype=torch.long)
        self._own_masks = _own_masks(positions)
        self._ids = torch.zeros(max(num_rows, num_columns), dtype=torch.long)
        self._num_rows = num_rows

        def joined(layer: StaticLayer) -> Tensor | None:
            """Put keys and values into one tensor: half as many inputs to check at every step."""
            both = torch.stack((layer.keys, layer.values))
            layer.keys, layer.values = both.unbind()
            return _of_any_size(both, 1, 3) if has_padding else _of_any_size(both, 3)

        self._inputs = {
            "weights": weights,
            "rotations": positions.rotations and _of_any_size(torch.stack(positions.rotations), 1),
            "added": _of_any_size(positions.added, 0),
            "own": [joined(layer) for layer in own],
            "cross": [joined(layer) for layer in cross],
            "encoder_mask": _of_any_size(encoder_mask, *((0, 3) if has_padding else (3,))),
        }
        self._joined = [(layer, layer.keys) for layer in own]
        shapes = tuple((name, weight.shape) for name, weight in weights.items())
        kind = None if has_padding else num_rows, encoder_mask is None, shapes
        self._graph = _compiled_graph(StepShape.of(decoder, output_scale, num_columns), kind, compiling)

    @property
    def has_room(self) -> bool:
        """Whether a place stays free behind the next token: torch's compiler makes another graph for full caches."""
        return max(self._num_past + 1, _FEWEST_PLACES) < self._num_places

    @property
    def is_current(self) -> bool:
        """Whether the cache still holds the tensors of this step: who reorders rows puts others in their place."""
        return all(layer.keys is keys for layer, keys in self._joined)

    def __call__(self, ids: Tensor) -> Tensor:
        """(B, 1) ids -> (B, 1, V) scores.

        Raises:
            Seq2SeqInputError: if the text outgrows sinusoidal or learned positions.
        """
        self._num_past += 1
        if self._inputs["added"] is not None:
            check_length(self._num_past, self._config)
        self._ids[: self._num_rows] = ids[:, 0]
        self._place.fill_(self._num_past - 1)
        first = self._num_places - self._num_past
        own_mask = self._own_masks[..., first : first + max(self._num_past, _FEWEST_PLACES)]
        own_mask = own_mask.clone(memory_format=torch.contiguous_format)  # a view's place would be one more variable
        found = self._graph(self._ids, self._place, _of_any_size(own_mask, 3), **self._inputs)
        for length in self._lengths:
            length.add_(1)
        return found


def _weights(decoder: Seq2SeqTransformerDecoder, head: nn.Linear, *, join: bool) -> dict[str, Tensor]:
    """Return all weights by their names; joined, matrices that multiply the same states lie above each other."""
    weights: dict[str, Tensor] = {
        **dict(decoder.named_parameters(remove_duplicate=False)),
        **dict(head.named_parameters(prefix="lm_head")),
    }
    if not join:
        return weights
    for number, layer in enumerate(_layers(decoder)):
        for block, names in (("self_attn", ("q_proj", "k_proj", "v_proj")), ("mlp", ("gate_proj", "up_proj"))):
            prefix, parts = f"layers.{number}.{block}.", [getattr(getattr(layer, block), name) for name in names]
            if None in parts:
                continue
            for name in names:
                weights.pop(f"{prefix}{name}.weight")
                weights.pop(f"{prefix}{name}.bias", None)
            together = prefix + "+".join(names)
            weights[f"{together}.weight"] = torch.cat([part.weight for part in parts])
            biases = joined_biases(parts)
            if biases is not None:
                weights[f"{together}.bias"] = biases
    return weights


def _own_masks(positions: PositionTable) -> Tensor:
    """Return what to add to scores: (1, heads or 1, 1, P + 1), by distance as in the table; last, what hides one."""
    seen = torch.zeros(1, 1, 1, positions.num_places) if positions.biases is None else positions.biases
    return F.pad(seen, (0, 1), value=torch.finfo(seen.dtype).min)


def _of_any_size(states: Tensor | None, *dimensions: int) -> Tensor | None:
    """Tell the compiler which sizes differ from call to call, so that one graph is made for all; return a view."""
    if states is None:
        return None
    marked = states.detach()
    for dimension in dimensions:
        torch._dynamo.maybe_mark_dynamic(marked, dimension)
    return marked


_GRAPHS: dict[tuple[Any, ...], Callable[..., Tensor]] = {}


def _compiled_graph(shape: StepShape, kind: tuple[Any, ...], compiling: CompileConfig) -> Callable[..., Tensor]:
    """Compile once. Not ``dynamic``, or torch takes every size that differs from an earlier graph's for varying."""
    key = shape, kind, repr(sorted(compiling.to_dict().items()))
    if key not in _GRAPHS:
        arguments = {**compiling.to_dict(), "dynamic": False, "isolate_recompiles": True}
        modes: dict[str, dict[str, Any]] = torch._inductor.list_mode_options()
        if arguments["options"] is None and arguments["mode"] in {None, *modes}:
            mode = arguments.pop("mode")  # torch wants either a mode or its options
            arguments["options"] = {**modes.get(mode, {}), "guard_filter_fn": _guards_to_check}
        _GRAPHS[key] = torch.compile(partial(scores, shape), **arguments)
    return _GRAPHS[key]


def _guards_to_check(guards: Sequence[GuardFilterEntry]) -> list[bool]:
    """Tell for each of the compiler's guards whether to check it at every step; all of them take a tenth of one.

    Checked are torch's global state, sizes, and which tensors are the same one. Not checked: whether code has changed,
    and what the key of a graph says already, its constants and the names and shapes of the weights.
    """
    return [
        guard.name == ""
        or guard.guard_type == "DUPLICATE_INPUT"
        or (guard.name.startswith(("args", "kwargs")) and not guard.name.startswith("kwargs['weights']"))
        for guard in guards
    ]
