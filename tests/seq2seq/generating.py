"""Kinds of models that generate, and both ways in which they do it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_seq2seq import PRESETS
from torch import Tensor

from hf_prompting.seq2seq import generation
from hf_prompting.seq2seq.compiled_step import CompiledStep
from hf_prompting.seq2seq.decoding_step import DecodingStep

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{preset: (preset, {}) for preset in PRESETS},
    "grouped heads": ("modern", {"num_key_value_heads": 2, "use_bias": True}),
    "grouped heads, t5": ("t5", {"num_key_value_heads": 2, "head_dim": 16, "num_decoder_layers": 3}),
    "wide": ("modern", {"hidden_size": 256, "intermediate_size": 512, "initializer_range": 0.05}),  # oneDNN's products
    "learned positions": ("modern", {"position_type": "learned", "max_position_embeddings": 160}),
    "vanilla, pre-norm, gate": ("vanilla", {"norm_position": "pre", "gated_feed_forward": True, "use_bias": False}),
}


def counted_calls(step: type[DecodingStep | CompiledStep], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of rows at every call of a step from now on."""
    counted: list[int] = []
    ordinary: Any = step.__call__

    def counting(self: Any, ids: Tensor) -> Tensor:
        counted.append(len(ids))
        scores: Tensor = ordinary(self, ids)
        return scores

    monkeypatch.setattr(step, "__call__", counting)
    return counted


def generated(model: Any, ids: Tensor, **options: Any) -> Any:
    torch.manual_seed(3)
    wanted = {"max_new_tokens": 9, "return_dict_in_generate": True, "output_logits": True, **options}
    wanted = {"min_new_tokens": wanted["max_new_tokens"], **wanted}  # a text that ends before any step shows nothing
    return model.generate(ids, **wanted)


def generated_by_forward(monkeypatch: pytest.MonkeyPatch, model: Any, ids: Tensor, **options: Any) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(generation, "can_decode", lambda model, cache: False)
        patch.setattr(generation, "with_room", lambda cache, num_expected: None)
        return generated(model, ids, **options)
