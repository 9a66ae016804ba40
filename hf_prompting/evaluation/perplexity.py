"""Perplexity, the measure of pre-training: weighted by tokens, so that the batch size does not matter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_prompting.bases.tasks import base_task_of
from hf_prompting.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IGNORED = -100


@dataclass(frozen=True)
class Perplexity:
    """What a model gives to the labels of a whole set of rows.

    Attributes:
        mean_nll: negative log-likelihood of a label in nats, the mean over all labels of all rows.
        num_tokens: labels that count.
    Example:
        >>> Perplexity(mean_nll=0.0, num_tokens=7).value
        1.0
    """

    mean_nll: float
    num_tokens: int

    @property
    def value(self) -> float:
        """``exp(mean_nll)``; infinite where that is too large for a number."""
        return math.exp(self.mean_nll) if self.mean_nll < 700 else math.inf


def perplexity(model: PreTrainedModel, batches: Iterable[Mapping[str, Any]]) -> Perplexity:
    """Measure ``exp`` of the mean negative log-likelihood over all labels (Jelinek et al., 1977).

    The mean is over tokens, not over batches, whose means would weigh a short batch like a long one.

    Args:
        model: a causal, masked or encoder-decoder model; put into evaluation mode for the time of the call.
        batches: tensors that the model takes, with ``labels`` (-100 is ignored); a ``DataLoader``, for instance.
            Corrupted rows need fixed noise to be comparable: see ``with_noise_keys``.
    Returns:
        The mean, its exponential and the number of labels.
    Raises:
        DataError: no label counts.
    Example:
        >>> loader = DataLoader(with_noise_keys(blocks), batch_size=32, collate_fn=objective)  # doctest: +SKIP
        >>> perplexity(model, loader).value  # doctest: +SKIP
        41.7
    """
    shifted = base_task_of(model.config) == "causal"
    was_training = model.training
    model.eval()
    total, num_tokens = 0.0, 0
    try:
        with torch.inference_mode():
            for batch in batches:
                tensors = {name: value.to(model.device) for name, value in batch.items() if isinstance(value, Tensor)}
                logits, labels = model(**tensors).logits, tensors["labels"]
                if shifted:
                    logits, labels = logits[:, :-1], labels[:, 1:]
                counts = labels != IGNORED
                nll = F.cross_entropy(logits[counts].float(), labels[counts], reduction="none")
                total += nll.double().sum().item()
                num_tokens += nll.numel()
    finally:
        model.train(was_training)
    if not num_tokens:
        raise DataError("no label counts, so there is nothing to measure; give rows with text")
    return Perplexity(total / num_tokens, num_tokens)
