"""The compiled decoding step computes what ``forward`` computes, for up to 64 rows, and only where it is faster."""

from __future__ import annotations

import copy
import pickle
import shutil
from typing import Any

import pytest
import torch
from generating import VARIANTS, counted_calls, generated, generated_by_forward
from tiny_seq2seq import some_ids, tiny_model
from torch import Tensor, nn
from torch._inductor.exc import InvalidCxxCompiler
from transformers import CompileConfig, EncoderDecoderCache, StaticCache
from transformers.utils import logging

from hf_prompting.cpu_products import Linear
from hf_prompting.errors import Seq2SeqInputError
from hf_prompting.seq2seq import compiled_step
from hf_prompting.seq2seq.compiled_step import CompiledStep

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here (apt install g++)")

ASKED: dict[str, Any] = {"do_sample": False, "cache_implementation": "static", "compile_config": CompileConfig()}
ODD: dict[str, Any] = {"hidden_size": 52, "num_attention_heads": 3, "head_dim": 22, "intermediate_size": 45}
KINDS = {
    **VARIANTS,
    "odd sizes": ("modern", {**ODD, "num_key_value_heads": 1, "use_bias": True}),
    "odd sizes, t5": ("t5", ODD),
    "heads of 80": ("modern", {"hidden_size": 160, "num_attention_heads": 2, "initializer_range": 0.05}),
}


@pytest.fixture
def num_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return counted_calls(CompiledStep, monkeypatch)


def check(
    model: Any,
    ids: Tensor,
    num_steps: list[int],
    monkeypatch: pytest.MonkeyPatch,
    *,
    mask: Tensor | None = None,
    **options: Any,
) -> None:
    """Compare compiled generation, which has to happen, with ``forward``."""
    options = {"attention_mask": torch.ones_like(ids) if mask is None else mask, **options}
    static = {"do_sample": False, "cache_implementation": "static"}
    expected = generated_by_forward(monkeypatch, model, ids, **static, **options)
    num_steps.clear()
    found = generated(model, ids, **ASKED, **options)
    assert len(num_steps) == len(found.logits)
    assert found.sequences.tolist() == expected.sequences.tolist()
    torch.testing.assert_close(torch.stack(found.logits), torch.stack(expected.logits), atol=1e-5, rtol=1e-5)


def static_cache(model: Any, num_own: int, num_cross: int) -> EncoderDecoderCache:
    return EncoderDecoderCache(*(StaticCache(config=model.config, max_cache_len=n) for n in (num_own, num_cross)))


@pytest.mark.parametrize("num_rows", [1, 2, 3, 5, 6, 16, 17])
@pytest.mark.parametrize("kind", KINDS)
def test_the_step_equals_forward(
    kind: str, num_rows: int, monkeypatch: pytest.MonkeyPatch, num_steps: list[int]
) -> None:
    preset, switches = KINDS[kind]
    model, ids = tiny_model(preset, **switches), some_ids(num_rows)
    right = torch.ones_like(ids)
    right[0, 4:] = 0
    for mask in (torch.ones_like(ids), right, right.flip(1)):
        if model.config.position_type in ("sinusoidal", "learned") and mask[0, 0] == 0:
            continue  # sinusoidal positions count padding
        check(model, ids, num_steps, monkeypatch, mask=mask)


@pytest.mark.parametrize(("num_rows", "num_tokens", "max_new_tokens"), [(1, 1, 1), (4, 21, 40), (64, 33, 20)])
@pytest.mark.parametrize("preset", ["modern", "t5"])
def test_other_lengths(
    preset: str,
    num_rows: int,
    num_tokens: int,
    max_new_tokens: int,
    monkeypatch: pytest.MonkeyPatch,
    num_steps: list[int],
) -> None:
    ids = some_ids(num_rows, num_tokens)
    check(tiny_model(preset), ids, num_steps, monkeypatch, max_new_tokens=max_new_tokens)


@pytest.mark.parametrize("num_rows", [1, 9])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize(
    "activation", ["relu", "silu", "swish", "gelu", "gelu_python", "gelu_fast", "gelu_new", "gelu_pytorch_tanh"]
)
def test_activations_of_small_and_large_numbers(
    activation: str, gated: bool, num_rows: int, monkeypatch: pytest.MonkeyPatch, num_steps: list[int]
) -> None:
    model = tiny_model("modern", hidden_act=activation, gated_feed_forward=gated)
    with torch.no_grad():
        for layer in model.model.decoder.layers:
            activated = layer.mlp.gate_proj if gated else layer.mlp.up_proj
            activated.weight[0].mul_(1e37)  # SiLU of -1e37 is 0
            activated.weight[1:].mul_(torch.logspace(-3, 3, len(activated.weight) - 1)[:, None])
            layer.mlp.down_proj.weight[:, 1:].div_(torch.logspace(-3, 3, len(activated.weight) - 1))
    check(model, some_ids(num_rows), num_steps, monkeypatch)


