"""The objectives by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hf_prompting.errors import ObjectiveError, did_you_mean
from hf_prompting.training.objectives.denoising import Denoising
from hf_prompting.training.objectives.language_models import CausalLM, PrefixLM
from hf_prompting.training.objectives.masked_lm import MaskedLM, NextSentence
from hf_prompting.training.objectives.objective import Objective
from hf_prompting.training.objectives.span_corruption import SpanCorruption

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OBJECTIVES: dict[str, type[Objective]] = {
    "span_corruption": SpanCorruption,
    "denoising": Denoising,
    "prefix_lm": PrefixLM,
    "causal_lm": CausalLM,
    "masked_lm": MaskedLM,
    "next_sentence": NextSentence,
}


def build_objective(name: str, tokenizer: PreTrainedTokenizerBase, **options: Any) -> Objective:
    """Build the collator of an objective.

    Args:
        name: a key of ``OBJECTIVES``.
        tokenizer: gives all special ids.
        options: fields of that class, such as ``seed`` and ``noise_density``.
    Raises:
        ObjectiveError: the name, an option or its value is not allowed, or the tokenizer lacks a token.
    Example:
        >>> build_objective("span_corruption", tokenizer, seed=1, noise_density=0.2)  # doctest: +SKIP
        SpanCorruption(seed=1, first_step=0, noise_density=0.2, mean_span_length=3.0)
    """
    check_options(name, options)
    return OBJECTIVES[name](tokenizer=tokenizer, **options)


def check_options(name: str, options: Iterable[str]) -> None:
    """Check names, without a tokenizer.

    Raises:
        ObjectiveError: the objective is unknown, or has no such option.
    Example:
        >>> check_options("span_corruption", ["noise_density"])
    """
    if name not in OBJECTIVES:
        raise ObjectiveError(
            f"objective {name!r} is unknown; allowed: {', '.join(OBJECTIVES)}.{did_you_mean(name, OBJECTIVES)}"
        )
    allowed = [field.name for field in dataclasses.fields(OBJECTIVES[name]) if field.init and field.name != "tokenizer"]
    for option in options:
        if option not in allowed:
            raise ObjectiveError(
                f"objective {name!r} has no option {option!r}; allowed: {', '.join(allowed)}."
                f"{did_you_mean(option, allowed)}"
            )
