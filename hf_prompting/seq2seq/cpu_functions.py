"""Dropout and RMSNorm for training on a CPU, where torch has no kernel of one piece for them as GPUs have.

Both are the function that they replace, with fewer passes over memory and fewer tensors kept for the backward pass.
Elsewhere (GPU, ``torch.compile``, no gradient) torch's own function is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_NUM_VALUES = 2**16  # of the 16 random bits that decide about one element
_LANES = 4  # such decisions in one 64-bit random number


def dropout(states: Tensor, rate: float, *, training: bool) -> Tensor:
    """Set elements to zero with probability ``rate`` and scale the others so that the expectation stays.

    torch draws one random number an element, on one thread; this draws one for four. ``rate`` is rounded to 1/65536,
    and the scale follows the rounded value, so that nothing is biased.

    Source: Srivastava et al., 2014, https://jmlr.org/papers/v15/srivastava14a.html

    Args:
        states: any shape.
        rate: from 0 to below 1.
        training: otherwise ``states`` itself is returned.
    Example:
        >>> sorted(set(dropout(torch.ones(1000, requires_grad=True), 0.5, training=True).tolist()))
        [0.0, 2.0]
    """
    if not training or rate == 0.0:
        return states
    if not _is_ours(states):
        return F.dropout(states, rate, training=True)
    dropped: Tensor = _Dropout.apply(states, rate)  # type: ignore[no-untyped-call]
    return dropped


def rms_norm(states: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Divide rows by their root mean square, in float32, and scale (Zhang and Sennrich, 2019, arXiv:1910.07467).

    Args:
        states: (..., H).
        weight: (H,).
        eps: added to the mean square.
    Example:
        >>> rms_norm(torch.tensor([[3.0, 3.0]]), torch.tensor([1.0, 2.0]), 1e-6).round().tolist()
        [[1.0, 2.0]]
    """
    if _is_ours(states):
        normed: Tensor = _RMSNorm.apply(states, weight, eps)  # type: ignore[no-untyped-call]
        return normed
    if states.dtype == torch.float32 == weight.dtype:
        return F.rms_norm(states, (states.shape[-1],), weight, eps)
    return weight * F.rms_norm(states.float(), (states.shape[-1],), eps=eps).to(states.dtype)


def prepared_rms_norm(weight: Tensor, eps: float) -> Callable[[Tensor], Tensor]:
    """Return ``rms_norm`` for few float32 rows without a gradient: the row's length and one division.

    ``x / sqrt(mean(x^2) + eps) = x sqrt(H) / hypot(|x|, sqrt(H eps))``.

    Args:
        weight: (H,).
        eps: added to the mean square.
    Example:
        >>> prepared_rms_norm(torch.tensor([1.0, 2.0]), 1e-6)(torch.tensor([[3.0, 3.0]])).round().tolist()
        [[1.0, 2.0]]
    """
    width = weight.shape[0]
    scale, least = weight * width**0.5, torch.tensor((width * eps) ** 0.5)
    return lambda states: states / torch.hypot(torch.linalg.vector_norm(states, dim=-1, keepdim=True), least) * scale


def _is_ours(states: Tensor) -> bool:
    return (
        states.requires_grad
        and states.device.type == "cpu"
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, rate: float) -> Tensor:
        threshold = round(rate * _NUM_VALUES)
        num = states.numel()
        drawn = torch.empty(-(-num // _LANES), dtype=torch.int64).random_(-(2**63), None)
        kept = drawn.view(torch.int16)[:num].view(states.shape) >= threshold - _NUM_VALUES // 2
        ctx.save_for_backward(kept)
        ctx.scale = _NUM_VALUES / (_NUM_VALUES - threshold)
        return (states * kept).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return gradient * kept * ctx.scale, None


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = states.float()
        factor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(wide.shape[-1]).add_(eps).rsqrt_()
        normed = wide * factor
        ctx.save_for_backward(normed, factor, weight)
        scaled: Tensor = weight * normed.to(states.dtype)
        return scaled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        """With y = x f: dL/dx = f (g w - y mean(g w y)), dL/dw = sum of g y."""
        normed, factor, weight = ctx.saved_tensors
        products = (gradient * normed).flatten(0, -2)
        along = torch.mv(products.float(), weight.float()).div_(normed.shape[-1]).view(factor.shape)
        scaled = (gradient * weight).float()
        states_gradient = scaled.addcmul_(normed, along, value=-1.0).mul_(factor)
        return states_gradient.to(gradient.dtype), products.sum(dim=0).to(weight.dtype), None
