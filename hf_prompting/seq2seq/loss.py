"""Losses of the heads; none of them is NaN when every label is ignored, and none shifts its labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_prompting.errors import Seq2SeqInputError
from hf_prompting.seq2seq.configuration_seq2seq import Seq2SeqTransformerConfig

IGNORED = -100


def token_loss(logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Cross-entropy of (N, C) or (B, T, C) logits and labels of the same leading shape, without a shift.

    The decoder reads its labels already shifted (teacher forcing; Williams and Zipser, 1989), so position t of the
    logits belongs to position t of the labels.

    Args:
        logits: scores of C classes or tokens.
        labels: integers; -100 is ignored.
        num_items_in_batch: what to divide the sum by when several batches make one optimiser step; the number of labels
            that count by default.
    Returns:
        A scalar; 0 if every label is ignored.
    Raises:
        Seq2SeqInputError: if a label is not -100 and has no logit (checked on the CPU).
    Example:
        >>> token_loss(torch.zeros(1, 2), torch.tensor([-100])).item()
        0.0
    """
    labels = labels.to(logits.device).reshape(-1)
    scores = logits.float().reshape(-1, logits.shape[-1])
    check_labels(labels, scores.shape[-1])
    return mean_of_items(
        F.cross_entropy(scores, labels, ignore_index=IGNORED, reduction="sum"), labels, num_items_in_batch
    )


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Refuse a label without a class, on the CPU; on a GPU the check would cost a wait in every step.

    Raises:
        Seq2SeqInputError: naming the label.
    """
    if labels.device.type != "cpu" or torch.compiler.is_compiling():
        return
    wrong = labels[(labels != IGNORED) & ((labels < 0) | (labels >= num_classes))]
    if wrong.numel():
        raise Seq2SeqInputError(
            f"label {wrong[0].item()} is outside the classes; allowed: 0 to {num_classes - 1}, and {IGNORED} to ignore"
        )


def mean_of_items(total: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
    """Divide a sum by ``num_items_in_batch`` or, without it, by the number of labels that count; 0 for none."""
    if num_items_in_batch is None:
        return total / (labels != IGNORED).sum().clamp(min=1)
    return total / torch.as_tensor(num_items_in_batch, device=total.device).clamp(min=1)


def sequence_loss(
    logits: Tensor,
    labels: Tensor,
    config: Seq2SeqTransformerConfig,
    num_items_in_batch: Tensor | int | None = None,
) -> Tensor:
    """Loss of (B, C) scores of whole texts, by ``config.problem_type`` or, if that is None, by the labels' kind.

    One score is a regression, integer labels are classes, and float labels are several yes/no questions.

    Args:
        logits: (B, C).
        labels: (B,) integers or floats, or (B, C) floats.
        config: ``problem_type`` is read.
        num_items_in_batch: see ``token_loss``; used for classes only.
    Returns:
        A scalar.
    Example:
        >>> sequence_loss(torch.zeros(2, 1), torch.ones(2), Seq2SeqTransformerConfig()).item()
        1.0
    """
    labels = labels.to(logits.device)
    problem = config.problem_type
    if problem == "regression" or (problem is None and logits.shape[-1] == 1):
        return F.mse_loss(logits, labels.to(logits.dtype).view_as(logits))
    if problem == "single_label_classification" or (problem is None and not labels.is_floating_point()):
        return token_loss(logits, labels, num_items_in_batch)
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def span_loss(start_logits: Tensor, end_logits: Tensor, start_positions: Tensor, end_positions: Tensor) -> Tensor:
    """Mean cross-entropy of the first and the last token of an answer; positions outside the text are ignored.

    Args:
        start_logits: (B, T); end_logits: the same.
        start_positions: (B,) or (B, 1); end_positions: the same.
    Returns:
        A scalar; 0 if no position lies inside the text.
    Example:
        >>> span_loss(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([9]), torch.tensor([9])).item()
        0.0
    """
    num_tokens = start_logits.shape[1]
    losses = []
    for logits, positions in ((start_logits, start_positions), (end_logits, end_positions)):
        flat = positions.reshape(-1)
        inside = (flat >= 0) & (flat < num_tokens)
        losses.append(token_loss(logits, flat.masked_fill(~inside, IGNORED)))
    return (losses[0] + losses[1]) / 2
