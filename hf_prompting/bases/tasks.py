"""Which kind of language model a checkpoint is, told from its configuration alone."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, PreTrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
)

from hf_prompting.errors import BaseModelError

BASE_TASKS: dict[str, Any] = {
    "causal": AutoModelForCausalLM,
    "masked": AutoModelForMaskedLM,
    "seq2seq": AutoModelForSeq2SeqLM,
}


def base_task_of(config: PreTrainedConfig) -> str:
    """Name the task that a base model was pretrained for.

    BERT-like families can be built as masked and as causal models; they are masked unless they say otherwise.

    Args:
        config: of any checkpoint.

    Returns:
        A key of `BASE_TASKS`: ``"causal"``, ``"masked"`` or ``"seq2seq"``.

    Raises:
        BaseModelError: if it is no language model with an output head, such as a vision model or T5's encoder alone.

    Example:
        >>> from transformers import GPT2Config
        >>> base_task_of(GPT2Config())
        'causal'
    """
    kind = config.model_type
    architectures = config.architectures or []
    if not any(name.endswith("EncoderModel") for name in architectures):
        if config.is_encoder_decoder:
            if type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:  # registered families are in it too
                return "seq2seq"
        elif any(name.endswith("ForMaskedLM") for name in architectures) or _is_masked_by_default(config):
            return "masked"
        elif kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            return "causal"
    raise BaseModelError(
        f"model type {kind!r} (architectures: {', '.join(architectures) or 'not stated'}) is no language model with an "
        "output head; allowed: a causal (GPT-2, Llama), masked (BERT, RoBERTa) or encoder-decoder (T5, BART) one. "
        f"If it is one, name its task: {', '.join(BASE_TASKS)}"
    )


def _is_masked_by_default(config: PreTrainedConfig) -> bool:
    is_decoder = getattr(config, "is_decoder", False)
    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not is_decoder
