"""What a decoding step computes, written for torch's compiler: all of it becomes loops, none a call of a library.

Of a product that is written as a sum the compiler makes a loop over the matrix, in the order of the sum. For one or two
rows that is all it takes: each weight is read once, at the speed of memory. More rows become columns, 16 side by side
in a register. Eight rows of the matrix are summed up together, so that no addition waits for the one before; they lie
far apart, so that each is followed by its neighbour in memory, and the processor can read ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.activations import ACT2FN

from hf_prompting.seq2seq.layers import Seq2SeqTransformerDecoderLayer
from hf_prompting.seq2seq.positions import rotate
from hf_prompting.seq2seq.stacks import Seq2SeqTransformerDecoder

NUM_LANES = 16  # float32 numbers in a register of AVX-512
_NUM_SUMS = 8  # side by side: two additions a cycle, four cycles each


class StepShape(NamedTuple):
    """What the graph depends on besides its inputs, in the words of ``Seq2SeqTransformerConfig``.

    Attributes:
        num_columns: C, 0 for rows as they are, or a multiple of ``NUM_LANES`` and not below their number.
    """

    num_columns: int
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
    def of(cls, decoder: Seq2SeqTransformerDecoder, output_scale: float, num_columns: int) -> StepShape:
        """Return the shape of a decoder."""
        config, layer = decoder.config, cast(Seq2SeqTransformerDecoderLayer, decoder.layers[0])
        head_dim, num_key_heads = config.head_sizes
        return cls(
            num_columns=num_columns,
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


def scores(
    shape: StepShape,
    ids: Tensor,
    place: Tensor,
    own_mask: Tensor,
    *,
    weights: Mapping[str, Tensor],
    rotations: Tensor | None,
    added: Tensor | None,
    own: Sequence[Tensor],
    cross: Sequence[Tensor],
    encoder_mask: Tensor | None,
) -> Tensor:
    """Compute the scores of the next token.

    Args:
        shape: the decoder's.
        ids: (B,) of the last tokens; of columns (C,), any token behind the B first.
        place: (1,) where the last tokens stand: 0, 1, ...
        own_mask: (1, heads or 1, 1, T) to add to scores of the first T places.
        weights: by the names of the decoder's parameters; ``a+b.weight`` is the matrix of ``a`` above that of ``b``.
        rotations: (2, P, D) as in ``PositionTable``, like the next one.
        added: (P, H).
        own: of each layer (2, B, key heads, P, D) keys and values; those of the last tokens are written there.
        cross: (2, B, key heads, S, D) of the encoder's text.
        encoder_mask: (B, 1, 1, S) to add to scores of the encoder's text, or None.
    Returns:
        (B, 1, V).
    """
    parts = _Parts(shape, weights)
    states = F.embedding(ids, weights["embed_tokens.weight"]) * shape.embed_scale
    if added is not None:
        states = states + added[place]
    rotation = None if rotations is None else rotations[:, place]
    for number, caches in enumerate(zip(own, cross, strict=True)):
        states = parts.layer(states, f"layers.{number}", place, rotation, own_mask, *caches, encoder_mask)
    states = parts.norm(states, "norm") if shape.norm_comes_last else states
    return parts.product(states * shape.output_scale, "lm_head")[: own[0].shape[1], None]


@dataclass(frozen=True)
class _Parts:
    """What a layer consists of, by the names of the decoder's parameters."""

    shape: StepShape
    weights: Mapping[str, Tensor]

    def layer(
        self,
        states: Tensor,
        name: str,
        place: Tensor,
        rotation: Tensor | None,
        own_mask: Tensor,
        own: Tensor,
        cross: Tensor,
        encoder_mask: Tensor | None,
    ) -> Tensor:
        """(B, H) -> (B, H)."""

        def attend_to_own(normed: Tensor) -> Tensor:
            heads = self.heads(self.product(normed, f"{name}.self_attn.", "q_proj", "k_proj", "v_proj"))
            num = self.shape.num_key_heads
            turned, value = heads[:, :-num], heads[:, -num:]
            if rotation is not None:
                turned = rotate(turned, *rotation)
            new = torch.stack((turned[:, -num:], value))[:, : own.shape[1], :, None]
            seen = own.index_copy_(3, place, new)[:, :, :, : own_mask.shape[-1]]
            return self.product(self.attend(turned[:, :-num], seen, own_mask), f"{name}.self_attn.", "o_proj")

        def attend_to_encoder(normed: Tensor) -> Tensor:
            query = self.heads(self.product(normed, f"{name}.cross_attn.", "q_proj"))
            return self.product(self.attend(query, cross, encoder_mask), f"{name}.cross_attn.", "o_proj")

        def feed_forward(normed: Tensor) -> Tensor:
            activation = ACT2FN[self.shape.hidden_act]
            if self.shape.is_gated:
                gate, up = self.product(normed, f"{name}.mlp.", "gate_proj", "up_proj").chunk(2, dim=1)
                inner = activation(gate) * up
            else:
                inner = activation(self.product(normed, f"{name}.mlp.", "up_proj"))
            return self.product(inner, f"{name}.mlp.", "down_proj")

        states = self.add(states, f"{name}.self_attn_norm", attend_to_own)
        states = self.add(states, f"{name}.cross_attn_norm", attend_to_encoder)
        return self.add(states, f"{name}.mlp_norm", feed_forward)

    def product(self, states: Tensor, block: str, *layers: str) -> Tensor:
        """(B, I) -> (B, O), the products with all layers of a block side by side."""
        name = block + "+".join(layers)
        if f"{name}.weight" not in self.weights:
            return torch.cat([self.product(states, block, layer) for layer in layers], dim=1)
        product = self.multiply(states, self.weights[f"{name}.weight"])
        return product + self.weights[f"{name}.bias"] if f"{name}.bias" in self.weights else product

    def multiply(self, states: Tensor, weight: Tensor) -> Tensor:
        """(B, I) times (O, I) -> (B, O)."""
        if self.shape.num_columns == 0:
            return (states[:, None] * weight).sum(dim=-1)
        columns = _computed_here(states.t())
        num_together = len(weight) // _NUM_SUMS * _NUM_SUMS
        parts = [*weight[:num_together].chunk(_NUM_SUMS), weight[num_together:]]
        sums = torch.cat([(part[:, :, None] * columns).sum(dim=1) for part in parts if len(part)])
        return _computed_here(sums).t()

    def heads(self, states: Tensor) -> Tensor:
        """(B, heads * D) -> (B, heads, D)."""
        return states.reshape(len(states), -1, self.shape.head_dim)

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

    def attend(self, query: Tensor, cache: Tensor, mask: Tensor | None) -> Tensor:
        """(B, heads, D) queries of one token -> (B, heads * D); ``mask`` (B or 1, heads or 1, 1, T) is added."""
        many, (keys, values) = self.shape.num_columns > 0, cache
        query = _computed_here(query[: len(keys)]) if many else query
        grouped = query.view(len(query), self.shape.num_key_heads, -1, 1, self.shape.head_dim) * self.shape.scaling
        scores = (grouped * keys[:, :, None]).sum(dim=-1)
        if mask is not None:
            scores = scores + mask.expand(-1, query.shape[1], -1, -1).reshape(len(mask), *scores.shape[1:])
        shares = scores.softmax(dim=-1)
        shares = _computed_here(shares) if many else shares
        parts = torch.split(values, NUM_LANES if many else self.shape.head_dim, dim=-1)
        found = torch.cat([(shares[..., None] * part[:, :, None]).sum(dim=-2) for part in parts], dim=-1).flatten(1)
        return F.pad(found, (0, 0, 0, self.shape.num_columns - len(found))) if many else found


def _computed_here(states: Tensor) -> Tensor:
    """Have the compiler write states to memory, instead of computing them anew wherever they are read."""
    states = states.contiguous()
    return torch.as_strided(states, states.shape, states.stride())
