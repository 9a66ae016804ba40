"""One step of generation as a plain function: what is the same in all steps is looked up, checked and joined once.

A step multiplies one row a text with each matrix. On a CPU the module calls, hooks, masks and checks around these
products cost as much as the products. A model that is as this package made it generates without them; whatever is more
(an adapter, a hook, another device) takes the ordinary ``forward``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from transformers import CompileConfig
from transformers.activations import ACT2FN
from transformers.cache_utils import DynamicLayer, EncoderDecoderCache, StaticLayer
from transformers.masking_utils import create_bidirectional_mask
from transformers.utils.output_capturing import OutputRecorder

from hf_prompting.cpu_products import Linear, is_plain, prepared_linear
from hf_prompting.seq2seq.attention import Seq2SeqTransformerAttention
from hf_prompting.seq2seq.compiled_step import CompiledStep, compiled_step
from hf_prompting.seq2seq.cpu_functions import prepared_rms_norm
from hf_prompting.seq2seq.decoding_layout import joined_biases
from hf_prompting.seq2seq.decoding_positions import PositionTable, position_table
from hf_prompting.seq2seq.growing_cache import GrowingLayer
from hf_prompting.seq2seq.layers import (
    Seq2SeqTransformerDecoderLayer,
    Seq2SeqTransformerEmbedding,
    Seq2SeqTransformerFeedForward,
    Seq2SeqTransformerRMSNorm,
)
from hf_prompting.seq2seq.positions import (
    Seq2SeqTransformerLearnedPositions,
    Seq2SeqTransformerRelativeBias,
    Seq2SeqTransformerRotaryEmbedding,
    rotate,
)
from hf_prompting.seq2seq.stacks import Seq2SeqTransformerDecoder, check_length

_FEW_ROWS = 8  # below, attention by one fused call is faster; from here on, by products of many small matrices
_FIRST_PLACES = 64
_SAME_CACHE_LINES = 1024  # columns of such a length evict each other: two to three times the time
_VARYING_ROTATIONS = ("dynamic", "longrope")  # their angles depend on the length of the text
CacheLayer: TypeAlias = DynamicLayer | StaticLayer
_PARTS = {
    Linear,
    nn.Linear,
    nn.Embedding,  # of the relative biases
    nn.LayerNorm,
    nn.Identity,
    nn.ModuleList,
    Seq2SeqTransformerAttention,
    Seq2SeqTransformerDecoder,
    Seq2SeqTransformerDecoderLayer,
    Seq2SeqTransformerEmbedding,
    Seq2SeqTransformerFeedForward,
    Seq2SeqTransformerLearnedPositions,
    Seq2SeqTransformerRMSNorm,
    Seq2SeqTransformerRelativeBias,
    Seq2SeqTransformerRotaryEmbedding,
}


def can_decode(model: Any, cache: Any) -> bool:
    """Tell whether ``DecodingStep`` computes what a generating model's own parts would compute, with this cache.

    Example:
        >>> can_decode(model, cache)  # doctest: +SKIP
        True
    """
    decoder, head = model.model.decoder, model.lm_head
    if type(decoder) is not Seq2SeqTransformerDecoder or type(cache) is not EncoderDecoderCache:
        return False
    config, own, cross = decoder.config, cache.self_attention_cache.layers, cache.cross_attention_cache.layers
    rotary = decoder.rotary_emb
    activation = type(ACT2FN[config.hidden_act])
    return (
        len(own) == len(cross) == len(decoder.layers)
        and not (cache.self_attention_cache.offloading or cache.cross_attention_cache.offloading)
        and {type(layer) for layer in own} in ({GrowingLayer}, {StaticLayer})
        and {type(layer) for layer in cross} in ({DynamicLayer}, {StaticLayer})
        and config._attn_implementation in ("sdpa", "eager")
        and not (config.output_attentions or config.output_hidden_states)
        and not (rotary is not None and rotary.rope_type in _VARYING_ROTATIONS)
        and not (torch.is_autocast_enabled("cpu") or torch.is_grad_enabled() or _has_any_global_hook())  # type: ignore[no-untyped-call]
        and is_plain(head)
        and all(type(part) in _PARTS | {activation} for part in decoder.modules())
        and all(_is_untouched(part) for part in (*decoder.modules(), head, model.model, model))
    )


class DecodingStep:
    """Scores of the next token, from the last one and from a cache that the step extends.

    It belongs to one call of ``generate``: some of its matrices are copies (queries, keys and values in one, gate and
    inner projection in one) that would not see a later change of the weights.

    Args:
        decoder: the decoder; see ``can_decode``.
        head: (B, H) states -> (B, V) scores.
        output_scale: factor of the states before the head.
        cache: filled by a first forward pass, or empty: then the encoder's keys and values are computed here.
        encoder_states: (B, S, H).
        encoder_padding: (B, S), 0 for padding, or None.
    Example:
        >>> step = DecodingStep(model.model.decoder, model.lm_head, 1.0, cache, states, None)  # doctest: +SKIP
        >>> step(torch.tensor([[5]])).shape  # doctest: +SKIP
        torch.Size([1, 1, 99])
    """

    def __init__(
        self,
        decoder: Seq2SeqTransformerDecoder,
        head: nn.Linear,
        output_scale: float,
        cache: EncoderDecoderCache,
        encoder_states: Tensor,
        encoder_padding: Tensor | None,
    ) -> None:
        self.cache, self.num_rows = cache, len(encoder_states)
        self._decoder, self._head, self._output_scale = decoder, head, output_scale
        self._compiled: CompiledStep | None = None
        if cache.get_seq_length() == 0:
            _fill(cache, decoder, encoder_states)
        self._encoder_mask = _to_add(
            create_bidirectional_mask(
                config=decoder.config,
                inputs_embeds=encoder_states[:, :1],
                attention_mask=encoder_padding,
                encoder_hidden_states=encoder_states,
            ),
            encoder_states.dtype,
        )

    def compile(self, compiling: CompileConfig) -> None:
        """From now on compute by a compiled step, if there is one."""
        self._compiled = compiled_step(
            self._decoder, self._head, self._output_scale, self.cache, self._encoder_mask, compiling
        )

    def __call__(self, ids: Tensor) -> Tensor:
        """(B, 1) ids -> (B, 1, V) scores.

        Raises:
            Seq2SeqInputError: if the text outgrows sinusoidal or learned positions.
        """
        if self._compiled is not None:
            scores = self._compiled(ids)
            if scores is not None:
                return scores
            self._compiled = None
        num_past = int(self.cache.get_seq_length())  # a static cache keeps a tensor
        if num_past >= self._positions.num_places:
            self._positions = position_table(self._decoder, 2 * num_past)
        positions = self._positions
        states = self._decoder.embed_tokens.forward(ids[:, 0])
        rotation = bias = None
        if positions.rotations is not None:
            rotation = positions.rotations[0][num_past], positions.rotations[1][num_past]
        elif positions.biases is not None:
            bias = positions.biases[..., positions.num_places - 1 - num_past :]
        elif positions.added is not None:
            check_length(num_past + 1, self._decoder.config)
            states = states + positions.added[num_past]
        caches = zip(self.cache.self_attention_cache.layers, self.cache.cross_attention_cache.layers, strict=True)
        for layer, (own, cross) in zip(self._layers, caches, strict=True):
            states = layer(states, num_past, rotation, bias, self._encoder_mask, own, cross)
        norm, head = self._norm_and_head
        states = norm(states)
        return head(states if self._output_scale == 1.0 else states * self._output_scale)[:, None]

    @cached_property
    def _positions(self) -> PositionTable:
        return position_table(self._decoder, _FIRST_PLACES)

    @cached_property
    def _layers(self) -> list[_LayerStep]:
        return [
            _LayerStep(cast(Seq2SeqTransformerDecoderLayer, layer), self.num_rows) for layer in self._decoder.layers
        ]

    @cached_property
    def _norm_and_head(self) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        return _norm(self._decoder.norm), _product((self._head,), self.num_rows)


class _LayerStep:
    """One decoder layer: (B, H) states of the last token -> (B, H)."""

    def __init__(self, layer: Seq2SeqTransformerDecoderLayer, num_rows: int) -> None:
        own, cross, mlp = layer.self_attn, layer.cross_attn, layer.mlp
        self.norms = [_norm(norm) for norm in (layer.self_attn_norm, layer.cross_attn_norm, layer.mlp_norm)]
        self.add, self.activation, self.gated = layer.add, mlp.activation, mlp.gate_proj is not None
        wide = (mlp.up_proj,) if mlp.gate_proj is None else (mlp.gate_proj, mlp.up_proj)
        self.head_dim, self.scaling, self.groups = own.head_dim, own.scaling, own.num_key_value_groups
        self.num_key_heads = own.k_proj.out_features // own.head_dim
        self.project = _product((own.q_proj, own.k_proj, own.v_proj), num_rows)
        self.project_back = _product((own.o_proj,), num_rows)
        self.query = _product((cross.q_proj,), num_rows)
        self.cross_back = _product((cross.o_proj,), num_rows)
        self.widen = _product(wide, num_rows)
        self.narrow = _product((mlp.down_proj,), num_rows)

    def __call__(
        self,
        states: Tensor,
        num_past: int,
        rotation: tuple[Tensor, Tensor] | None,
        bias: Tensor | None,
        encoder_mask: Tensor | None,
        own: CacheLayer,
        cross: CacheLayer,
    ) -> Tensor:
        own_norm, cross_norm, last_norm = self.norms
        states = self.add(own_norm, lambda normed: self._attend_to_own(normed, num_past, rotation, bias, own), states)
        states = self.add(
            cross_norm,
            lambda normed: self.cross_back(self._attend(self.query(normed), cross.keys, cross.values, encoder_mask)),
            states,
        )
        return self.add(last_norm, self._feed_forward, states)

    def _attend_to_own(
        self,
        states: Tensor,
        num_past: int,
        rotation: tuple[Tensor, Tensor] | None,
        bias: Tensor | None,
        cache: CacheLayer,
    ) -> Tensor:
        num = self.num_key_heads
        heads = self.project(states).view(len(states), -1, self.head_dim)
        turned = heads[:, :-num]
        if rotation is not None:
            turned = rotate(turned, *rotation)
        keys, values = _append(cache, turned[:, -num:], heads[:, -num:], num_past)
        return self.project_back(self._attend(turned[:, :-num], keys, values, bias))

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from one token: query heads that share a key head are its (key heads, groups) "tokens"."""
        num_rows = len(query)
        query = query.reshape(num_rows, self.num_key_heads, self.groups, self.head_dim)
        if mask is not None:
            mask = mask.expand(-1, self.num_key_heads * self.groups, -1, -1).reshape(
                len(mask), self.num_key_heads, self.groups, -1
            )
        if num_rows < _FEW_ROWS:
            attended = F.scaled_dot_product_attention(query, keys, values, mask, scale=self.scaling)
        else:
            scores = torch.bmm((query * self.scaling).flatten(0, 1), keys.flatten(0, 1).transpose(1, 2))
            if mask is not None:
                scores = (scores.view(*query.shape[:3], -1) + mask).flatten(0, 1)
            attended = torch.bmm(scores.softmax(dim=-1), values.flatten(0, 1))
        return attended.reshape(num_rows, -1)

    def _feed_forward(self, states: Tensor) -> Tensor:
        inner = self.widen(states)
        if not self.gated:
            return self.narrow(self.activation(inner))
        gate, up = inner.chunk(2, dim=-1)
        return self.narrow(self.activation(gate) * up)


