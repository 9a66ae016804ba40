"""Parallel plans name real modules, and recorded outputs have the documented lengths."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tiny_seq2seq import PRESETS, some_ids, tiny_model

from hf_prompting.seq2seq import (
    Seq2SeqTransformerEncoderModel,
    Seq2SeqTransformerForConditionalGeneration,
    Seq2SeqTransformerForTokenClassification,
)

CLASSES = (
    Seq2SeqTransformerForConditionalGeneration,
    Seq2SeqTransformerEncoderModel,
    Seq2SeqTransformerForTokenClassification,
)


@pytest.mark.parametrize("model_class", CLASSES, ids=lambda one: one.__name__.removeprefix("Seq2SeqTransformer"))
@pytest.mark.parametrize("preset", PRESETS)
def test_the_tensor_parallel_plan_covers_every_matrix_once(preset: str, model_class: Any) -> None:
    model = tiny_model(preset, model_class)
    found = {re.sub(r"\.\d+\.", ".*.", name) for name, module in model.named_modules() if hasattr(module, "weight")}
    matrices = {name for name in found if re.search(r"_proj$|embed_tokens$|shared$|lm_head$|buckets$", name)}
    assert set(model.tp_plan) == matrices


@pytest.mark.parametrize("preset", PRESETS)
def test_hidden_states_and_attentions_are_recorded_on_both_sides(preset: str) -> None:
    model, ids = tiny_model(preset, num_decoder_layers=3), some_ids()
    model.set_attn_implementation("eager")
    output = model(ids, labels=ids[:, :4], output_attentions=True, output_hidden_states=True)
    assert [len(output[f"{side}_hidden_states"]) for side in ("encoder", "decoder")] == [3, 4]
    assert [len(output[name]) for name in ("encoder_attentions", "decoder_attentions", "cross_attentions")] == [2, 3, 3]
    assert output.cross_attentions[0].shape == (2, 4, 4, 7)
    assert output.decoder_hidden_states[-1].shape == (2, 4, 32)
    assert isinstance(model(ids, labels=ids, return_dict=False), tuple)
