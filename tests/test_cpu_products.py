"""Products by oneDNN are torch's own: same numbers, same gradients, and out of the way wherever they do not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.pytorch_utils import Conv1D

from hf_prompting import cpu_products
from hf_prompting.cpu_products import Linear, fast_products, linear, prepared_linear

needs_faster = pytest.mark.skipif(
    not cpu_products._is_faster(), reason="torch's own product is taken on this processor"
)


def case(*shape: int, out: int = 128, bias: bool = True) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    sizes = (shape, (out, shape[-1]), (out,))
    states, weight, row = (torch.randn(size, generator=generator, requires_grad=True) for size in sizes)
    return states, weight, row if bias else None


def calls_of_onednn(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Record the shapes that are multiplied by oneDNN from here on; the products stay what they are."""
    shapes: list[torch.Size] = []
    multiply = cpu_products._multiply

    def recorded(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        shapes.append(states.shape)
        return multiply(states, weight, bias)

    monkeypatch.setattr(cpu_products, "_multiply", recorded)
    return shapes


def test_a_product_by_hand() -> None:
    states, weight = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [5.0, 6.0]])
    expected = [[1 * 3 + 2 * 4 + 10.0, 1 * 5 + 2 * 6 + 20.0]]
    assert cpu_products._multiply(states, weight, torch.tensor([10.0, 20.0])).tolist() == expected
    assert linear(states, weight, torch.tensor([10.0, 20.0])).tolist() == expected


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(64, 96), (4, 33, 96), (2, 3, 17, 96)])
def test_values_and_gradients_are_those_of_torch(shape: tuple[int, ...], bias: bool) -> None:
    given = [part for part in case(*shape, bias=bias) if part is not None]
    torch_own, ours = F.linear(*given), cpu_products._Linear.apply(*given, *([] if bias else [None]))
    upstream = torch.randn(torch_own.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours, torch_own, rtol=1e-5, atol=1e-4)
    for mine, theirs in zip(
        torch.autograd.grad(ours, given, upstream), torch.autograd.grad(torch_own, given, upstream), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-4)


def test_gradients_can_be_differentiated_again() -> None:
    states, weight, bias = case(8, 96)
    curvatures = []
    for function in (F.linear, cpu_products._Linear.apply):
        (slope,) = torch.autograd.grad(function(states, weight, bias).pow(3).sum(), states, create_graph=True)
        curvatures.append(torch.autograd.grad(slope.sum(), weight)[0])
    torch.testing.assert_close(curvatures[1], curvatures[0], rtol=1e-4, atol=1e-2)


def test_torch_func_differentiates_row_by_row_and_forward() -> None:
    states, weight, bias = (part.detach() for part in case(64, 96) if part is not None)
    biases = torch.stack([bias, 2 * bias], dim=1)

    def derived(function: Callable[..., Tensor]) -> list[Tensor]:
        return [
            torch.func.vmap(lambda row: function(states, weight, row), in_dims=1)(biases),
            torch.func.jvp(lambda given: function(given, weight), (states,), (states,))[1],
            torch.func.grad(lambda given: function(states, given).pow(2).sum())(weight),
        ]

    for mine, other in zip(derived(linear), derived(F.linear), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-2)
    with forward_ad.dual_level():
        dual = linear(forward_ad.make_dual(states, states), weight)
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, F.linear(states, weight))


@pytest.mark.parametrize(
    "bias",
    [torch.arange(256.0).view(128, 2)[:, 0], torch.ones(1).expand(128), torch.ones(1), torch.ones(1, 128)],
    ids=["strided", "expanded", "one value", "a row"],
)
def test_any_bias_that_torch_takes(bias: Tensor) -> None:
    states, weight, _ = (part if part is None else part.detach() for part in case(64, 96))
    torch.testing.assert_close(linear(states, weight, bias), F.linear(states, weight, bias), rtol=1e-5, atol=1e-4)
    prepared = cpu_products.prepared_linear(weight, bias, 64)
    torch.testing.assert_close(prepared(states), F.linear(states, weight, bias), rtol=1e-5, atol=1e-4)
    with fast_products():
        product = torch.addmm(bias, states, weight.t())
    torch.testing.assert_close(product, torch.addmm(bias, states, weight.t()), rtol=1e-5, atol=1e-4)


def test_torch_s_own_names_of_the_arguments_are_taken() -> None:
    states, weight, bias = case(64, 96)
    with fast_products():
        product = F.linear(input=states, weight=weight, bias=bias)
    torch.testing.assert_close(product, F.linear(states, weight, bias), rtol=1e-5, atol=1e-4)


def test_the_layer_can_be_traced() -> None:
    layer, (states, _, _) = Linear(96, 128), case(64, 96)
    traced = torch.jit.trace(layer, states.detach())
    torch.testing.assert_close(traced(states), layer(states), rtol=1e-5, atol=1e-4)


