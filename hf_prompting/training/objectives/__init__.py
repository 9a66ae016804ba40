"""Pre-training objectives: data collators for the ordinary ``Trainer`` that make a task out of plain text."""

from hf_prompting.training.objectives.denoising import Denoising
from hf_prompting.training.objectives.language_models import CausalLM, PrefixLM
from hf_prompting.training.objectives.masked_lm import MaskedLM, NextSentence
from hf_prompting.training.objectives.noise import with_noise_keys
from hf_prompting.training.objectives.objective import Objective
from hf_prompting.training.objectives.span_corruption import SpanCorruption
from hf_prompting.training.objectives.table import OBJECTIVES, build_objective

__all__ = [
    "OBJECTIVES",
    "CausalLM",
    "Denoising",
    "MaskedLM",
    "NextSentence",
    "Objective",
    "PrefixLM",
    "SpanCorruption",
    "build_objective",
    "with_noise_keys",
]
