"""Where soft tokens start. Rows are taken before any embedding scale, so that a merge is a plain row copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hf_prompting.errors import SoftPromptError

Initializer = Callable[[Tensor, int, torch.Generator | None], Tensor]

_NUM_FREQUENT = 5_000  # Lester et al., 2021, section 3.2: sample from the 5,000 most common tokens


def from_noise(weight_VH: Tensor, num_tokens: int, generator: torch.Generator | None) -> Tensor:
    """Draw rows from a normal distribution with the mean and spread of the real rows, per dimension.

    Args:
        weight_VH: (V, H) embedding matrix.
        num_tokens: P.
        generator: source of randomness; None is torch's global one.
    Returns:
        (P, H) float32.
    """
    sample = weight_VH[:_NUM_FREQUENT].float()
    noise = torch.randn(num_tokens, sample.shape[1], generator=generator)
    spread = sample.std(0, correction=0) if sample.shape[0] > 1 else torch.ones_like(sample[0])
    return sample.mean(0) + noise.to(sample.device) * spread


def from_vocabulary(weight_VH: Tensor, num_tokens: int, generator: torch.Generator | None) -> Tensor:
    """Copy rows of random frequent tokens (low ids), leaving out the rows of unusual length (unused and byte tokens).

    Args:
        weight_VH: (V, H) embedding matrix.
        num_tokens: P.
        generator: source of randomness; None is torch's global one.
    Returns:
        (P, H) float32.
    """
    frequent = weight_VH[:_NUM_FREQUENT].float()
    norms = frequent.norm(dim=1)
    low, high = torch.quantile(norms, torch.tensor([0.05, 0.95], device=norms.device))
    usual = torch.nonzero((norms >= low) & (norms <= high)).flatten()
    picks = torch.randint(len(usual), (num_tokens,), generator=generator)
    return frequent[usual[picks.to(usual.device)]].clone()


INITIALIZERS: dict[str, Initializer] = {
    "random": from_noise,
    "vocabulary": from_vocabulary,
    "text": from_vocabulary,  # only for tokens that the text does not reach
    "label_words": from_vocabulary,
}


def initial_rows(
    weight_VH: Tensor,
    num_tokens: int,
    *,
    init: str,
    init_token_ids: Sequence[Sequence[int]] | None = None,
    seed: int | None = None,
) -> Tensor:
    """Return the rows that the soft tokens start from.

    Args:
        weight_VH: (V, H) frozen embedding matrix.
        num_tokens: P.
        init: a key of ``INITIALIZERS``; it fills the tokens that ``init_token_ids`` leaves empty.
        init_token_ids: per soft token the ids whose rows are averaged.
        seed: None takes torch's global generator.
    Returns:
        (P, H) float32 on the device of ``weight_VH``.
    Raises:
        SoftPromptError: if an id lies outside the matrix.
    Example:
        >>> initial_rows(torch.eye(3), 2, init="random", init_token_ids=[[0], [1, 2]]).tolist()
        [[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    weight_VH = weight_VH.detach()
    if weight_VH.is_meta:
        return torch.empty(num_tokens, weight_VH.shape[1], device="meta")
    rows = INITIALIZERS[init](weight_VH, num_tokens, generator)
    for position, ids in enumerate(init_token_ids or ()):
        if not ids:
            continue
        if max(ids) >= weight_VH.shape[0] or min(ids) < 0:
            raise SoftPromptError(
                f"init_token_ids[{position}]={list(ids)} lies outside the embedding of {weight_VH.shape[0]} rows; "
                "was the text tokenised with another model's tokenizer?"
            )
        rows[position] = weight_VH[list(ids)].float().mean(0)
    return rows


def repeat_to_length(ids: Sequence[int], num_tokens: int) -> list[list[int]]:
    """Spread the ids of a text over P tokens: cut if too long, repeated from the start if too short.

    Raises:
        SoftPromptError: if there are no ids.
    Example:
        >>> repeat_to_length([7, 8], 3)
        [[7], [8], [7]]
    """
    if not ids:
        raise SoftPromptError("the initial text has no tokens; give a text that the tokenizer does not drop")
    return [[ids[position % len(ids)]] for position in range(num_tokens)]
