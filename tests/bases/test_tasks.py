from __future__ import annotations

from typing import Any

import pytest
from tiny_models import CAUSAL, FAMILIES, MASKED, tiny_model
from transformers import AutoConfig

from hf_prompting.bases import BASE_TASKS, base_task_of
from hf_prompting.errors import BaseModelError


@pytest.mark.parametrize("family", FAMILIES)
def test_each_promised_family_has_its_task_and_loads_with_it(family: str) -> None:
    expected = "causal" if family in CAUSAL else "masked" if family in MASKED else "seq2seq"
    model = tiny_model(family)
    assert base_task_of(model.config) == expected
    assert type(BASE_TASKS[expected].from_config(model.config)) is type(model)


@pytest.mark.parametrize(
    ("model_type", "values", "task"),
    [
        ("bert", {}, "masked"),
        ("bert", {"architectures": ["BertLMHeadModel"], "is_decoder": True}, "causal"),
        ("roberta", {}, "masked"),
        ("electra", {}, "masked"),
        ("xlm-roberta", {}, "masked"),
        ("deberta-v2", {"architectures": ["DebertaV2ForMaskedLM"]}, "masked"),
        ("modernbert", {}, "masked"),
        ("gpt2", {}, "causal"),
        ("llama", {"architectures": ["LlamaForCausalLM"]}, "causal"),
        ("gemma3_text", {}, "causal"),
        ("qwen3", {}, "causal"),
        ("t5", {}, "seq2seq"),
        ("bart", {}, "seq2seq"),
        ("mt5", {}, "seq2seq"),
        ("hf_prompting_seq2seq", {}, "seq2seq"),
    ],
)
def test_a_configuration_tells_its_task(model_type: str, values: dict[str, Any], task: str) -> None:
    assert base_task_of(AutoConfig.for_model(model_type, **values)) == task


@pytest.mark.parametrize(
    ("model_type", "values"),
    [
        ("vit", {}),
        ("whisper", {}),
        ("clip", {}),
        ("t5", {"architectures": ["T5EncoderModel"]}),
        ("t5", {"architectures": ["T5EncoderModel"], "is_encoder_decoder": False}),
    ],
)
def test_what_is_no_language_model_with_a_head_is_refused_by_its_type(model_type: str, values: dict[str, Any]) -> None:
    with pytest.raises(BaseModelError, match=f"model type '{model_type}'"):
        base_task_of(AutoConfig.for_model(model_type, **values))
