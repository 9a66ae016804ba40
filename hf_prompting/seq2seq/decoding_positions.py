"""What tells a decoder where its tokens stand, computed for many positions ahead."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hf_prompting.seq2seq.positions import signed, sinusoidal_positions
from hf_prompting.seq2seq.stacks import Seq2SeqTransformerDecoder


class PositionTable(NamedTuple):
    """One kind of positions for all tokens below ``num_places``; the other fields are None.

    Attributes:
        num_places: P.
        rotations: cosines and signed sines, (P, D) each (see ``rotate``).
        biases: (1, heads, 1, P) of the scores, by distance: of the key farthest away first, of the present token last.
        added: (P or more, H) vectors to add to the embeddings.
    """

    num_places: int
    rotations: tuple[Tensor, Tensor] | None = None
    biases: Tensor | None = None
    added: Tensor | None = None


def position_table(decoder: Seq2SeqTransformerDecoder, num_places: int) -> PositionTable:
    """Compute the positions of a decoder.

    Example:
        >>> position_table(model.model.decoder, 9).rotations[0].shape  # doctest: +SKIP
        torch.Size([9, 64])
    """
    places = torch.arange(num_places)
    if decoder.rotary_emb is not None:
        cos, sin = signed(*decoder.rotary_emb(decoder.embed_tokens.weight, places[None]))
        return PositionTable(num_places, rotations=(cos[0, 0], sin[0, 0]))
    if decoder.relative_bias is not None:
        return PositionTable(num_places, biases=decoder.relative_bias(places[-1:], num_places))
    if decoder.learned_positions is not None:
        return PositionTable(num_places, added=decoder.learned_positions.weight)
    return PositionTable(num_places, added=sinusoidal_positions(places, decoder.config.hidden_size))