def test_scores_that_leave_nothing_to_the_other_tokens(monkeypatch: pytest.MonkeyPatch, num_steps: list[int]) -> None:
    """e to the power of -1,000 is 0, and of a row that begins with it nothing is lost."""
    model = tiny_model("modern")
    with torch.no_grad():
        for layer in model.model.decoder.layers:
            for attention in (layer.self_attn, layer.cross_attn):
                attention.q_proj.weight.mul_(200.0)
                attention.k_proj.weight.mul_(200.0)
    ids = some_ids(3)
    expected = generated_by_forward(monkeypatch, model, ids, do_sample=False)
    found = generated(model, ids, **ASKED)
    assert found.sequences.tolist() == expected.sequences.tolist() and len(num_steps) == 9
    torch.testing.assert_close(torch.stack(found.logits), torch.stack(expected.logits), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("num_rows", [1, 7])
def test_the_number_of_threads_changes_nothing(num_rows: int, num_steps: list[int]) -> None:
    model, ids, found = tiny_model("modern"), some_ids(num_rows), []
    num_threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3, 7):
            torch.set_num_threads(number)
            found.append(torch.stack(generated(model, ids, **ASKED).logits))
    finally:
        torch.set_num_threads(num_threads)
    for logits in found[1:]:
        torch.testing.assert_close(logits, found[0], atol=1e-5, rtol=1e-5)  # the encoder's sums are torch's
    assert len(num_steps) == 4 * 9


@pytest.mark.parametrize("num_rows", [4, 20])
def test_rows_do_not_know_of_each_other(num_rows: int, num_steps: list[int]) -> None:
    model, ids = tiny_model("modern"), some_ids(num_rows)
    together = torch.stack(generated(model, ids, **ASKED).logits)
    reordered = torch.stack(generated(model, ids.flip(0), **ASKED).logits).flip(1)
    alone = torch.cat([torch.stack(generated(model, row[None], **ASKED).logits) for row in ids], dim=1)
    torch.testing.assert_close(reordered, together, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)
    assert {1, num_rows} == set(num_steps)


def test_changed_weights_are_seen(monkeypatch: pytest.MonkeyPatch, num_steps: list[int]) -> None:
    ids = some_ids(1)
    first, second = tiny_model("modern"), tiny_model("modern", initializer_range=0.3)
    for model in (first, second):
        check(model, ids, num_steps, monkeypatch)
    with torch.no_grad():
        first.lm_head.weight.mul_(-1.0)
        for norm in (first.model.decoder.norm, first.model.decoder.layers[1].mlp_norm):
            norm.weight.normal_()
            norm.eps = 0.5
    check(first, ids, num_steps, monkeypatch)
    with torch.inference_mode():
        check(first, ids, num_steps, monkeypatch)


def test_parameters_of_two_places_are_found_in_both(monkeypatch: pytest.MonkeyPatch, num_steps: list[int]) -> None:
    model = tiny_model("modern", use_bias=True)
    first, second = model.model.decoder.layers
    second.mlp, second.cross_attn.o_proj.bias = first.mlp, first.self_attn.o_proj.bias
    with torch.no_grad():
        first.self_attn.o_proj.bias.normal_()
    check(model, some_ids(1), num_steps, monkeypatch)


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_tied_and_a_free_head(is_tied: bool, monkeypatch: pytest.MonkeyPatch, num_steps: list[int]) -> None:
    model = tiny_model("modern", tie_word_embeddings=is_tied)
    assert (model.lm_head.weight is model.model.shared.weight) == is_tied
    check(model, some_ids(1, num_tokens=1), num_steps, monkeypatch)


@pytest.mark.parametrize("num_rows", [1, 6])
def test_one_bias_among_matrices_without(num_rows: int, monkeypatch: pytest.MonkeyPatch, num_steps: list[int]) -> None:
    model = tiny_model("modern")
    attention = model.model.decoder.layers[1].self_attn
    attention.k_proj.bias = nn.Parameter(torch.randn(attention.k_proj.out_features))
    check(model, some_ids(num_rows), num_steps, monkeypatch)


