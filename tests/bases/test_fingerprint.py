from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import FAMILIES, tiny_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from hf_prompting.bases import BASE_TASKS, BaseFingerprint, base_task_of, compare_bases, fingerprint_base
from hf_prompting.bases.fingerprint import NUM_SKETCH_VALUES
from hf_prompting.errors import ArtifactError


def rounded(model: PreTrainedModel, num_bits: int) -> PreTrainedModel:
    """Each block of 32 values on a grid of 2 ** num_bits steps, as GGUF's Q4_1 does."""
    with torch.no_grad():
        for value in model.parameters():
            if value.dim() == 2:
                blocks = value.view(-1, 32)
                low, high = blocks.amin(1, keepdim=True), blocks.amax(1, keepdim=True)
                step = (high - low) / (2**num_bits - 1)
                blocks.copy_(((blocks - low) / step).round() * step + low)
    return model


def sketch_of(*values: float) -> str:
    return base64.b64encode(np.asarray(values, "<f2").tobytes()).decode()


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_and_bfloat16_loads_of_one_checkpoint_are_the_same(tmp_path: Path, family: str) -> None:
    model = tiny_model(family)
    model.save_pretrained(tmp_path)
    auto = BASE_TASKS[base_task_of(model.config)]
    in_full, in_half = (auto.from_pretrained(tmp_path, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    assert fingerprint_base(in_full) == fingerprint_base(model) == fingerprint_base(in_half)
    assert compare_bases(fingerprint_base(model), fingerprint_base(in_half)) == "same"


@pytest.mark.parametrize("family", FAMILIES)
def test_rounding_to_4_bits_makes_a_variant(family: str) -> None:
    original = fingerprint_base(tiny_model(family))
    assert compare_bases(original, fingerprint_base(rounded(tiny_model(family), 4))) == "variant"


@pytest.mark.parametrize("family", FAMILIES)
def test_another_start_of_the_same_architecture_is_another_model(family: str) -> None:
    first, second = (fingerprint_base(tiny_model(family, seed=seed)) for seed in (0, 1))
    assert first.structure == second.structure
    assert compare_bases(first, second) == "other"


@pytest.mark.parametrize(
    "change", [{"vocab_size": 301}, {"hidden_size": 64}, {"num_attention_heads": 2}, {"num_hidden_layers": 1}]
)
def test_another_size_is_another_model(change: dict[str, int]) -> None:
    # two heads of 16 have the shapes of four heads of 8
    assert (
        compare_bases(fingerprint_base(tiny_model("llama")), fingerprint_base(tiny_model("llama", **change))) == "other"
    )


def test_another_number_of_heads_is_seen_though_all_shapes_agree() -> None:
    first, second = (tiny_model("gpt2", n_head=heads) for heads in (2, 4))
    assert {tuple(p.shape) for p in first.parameters()} == {tuple(p.shape) for p in second.parameters()}
    assert compare_bases(fingerprint_base(first), fingerprint_base(second)) == "other"


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_single_changed_value_changes_the_weights_but_not_the_structure(data: st.DataObject) -> None:
    model = tiny_model("bart")
    before = fingerprint_base(model)
    values = [*model.parameters(), model.final_logits_bias]
    value = data.draw(st.sampled_from(range(len(values))))
    index = data.draw(st.integers(0, values[value].numel() - 1))
    with torch.no_grad():
        values[value].view(-1)[index] += 0.5
    after = fingerprint_base(model)
    assert after.structure == before.structure
    assert after.weights != before.weights
    assert compare_bases(before, after) == "variant"


def test_values_that_bfloat16_cannot_tell_apart_do_not_count() -> None:
    model = tiny_model("llama")
    before = fingerprint_base(model)
    with torch.no_grad():
        model.model.norm.weight[0] = 1.0 + 2**-12
    assert fingerprint_base(model) == before


def test_two_values_that_change_places_are_seen() -> None:
    model = tiny_model("llama")
    before = fingerprint_base(model)
    with torch.no_grad():
        weight = model.model.embed_tokens.weight
        weight[[0, 1]] = weight[[1, 0]]
    assert fingerprint_base(model).weights != before.weights


def test_tied_weights_count_once() -> None:
    tied, untied = tiny_model("llama"), tiny_model("llama", tie_word_embeddings=False)
    assert compare_bases(fingerprint_base(tied), fingerprint_base(untied)) == "other"


def test_neither_training_mode_nor_frozen_weights_matter_and_nothing_is_changed() -> None:
    model = tiny_model("gemma3").train().requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert fingerprint_base(model) == fingerprint_base(tiny_model("gemma3"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


def test_a_wrapper_for_several_devices_changes_no_name() -> None:
    model = tiny_model("llama")
    model.model.layers[0] = torch.nn.DataParallel(model.model.layers[0])
    assert fingerprint_base(model) == fingerprint_base(tiny_model("llama"))


def test_weights_on_the_meta_device_leave_only_the_structure() -> None:
    whole = fingerprint_base(tiny_model("llama"))
    with torch.device("meta"):
        hollow = fingerprint_base(AutoModelForCausalLM.from_config(tiny_model("llama").config))
    assert hollow == BaseFingerprint(whole.structure, "", "")
    assert compare_bases(whole, hollow) == "variant"
    assert compare_bases(hollow, hollow) == "variant"


def test_a_quantised_model_is_compared_by_its_configuration_only() -> None:
    whole = fingerprint_base(tiny_model("llama"))
    packed = tiny_model("llama")
    packed.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(
        torch.zeros(1024, 1, dtype=torch.uint8), requires_grad=False
    )
    found = fingerprint_base(packed)
    assert (found.weights, found.sketch) == ("", "")
    assert compare_bases(whole, found) == compare_bases(found, whole) == "variant"
    assert compare_bases(fingerprint_base(tiny_model("llama", vocab_size=400)), found) == "other"
    assert compare_bases(fingerprint_base(tiny_model("qwen3")), found) == "other"


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        ((3.0, 4.0), (3.0, 4.0), "variant"),
        ((1.0, 0.0), (0.9, 0.4), "variant"),  # cosine 0.9 / sqrt(0.97) = 0.914
        ((1.0, 0.0), (0.8, 0.6), "other"),  # cosine 0.8
        ((1.0, 0.0), (0.0, 1.0), "other"),
        ((1.0, 0.0), (-1.0, 0.0), "other"),
        ((1.0, 0.0), (1.0, 0.0, 0.0), "other"),
        ((0.0, 0.0), (1.0, 0.0), "other"),
        ((0.0, 0.0), (0.0, 0.0), "variant"),
    ],
)
def test_sketches_are_compared_by_their_angle(
    mine: tuple[float, ...], theirs: tuple[float, ...], expected: str
) -> None:
    first, second = BaseFingerprint("a-b", "x", sketch_of(*mine)), BaseFingerprint("a-b", "y", sketch_of(*theirs))
    assert compare_bases(first, second) == compare_bases(second, first) == expected


@pytest.mark.parametrize(
    ("saved", "found", "expected"),
    [
        (("a-b", "w", ""), ("a-b", "w", ""), "same"),
        (("a-b", "w", ""), ("a-b", "v", ""), "variant"),
        (("a-b", "", ""), ("a-b", "", ""), "variant"),
        (("a-b", "w", ""), ("a-c", "w", ""), "other"),
        (("a-b", "w", ""), ("d-b", "w", ""), "other"),
        (("a-b", "w", ""), ("a-", "", ""), "variant"),
    ],
)
def test_structure_comes_first_then_weights(
    saved: tuple[str, str, str], found: tuple[str, str, str], expected: str
) -> None:
    assert compare_bases(BaseFingerprint(*saved), BaseFingerprint(*found)) == expected


def test_a_sketch_holds_values_divided_by_the_size_of_their_rows() -> None:
    model = tiny_model("gpt2", vocab_size=3)
    with torch.no_grad():
        for value in model.parameters():
            value.fill_(7.0)
    values = np.frombuffer(base64.b64decode(fingerprint_base(model).sketch), "<f2")
    assert values.tolist() == [1.0] * NUM_SKETCH_VALUES


def test_weights_that_are_no_numbers_are_described_all_the_same() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight.fill_(float("nan"))
    found = fingerprint_base(model)
    assert compare_bases(found, found) == "same"


def test_a_fingerprint_survives_json() -> None:
    found = fingerprint_base(tiny_model("bert"))
    assert BaseFingerprint.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert len(json.dumps(found.to_dict())) < 1000


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"structure": "a-b", "weights": "x"},
        {"structure": "a-b", "weights": 3, "sketch": ""},
        {"structure": "a-b", "weights": "x", "sketch": "?"},
        {"structure": "a-b", "weights": "x", "sketch": "AAAA"},
    ],
)
def test_a_damaged_fingerprint_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match="fingerprint's"):
        BaseFingerprint.from_dict(values)


def test_twenty_million_values_take_a_fraction_of_a_second() -> None:
    model = tiny_model("llama", vocab_size=20_000, hidden_size=1024, intermediate_size=8)
    began = time.process_time()
    fingerprint_base(model)
    assert time.process_time() - began < 0.5
