"""One step of generation as one compiled graph, for one or two rows.

A row times a matrix is a sum over each row of the matrix. Written like that, torch's compiler makes a loop of it that
reads the weights once, with norms, activations and residual sums in the same pass, and nothing is left but reading.
With more rows a library's product is faster, and the step stays as ``decoding_step.py`` has prepared it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler
from transformers import CompileConfig
from transformers.activations import ACT2FN
from transformers.cache_utils import EncoderDecoderCache, StaticLayer
from transformers.utils import logging

from hf_prompting.seq2seq.decoding_positions import position_table
from hf_prompting.seq2seq.layers import Seq2SeqTransformerDecoderLayer
from hf_prompting.seq2seq.positions import rotate
from hf_prompting.seq2seq.stacks import Seq2SeqTransformerDecoder, check_length

KeysAndValues: TypeAlias = tuple[Tensor, Tensor]  # (B, key heads, T, D) each
_MOST_ROWS = 2  # up to here sums are faster than a library's products
_LENGTH = 2  # the dimension of keys and values that differs from one call of generate to the next


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

    Weights are read where they are. Models of one shape share the compiled graph, and so do texts of all lengths.

    Args:
        decoder: the decoder; see ``decoding_step.can_decode``.
        head: (B, H) states -> (B, V) scores.
        output_scale: factor of the states before the head.
        cache: static, filled by a first forward pass.
        encoder_mask: (B, 1, 1, S) to add to scores of the encoder's text, or None.
        compiling: what ``torch.compile`` gets.
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
        self._config = decoder.config
        self._lengths = [layer.cumulative_length for layer in own]
        positions = position_table(decoder, own[0].max_cache_len)
        weights = {
            **dict(decoder.named_parameters(remove_duplicate=False)),
            **dict(head.named_parameters(prefix="lm_head")),
        }
        self._inputs = {
            "weights": weights,
            "rotations": positions.rotations and tuple(_of_any_length(angles, 0) for angles in positions.rotations),
            "biases": _of_any_length(positions.biases, -1),
            "added": _of_any_length(positions.added, 0),
            "own": [(_of_any_length(layer.keys, _LENGTH), _of_any_length(layer.values, _LENGTH)) for layer in own],
            "cross": [(_of_any_length(layer.keys, _LENGTH), _of_any_length(layer.values, _LENGTH)) for layer in cross],
            "encoder_mask": _of_any_length(encoder_mask, -1),
        }
        kind = len(cross[0].keys), encoder_mask is None, tuple(weight.shape for weight in weights.values())
        self._graph = _compiled_graph(_Shape.of(decoder, output_scale), kind, compiling)

    def __call__(self, ids: Tensor) -> Tensor:
        """(B, 1) ids -> (B, 1, V) scores.

        Raises:
            Seq2SeqInputError: if the text outgrows sinusoidal or learned positions.
        """
        if self._inputs["added"] is not None:
            check_length(int(self._lengths[0]) + 1, self._config)
        last = ids[:, 0].clone(memory_format=torch.contiguous_format)  # a graph is made for strides, too
        scores = self._graph(last, self._lengths[0], **self._inputs)
        for length in self._lengths:
            length.add_(1)
        return scores


def _of_any_length(states: Tensor | None, dimension: int) -> Tensor | None:
    """Tell the compiler that texts differ in length, so that one graph is made for all; return a view."""
    if states is None:
        return None
    marked = states.detach()
    torch._dynamo.maybe_mark_dynamic(marked, dimension % marked.dim())
    return marked


class _Shape(NamedTuple):
    """What the graph depends on besides its inputs, in the words of ``Seq2SeqTransformerConfig``."""

    head_dim: int
    num_key_heads: int
    scaling: float
    embed_scale: float
    output_scale: float
    hidden_act: str
    is_gated: bool
    norm_type: str
    norm_eps: float
    norm_comes_first: bool
    norm_comes_last: bool

    @classmethod
    def of(cls, decoder: Seq2SeqTransformerDecoder, output_scale: float) -> _Shape:
        """Return the shape of a decoder."""
        config, layer = decoder.config, _layers(decoder)[0]
        head_dim, num_key_heads = config.head_sizes
        return cls(
            head_dim=head_dim,
            num_key_heads=num_key_heads,
            scaling=layer.self_attn.scaling,
            embed_scale=decoder.embed_tokens.embed_scale,
            output_scale=output_scale,
            hidden_act=config.hidden_act,
            is_gated=config.gated_feed_forward,
            norm_type=config.norm_type,
            norm_eps=cast(float, layer.self_attn_norm.eps),
            norm_comes_first=config.norm_position == "pre",
            norm_comes_last=config.final_norm,
        )


_GRAPHS: dict[tuple[Any, ...], Callable[..., Tensor]] = {}


def _compiled_graph(shape: _Shape, kind: tuple[Any, ...], compiling: CompileConfig) -> Callable[..., Tensor]:
    arguments: dict[str, Any] = {**compiling.to_dict(), "isolate_recompiles": True}
    key = shape, kind, repr(sorted(arguments.items()))
    if key not in _GRAPHS:
        _GRAPHS[key] = torch.compile(partial(_scores, shape), **arguments)
    return _GRAPHS[key]


def _scores(
    shape: _Shape,
    ids: Tensor,
    place: Tensor,
    *,
    weights: Mapping[str, Tensor],
    rotations: tuple[Tensor, Tensor] | None,
    biases: Tensor | None,
    added: Tensor | None,
    own: Sequence[KeysAndValues],
    cross: Sequence[KeysAndValues],
    encoder_mask: Tensor | None,
) -> Tensor:
    """(B,) ids of the tokens at ``place`` -> (B, 1, V) scores; see ``PositionTable`` for the positions."""
    parts, place = _Parts(shape, weights), place[None]  # to index by a tensor of no dimension would ask for its number
    places = torch.arange(own[0][0].shape[_LENGTH])
    mask = torch.where(places > place, torch.finfo(torch.float32).min, 0.0).view(1, 1, 1, -1)
    states = F.embedding(ids, weights["embed_tokens.weight"]) * shape.embed_scale
    if added is not None:
        states = states + added[place]
    if biases is not None:
        mask = mask + biases[..., (places - place + len(places) - 1).clamp(max=len(places) - 1)]
    rotation = None if rotations is None else (rotations[0][place], rotations[1][place])
    for number, (own_keys, cross_keys) in enumerate(zip(own, cross, strict=True)):
        states = parts.layer(states, f"layers.{number}", place, rotation, mask, own_keys, cross_keys, encoder_mask)
    states = parts.norm(states, "norm") if shape.norm_comes_last else states
    return parts.product(states * shape.output_scale, "lm_head")[:, None]


@dataclass(frozen=True)
class _Parts:
    """What a layer consists of, by the names of the decoder's parameters."""

    shape: _Shape
    weights: Mapping[str, Tensor]

    def layer(
        self,
        states: Tensor,
        name: str,
        place: Tensor,
        rotation: tuple[Tensor, Tensor] | None,
        mask: Tensor,
        own: KeysAndValues,
        cross: KeysAndValues,
        encoder_mask: Tensor | None,
    ) -> Tensor:
        """(B, H) -> (B, H)."""

        def attend_to_own(normed: Tensor) -> Tensor:
            query, key, value = (self.heads(normed, f"{name}.self_attn.{part}_proj") for part in "qkv")
            if rotation is not None:
                query, key = rotate(query, *rotation), rotate(key, *rotation)
            for states, new in zip(own, (key, value), strict=True):
                states.index_copy_(_LENGTH, place, new[:, :, None])
            return self.product(self.attend(query, *own, mask), f"{name}.self_attn.o_proj")

        def attend_to_encoder(normed: Tensor) -> Tensor:
            query = self.heads(normed, f"{name}.cross_attn.q_proj")
            return self.product(self.attend(query, *cross, encoder_mask), f"{name}.cross_attn.o_proj")

        def feed_forward(normed: Tensor) -> Tensor:
            activation, inner = ACT2FN[self.shape.hidden_act], self.product(normed, f"{name}.mlp.up_proj")
            if self.shape.is_gated:
                inner = activation(self.product(normed, f"{name}.mlp.gate_proj")) * inner
            else:
                inner = activation(inner)
            return self.product(inner, f"{name}.mlp.down_proj")

        states = self.add(states, f"{name}.self_attn_norm", attend_to_own)
        states = self.add(states, f"{name}.cross_attn_norm", attend_to_encoder)
        return self.add(states, f"{name}.mlp_norm", feed_forward)

    def product(self, states: Tensor, name: str) -> Tensor:
        """(B, I) -> (B, O)."""
        product = (states[:, None] * self.weights[f"{name}.weight"]).sum(dim=-1)
        return product + self.weights[f"{name}.bias"] if f"{name}.bias" in self.weights else product

    def heads(self, states: Tensor, name: str) -> Tensor:
        """(B, H) -> (B, heads, D)."""
        return self.product(states, name).view(len(states), -1, self.shape.head_dim)

    def norm(self, states: Tensor, name: str) -> Tensor:
        """(B, H) -> (B, H)."""
        weight = self.weights[f"{name}.weight"]
        if self.shape.norm_type == "rms_norm":
            return F.rms_norm(states, weight.shape, weight, self.shape.norm_eps)
        return F.layer_norm(states, weight.shape, weight, self.weights[f"{name}.bias"], self.shape.norm_eps)

    def add(self, states: Tensor, norm: str, block: Callable[[Tensor], Tensor]) -> Tensor:
        """``x + block(norm(x))``, or ``norm(x + block(x))``."""
        if self.shape.norm_comes_first:
            return states + block(self.norm(states, norm))
        return self.norm(states + block(states), norm)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """(B, heads, D) queries of one token -> (B, heads * D); ``mask`` (B or 1, heads or 1, 1, T) is added."""
        grouped = query.view(len(query), self.shape.num_key_heads, -1, 1, self.shape.head_dim) * self.shape.scaling
        scores = (grouped * keys[:, :, None]).sum(dim=-1)
        if mask is not None:
            scores = scores + mask.expand(-1, query.shape[1], -1, -1).reshape(len(mask), *scores.shape[1:])
        shares = scores.softmax(dim=-1)
        return (shares[..., None] * values[:, :, None]).sum(dim=-2).flatten(1)