def test_frozen_weights_get_no_gradient_and_keep_nothing() -> None:
    states, weight, _ = case(64, 96)
    frozen = weight.detach()
    product = cpu_products._Linear.apply(states, frozen, None)
    saved = [tensor for tensor in product.grad_fn.saved_tensors if tensor is not None]
    assert [tensor.data_ptr() for tensor in saved] == [frozen.data_ptr()]  # the states are needed by no gradient
    product.sum().backward()
    assert states.grad is not None and weight.grad is None


class _Strides(TorchDispatchMode):
    """Record the strides of the weights that oneDNN is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func is torch.ops.mkldnn._linear_pointwise.default:
            self.seen.append(args[1].stride())
        return func(*args, **(kwargs or {}))


LAYOUTS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, int]]] = {
    "rows": (lambda weight: weight, (96, 1)),
    "columns": (lambda weight: weight.t().contiguous().t(), (1, 128)),
    "a slice of columns": (lambda weight: F.pad(weight, (0, 5))[:, :96], (96, 1)),
    "every second row": (lambda weight: weight.repeat_interleave(2, 0)[::2], (96, 1)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_any_layout_of_the_weight_is_read_and_never_one_with_gaps(name: str) -> None:
    states, weight, _ = case(64, 96)
    layout, strides = LAYOUTS[name]
    laid_out = layout(weight.detach())
    with _Strides() as given:
        product = cpu_products._multiply(states.detach(), laid_out, None)
    assert given.seen == [strides]
    torch.testing.assert_close(product, F.linear(states, weight), rtol=1e-5, atol=1e-4)


@needs_faster
def test_large_float32_products_are_onednn_s_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    states, weight, _ = case(64, 96)
    shapes = calls_of_onednn(monkeypatch)
    linear(states, weight)
    assert shapes == [states.shape]
    tiny, tiny_weight, _ = case(1, 8)
    linear(tiny, tiny_weight)
    linear(states.double(), weight.double())
    linear(states.bfloat16(), weight.bfloat16())
    linear(states[:0], weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(states, weight).dtype == torch.bfloat16
    with torch.backends.mkldnn.flags(enabled=False):
        linear(states, weight)
    assert len(shapes) == 1


@pytest.mark.parametrize("shape", [(1, 8, 4), (3, 300, 260)])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("reorder", [True, False])
def test_a_prepared_product_is_the_product(shape: tuple[int, int, int], has_bias: bool, reorder: bool) -> None:
    rows, inner, outer = shape
    torch.manual_seed(0)
    states, weight, bias = torch.randn(rows, inner), torch.randn(outer, inner), torch.randn(outer) if has_bias else None
    prepared = prepared_linear(weight, bias, rows, reorder=reorder)
    torch.testing.assert_close(prepared(states), F.linear(states, weight, bias), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("form", ["to_sparse_csr", "to_sparse"])
@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
def test_a_sparse_weight_is_torch_s_own_business(form: str) -> None:
    states, weight, _ = (part if part is None else part.detach() for part in case(64, 96))
    with fast_products():
        product = F.linear(states, getattr(weight, form)())
    torch.testing.assert_close(product, F.linear(states, weight), rtol=1e-5, atol=1e-4)


def test_a_wrong_width_is_torch_s_own_error() -> None:
    states, _, _ = case(64, 96)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        linear(states, torch.zeros(128, 95))


@needs_faster
@pytest.mark.parametrize("layer", [nn.Linear(96, 128), Conv1D(128, 96)], ids=["Linear", "Conv1D"])
def test_layers_of_any_model_multiply_by_it_inside_fast_products(
    layer: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    states, _, _ = case(4, 16, 96)
    plain = layer(states)
    shapes = calls_of_onednn(monkeypatch)
    with fast_products():
        fast = layer(states)
    assert len(shapes) == 1
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-4)
    layer(states)
    assert len(shapes) == 1


def test_the_layer_is_an_nn_linear_with_the_same_state() -> None:
    layer = Linear(96, 128)
    other = nn.Linear(96, 128)
    other.load_state_dict(layer.state_dict())
    states, _, _ = case(64, 96)
    assert isinstance(layer, nn.Linear)
    torch.testing.assert_close(layer(states), other(states), rtol=1e-5, atol=1e-4)


def test_torch_still_has_the_product() -> None:
    """If this fails, torch renamed what its compiler multiplies with: mend ``_multiply``, or delete the file."""
    schema = str(torch.ops.mkldnn._linear_pointwise.default._schema)
    assert schema.endswith("(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm) -> Tensor Y")
    assert {"avx512_f", "cpu_name"} <= set(torch.cpu.get_capabilities()) or not cpu_products._is_faster()
