"""A model reads with another attention for a while, which finds there what it has to know about the rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from transformers import PreTrainedConfig

Known = TypeVar("Known")


@contextmanager
def exchanged_attention(
    config: PreTrainedConfig, name: str, variable: ContextVar[Known], known: Known
) -> Iterator[None]:
    """Let the model of ``config`` use the attention that transformers knows by ``name``; the former one comes back.

    Args:
        config: of the layers that ask for their attention by name.
        name: as registered with ``AttentionInterface``.
        variable: what that attention reads.
        known: its value inside.
    Example:
        >>> with exchanged_attention(base.config, "hf_prompting_packed", LAYOUT, layout):  # doctest: +SKIP
        ...     base(input_ids=line)
    """
    before = config._attn_implementation
    token = variable.set(known)
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before
        variable.reset(token)