def _fill(cache: EncoderDecoderCache, decoder: Seq2SeqTransformerDecoder, encoder_states: Tensor) -> None:
    """Put the encoder's keys and values into an empty cache, as a first forward pass does, and make room for others."""
    for layer, own in zip(decoder.layers, cache.self_attention_cache.layers, strict=True):
        keys, values = cast(Seq2SeqTransformerDecoderLayer, layer).cross_attn.keys_of_encoder(encoder_states, cache)
        if not own.is_initialized:
            own.lazy_initialization(keys, values)


def _append(cache: CacheLayer, key: Tensor, value: Tensor, num_past: int) -> tuple[Tensor, Tensor]:
    """Write one token's (B, heads, D) keys and values behind the others, and return all there are by now."""
    if isinstance(cache, DynamicLayer):
        updated: tuple[Tensor, Tensor] = cache.update(key[:, :, None], value[:, :, None])
        return updated
    cache.keys[:, :, num_past] = key
    cache.values[:, :, num_past] = value
    cache.cumulative_length.add_(1)
    return cache.keys[:, :, : num_past + 1], cache.values[:, :, : num_past + 1]


def _product(layers: Sequence[nn.Linear], num_rows: int) -> Callable[[Tensor], Tensor]:
    """Return the function that multiplies (B, I) with all matrices and puts the results side by side."""
    if len(layers) == 1:
        return prepared_linear(layers[0].weight, layers[0].bias, num_rows)
    columns = torch.cat([layer.weight.t() for layer in layers], dim=1)  # see decoding_layout.py
    return prepared_linear(
        columns.t(), joined_biases(layers), num_rows, reorder=columns.shape[1] % _SAME_CACHE_LINES == 0
    )


def _norm(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the function of a norm."""
    if isinstance(norm, Seq2SeqTransformerRMSNorm):
        return prepared_rms_norm(norm.weight, norm.eps)
    return norm.forward


def _to_add(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return a mask of True and False as 0 and the lowest number."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def _is_untouched(part: nn.Module) -> bool:
    """Tell whether nobody has put anything around a module, and it is a float32 one on the CPU that does not train.

    Hooks by which transformers records attentions and states stay for good; while nothing is recorded they are idle.
    """
    hooks = (*part._forward_hooks.values(), *part._forward_pre_hooks.values())
    return (
        not part.training
        and "forward" not in vars(part)
        and part._compiled_call_impl is None
        and all(hook.__module__ == OutputRecorder.__module__ for hook in hooks)
        and all(
            type(weight) is nn.Parameter and weight.dtype == torch.float32 and weight.device.type == "cpu"
            for weight in part._parameters.values()
            if weight is not None
        )
    )