def test_all_places_of_a_given_cache_are_used_and_it_can_be_used_again(num_steps: list[int]) -> None:
    model, ids = tiny_model("modern"), some_ids(2)
    expected = generated(model, ids, do_sample=False).sequences.tolist()
    cache = static_cache(model, 9, ids.shape[1])
    asked = {"do_sample": False, "compile_config": CompileConfig(), "past_key_values": cache}
    assert generated(model, ids, **asked).sequences.tolist() == expected
    assert cache.get_seq_length() == 9 and len(num_steps) == 9
    cache.reset()
    assert generated(model, ids.flip(0), **asked).sequences.tolist() == expected[::-1]


@pytest.mark.parametrize("num_rows", [1, 3])
def test_a_beginning_is_read_by_forward_and_a_single_token_by_the_compiled_step(
    num_rows: int, monkeypatch: pytest.MonkeyPatch, num_steps: list[int]
) -> None:
    model, ids = tiny_model("t5"), some_ids(num_rows)
    for options, expected_steps in (
        ({"decoder_input_ids": some_ids(num_rows, 4, seed=5)}, 8),
        ({"max_new_tokens": 1}, 1),
        ({"max_new_tokens": 2}, 2),
    ):
        expected = generated_by_forward(monkeypatch, model, ids, do_sample=False, **options)
        num_steps.clear()
        found = generated(model, ids, **ASKED, **options)
        assert found.sequences.tolist() == expected.sequences.tolist() and len(num_steps) == expected_steps
        torch.testing.assert_close(torch.stack(found.logits), torch.stack(expected.logits), atol=1e-5, rtol=1e-5)


def test_beams_that_go_on_with_a_beginning(monkeypatch: pytest.MonkeyPatch, num_steps: list[int]) -> None:
    model, ids, beginning = tiny_model("t5"), some_ids(3), some_ids(3, 4, seed=5)
    options: dict[str, Any] = {"num_beams": 2, "decoder_input_ids": beginning}
    expected = generated_by_forward(monkeypatch, model, ids, do_sample=False, **options)
    found = generated(model, ids, **ASKED, **options)
    assert found.sequences.tolist() == expected.sequences.tolist() and len(num_steps) == 8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("num_texts", "num_beams"), [(1, 4), (3, 5)])
def test_beams(
    kind: str, num_texts: int, num_beams: int, monkeypatch: pytest.MonkeyPatch, num_steps: list[int]
) -> None:
    preset, switches = KINDS[kind]
    ids = some_ids(num_texts)
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    check(tiny_model(preset, **switches), ids, num_steps, monkeypatch, mask=mask, num_beams=num_beams)
    assert set(num_steps) == {num_texts * num_beams}


def changed_after_four(cache: EncoderDecoderCache, change: Any) -> Any:
    def process(ids: Tensor, scores: Tensor) -> Tensor:
        if ids.shape[1] == 4:
            for layer in cache.self_attention_cache.layers:
                layer.keys, layer.values = change(layer.keys), change(layer.values)
        return scores

    return process


@pytest.mark.parametrize(("change", "expected_steps"), [(Tensor.clone, 9), (lambda kept: kept.mT.contiguous().mT, 5)])
def test_a_cache_with_other_tensors_is_followed_if_they_lie_alike(
    change: Any, expected_steps: int, num_steps: list[int]
) -> None:
    model, ids = tiny_model("modern"), some_ids(2)
    expected = generated(model, ids, do_sample=False).sequences.tolist()
    cache = static_cache(model, 12, ids.shape[1])
    asked = {"do_sample": False, "compile_config": CompileConfig(), "past_key_values": cache}
    found = generated(model, ids, logits_processor=[changed_after_four(cache, change)], **asked)
    assert found.sequences.tolist() == expected and len(num_steps) == expected_steps


@pytest.mark.parametrize("num_rows", [1, 9])
@pytest.mark.parametrize(
    "wrong", [{"decoder_start_token_id": 1000}, {"pad_token_id": 1000, "eos_token_id": [*range(50)]}]
)
def test_an_id_outside_the_vocabulary_is_refused(wrong: dict[str, Any], num_rows: int, num_steps: list[int]) -> None:
    options = {"min_new_tokens": 0, "max_new_tokens": 20, **{**ASKED, "do_sample": True}}
    with pytest.raises(Seq2SeqInputError, match="token id 1000 is outside the vocabulary; allowed: 0 to 98"):
        generated(tiny_model("modern"), some_ids(num_rows + 3), **wrong, **options)
    assert num_steps


