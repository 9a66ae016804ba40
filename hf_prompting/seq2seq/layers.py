"""The parts of one layer: embedding, norm, feed-forward, and the residual sums that join them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

from hf_prompting.cpu_products import Linear
from hf_prompting.errors import Seq2SeqInputError
from hf_prompting.seq2seq.attention import Seq2SeqTransformerAttention
from hf_prompting.seq2seq.configuration_seq2seq import Seq2SeqTransformerConfig
from hf_prompting.seq2seq.cpu_functions import dropout, rms_norm


class Seq2SeqTransformerEmbedding(nn.Embedding):
    """Token embedding, scaled by ``sqrt(hidden_size)`` if the configuration says so.

    Rows are stored unscaled; ``embed_scale`` tells PEFT methods the factor. The padding row is trained like any other,
    because the decoder often starts with that very id.
    """

    def __init__(self, config: Seq2SeqTransformerConfig) -> None:
        super().__init__(config.vocab_size, config.hidden_size)
        self.embed_scale = math.sqrt(config.hidden_size) if config.scale_embedding else 1.0

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, T) ids -> (B, T, H).

        Raises:
            Seq2SeqInputError: on the CPU, if an id has no row. (On a GPU the check would cost a wait in every step;
                the device reports such an id itself.)
        """
        try:
            embedded = super().forward(input_ids)
        except IndexError as error:
            wrong = input_ids[(input_ids < 0) | (input_ids >= self.num_embeddings)][0].item()
            raise Seq2SeqInputError(
                f"token id {wrong} is outside the vocabulary; allowed: 0 to {self.num_embeddings - 1}. "
                "Does the tokenizer belong to this model? New tokens need model.resize_token_embeddings"
            ) from error
        return embedded if self.embed_scale == 1.0 else embedded * self.embed_scale


class Seq2SeqTransformerRMSNorm(nn.Module):
    """Divide by the root mean square, in float32, and scale (Zhang and Sennrich, 2019, arXiv:1910.07467)."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(..., H) -> (..., H)."""
        return rms_norm(hidden_states, self.weight, self.eps)


NORMS: dict[str, Callable[..., nn.Module]] = {"layer_norm": nn.LayerNorm, "rms_norm": Seq2SeqTransformerRMSNorm}


def norm_of(config: Seq2SeqTransformerConfig) -> nn.Module:
    """Return a new norm of the kind that the configuration names."""
    return NORMS[config.norm_type](config.hidden_size, eps=config.norm_eps)


class Seq2SeqTransformerFeedForward(nn.Module):
    """Two projections with an activation between, or three with a gate (Shazeer, 2020, arXiv:2002.05202)."""

    def __init__(self, config: Seq2SeqTransformerConfig) -> None:
        super().__init__()
        self.activation = ACT2FN[config.hidden_act]
        self.dropout = config.activation_dropout
        outer, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = Linear(outer, inner, bias=config.use_bias) if config.gated_feed_forward else None
        self.up_proj = Linear(outer, inner, bias=config.use_bias)
        self.down_proj = Linear(inner, outer, bias=config.use_bias)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, T, H) -> (B, T, H)."""
        inner = self.up_proj(hidden_states)
        if self.gate_proj is None:
            inner = self.activation(inner)
        else:
            inner = self.activation(self.gate_proj(hidden_states)) * inner
        outer: Tensor = self.down_proj(dropout(inner, self.dropout, training=self.training))
        return outer


def clamp_infinities(states: Tensor) -> Tensor:
    """Return float16 states in which a sum that grew too large is the largest number, not infinite.

    T5's checkpoints were trained in bfloat16 and reach beyond float16; the margin of 1,000 is that of transformers.

    Example:
        >>> clamp_infinities(torch.tensor([1.0, float("inf")], dtype=torch.float16)).tolist()
        [1.0, 64512.0]
    """
    largest = torch.finfo(states.dtype).max
    limit = torch.where(states.isinf().any(), largest - 1000, largest)
    return states.clamp(min=-limit, max=limit)


class _ResidualLayer(GradientCheckpointingLayer):  # type: ignore[misc]
    """A layer whose blocks are added to what they read, with the norm on the side that the configuration names."""

    def __init__(self, config: Seq2SeqTransformerConfig) -> None:
        super().__init__()
        self.pre_norm = config.norm_position == "pre"
        self.dropout = config.dropout

    def add(self, norm: Callable[[Tensor], Tensor], block: Callable[[Tensor], Tensor], hidden_states: Tensor) -> Tensor:
        """``x + block(norm(x))``, or ``norm(x + block(x))``."""
        output = block(norm(hidden_states) if self.pre_norm else hidden_states)
        summed = hidden_states + dropout(output, self.dropout, training=self.training)
        if summed.dtype == torch.float16:
            summed = clamp_infinities(summed)
        normed: Tensor = summed if self.pre_norm else norm(summed)
        return normed


class Seq2SeqTransformerEncoderLayer(_ResidualLayer):
    """Self-attention in both directions, then feed-forward."""

    def __init__(self, config: Seq2SeqTransformerConfig, layer_idx: int) -> None:
        super().__init__(config)
        self.self_attn = Seq2SeqTransformerAttention(config, layer_idx)
        self.self_attn_norm = norm_of(config)
        self.mlp = Seq2SeqTransformerFeedForward(config)
        self.mlp_norm = norm_of(config)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """(B, T, H) -> (B, T, H). ``kwargs`` (rotation and what the caller adds) go to the attention."""
        hidden_states = self.add(
            self.self_attn_norm,
            lambda states: self.self_attn(states, attention_mask, position_bias=position_bias, **kwargs)[0],
            hidden_states,
        )
        return self.add(self.mlp_norm, self.mlp, hidden_states)


class Seq2SeqTransformerDecoderLayer(_ResidualLayer):
    """Causal self-attention, cross-attention to the encoder's states, then feed-forward."""

    def __init__(self, config: Seq2SeqTransformerConfig, layer_idx: int) -> None:
        super().__init__(config)
        self.self_attn = Seq2SeqTransformerAttention(config, layer_idx, is_causal=True)
        self.self_attn_norm = norm_of(config)
        self.cross_attn = Seq2SeqTransformerAttention(config, layer_idx)
        self.cross_attn_norm = norm_of(config)
        self.mlp = Seq2SeqTransformerFeedForward(config)
        self.mlp_norm = norm_of(config)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        rotation: tuple[Tensor, Tensor] | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """(B, T, H) -> (B, T, H), reading the encoder's states (B, S, H) if there are any."""
        hidden_states = self.add(
            self.self_attn_norm,
            lambda states: self.self_attn(
                states,
                attention_mask,
                past_key_values=past_key_values,
                rotation=rotation,
                position_bias=position_bias,
                **kwargs,
            )[0],
            hidden_states,
        )
        if encoder_hidden_states is not None:
            hidden_states = self.add(
                self.cross_attn_norm,
                lambda states: self.cross_attn(
                    states, encoder_attention_mask, encoder_hidden_states, past_key_values, **kwargs
                )[0],
                hidden_states,
            )
        return self.add(self.mlp_norm, self.mlp, hidden_states)
