"""Float32 matrix products at the full width of a CPU's registers, where torch's own use half of it.

torch multiplies float32 matrices with MKL, and MKL uses AVX-512 on Intel's processors only. oneDNN, which torch carries
for its compiler, uses it on others too: measured on an AMD EPYC, 500 instead of 210 GFLOP/s. Same sums, in another
order. ``torch.backends.mkldnn.flags(enabled=False)`` turns it off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``, as ``torch.nn.functional.linear``.

    Args:
        input: (..., I) states; named as torch names it, since ``fast_products`` puts this function in its place.
        weight: (O, I).
        bias: (O,) or None.
    Returns:
        (..., O). What is not a plain float32 matrix on a processor of the kind above goes to torch's own function.
    Example:
        >>> linear(torch.ones(1, 2), torch.tensor([[1.0, 2.0]])).tolist()
        [[3.0]]
    """
    if not _is_ours(input, weight, bias):
        return F.linear(input, weight, bias)
    if torch.is_grad_enabled() and (
        input.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        product: Tensor = _Linear.apply(input, weight, bias)  # type: ignore[no-untyped-call]
        return product
    return _multiply(input, weight, bias)


def prepared_linear(
    weight: Tensor, bias: Tensor | None, num_rows: int, *, reorder: bool = False
) -> Callable[[Tensor], Tensor]:
    """Return ``linear`` for one matrix and (num_rows, I) states without a gradient, its checks done once.

    Args:
        weight: (O, I).
        bias: (O,) or None.
        num_rows: how many rows the states will have.
        reorder: copy the weight in the order that oneDNN likes best; that takes as long as 15 to 35 products.
    Example:
        >>> prepared_linear(torch.tensor([[1.0, 2.0]]), None, 1)(torch.ones(1, 2)).tolist()
        [[3.0]]
    """
    if not _is_ours(weight.new_empty(num_rows, weight.shape[1]), weight, bias):
        return lambda states: F.linear(states, weight, bias)
    multiply = torch.ops.mkldnn._linear_pointwise.default
    weight, bias = _readable(weight, bias)
    if reorder:
        weight = torch.ops.mkldnn._reorder_linear_weight.default(weight, num_rows)
    return lambda states: cast(Tensor, multiply(states, weight, bias, "none", [], ""))


@contextmanager
def fast_products(*, enabled: bool = True) -> Iterator[None]:
    """Let every linear layer that is called inside, of whatever model, multiply by ``linear``.

    The model is not changed: calls of ``torch.nn.functional.linear`` and ``torch.addmm`` (GPT-2's layers) are caught.

    Args:
        enabled: False does nothing.
    Example:
        >>> with fast_products():
        ...     F.linear(torch.ones(1, 2), torch.tensor([[1.0, 2.0]])).tolist()
        [[3.0]]
    """
    if not enabled or torch.compiler.is_compiling() or not _is_faster():
        yield
        return
    with _FastProducts():
        yield


class Linear(nn.Linear):
    """``nn.Linear`` that multiplies by ``linear``: the same state, and an instance of ``nn.Linear``."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return linear(input, self.weight, self.bias)


def is_plain(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Tell whether a layer is a matrix and a bias and no more: not quantised, not an adapter's, no subclass.

    Example:
        >>> is_plain(Linear(2, 1)), is_plain(nn.ReLU())
        (True, False)
    """
    return type(layer) in (nn.Linear, Linear)


class _FastProducts(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.linear:
            return linear(*args, **(kwargs or {}))
        if func is torch.addmm and len(args) == _BIAS_STATES_WEIGHT and not kwargs:
            bias, states, weight = args
            if bias.shape == weight.shape[1:]:
                return linear(states, weight.t(), bias)
        return func(*args, **(kwargs or {}))


class _Linear(torch.autograd.Function):
    """Its gradients are products of the same kind, and so can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(states if ctx.needs_input_grad[1] else None, weight if ctx.needs_input_grad[0] else None)
        return _multiply(states, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        states, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        return (
            linear(gradient, weight.t()) if ctx.needs_input_grad[0] else None,
            linear(rows.t(), states.flatten(0, -2).t()) if ctx.needs_input_grad[1] else None,
            rows.sum(dim=0) if ctx.needs_input_grad[2] else None,
        )


def _multiply(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    weight, bias = _readable(weight, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(states, weight, bias, "none", [], "")
    return product


def _readable(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Copy a weight with gaps between its rows, for which oneDNN is thousands of times slower, and a strided bias.

    oneDNN does not look at the stride of a bias.
    """
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()
    return weight, None if bias is None else bias.contiguous()


@cache
def _is_faster() -> bool:
    """Tell whether MKL leaves half of the registers unused here, and oneDNN is there to use them."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_f")) and "Intel" not in str(capabilities.get("cpu_name"))


def _is_ours(states: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    return (
        not torch.jit.is_tracing()  # type: ignore[no-untyped-call,attr-defined]
        and type(states) in _PLAIN
        and type(weight) in _PLAIN
        and (bias is None or type(bias) in _PLAIN)
        and states.dtype == torch.float32 == weight.dtype
        and (bias is None or (bias.dtype == torch.float32 and bias.shape == weight.shape[:1]))
        and states.device.type == "cpu"
        and states.layout == torch.strided == weight.layout
        and weight.dim() == 2
        and states.dim() > 1
        and states.shape[-1] == weight.shape[1]
        and states.numel() * weight.shape[0] > _FEW_PRODUCTS
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()  # the product has no rule for them,
        and forward_ad._current_level < 0  # nor for forward-mode derivatives
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.enabled)
        and _is_faster()
    )


_PLAIN = (Tensor, nn.Parameter)
_BIAS_STATES_WEIGHT = 3  # arguments of torch.addmm
_FEW_PRODUCTS = 2**17  # up to here, torch's own call costs less