def test_a_text_longer_than_the_positions_is_refused(num_steps: list[int]) -> None:
    with pytest.raises(Seq2SeqInputError, match="65 tokens; allowed: up to max_position_embeddings 64"):
        tiny_model("vanilla").generate(some_ids(1), max_new_tokens=80, min_new_tokens=80, **ASKED)
    assert len(num_steps) == 65


def test_a_copy_forgets_the_model_that_was_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = tiny_model("modern"), some_ids(1)
    generated(model, ids, **ASKED)
    changed = copy.deepcopy(model)
    changed.model.decoder.layers[1].register_forward_hook(lambda module, args, output: output * 0.5)
    expected = generated_by_forward(monkeypatch, changed, ids, do_sample=False).sequences.tolist()
    assert generated(changed, ids, **ASKED).sequences.tolist() == expected
    assert pickle.loads(pickle.dumps(model)).state_dict().keys() == model.state_dict().keys()


def test_a_model_that_is_more_is_not_compiled_on_a_cpu() -> None:
    def refusing(graph: Any, inputs: Any) -> Any:
        raise AssertionError("the compiler was called")

    model, ids = tiny_model("modern"), some_ids(1)
    model.model.decoder.layers[1].register_forward_hook(lambda module, args, output: output * 0.5)
    expected = generated(model, ids, do_sample=False).sequences.tolist()
    asked = {**ASKED, "compile_config": CompileConfig(backend=refusing)}
    assert generated(model, ids, **asked).sequences.tolist() == expected


