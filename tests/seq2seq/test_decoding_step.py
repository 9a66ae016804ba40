"""The prepared decoding step computes what ``forward`` computes, and steps aside for a model that is more."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from generating import VARIANTS, counted_calls, generated, generated_by_forward
from peft import LoraConfig, get_peft_model
from tiny_seq2seq import some_ids, tiny_model
from torch import Tensor, nn
from transformers import CompileConfig
from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache

from hf_prompting.errors import Seq2SeqInputError
from hf_prompting.seq2seq.decoding_step import DecodingStep
from hf_prompting.seq2seq.growing_cache import GrowingLayer, with_room

MODES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "beams": {"num_beams": 3, "num_return_sequences": 2, "do_sample": False},
    "static cache": {"do_sample": False, "cache_implementation": "static"},
    "sampled": {"do_sample": True, "temperature": 1.5, "top_k": 20},
}


@pytest.fixture
def num_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return counted_calls(DecodingStep, monkeypatch)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_step_equals_forward(
    variant: str, mode: str, monkeypatch: pytest.MonkeyPatch, num_steps: list[int]
) -> None:
    preset, switches = VARIANTS[variant]
    model = tiny_model(preset, **switches)
    for num_rows in (1, 9):
        ids = some_ids(num_rows)
        right = torch.ones_like(ids)
        right[0, 4:] = 0
        for mask in (torch.ones_like(ids), right, right.flip(1)):
            if model.config.position_type in ("sinusoidal", "learned") and mask[0, 0] == 0:
                continue  # sinusoidal positions count padding
            options = {**MODES[mode], "attention_mask": mask}
            expected = generated_by_forward(monkeypatch, model, ids, **options)
            num_steps.clear()
            found = generated(model, ids, **options)
            assert len(num_steps) == len(found.logits)
            assert found.sequences.tolist() == expected.sequences.tolist()
            torch.testing.assert_close(torch.stack(found.logits), torch.stack(expected.logits), atol=1e-5, rtol=1e-5)


def test_a_prepared_step_is_not_for_other_compilers(num_steps: list[int]) -> None:
    def refusing(graph: Any, inputs: Any) -> Any:
        raise AssertionError("the compiler was called")

    model, ids = tiny_model("modern"), some_ids()
    expected = generated(model, ids, do_sample=False).sequences.tolist()
    num_steps.clear()
    compiling = CompileConfig(backend=refusing)
    compiling._compile_all_devices = True  # transformers compiles by itself on a GPU only
    found = generated(model, ids, do_sample=False, cache_implementation="static", compile_config=compiling)
    assert found.sequences.tolist() == expected and len(num_steps) == 9


def test_rows_that_end_are_padded_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = tiny_model("modern"), some_ids(4)
    options = {"do_sample": True, "temperature": 2.0, "eos_token_id": list(range(3, 30)), "max_new_tokens": 20}
    expected = generated_by_forward(monkeypatch, model, ids, **options).sequences
    assert (expected[:, 2:] == 0).any() and generated(model, ids, **options).sequences.tolist() == expected.tolist()


def test_a_beginning_is_gone_on_with(monkeypatch: pytest.MonkeyPatch, num_steps: list[int]) -> None:
    model, ids, beginning = tiny_model("t5"), some_ids(3), some_ids(3, 4, seed=5)
    options = {"num_beams": 2, "do_sample": False, "decoder_input_ids": beginning}
    expected = generated_by_forward(monkeypatch, model, ids, **options)
    found = generated(model, ids, **options)
    assert len(num_steps) == 8 and found.sequences.tolist() == expected.sequences.tolist()
    assert found.sequences[:, 1:5].tolist() == beginning.tolist()


def test_beams_in_caches_of_the_user(monkeypatch: pytest.MonkeyPatch, num_steps: list[int]) -> None:
    model, ids = tiny_model("modern"), some_ids()
    expected = generated(model, ids, num_beams=3, do_sample=False).sequences.tolist()
    num_steps.clear()
    for cache in (DynamicCache(), EncoderDecoderCache(DynamicCache(), DynamicCache())):
        found = generated(model, ids, num_beams=3, do_sample=False, past_key_values=cache)
        assert found.sequences.tolist() == expected and not num_steps


def test_a_text_longer_than_the_first_room(monkeypatch: pytest.MonkeyPatch) -> None:
    for preset in ("modern", "t5"):
        model, ids = tiny_model(preset), some_ids(2)
        options = {"max_new_tokens": 140, "min_new_tokens": 140, "do_sample": False}
        expected = generated_by_forward(monkeypatch, model, ids, **options)
        found = generated(model, ids, **options)
        torch.testing.assert_close(torch.stack(found.logits), torch.stack(expected.logits), atol=1e-4, rtol=1e-4)


def test_a_text_longer_than_the_sinusoids_is_refused() -> None:
    with pytest.raises(Seq2SeqInputError, match="65 tokens; allowed: up to max_position_embeddings 64"):
        tiny_model("vanilla").generate(some_ids(1), max_new_tokens=80, min_new_tokens=80)


def test_weights_changed_between_two_calls_are_seen(monkeypatch: pytest.MonkeyPatch, num_steps: list[int]) -> None:
    model, ids = tiny_model("modern"), some_ids()
    before = generated(model, ids, do_sample=False)
    with torch.no_grad():
        for layer in model.model.decoder.layers:
            layer.self_attn.v_proj.weight.mul_(-3.0)
            layer.mlp.gate_proj.weight.mul_(2.0)
    after = generated(model, ids, do_sample=False)
    expected = generated_by_forward(monkeypatch, model, ids, do_sample=False)
    assert num_steps and not torch.allclose(after.logits[3], before.logits[3])
    torch.testing.assert_close(torch.stack(after.logits), torch.stack(expected.logits), atol=1e-5, rtol=1e-5)


def test_a_returned_cache_goes_on_by_forward_with_the_weights_of_now() -> None:
    model, ids = tiny_model("modern"), some_ids()
    found = generated(model, ids, do_sample=False)
    cache, last = found.past_key_values, found.sequences[:, -1:]
    with torch.no_grad():
        model.model.decoder.norm.weight.mul_(2.0)
        twice = model(ids, decoder_input_ids=found.sequences).logits[:, -1]
        again = model(ids, decoder_input_ids=last, past_key_values=cache).logits[:, -1]
    torch.testing.assert_close(again, twice, atol=1e-4, rtol=1e-4)


def hooked(model: Any) -> Any:
    model.model.decoder.layers[1].register_forward_hook(lambda module, args, output: output * 0.5)
    return model


def with_lora(model: Any) -> Any:
    tuned = get_peft_model(model, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    return tuned.eval()


def with_own_forward(model: Any) -> Any:
    attention = model.model.decoder.layers[0].cross_attn
    ordinary = attention.forward
    attention.forward = lambda *args, **kwargs: (ordinary(*args, **kwargs)[0] * 0.5, None)
    return model


def with_own_part(model: Any) -> Any:
    class Halved(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * 0.5

    model.model.decoder.layers[0].mlp.down_proj = Halved(48, 32, bias=False)
    return model.eval()


def in_training(model: Any) -> Any:
    model.model.decoder.layers[0].train()
    return model


def in_double(model: Any) -> Any:
    return model.double()


CHANGES: tuple[Callable[[Any], Any], ...] = (hooked, with_lora, with_own_forward, with_own_part, in_training, in_double)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_model_that_is_more_takes_forward(
    change: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch, num_steps: list[int]
) -> None:
    model, ids = change(tiny_model("modern")), some_ids()
    found = generated(model, ids, do_sample=False)
    expected = generated_by_forward(monkeypatch, model, ids, do_sample=False)
    assert not num_steps and torch.equal(torch.stack(found.logits), torch.stack(expected.logits))


def test_what_is_asked_for_decides(num_steps: list[int]) -> None:
    model, ids = tiny_model("modern"), some_ids()
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    asked: dict[str, dict[str, Any]] = {
        "attentions": {"output_attentions": True},
        "hidden states": {"output_hidden_states": True},
        "no cache": {"use_cache": False},
        "a cache of the user": {"past_key_values": cache},
        "padding before the text": {"decoder_attention_mask": torch.ones(2, 1, dtype=torch.long)},
    }
    for name, options in asked.items():
        generated(model, ids, do_sample=False, **options)
        assert not num_steps, name
    with torch.autocast("cpu"):
        generated(model, ids, do_sample=False)
    assert not num_steps, "autocast"
    hook = nn.modules.module.register_module_forward_hook(lambda module, args, output: None)
    generated(model, ids, do_sample=False)
    hook.remove()
    assert not num_steps, "a hook on all modules"
    generated(model, ids, do_sample=False)  # the idle hooks that recording has left do not matter
    assert num_steps


def test_recorded_attentions_are_those_of_before() -> None:
    model, ids = tiny_model("modern"), some_ids()
    model.set_attn_implementation("eager")
    found = generated(model, ids, do_sample=False, output_attentions=True)
    assert len(found.decoder_attentions) == len(found.logits)
    assert found.decoder_attentions[5][0].shape == (2, 4, 1, 6)


def filled(layer: DynamicLayer) -> list[Tensor]:
    """Do to a cache layer what generation modes do, and return the keys and values of all moments."""
    draw = torch.Generator().manual_seed(0)
    seen: list[Tensor] = []

    def note() -> None:
        seen.extend(states.clone() for states in (layer.keys, layer.values))

    def update(num_tokens: int) -> None:
        shape = (layer.keys.shape[0] if layer.is_initialized else 3, 2, num_tokens, 4)
        key, value = torch.randn(2, *shape, generator=draw).unbind()
        given = layer.update(key, value)
        assert all(torch.equal(*pair) for pair in zip(given, (layer.keys, layer.values), strict=True))
        note()

    with torch.no_grad():
        update(5)
        update(1)
        layer.reorder_cache(torch.tensor([2, 0, 0]))
        update(1)
        layer.reorder_cache(torch.tensor([1, 1, 2]))
        update(80)
        layer.crop(-3)
        update(1)
        layer.batch_repeat_interleave(2)
        update(2)
        layer.batch_select_indices(torch.tensor([0, 3]))
        update(1)
        layer = copy.deepcopy(layer)
        update(90)
        layer.reset()
        update(2)
    return seen


def test_a_layer_with_room_holds_what_a_dynamic_layer_holds() -> None:
    found, expected = filled(GrowingLayer(200)), filled(DynamicLayer())
    assert len(found) == len(expected) and all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_room_is_not_copied_at_every_token() -> None:
    layer = GrowingLayer(50)
    with torch.no_grad():
        places = {layer.update(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))[0].data_ptr() for _ in range(50)}
    assert len(places) == 1 and layer.keys.shape == (1, 1, 50, 2)


def test_a_cache_with_a_gradient_is_never_written_over() -> None:
    layer = GrowingLayer(50)
    first = torch.ones(1, 1, 1, 2, requires_grad=True)
    keys, _ = layer.update(first, first)
    squares = keys.square().sum()
    layer.update(first * 2, first)
    squares.backward()
    assert first.grad is not None and first.grad.flatten().tolist() == [2.0, 2.0]


def test_only_plain_layers_get_room() -> None:
    cache = DynamicCache(config=tiny_model("modern").config)
    with_room(cache, 8)
    assert [type(layer) for layer in cache.layers] == [GrowingLayer, GrowingLayer]
