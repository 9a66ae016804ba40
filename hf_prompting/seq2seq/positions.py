"""Where a token stands: sinusoids to add, rotations of queries and keys, or a bias of the scores by distance."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update

from hf_prompting.seq2seq.configuration_seq2seq import Seq2SeqTransformerConfig

_SINUSOID_BASE = 10000.0


def sinusoidal_positions(positions: Tensor, hidden_size: int) -> Tensor:
    """Encode positions as sines (even columns) and cosines (odd columns) of falling frequency.

    Source: Vaswani et al., 2017, section 3.5, arXiv:1706.03762.

    Args:
        positions: (T,) or (B, T) integers.
        hidden_size: H, even.
    Returns:
        (T, H) or (B, T, H) float32 values in [-1, 1].
    Example:
        >>> sinusoidal_positions(torch.tensor([0]), 4).tolist()
        [[0.0, 1.0, 0.0, 1.0]]
    """
    exponents = torch.arange(0, hidden_size, 2, device=positions.device, dtype=torch.float32) / hidden_size
    angles = positions[..., None].float() * torch.exp(-math.log(_SINUSOID_BASE) * exponents)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + D/2) of a head's D channels by the angle of its position.

    Source: Su et al., 2021, arXiv:2104.09864, with the half-split pairing of Llama.

    Args:
        states: (B, heads, T, D) queries or keys.
        cos: (B or 1, 1, T, D).
        sin: the same, negative in the first half of the channels (see ``signed``).
    Returns:
        (B, heads, T, D), of the same length as before in every pair.
    Example:
        >>> rotate(torch.ones(1, 1, 1, 2), torch.zeros(2), torch.tensor([-1.0, 1.0])).tolist()
        [[[[-1.0, 1.0]]]]
    """
    return torch.addcmul(states * cos, states.roll(states.shape[-1] // 2, dims=-1), sin)


def signed(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Prepare (B, T, D) cosines and sines for ``rotate``, once for all layers: an axis for the heads, and the signs.

    Example:
        >>> signed(torch.ones(1, 1, 2), torch.ones(1, 1, 2))[1].tolist()
        [[[[-1.0, 1.0]]]]
    """
    first, second = sin[:, None].chunk(2, dim=-1)
    return cos[:, None], torch.cat((-first, second), dim=-1)


def relative_position_buckets(distances: Tensor, *, bidirectional: bool, num_buckets: int, max_distance: int) -> Tensor:
    """Sort distances into buckets: half of them exact, the others logarithmic up to ``max_distance``.

    Source: Raffel et al., 2020, section 2.1, arXiv:1910.10683.

    Args:
        distances: key position minus query position, any shape.
        bidirectional: whether keys to the right have buckets of their own; otherwise they share bucket 0.
        num_buckets: number of buckets in all.
        max_distance: distances from here on share the last bucket.
    Returns:
        Bucket numbers, of the same shape.
    Example:
        >>> buckets = dict(bidirectional=False, num_buckets=8, max_distance=16)
        >>> relative_position_buckets(torch.tensor([2, 0, -3, -100]), **buckets).tolist()
        [0, 0, 3, 7]
    """
    if bidirectional:
        num_buckets //= 2
        offset = (distances > 0).long() * num_buckets
        steps = distances.abs()
    else:
        offset = torch.zeros_like(distances)
        steps = (-distances).clamp(min=0)
    num_exact = num_buckets // 2
    share = torch.log(steps.clamp(min=1).float() / num_exact) / math.log(max_distance / num_exact)
    logarithmic = num_exact + (share * (num_buckets - num_exact)).long()
    return offset + torch.where(steps < num_exact, steps, logarithmic.clamp(max=num_buckets - 1))


class Seq2SeqTransformerRotaryEmbedding(nn.Module):
    """Cosines and sines of rotary positions; every scaling of ``config.rope_parameters`` that transformers knows.

    Example:
        >>> rotary = Seq2SeqTransformerRotaryEmbedding(Seq2SeqTransformerConfig())
        >>> rotary(torch.zeros(1), torch.arange(3)[None])[0].shape
        torch.Size([1, 3, 64])
    """

    inv_freq: Tensor
    original_inv_freq: Tensor

    def __init__(self, config: Seq2SeqTransformerConfig) -> None:
        super().__init__()
        assert config.rope_parameters is not None, "filled in on creation of a rotary configuration"
        self.config = config
        self.max_seq_len_cached = config.max_position_embeddings
        self.original_max_seq_len = config.max_position_embeddings
        self.rope_type = config.rope_parameters["rope_type"]
        initialize = ROPE_INIT_FUNCTIONS.get(self.rope_type, self.compute_default_rope_parameters)
        frequencies, self.attention_scaling = initialize(config)
        self.register_buffer("inv_freq", frequencies, persistent=False)
        self.register_buffer("original_inv_freq", frequencies.clone(), persistent=False)

    @staticmethod
    def compute_default_rope_parameters(config: Seq2SeqTransformerConfig, **kwargs: Any) -> tuple[Tensor, float]:
        """Return (D/2,) angles per position and the factor of the cosines, in the form transformers calls."""
        assert config.rope_parameters is not None
        head_dim, _ = config.head_sizes
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        return config.rope_parameters["rope_theta"] ** -exponents, 1.0

    @torch.no_grad()
    @dynamic_rope_update  # type: ignore[untyped-decorator]
    def forward(self, like: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T) positions -> cosines and sines (B, T, D), on the device and in the dtype of ``like``."""
        angles = position_ids[..., None].float() * self.inv_freq.to(like.device, torch.float32)
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling
        return cos.to(like.dtype), sin.to(like.dtype)


class Seq2SeqTransformerLearnedPositions(nn.Embedding):
    """A trained row for each position of a stack.

    Neighbouring sinusoids are nearly the same vector. Rows by chance are not, so a decoder that shall look at "the
    same place of the source" finds it sooner.

    Example:
        >>> config = Seq2SeqTransformerConfig(hidden_size=64, num_attention_heads=4, position_type="learned")
        >>> Seq2SeqTransformerLearnedPositions(config)(torch.arange(3)).shape
        torch.Size([3, 64])
    """

    def __init__(self, config: Seq2SeqTransformerConfig) -> None:
        super().__init__(config.max_position_embeddings, config.hidden_size)


class Seq2SeqTransformerRelativeBias(nn.Module):
    """Learned bias of attention scores by bucketed distance, one value per head; shared by all layers of a stack.

    Example:
        >>> config = Seq2SeqTransformerConfig.t5(hidden_size=64, num_attention_heads=4)
        >>> Seq2SeqTransformerRelativeBias(config, bidirectional=True)(torch.arange(2), 3).shape
        torch.Size([1, 4, 2, 3])
    """

    def __init__(self, config: Seq2SeqTransformerConfig, *, bidirectional: bool) -> None:
        super().__init__()
        self.bidirectional = bidirectional
        self.num_buckets = config.relative_attention_num_buckets
        self.max_distance = config.relative_attention_max_distance
        self.buckets = nn.Embedding(self.num_buckets, config.num_attention_heads)

    def forward(self, query_positions: Tensor, num_keys: int) -> Tensor:
        """(T,) positions of the queries and the number of keys S -> (1, heads, T, S)."""
        keys = torch.arange(num_keys, device=query_positions.device)
        buckets = relative_position_buckets(
            keys[None, :] - query_positions[:, None],
            bidirectional=self.bidirectional,
            num_buckets=self.num_buckets,
            max_distance=self.max_distance,
        )
        bias: Tensor = self.buckets(buckets).permute(2, 0, 1)[None]
        return bias
