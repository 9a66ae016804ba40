"""The training loss straight from the decoder's states: scores of the vocabulary are made, and dropped, in chunks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hf_prompting.cpu_products import is_plain, linear
from hf_prompting.seq2seq.loss import IGNORED, check_labels, mean_of_items

# Scores held at once: few enough to stay near the processor, rows enough for a fast matrix product.
_NUM_SCORES = 2**21
_MIN_ROWS = 128


def states_loss(
    states: Tensor, head: nn.Linear, labels: Tensor, num_items_in_batch: Tensor | int | None = None
) -> Tensor:
    """``token_loss(head(states), labels)`` without holding the scores: the same number, the same gradients.

    The gradient of a row of scores is known as soon as the row is (softmax minus one-hot), so a chunk is scored, turned
    into its share of the two gradients, and dropped, all in the forward pass. Ignored positions are never scored.
    (Hsu et al., 2024, section 3.2, arXiv:2410.10989.)

    Args:
        states: (B, T, H) or (N, H) states.
        head: the output projection, for which ``can_chunk`` holds.
        labels: integers, -100 ignored.
        num_items_in_batch: see ``token_loss``.
    Returns:
        A scalar; 0 if every label is ignored.
    Raises:
        Seq2SeqInputError: if a label is not -100 and has no row in the head (checked on the CPU).
    Example:
        >>> states_loss(torch.zeros(3, 4), nn.Linear(4, 2, bias=False), torch.tensor([1, 0, -100])).item()
        0.6931471824645996
    """
    labels = labels.to(states.device).reshape(-1)
    check_labels(labels, head.out_features)
    weight = head.weight
    states = states.reshape(-1, states.shape[-1])
    if torch.is_autocast_enabled(states.device.type):
        dtype = torch.get_autocast_dtype(states.device.type)
        states, weight = states.to(dtype), weight.to(dtype)
    counted = labels != IGNORED
    total: Tensor = _ChunkedCrossEntropy.apply(states[counted], weight, labels[counted])  # type: ignore[no-untyped-call]
    return mean_of_items(total, labels, num_items_in_batch)


def can_chunk(head: nn.Module) -> bool:
    """Tell whether a head is no more than its weight: no adapter, hook, bias, quantisation or split over devices.

    Under ``torch.compile`` the answer is no: the compiler joins the plain form itself, and a number of rows that
    depends on the labels would break its graph.
    """
    return (
        not torch.compiler.is_compiling()
        and is_plain(head)
        and head.bias is None
        and type(head.weight) is nn.Parameter
        and "forward" not in vars(head)
        and not (head._forward_hooks or head._forward_pre_hooks or head._backward_hooks or head._backward_pre_hooks)
    )


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies of (N, H) states; its forward pass computes the gradients too."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        num_rows = max(_MIN_ROWS, _NUM_SCORES // weight.shape[0])
        # Sums over chunks in float32, whatever the dtype: a few hundred half-precision additions would lose digits.
        states_gradient = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        weight_gradient = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        for start in range(0, len(labels), num_rows):
            rows, targets = states[start : start + num_rows], labels[start : start + num_rows, None]
            scores = linear(rows, weight).float()
            total += scores.gather(1, targets).sum().neg_()
            largest = scores.amax(dim=1, keepdim=True)
            exponentials = scores.sub_(largest).exp_()
            sums = exponentials.sum(dim=1, keepdim=True)
            total += (sums.log() + largest).sum()
            gradient = exponentials.div_(sums)
            gradient.scatter_add_(1, targets, gradient.new_full(targets.shape, -1.0))
            gradient = gradient.to(states.dtype)
            if states_gradient is not None:
                states_gradient[start : start + num_rows] = linear(gradient, weight.t())
            if weight_gradient is not None:
                weight_gradient += linear(gradient.t(), rows.t())
        ctx.save_for_backward(states_gradient, weight_gradient)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        states_gradient, weight_gradient = ctx.saved_tensors
        return (
            None if states_gradient is None else states_gradient * scale.to(states_gradient.dtype),
            None if weight_gradient is None else (weight_gradient * scale).to(ctx.weight_dtype),
            None,
        )
