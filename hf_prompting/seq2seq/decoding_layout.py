"""How matrices lie in memory for decoding: by columns, as a CPU reads them fastest for few rows, and side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hf_prompting.cpu_products import is_plain
from hf_prompting.errors import Seq2SeqInputError


def lay_out_for_decoding(model: nn.Module) -> None:
    """Reorder the memory of every linear layer's weight in place; shapes and values stay.

    A decoding step multiplies one row a text with each matrix, and so waits for memory. torch's product of few rows
    reads a matrix nearly twice as fast when its columns, not its rows, are contiguous. Weights on other devices stay.
    A compiled step (``compile_config``) wants rows: give the encoder alone then.

    Args:
        model: any model, in evaluation mode: an optimizer made before would not fit the new layout.
    Raises:
        Seq2SeqInputError: if the model is in training mode.
    Example:
        >>> layer = nn.Linear(2, 3).eval()
        >>> lay_out_for_decoding(layer)
        >>> layer.weight.shape, layer.weight.stride()
        (torch.Size([3, 2]), (1, 3))
    """
    if model.training:
        raise Seq2SeqInputError("the layout for decoding is for trained models; call model.eval() first")
    for weight in _weights(model):
        weight.data = weight.data.t().contiguous().t()


@contextmanager
def stored_by_rows(model: nn.Module) -> Iterator[None]:
    """Undo the layout for a while: what saves a model finds tied weights only where rows are contiguous.

    Example:
        >>> with stored_by_rows(model):  # doctest: +SKIP
        ...     save(model)
    """
    reordered = [weight for weight in _weights(model) if not weight.is_contiguous()]
    for weight in reordered:
        weight.data = weight.data.contiguous()
    yield
    for weight in reordered:
        weight.data = weight.data.t().contiguous().t()


def joined_biases(layers: Sequence[nn.Linear]) -> Tensor | None:
    """Return the biases of layers whose outputs lie side by side: (sum of outputs,), or None if no layer has one.

    Example:
        >>> joined_biases([nn.Linear(2, 3), nn.Linear(2, 1, bias=False)])[-1].item()
        0.0
    """
    if all(layer.bias is None for layer in layers):
        return None
    return torch.cat(
        [layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias for layer in layers]
    )


def _weights(model: nn.Module) -> list[nn.Parameter]:
    """Return each plain matrix of a linear layer on the CPU once; tied ones share their parameter."""
    found = {
        id(module.weight): module.weight
        for module in model.modules()
        if is_plain(module) and type(module.weight) is nn.Parameter and module.weight.device.type == "cpu"
    }
    return list(found.values())