def test_without_a_compiler_the_prepared_step_goes_on(
    monkeypatch: pytest.MonkeyPatch, num_steps: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    def missing(*args: Any, **kwargs: Any) -> Any:
        raise InvalidCxxCompiler

    model, ids = tiny_model("modern"), some_ids(1)
    expected = generated(model, ids, do_sample=False).sequences.tolist()
    logging.warning_once.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(compiled_step.CppCodeCache, "load", missing)
        compiled_step._library.cache_clear()
        assert generated(model, ids, **ASKED).sequences.tolist() == expected and not num_steps
    compiled_step._library.cache_clear()
    assert "compile_config changes nothing here: the machine's C++ compiler" in caplog.text


def _smaller(model: Any) -> None:
    mlp = model.model.decoder.layers[1].mlp
    for name, shape in (("gate_proj", (32, 24)), ("up_proj", (32, 24)), ("down_proj", (24, 32))):
        setattr(mlp, name, Linear(*shape, bias=False))


def _with_its_own_activation(model: Any) -> None:
    with torch.no_grad():
        model.model.decoder.layers[0].mlp.activation.weight.fill_(0.9)


def _with(path: str, part: nn.Module) -> Any:
    """Return what puts another part into a model's decoder."""

    def change(model: Any) -> None:
        owner, _, name = path.rpartition(".")
        setattr(model.model.decoder.get_submodule(owner), name, part)

    return change


def _with_a_plain_weight(change: Any) -> Any:
    def replace(model: Any) -> None:
        layer = model.model.decoder.layers[0].mlp.up_proj
        weight = layer.weight.detach()
        del layer.weight
        layer.weight = change(weight)

    return replace


def _with_one_bias_for_all(model: Any) -> None:
    model.lm_head.bias = nn.Parameter(torch.randn(1))


WITHOUT: dict[str, tuple[dict[str, Any], int, Any]] = {
    "many rows": ({}, 65, lambda model: None),
    "an activation with weights": ({"hidden_act": "prelu"}, 1, _with_its_own_activation),
    "a rare activation": ({"hidden_act": "mish"}, 1, lambda model: None),
    "another activation": ({}, 1, _with("layers.1.mlp.activation", nn.Identity())),
    "a smaller layer": ({}, 1, _smaller),
    "weights by columns": ({}, 1, lambda model: model.lay_out_for_decoding()),
    "one weight by columns": ({}, 1, _with_a_plain_weight(lambda weight: weight.mT.contiguous().mT)),
    "no norm in a layer": ({}, 1, _with("layers.1.mlp_norm", nn.Identity())),
    "a norm without weights": ({}, 1, _with("layers.1.mlp_norm", nn.LayerNorm(32, elementwise_affine=False))),
    "no weight in the last norm": ({}, 1, _with("norm", nn.LayerNorm(32, elementwise_affine=False))),
    "one bias for all words": ({}, 1, _with_one_bias_for_all),
}


@pytest.mark.parametrize("case", WITHOUT)
def test_what_has_no_compiled_step_stays_with_the_prepared_one(case: str, num_steps: list[int]) -> None:
    switches, num_rows, change = WITHOUT[case]
    model, ids = tiny_model("modern", **switches), some_ids(num_rows)
    change(model.eval())
    model.eval()  # a new part, too
    expected = generated(model, ids, do_sample=False).sequences.tolist()
    assert generated(model, ids, **ASKED).sequences.tolist() == expected and not num_steps


@pytest.mark.parametrize("num_rows", [1, 6])
@pytest.mark.parametrize(
    "case", ["LayerNorm without a bias", "no last norm", "one layer with the norm behind", "a head of other words"]
)
def test_what_differs_from_the_configuration_is_seen(
    case: str, num_rows: int, monkeypatch: pytest.MonkeyPatch, num_steps: list[int]
) -> None:
    model = tiny_model("modern")
    decoder = model.model.decoder
    if case == "LayerNorm without a bias":
        decoder.layers[0].mlp_norm = nn.LayerNorm(32, bias=False)
    elif case == "no last norm":
        decoder.norm = nn.Identity()
    elif case == "one layer with the norm behind":
        decoder.layers[1].pre_norm = False
    else:
        model.lm_head = Linear(32, 50)
    check(model.eval(), some_ids(num_rows), num_steps, monkeypatch, max_new_tokens=2)


def test_a_head_that_does_not_fit_is_refused_as_ever(num_steps: list[int]) -> None:
    model = tiny_model("modern")
    model.lm_head = Linear(24, 99, bias=False).eval()
    with pytest.raises(RuntimeError, match="24"):
        generated(model, some_ids(1), **ASKED)
    assert not num_steps


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_type_of_new_tensors_changes_nothing(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, num_steps: list[int]
) -> None:
    model = tiny_model("modern")
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        expected = generated(model, some_ids(2), do_sample=False).logits
        found = generated(model, some_ids(2), **ASKED).logits
    finally:
        torch.set_default_dtype(before)
    assert len(num_steps) == 9
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_start_tokens_in_32_bits(monkeypatch: pytest.MonkeyPatch, num_steps: list[int]) -> None:
    start = torch.tensor([[0], [5], [7]], dtype=torch.int32)
    check(tiny_model("modern"), some_ids(3), num_steps, monkeypatch, decoder_input_ids=start)


@pytest.mark.parametrize("length", [-3, 12])
def test_a_place_outside_of_the_cache_is_not_touched(length: int) -> None:
    model, cache = tiny_model("modern"), static_cache(tiny_model("modern"), 12, 7)
    generated(model, some_ids(2), past_key_values=cache, compile_config=CompileConfig(), do_sample=False)
    parts = model.model.decoder, model.lm_head, 1.0, cache, None, CompileConfig()
    step = compiled_step.compiled_step(*parts)
    assert step is not None and step(torch.zeros(2, 1, dtype=torch.long)) is not None
    for layer in cache.self_attention_cache.layers:
        layer.cumulative_length.fill_(length)
    assert step(torch.zeros(2, 1, dtype=torch.long)) is None


def test_weights_by_columns_are_named_as_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    logging.warning_once.cache_clear()
    generated(tiny_model("modern").lay_out_for_decoding(), some_ids(1), **ASKED)
    assert "lay_out_for_decoding(compiled=True)" in caplog.text


def test_the_layout_for_a_compiled_step(num_steps: list[int]) -> None:
    model, ids = tiny_model("modern"), some_ids(1)
    expected = generated(model, ids, do_sample=False).sequences.tolist()
    model.lay_out_for_decoding(compiled=True)
    assert not model.model.encoder.layers[0].mlp.up_proj.weight.is_contiguous()
    assert generated(model, ids, **ASKED).sequences.tolist() == expected and len(num_steps) == 9


def test_nothing_is_compiled_that_nobody_has_asked_for(num_steps: list[int]) -> None:
    model = tiny_model("modern")
    generated(model, some_ids(1), do_sample=False, cache_implementation="static")
    generated(model, some_ids(1), **{**ASKED, "disable_compile": True})
    assert not num_steps


def test_one_text_for_several_rows_of_the_decoder(monkeypatch: pytest.MonkeyPatch, num_steps: list[int]) -> None:
    model = tiny_model("modern")
    start = torch.full((3, 1), model.generation_config.decoder_start_token_id or 0)
    expected = generated_by_forward(monkeypatch, model, some_ids(1), decoder_input_ids=start, do_sample=False)
    found = generated(model, some_ids(1), decoder_input_ids=start, **ASKED)
    assert found.sequences.tolist() == expected.sequences.tolist() and not num_steps
