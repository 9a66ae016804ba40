"""Scaled dot-product attention with several heads, for self-attention and for cross-attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_prompting.cpu_products import Linear
from hf_prompting.seq2seq.configuration_seq2seq import Seq2SeqTransformerConfig
from hf_prompting.seq2seq.positions import rotate


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """``softmax(Q K^T * scaling + bias + mask) V``, written out; the only form that returns its weights.

    Source: Vaswani et al., 2017, section 3.2.1, arXiv:1706.03762. In the form of transformers' attention interface.

    Args:
        module: the attention; its ``num_key_value_groups`` says how many query heads share a key head.
        query: (B, heads, T, D).
        key: (B, key heads, S, D).
        value: (B, key heads, S, D).
        attention_mask: (B, 1, T, S) to add, or None.
        scaling: factor of the scores.
        dropout: rate on the weights while training.
        position_bias: (1, heads, T, S) to add, or None.
    Returns:
        (B, T, heads, D) states and (B, heads, T, S) weights, whose rows sum to 1.
    Example:
        >>> one = torch.ones(1, 1, 1, 1)
        >>> eager_attention(Seq2SeqTransformerAttention(config, 0), one, one, one, None, 1.0)  # doctest: +SKIP
    """
    groups = cast(int, module.num_key_value_groups)
    if groups > 1:
        key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    scores = query @ key.transpose(2, 3) * scaling
    for addend in (position_bias, attention_mask):
        if addend is not None:
            scores = scores + addend
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class Seq2SeqTransformerAttention(nn.Module):
    """Multi-head attention with separate projections, named as LoRA and other PEFT methods expect them.

    Args:
        config: sizes, ``scale_attention``, ``use_bias`` and ``attention_dropout`` are read.
        layer_idx: number of the layer, the key of its cache.
        is_causal: whether a query may only see keys up to its own position.
    """

    def __init__(self, config: Seq2SeqTransformerConfig, layer_idx: int, *, is_causal: bool = False) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.is_causal = is_causal
        self.head_dim, num_key_value_heads = config.head_sizes
        self.num_key_value_groups = config.num_attention_heads // num_key_value_heads
        self.scaling: float = self.head_dim**-0.5 if config.scale_attention else 1.0
        query_width, key_width = config.num_attention_heads * self.head_dim, num_key_value_heads * self.head_dim
        self.q_proj = Linear(config.hidden_size, query_width, bias=config.use_bias)
        self.k_proj = Linear(config.hidden_size, key_width, bias=config.use_bias)
        self.v_proj = Linear(config.hidden_size, key_width, bias=config.use_bias)
        self.o_proj = Linear(query_width, config.hidden_size, bias=config.use_bias)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        key_value_states: Tensor | None = None,
        past_key_values: Cache | None = None,
        rotation: tuple[Tensor, Tensor] | None = None,
        position_bias: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend to ``key_value_states`` (B, S, H), or to the hidden states themselves.

        Args:
            hidden_states: (B, T, H).
            attention_mask: in the form of the chosen attention implementation.
            key_value_states: the encoder's states; None for self-attention.
            past_key_values: cache to read and to extend.
            rotation: cosines and sines for rotary positions.
            position_bias: (1, heads, T, S) for relative positions.
        Returns:
            (B, T, H) states, and the weights where the implementation gives them.
        """
        query = self._heads(self.q_proj(hidden_states))
        if key_value_states is None:
            key, value = self._heads(self.k_proj(hidden_states)), self._heads(self.v_proj(hidden_states))
            if rotation is not None:
                query, key = rotate(query, *rotation), rotate(key, *rotation)
            cache = self_attention_cache(past_key_values)
            if cache is not None:
                key, value = cache.update(key, value, self.layer_idx)
        else:
            key, value = self.keys_of_encoder(key_value_states, past_key_values)
        if position_bias is not None and position_bias.shape[1] != query.shape[1]:
            position_bias = self._bias_of_own_heads(position_bias, query.shape[1])
        attend: Callable[..., tuple[Tensor, Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention
        )
        attended, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.config.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            position_bias=position_bias,
            **kwargs,
        )
        return self.o_proj(attended.reshape(*hidden_states.shape[:-1], -1)), weights

    def _heads(self, states: Tensor) -> Tensor:
        """(B, T, heads * D) -> (B, heads, T, D)."""
        return states.view(*states.shape[:-1], -1, self.head_dim).transpose(1, 2)

    def _bias_of_own_heads(self, position_bias: Tensor, num_heads: int) -> Tensor:
        """(1, all heads, T, S) -> (1, own heads, T, S) where tensor parallelism has given this device some heads."""
        mesh = cast(DTensor, self.q_proj.weight).device_mesh
        place = mesh.get_local_rank("tp" if "tp" in (mesh.mesh_dim_names or ()) else None)
        return position_bias.narrow(1, place * num_heads, num_heads)

    def keys_of_encoder(self, states: Tensor, past_key_values: Cache | None) -> tuple[Tensor, Tensor]:
        """Project (B, S, H) states of the encoder once per generation; later steps read the cache.

        Returns:
            (B, key heads, S, D) keys and values.
        """
        if not isinstance(past_key_values, EncoderDecoderCache):
            return self._heads(self.k_proj(states)), self._heads(self.v_proj(states))
        cache = past_key_values.cross_attention_cache
        if past_key_values.is_updated.get(self.layer_idx):
            layer = cache.layers[self.layer_idx]
            return layer.keys, layer.values
        key, value = self._heads(self.k_proj(states)), self._heads(self.v_proj(states))
        past_key_values.is_updated[self.layer_idx] = True
        cached: tuple[Tensor, Tensor] = cache.update(key, value, self.layer_idx)
        return cached


def self_attention_cache(past_key_values: Cache | None) -> Cache | None:
    """Return the part of a cache that the decoder's self-attention fills."""
    return past_key_values.self_attention_cache if isinstance(past_key_values, EncoderDecoderCache) else past_key_values
