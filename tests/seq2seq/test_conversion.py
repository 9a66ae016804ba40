"""T5 weights give the same numbers in this family, and come back unchanged."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_seq2seq import some_ids, tiny_model
from torch import nn
from transformers import MT5Config, MT5ForConditionalGeneration, T5Config, T5ForConditionalGeneration

from hf_prompting.errors import Seq2SeqConversionError
from hf_prompting.seq2seq import from_t5, to_t5

T5_SHAPES: dict[str, dict[str, Any]] = {
    "v1.0": {},
    "v1.0, d_kv of its own": {"d_kv": 5, "num_heads": 3},
    "v1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "d_kv": 16},
    "gated silu, more decoder layers": {"feed_forward_proj": "gated-silu", "num_decoder_layers": 3},
    "few buckets": {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12},
    "fewer decoder layers": {"num_decoder_layers": 1, "tie_word_embeddings": False},
}
SIZES: dict[str, Any] = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}


def t5_model(shape: dict[str, Any], *, multilingual: bool = False) -> Any:
    torch.manual_seed(0)
    config_class, model_class = (
        (MT5Config, MT5ForConditionalGeneration) if multilingual else (T5Config, T5ForConditionalGeneration)
    )
    model = model_class(config_class(**{**SIZES, "decoder_start_token_id": 0, **shape}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if "norm" not in name else 0.1) + ("norm" in name))
    if multilingual or shape.get("tie_word_embeddings") is False:
        model.lm_head.weight = nn.Parameter(torch.randn_like(model.shared.weight) * 0.3)
    return model.eval()


def assert_same_function(left: Any, right: Any) -> None:
    ids, mask = some_ids(3, 40), torch.ones(3, 40, dtype=torch.long)
    mask[1, 30:] = mask[2, 5:] = 0
    labels = some_ids(3, 9, seed=2)
    with torch.no_grad():
        a, b = (model(ids, attention_mask=mask, labels=labels) for model in (left, right))
    torch.testing.assert_close(a.logits, b.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(a.loss, b.loss)
    for options in ({}, {"num_beams": 3}, {"cache_implementation": "static", "disable_compile": True}):
        made = [
            model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, **options)
            for model in (left, right)
        ]
        assert made[0].tolist() == made[1].tolist()


@pytest.mark.parametrize("shape", T5_SHAPES.values(), ids=T5_SHAPES)
def test_t5_weights_give_equal_logits_and_text(shape: dict[str, Any]) -> None:
    source = t5_model(shape)
    if shape.get("num_decoder_layers", 2) == 2:
        assert_same_function(source, from_t5(source))
        return
    # T5 sizes its caches by the encoder's layers, so only the cacheless numbers can be compared
    ids, labels = some_ids(), some_ids(2, 5, seed=2)
    converted = from_t5(source)
    torch.testing.assert_close(
        converted(ids, labels=labels).logits, source(ids, labels=labels).logits, atol=1e-4, rtol=0
    )
    made = [
        converted.generate(ids, max_new_tokens=6, **options)
        for options in ({}, {"use_cache": False}, {"cache_implementation": "static", "disable_compile": True})
    ]
    assert made[0].tolist() == made[1].tolist() == made[2].tolist()


def test_mt5_weights_give_equal_logits_and_text_and_go_back_to_mt5() -> None:
    source = t5_model({"d_kv": 12}, multilingual=True)
    converted = from_t5(source)
    assert_same_function(source, converted)
    back = to_t5(converted, "mt5")
    assert type(back) is MT5ForConditionalGeneration
    assert_same_function(source, back)


@pytest.mark.parametrize("shape", list(T5_SHAPES.values())[:4], ids=list(T5_SHAPES)[:4])
def test_a_round_trip_through_folders_changes_no_weight(shape: dict[str, Any], tmp_path: Path) -> None:
    source = t5_model(shape)
    source.save_pretrained(tmp_path / "t5")
    from_t5(tmp_path / "t5").save_pretrained(tmp_path / "ours")
    loaded = type(from_t5(source)).from_pretrained(tmp_path / "ours")
    to_t5(loaded).save_pretrained(tmp_path / "back")
    back = T5ForConditionalGeneration.from_pretrained(tmp_path / "back")
    expected = source.state_dict()
    assert {key: value.tolist() for key, value in back.state_dict().items()} == {
        key: value.tolist() for key, value in expected.items()
    }
    ids = some_ids()
    torch.testing.assert_close(back(ids, labels=ids).logits, source(ids, labels=ids).logits, atol=1e-6, rtol=0)


def test_an_untied_head_stays_untied() -> None:
    source = t5_model(T5_SHAPES["v1.1"])
    converted = from_t5(source)
    assert not converted.config.tie_word_embeddings and not converted.config.scale_output
    assert torch.equal(converted.lm_head.weight, source.lm_head.weight)
    assert torch.equal(converted.model.encoder.embed_tokens.weight, source.shared.weight)
    exported = to_t5(converted)
    assert torch.equal(exported.lm_head.weight, source.lm_head.weight)
    assert not torch.equal(exported.lm_head.weight, exported.shared.weight)


def test_the_converted_model_owns_its_weights() -> None:
    source = t5_model({})
    converted = from_t5(source)
    before = source.shared.weight.clone()
    with torch.no_grad():
        converted.model.shared.weight.add_(1.0)
    assert torch.equal(source.shared.weight, before)


def test_half_precision_stays_half() -> None:
    assert from_t5(t5_model({}).to(torch.bfloat16)).dtype == torch.bfloat16


def test_missing_and_extra_keys_are_one_error(tmp_path: Path) -> None:
    t5_model({}).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    gone = weights.pop("decoder.block.1.layer.1.EncDecAttention.k.weight")
    weights["decoder.block.9.layer.0.layer_norm.weight"] = gone[0].clone()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Seq2SeqConversionError, match=r"1 missing.*EncDecAttention\.k.*1 too many.*block\.9"):
        from_t5(tmp_path)


def test_a_model_with_two_embeddings_is_refused() -> None:
    source = t5_model({})
    source.encoder.embed_tokens = copy.deepcopy(source.encoder.embed_tokens)
    with torch.no_grad():
        source.encoder.embed_tokens.weight.add_(1.0)
    with pytest.raises(Seq2SeqConversionError, match="differs from shared"):
        from_t5(source)


def test_other_models_are_refused_both_ways() -> None:
    with pytest.raises(Seq2SeqConversionError, match="_seq2seq' is not of the T5 family; allowed: mt5, t5"):
        from_t5(tiny_model("modern"))
    with pytest.raises(Seq2SeqConversionError, match=r"cannot express.*rotary"):
        to_t5(tiny_model("modern"))
    with pytest.raises(Seq2SeqConversionError, match="scale_output"):
        to_t5(tiny_model("t5"), "mt5")
