"""The vanilla preset is torch.nn.Transformer; attention implementations, caches and checkpointing change nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_seq2seq import PRESETS, some_ids, tiny_model
from torch import nn
from transformers import CompileConfig, T5Config, T5ForConditionalGeneration

from hf_prompting.seq2seq import Seq2SeqTransformerModel, from_t5, generation
from hf_prompting.seq2seq.positions import sinusoidal_positions


@pytest.fixture(autouse=True)
def forget_compiled_graphs() -> None:
    """Each test has torch's recompile limit, which counts per process, for itself."""
    torch._dynamo.reset()


COMPILED_PRESETS = pytest.mark.parametrize(  # tracing takes seconds
    "preset", ["modern", pytest.param("vanilla", marks=pytest.mark.slow), pytest.param("t5", marks=pytest.mark.slow)]
)


def copied_to_torch(model: Seq2SeqTransformerModel) -> nn.Transformer:
    """Return ``torch.nn.Transformer`` with the weights of a vanilla model."""
    config = model.config
    sizes = (config.hidden_size, config.num_attention_heads, config.num_encoder_layers, config.num_decoder_layers)
    options = {"dropout": 0.0, "batch_first": True, "layer_norm_eps": config.norm_eps}
    peer = nn.Transformer(*sizes, config.intermediate_size, **options)
    ours, weights = model.state_dict(), {}
    for side, layers in (("encoder", config.num_encoder_layers), ("decoder", config.num_decoder_layers)):
        attentions = {"self_attn": "self_attn"} | ({"multihead_attn": "cross_attn"} if side == "decoder" else {})
        norms = [f"{name}_norm" for name in attentions.values()] + ["mlp_norm"]
        for kind in ("weight", "bias"):
            weights[f"{side}.norm.{kind}"] = ours[f"{side}.norm.{kind}"]
            for number in range(layers):
                place = f"{side}.layers.{number}"
                for theirs, name in attentions.items():
                    parts = [ours[f"{place}.{name}.{letter}_proj.{kind}"] for letter in "qkv"]
                    weights[f"{place}.{theirs}.in_proj_{kind}"] = torch.cat(parts)
                    weights[f"{place}.{theirs}.out_proj.{kind}"] = ours[f"{place}.{name}.o_proj.{kind}"]
                for norm_number, norm in enumerate(norms, start=1):
                    weights[f"{place}.norm{norm_number}.{kind}"] = ours[f"{place}.{norm}.{kind}"]
                weights[f"{place}.linear1.{kind}"] = ours[f"{place}.mlp.up_proj.{kind}"]
                weights[f"{place}.linear2.{kind}"] = ours[f"{place}.mlp.down_proj.{kind}"]
    peer.load_state_dict(weights)
    return peer.eval()


@pytest.mark.parametrize("num_decoder_layers", [2, 3])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_vanilla_equals_torch_nn_transformer(implementation: str, num_decoder_layers: int) -> None:
    model = tiny_model("vanilla", Seq2SeqTransformerModel, num_decoder_layers=num_decoder_layers)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.set_attn_implementation(implementation)
    peer = copied_to_torch(model)
    source, target = some_ids(3, 9), some_ids(3, 6, seed=2)
    mask = torch.ones_like(source)
    mask[1, 5:] = 0
    embedded = [
        model.shared.weight[ids] * math.sqrt(32) + sinusoidal_positions(torch.arange(ids.shape[1]), 32)
        for ids in (source, target)
    ]
    with torch.no_grad():
        expected = peer(
            *embedded,
            tgt_mask=nn.Transformer.generate_square_subsequent_mask(6),
            src_key_padding_mask=mask == 0,
            memory_key_padding_mask=mask == 0,
        )
        found = model(source, attention_mask=mask, decoder_input_ids=target).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # transformers' own call of create_block_mask
@pytest.mark.parametrize(
    "implementation",
    ["sdpa", pytest.param("flex_attention", marks=pytest.mark.slow)],  # flex compiles a kernel
)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_attention_implementation_gives_the_same_logits(preset: str, implementation: str) -> None:
    model = tiny_model(preset, num_key_value_heads=2)
    ids, labels = some_ids(), some_ids(2, 5, seed=2)
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    found = []
    for name in ("eager", implementation):
        model.set_attn_implementation(name)
        with torch.no_grad():
            found.append(model(ids, attention_mask=mask, labels=labels).logits)
    torch.testing.assert_close(found[1], found[0], atol=1e-4, rtol=1e-4)


def test_relative_positions_refuse_flash_attention() -> None:
    assert not tiny_model("t5")._supports_flash_attn
    assert tiny_model("modern")._supports_flash_attn and tiny_model("vanilla")._supports_flash_attn


