"""Soft tokens: trainable rows laid over the input embedding, as a PEFT method."""

from hf_prompting.soft_prompts.config import SoftPromptConfig
from hf_prompting.soft_prompts.model import SoftTokensModel
from hf_prompting.soft_prompts.registration import register

register(SoftPromptConfig, SoftTokensModel)

__all__ = ["SoftPromptConfig", "SoftTokensModel"]
