"""A configuration judges itself on creation, and its presets are the documented architectures."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassFieldValidationError
from tiny_seq2seq import PRESETS, SIZES, tiny_config

from hf_prompting.errors import HfPromptingError, Seq2SeqConfigError
from hf_prompting.seq2seq import Seq2SeqTransformerConfig

BAD_VALUES: dict[str, tuple[dict[str, Any], str]] = {
    "heads": ({"hidden_size": 30}, r"hidden_size 30 is not divisible by num_attention_heads 4"),
    "key heads": ({"num_key_value_heads": 3}, r"num_attention_heads 4 is not divisible by num_key_value_heads 3"),
    "position type": (
        {"position_type": "rotari"},
        r"'rotari' is unknown; allowed: learned, relative, rotary, sinusoidal.*'rotary'",
    ),
    "norm type": ({"norm_type": "batch"}, r"norm_type 'batch' is unknown; allowed: layer_norm, rms_norm"),
    "norm position": ({"norm_position": "both"}, r"norm_position 'both' is unknown; allowed: post, pre"),
    "activation": ({"hidden_act": "relo"}, r"hidden_act 'relo' is unknown.*Did you mean 'relu'"),
    "negative width": ({"hidden_size": -32}, r"hidden_size is -32; allowed: integers from 1"),
    "no layers": ({"num_decoder_layers": 0}, r"num_decoder_layers is 0; allowed: integers from 1"),
    "negative vocabulary": ({"vocab_size": -1}, r"vocab_size is -1; allowed"),
    "dropout": ({"dropout": 1.5}, r"dropout is 1.5; allowed: from 0 to below 1"),
    "eps": ({"norm_eps": 0.0}, r"norm_eps is 0.0; allowed: above 0"),
    "odd rotary head": ({"head_dim": 7}, r"head_dim is 7; rotary positions turn pairs"),
    "odd sinusoids": (
        {"position_type": "sinusoidal", "hidden_size": 33, "head_dim": 8},
        r"hidden_size is 33; sinusoidal positions need an even width",
    ),
    "buckets": ({"position_type": "relative", "relative_attention_num_buckets": 5}, r"num_buckets 5 .* do not fit"),
    "distance": ({"position_type": "relative", "relative_attention_max_distance": 16}, r"max_distance 16 do not fit"),
}


@pytest.mark.parametrize(("values", "message"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_a_value_that_does_not_fit_is_named_with_what_is_allowed(values: dict[str, Any], message: str) -> None:
    with pytest.raises(Seq2SeqConfigError, match=message) as caught:
        Seq2SeqTransformerConfig(**{**SIZES, **values})
    assert isinstance(caught.value, HfPromptingError) and isinstance(caught.value, ValueError)


def test_a_value_of_the_wrong_type_is_an_error_at_any_time() -> None:
    with pytest.raises(StrictDataclassFieldValidationError, match="hidden_size"):
        Seq2SeqTransformerConfig(hidden_size="wide")
    with pytest.raises(StrictDataclassFieldValidationError, match="use_bias"):
        tiny_config("modern").use_bias = "yes"


def test_every_field_is_documented() -> None:
    documented = set(re.findall(r"^ {4}(\w+): ", inspect.getdoc(Seq2SeqTransformerConfig) or "", re.M))
    assert set(Seq2SeqTransformerConfig.__annotations__) <= documented


def test_sizes_have_the_names_that_other_libraries_read() -> None:
    config = tiny_config("modern", num_decoder_layers=3)
    assert (config.hidden_size, config.num_attention_heads, config.vocab_size) == (32, 4, 99)
    assert config.num_hidden_layers == config.num_encoder_layers == 2
    assert config.get_text_config(decoder=True).num_hidden_layers == 3
    assert config.get_text_config() is config
    assert (config.head_dim, config.num_key_value_heads) == (8, 4)


def test_presets_differ_in_their_switches_alone() -> None:
    switches = ("position_type", "norm_type", "norm_position", "hidden_act", "gated_feed_forward", "use_bias")
    found = {name: tuple(getattr(tiny_config(name), switch) for switch in switches) for name in PRESETS}
    assert found == {
        "modern": ("rotary", "rms_norm", "pre", "silu", True, False),
        "vanilla": ("sinusoidal", "layer_norm", "post", "relu", False, True),
        "t5": ("relative", "rms_norm", "pre", "relu", False, False),
    }


def test_a_preset_takes_any_field() -> None:
    config = Seq2SeqTransformerConfig.vanilla(hidden_act="gelu", num_labels=5, dropout=0.3)
    assert (config.hidden_act, config.num_labels, config.dropout) == ("gelu", 5, 0.3)


def test_t5_has_one_dropout_rate_unless_told_otherwise() -> None:
    config = Seq2SeqTransformerConfig.t5(dropout=0.2, attention_dropout=0.0)
    assert (config.dropout, config.activation_dropout, config.attention_dropout) == (0.2, 0.2, 0.0)


def test_rotary_scaling_is_read_in_the_form_of_transformers() -> None:
    config = tiny_config("modern", rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0})
    assert config.rope_parameters == {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}
    assert tiny_config("t5").rope_parameters is None
