"""Keys and values of a growing text, written into room that is there already instead of copied at every token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

_LEAST_ROOM = 64


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """``DynamicLayer`` whose tensors are the beginning of larger ones; when these are full, the next are twice as long.

    With a gradient or inside ``torch.compile`` it is a plain ``DynamicLayer``, which writes over nothing.

    Args:
        num_expected: how many tokens there will be in the end; a first guess, not a limit.
    Example:
        >>> layer = GrowingLayer(num_expected=9)
        >>> with torch.no_grad():
        ...     layer.update(torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 4))[0].shape
        torch.Size([1, 1, 2, 4])
    """

    def __init__(self, num_expected: int) -> None:
        super().__init__()
        self.num_expected = num_expected
        self._room: Tensor | None = None  # (2, B, heads, room, D)
        self._spare: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (B, heads, T, D) keys and values, and return all of them."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or key_states.shape != value_states.shape:
            updated: tuple[Tensor, Tensor] = super().update(key_states, value_states, *args, **kwargs)
            return updated
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        room = self._room
        if room is None or not self._begins(room) or end > room.shape[3]:
            room = self._new_room(key_states, start, end)
        room[0, :, :, start:end] = key_states
        room[1, :, :, start:end] = value_states
        keys, values = room[:, :, :, :end].unbind()
        self.keys, self.values = keys, values
        return keys, values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Put row ``beam_idx[i]`` in place i, with the room behind it."""
        room = self._room
        if room is None or not self._begins(room) or len(beam_idx) != room.shape[1]:
            super().reorder_cache(beam_idx)
            return
        spare = torch.empty_like(room) if self._spare is None else self._spare
        self._room, self._spare = torch.index_select(room, 1, beam_idx, out=spare), room
        self.keys, self.values = spare[:, :, :, : self.keys.shape[2]].unbind()

    def _begins(self, room: Tensor) -> bool:
        """Tell whether the keys still are the beginning of the room, and nothing has been put in their place."""
        return bool(self.keys.data_ptr() == room.data_ptr() and self.keys.shape[0] == room.shape[1])

    def _new_room(self, like: Tensor, start: int, end: int) -> Tensor:
        length = max(2 * end, _LEAST_ROOM)
        if end <= self.num_expected:
            length = min(length, self.num_expected)
        rows, heads, _, width = like.shape
        room = like.new_empty(2, rows, heads, length, width)
        if start:
            room[0, :, :, :start] = self.keys
            room[1, :, :, :start] = self.values
        self._room, self._spare = room, None
        return room


def with_room(cache: DynamicCache, num_expected: int) -> None:
    """Let every plain layer of an empty cache grow in room for the tokens that are expected.

    Example:
        >>> cache = DynamicCache(config=Seq2SeqTransformerConfig())  # doctest: +SKIP
        >>> with_room(cache, num_expected=64)  # doctest: +SKIP
    """
    cache.layers = [GrowingLayer(num_expected) if type(layer) is DynamicLayer else layer for layer in cache.layers]
