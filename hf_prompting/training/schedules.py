"""Learning-rate schedules by name: four of transformers, and the exponential one that it lacks."""

from __future__ import annotations

from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_inverse_sqrt_schedule,
    get_linear_schedule_with_warmup,
)

FINAL_SHARE = 0.01  # of the peak, where the exponential schedule ends


def exponential_share(step: int, *, num_warmup_steps: int, num_training_steps: int) -> float:
    """Return the share of the peak learning rate at a step: a linear rise, then a fall by the same factor every step.

    The factor is chosen such that the last step has ``FINAL_SHARE`` of the peak.

    Args:
        step: optimiser steps made so far.
        num_warmup_steps: where the peak is.
        num_training_steps: where the fall ends.
    Returns:
        A number from 0 to 1.
    Example:
        >>> [round(exponential_share(step, num_warmup_steps=2, num_training_steps=4), 3) for step in range(5)]
        [0.0, 0.5, 1.0, 0.1, 0.01]
    """
    if step < num_warmup_steps:
        return step / num_warmup_steps
    passed = (step - num_warmup_steps) / max(1, num_training_steps - num_warmup_steps)
    return float(FINAL_SHARE ** min(passed, 1.0))


def _exponential(optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int) -> LRScheduler:
    return LambdaLR(
        optimizer,
        lambda step: exponential_share(step, num_warmup_steps=num_warmup_steps, num_training_steps=num_training_steps),
    )


SCHEDULES: dict[str, Callable[[Optimizer, int, int], LRScheduler]] = {
    "linear": get_linear_schedule_with_warmup,
    "cosine": get_cosine_schedule_with_warmup,
    "exponential": _exponential,
    "inverse_sqrt": lambda optimizer, num_warmup_steps, _: get_inverse_sqrt_schedule(optimizer, num_warmup_steps),
    "constant": lambda optimizer, num_warmup_steps, _: get_constant_schedule_with_warmup(optimizer, num_warmup_steps),
}


def make_schedule(name: str, optimizer: Optimizer, *, num_warmup_steps: int, num_training_steps: int) -> LRScheduler:
    """Return a scheduler that rises from 0 to the optimizer's learning rate and then follows the named curve.

    ``inverse_sqrt`` falls as the square root of the steps, 1 at the end of the warmup (Vaswani et al., 2017).

    Raises:
        KeyError: the name is none of ``SCHEDULES``.
    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=2.0)
        >>> make_schedule("exponential", optimizer, num_warmup_steps=0, num_training_steps=9).get_last_lr()
        [2.0]
    """
    return SCHEDULES[name](optimizer, num_warmup_steps, num_training_steps)