CACHES: dict[str, dict[str, Any]] = {
    "no cache": {"use_cache": False},
    "static": {"cache_implementation": "static", "disable_compile": True},
}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("num_decoder_layers", [1, 3])
def test_every_cache_gives_the_same_text(preset: str, num_decoder_layers: int) -> None:
    model = tiny_model(preset, num_decoder_layers=num_decoder_layers)
    ids = some_ids()
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    options: dict[str, Any] = {"attention_mask": mask, "max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    expected = model.generate(ids, **options)
    for name, cache in CACHES.items():
        assert model.generate(ids, **options, **cache).tolist() == expected.tolist(), name


@pytest.mark.parametrize("preset", PRESETS)
def test_beams_and_samples_and_drafts_generate(preset: str) -> None:
    model, ids = tiny_model(preset), some_ids()
    assert model.generate(ids, num_beams=3, num_return_sequences=2, max_new_tokens=5).shape[0] == 4
    torch.manual_seed(0)
    first = model.generate(ids, do_sample=True, max_new_tokens=5)
    torch.manual_seed(0)
    assert model.generate(ids, do_sample=True, max_new_tokens=5).tolist() == first.tolist()
    one = ids[:1]
    greedy = model.generate(one, max_new_tokens=8, do_sample=False)
    assert model.generate(one, max_new_tokens=8, do_sample=False, assistant_model=tiny_model(preset)).tolist() == (
        greedy.tolist()
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_steps_with_a_cache_give_the_logits_of_one_pass(preset: str) -> None:
    model, ids, target = tiny_model(preset), some_ids(), some_ids(2, 6, seed=2)
    with torch.no_grad():
        expected = model(ids, decoder_input_ids=target).logits
        past, parts = None, []
        for step in (target[:, :3], target[:, 3:5], target[:, 5:]):
            output = model(ids, decoder_input_ids=step, past_key_values=past, use_cache=True)
            past = output.past_key_values
            parts.append(output.logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("preset", PRESETS)
def test_more_padding_changes_no_logit(preset: str) -> None:
    model, ids, target = tiny_model(preset), some_ids(), some_ids(2, 5, seed=2)
    padded, mask = nn.functional.pad(ids, (0, 4)), nn.functional.pad(torch.ones_like(ids), (0, 4))
    with torch.no_grad():
        expected = model(ids, decoder_input_ids=target).logits
        found = model(padded, attention_mask=mask, decoder_input_ids=target).logits
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        if preset != "vanilla":  # its positions are absolute
            padded, mask = nn.functional.pad(ids, (4, 0)), nn.functional.pad(torch.ones_like(ids), (4, 0))
            found = model(padded, attention_mask=mask, decoder_input_ids=target).logits
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_decoder_does_not_see_the_future(preset: str) -> None:
    model, ids, target = tiny_model(preset), some_ids(), some_ids(2, 5, seed=2)
    changed = target.clone()
    changed[:, 3:] = 7
    with torch.no_grad():
        logits = [model(ids, decoder_input_ids=decoder_ids).logits[:, :3] for decoder_ids in (target, changed)]
    torch.testing.assert_close(*logits)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("preset", PRESETS)
def test_activation_checkpointing_changes_no_gradient(preset: str, reentrant: bool) -> None:
    ids = some_ids()
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model(preset).train()
        if checkpointing:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
        model(ids, labels=ids).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@COMPILED_PRESETS
def test_the_forward_pass_compiles_to_one_graph(preset: str) -> None:
    model, ids = tiny_model(preset), some_ids()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(
            compiled(ids, labels=ids, use_cache=False).logits, model(ids, labels=ids).logits, atol=1e-5, rtol=1e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_a_training_step_compiles_to_one_graph_and_keeps_its_scores(preset: str) -> None:
    model, ids = tiny_model(preset).train(), some_ids()
    expected = model(ids, labels=ids)
    output = torch.compile(model, fullgraph=True, backend="aot_eager")(ids, labels=ids)
    torch.testing.assert_close(output.loss, expected.loss, atol=1e-5, rtol=1e-5)
    assert expected.logits is None and output.logits.shape == (2, 7, 99)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@COMPILED_PRESETS
def test_a_decoding_step_with_a_static_cache_compiles_to_one_graph(
    preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "can_decode", lambda model, cache: False)
    model, ids = tiny_model(preset), some_ids()
    options: dict[str, Any] = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    expected = model.generate(ids, **options).tolist()
    compiling = CompileConfig(backend="eager", fullgraph=True)
    compiling._compile_all_devices = True  # transformers compiles by itself on a GPU only
    found = model.generate(ids, **options, cache_implementation="static", compile_config=compiling).tolist()
    assert found == expected
    assert hasattr(model, "_compiled_call")


@pytest.mark.parametrize("preset", ["modern", "t5"])
def test_states_too_large_for_float16_stay_finite(preset: str) -> None:
    model, ids = tiny_model(preset, dropout=0.0), some_ids()
    with torch.no_grad():
        for side in (model.model.encoder, model.model.decoder):
            side.layers[0].mlp.down_proj.weight.fill_(2e4)
    model = model.half()
    states = []
    model.model.encoder.layers[0].register_forward_hook(lambda module, inputs, output: states.append(output))
    with torch.no_grad():
        output = model(ids, labels=ids)
    assert states[0].abs().max().item() == 64512  # the nearest number to 65504 - 1000
    assert output.logits.isfinite().all() and output.loss.isfinite()


def test_float16_of_an_overflowing_t5_is_that_of_transformers() -> None:
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 99}
    peer = T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0)).eval()
    with torch.no_grad():
        peer.encoder.block[0].layer[-1].DenseReluDense.wo.weight.fill_(2e4)
    model, peer, ids = from_t5(peer).half(), peer.half(), some_ids()
    with torch.no_grad():
        expected, found = (one(ids, decoder_input_ids=ids).logits for one in (peer, model))
    assert expected.isfinite().all()
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=2e-2)
