"""Run a model's own output head on label-word rows and answer positions only.

Everything between the last layer and the head (BERT's transform, T5's scaling) and after it (soft caps, logit scales,
BART's bias) stays the model's own code; only the matrix product with the V x H output embedding is replaced.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hf_prompting.cpu_products import is_plain, linear
from hf_prompting.errors import BaseModelError

_CHUNK_LOGITS = 2**20  # logits held at a time for the normaliser: they stay in the processor's cache
_MIN_CHUNK = 1024  # rows of the head; fewer would not fill a matrix product


# Head and attention of a base are exchanged while it scores: threads that share one (a server's) must take turns.
one_at_a_time = threading.RLock()


class HeadTap:
    """What passed through the head during one forward.

    Attributes:
        raw: (B, K, R) label-word logits before the model's own post-processing.
        normalizer: (B, K) logarithm of the sum of all V exponentiated logits, or None where it was not asked for.
    """

    def __init__(self) -> None:
        self.raw: Tensor | None = None
        self.normalizer: Tensor | None = None


@contextmanager
def label_rows(
    base: Any, piece_ids: Tensor, select: Callable[[Tensor], Tensor], normalize: bool, num_plain: int = 0
) -> Iterator[HeadTap]:
    """Make ``base(...)`` return logits (B, K, R) of the given pieces at the selected positions.

    Args:
        base: a transformers model with an output embedding.
        piece_ids: (R,) token ids.
        select: (B, T, H) hidden states -> (B, K, H) states at the answer positions.
        normalize: also compute the normaliser over the whole vocabulary, without ever holding its logits.
        num_plain: first positions whose normaliser is not needed; it is given as 0.
    Raises:
        BaseModelError: if the model has no output head.
    Example:
        >>> with label_rows(base, ids, lambda states: states[:, -1:], False):  # doctest: +SKIP
        ...     logits_BKR = base(input_ids=input_ids).logits
    """
    head = base.get_output_embeddings()
    if head is None:
        raise BaseModelError(f"{type(base).__name__} has no language-model head; load the base by its Auto class")
    tap = HeadTap()
    bias = getattr(base, "final_logits_bias", None)

    def forward(hidden: Tensor) -> Tensor:
        states_BKH = select(hidden)
        tap.raw = _rows(head, states_BKH, piece_ids)
        if normalize:
            normalizer = _log_normalizer(head, states_BKH[:, num_plain:], _post_processing(base, bias))
            tap.normalizer = F.pad(normalizer, (num_plain, 0))
        return tap.raw

    hooked = head.__dict__.get("forward")  # accelerate's offloading puts its own there
    head.forward = forward
    if bias is not None:
        base.final_logits_bias = bias[:, piece_ids]
    try:
        yield tap
    finally:
        del head.forward
        if hooked is not None:
            head.forward = hooked
        if bias is not None:
            base.final_logits_bias = bias


def check_post_processing(base: Any, tap: HeadTap, logits: Tensor) -> None:
    """Make sure that the normaliser treated logits as the model does.

    Raises:
        BaseModelError: if the model changes its logits after the head in a way not known here.
    """
    assert tap.raw is not None
    bias = getattr(base, "final_logits_bias", None)
    if bias is not None:
        return  # the swapped bias was added by the model itself, to rows that were compared in the tests
    expected = _post_processing(base, None)(tap.raw, slice(None))
    if not torch.allclose(expected.float(), logits.float(), rtol=1e-3, atol=1e-3, equal_nan=True):
        raise BaseModelError(
            f"{type(base).__name__} changes its logits after the output head in a way that is not known here, so label "
            "words of several tokens cannot be scored exactly; use label words of one token each"
        )


def _rows(head: nn.Module, states: Tensor, ids: Tensor) -> Tensor:
    if not is_plain(head):  # quantised heads hold no plain rows
        full: Tensor = type(head).forward(head, states)
        return full[..., ids]
    return linear(states, head.weight[ids], None if head.bias is None else head.bias[ids])


def _post_processing(base: Any, bias: Tensor | None) -> Callable[[Tensor, slice], Tensor]:
    """Return what the model does to logits of a slice of the vocabulary after the head."""
    config = base.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma
    factor = getattr(config, "logit_scale", None) or 1.0  # Cohere
    divisor = getattr(config, "logits_scaling", None) or 1.0  # Granite

    def apply(logits: Tensor, rows: slice) -> Tensor:
        logits = logits if factor == divisor else logits * (factor / divisor)
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        return logits if bias is None else logits + bias[0, rows]

    return apply


def _log_normalizer(head: nn.Module, states: Tensor, post: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """Log of the summed exponentials over the vocabulary, chunk by chunk. (B, K, H) -> (B, K)"""
    if not is_plain(head):
        full: Tensor = type(head).forward(head, states)
        return post(full, slice(None)).float().logsumexp(-1)

    size = max(_MIN_CHUNK, _CHUNK_LOGITS // max(1, states.shape[:-1].numel()))

    def of_chunk(states: Tensor, start: int) -> Tensor:
        rows = slice(start, start + size)
        logits = linear(states, head.weight[rows], None if head.bias is None else head.bias[rows])
        return post(logits, rows).float().logsumexp(-1)

    chunks = []
    for start in range(0, head.weight.shape[0], size):
        if torch.is_grad_enabled() and states.requires_grad:
            chunks.append(checkpoint(of_chunk, states, start, use_reentrant=False))
        else:
            chunks.append(of_chunk(states, start))
    return torch.stack(chunks).logsumexp(0)
