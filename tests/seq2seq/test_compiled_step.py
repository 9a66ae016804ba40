"""The compiled decoding step computes what ``forward`` computes, for up to 32 rows, and only where it is faster."""

from __future__ import annotations

import copy
import pickle
import shutil
from typing import Any

import pytest
import torch
from generating import VARIANTS, counted_calls, generated, generated_by_forward
from tiny_seq2seq import some_ids, tiny_model
from torch import Tensor
from torch._inductor.exc import InvalidCxxCompiler
from transformers import CompileConfig, EncoderDecoderCache, StaticCache

from hf_prompting.errors import Seq2SeqInputError
from hf_prompting.seq2seq import compiled_step
from hf_prompting.seq2seq.compiled_step import CompiledStep

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here (apt install g++)")


ASKED: dict[str, Any] = {"do_sample": False, "cache_implementation": "static", "compile_config": CompileConfig()}


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
    max_new_tokens: int = 9,
) -> None:
    """Compare compiled generation, which has to happen, with ``forward``."""
    options = {"attention_mask": torch.ones_like(ids) if mask is None else mask, "max_new_tokens": max_new_tokens}
    static = {"do_sample": False, "cache_implementation": "static"}
    expected = generated_by_forward(monkeypatch, model, ids, **static, **options)
    num_steps.clear()
    found = generated(model, ids, **ASKED, **options)
    assert len(num_steps) == len(found.logits)
    assert found.sequences.tolist() == expected.sequences.tolist()
    torch.testing.assert_close(torch.stack(found.logits), torch.stack(expected.logits), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_rows", [1, 2, 3, 16, 17])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_graph_equals_forward(
    variant: str, num_rows: int, monkeypatch: pytest.MonkeyPatch, num_steps: list[int]
) -> None:
    preset, switches = VARIANTS[variant]
    model, ids = tiny_model(preset, **switches), some_ids(num_rows)
    right = torch.ones_like(ids)
    right[0, 4:] = 0
    with torch.compiler.set_stance("force_eager"):  # the graph's own code, without the time of a compiler
        for mask in (torch.ones_like(ids), right, right.flip(1)):
            if model.config.position_type in ("sinusoidal", "learned") and mask[0, 0] == 0:
                continue  # sinusoidal positions count padding
            check(model, ids, num_steps, monkeypatch, mask=mask)


@needs_compiler
@pytest.mark.parametrize(
    ("variant", "num_rows"),
    [
        ("modern", (1, 1, 1)),
        ("modern", (5, 3, 15)),
        pytest.param("modern", (16, 16, 16), marks=pytest.mark.slow),
        *(
            pytest.param(variant, num_rows, marks=pytest.mark.slow)
            for variant in [*VARIANTS][1:]
            for num_rows in ((1, 1, 1), (5, 3, 15))
        ),
    ],
)
def test_compiled_it_equals_forward_by_one_graph_for_all_lengths(
    variant: str, num_rows: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, num_steps: list[int]
) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    preset, switches = VARIANTS[variant]
    model = tiny_model(preset, **switches)
    for rows, num_tokens, max_new_tokens in zip(num_rows, (7, 12, 5), (9, 20, 7), strict=True):
        check(model, some_ids(rows, num_tokens), num_steps, monkeypatch, max_new_tokens=max_new_tokens)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    for rows, num_tokens in zip(num_rows, (7, 12), strict=False):
        padded = (torch.arange(num_tokens) < 4)[None].long().repeat(rows, 1)
        check(model, some_ids(rows, num_tokens), num_steps, monkeypatch, mask=padded)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2, "one without a mask, one with it"
    assert not torch._dynamo.utils.counters["graph_break"]


@needs_compiler
def test_a_model_of_other_sizes_gets_a_graph_of_its_own_sizes(
    monkeypatch: pytest.MonkeyPatch, num_steps: list[int]
) -> None:
    """Else the compiler takes all sizes that have differed for varying, and its loops are as slow as a library."""
    torch._dynamo.reset()
    num_sizes: list[int] = []

    def look(graph: torch.fx.Graph) -> None:
        inputs = [node.meta["val"] for node in graph.nodes if node.op == "placeholder"]
        num_sizes.append(sum(isinstance(value, torch.SymInt) for value in inputs))

    with torch._inductor.config.patch(post_grad_custom_pre_pass=look):
        for num_rows, width in ((1, 32), (2, 64)):
            model = tiny_model("modern", hidden_size=width, intermediate_size=2 * width)
            check(model, some_ids(num_rows), num_steps, monkeypatch)
    assert len(num_sizes) == 2 and num_sizes[0] == num_sizes[1] > 0


def test_models_of_one_shape_share_the_graph_and_changed_weights_are_seen(
    monkeypatch: pytest.MonkeyPatch, num_steps: list[int]
) -> None:
    ids = some_ids(1)
    with torch.compiler.set_stance("force_eager"):
        first, second = tiny_model("modern"), tiny_model("modern", initializer_range=0.3)
        check(first, ids, num_steps, monkeypatch)
        graphs = dict(compiled_step._GRAPHS)
        check(second, ids, num_steps, monkeypatch)
        with torch.no_grad():
            first.lm_head.weight.mul_(-1.0)
        check(first, ids, num_steps, monkeypatch)
    assert graphs == compiled_step._GRAPHS


def test_parameters_of_two_places_are_found_in_both(monkeypatch: pytest.MonkeyPatch, num_steps: list[int]) -> None:
    model = tiny_model("modern", use_bias=True)
    first, second = model.model.decoder.layers
    second.mlp, second.cross_attn.o_proj.bias = first.mlp, first.self_attn.o_proj.bias
    with torch.no_grad():
        first.self_attn.o_proj.bias.normal_()
    with torch.compiler.set_stance("force_eager"):
        check(model, some_ids(1), num_steps, monkeypatch)


@needs_compiler
def test_a_graph_is_not_used_where_it_does_not_fit(monkeypatch: pytest.MonkeyPatch, num_steps: list[int]) -> None:
    """Most of the compiler's guards are left out; these cases are not in the key of a graph and must be noticed."""
    torch._dynamo.reset()
    for is_tied in (True, False):
        model = tiny_model("modern", tie_word_embeddings=is_tied)
        check(model, some_ids(1), num_steps, monkeypatch)
    assert model.lm_head.weight is not model.model.shared.weight
    check(model, some_ids(1, num_tokens=1), num_steps, monkeypatch)
    check(model, some_ids(1, num_tokens=5), num_steps, monkeypatch)
    with torch.inference_mode():
        check(model, some_ids(1), num_steps, monkeypatch)


@pytest.mark.parametrize("num_rows", [1, 3])
def test_one_bias_among_joined_matrices(num_rows: int, monkeypatch: pytest.MonkeyPatch, num_steps: list[int]) -> None:
    model = tiny_model("modern")
    attention = model.model.decoder.layers[1].self_attn
    attention.k_proj.bias = torch.nn.Parameter(torch.randn(attention.k_proj.out_features))
    with torch.compiler.set_stance("force_eager"):
        check(model, some_ids(num_rows), num_steps, monkeypatch)


def test_the_last_place_of_a_given_cache_is_left_to_the_prepared_step(num_steps: list[int]) -> None:
    model, ids = tiny_model("modern"), some_ids(2)
    expected = generated(model, ids, do_sample=False).sequences.tolist()
    own, cross = (StaticCache(config=model.config, max_cache_len=length) for length in (9, ids.shape[1]))
    with torch.compiler.set_stance("force_eager"):
        asked = {
            "do_sample": False,
            "compile_config": CompileConfig(),
            "past_key_values": EncoderDecoderCache(own, cross),
        }
        found = generated(model, ids, **asked)
        assert found.sequences.tolist() == expected
        assert own.get_seq_length() == 9 and len(num_steps) == 8
        asked["past_key_values"].reset()
        found = generated(model, ids.flip(0), **asked)
    assert found.sequences.tolist() == expected[::-1] and own.get_seq_length() == 9


@pytest.mark.parametrize("num_rows", [1, 3])
def test_a_beginning_is_read_by_forward_and_a_single_token_by_the_prepared_step(
    num_rows: int, monkeypatch: pytest.MonkeyPatch, num_steps: list[int]
) -> None:
    model, ids = tiny_model("t5"), some_ids(num_rows)
    with torch.compiler.set_stance("force_eager"):
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


def test_beams_stay_with_the_prepared_step(monkeypatch: pytest.MonkeyPatch, num_steps: list[int]) -> None:
    model, ids = tiny_model("modern"), some_ids(2)
    with torch.compiler.set_stance("force_eager"):
        expected = generated_by_forward(monkeypatch, model, ids, num_beams=3, do_sample=False)
        found = generated(model, ids, num_beams=3, **ASKED)
    assert found.sequences.tolist() == expected.sequences.tolist() and not num_steps


def test_a_cache_with_other_tensors_goes_on_by_the_prepared_step(num_steps: list[int]) -> None:
    model, ids = tiny_model("modern"), some_ids(2)
    expected = generated(model, ids, do_sample=False).sequences.tolist()

    def copied_after_four(ids: Tensor, scores: Tensor) -> Tensor:
        if ids.shape[1] == 4:
            for layer in cache.self_attention_cache.layers:
                layer.keys, layer.values = layer.keys.clone(), layer.values.clone()
        return scores

    cache = EncoderDecoderCache(*(StaticCache(config=model.config, max_cache_len=n) for n in (12, ids.shape[1])))
    asked = {"do_sample": False, "compile_config": CompileConfig(), "past_key_values": cache}
    with torch.compiler.set_stance("force_eager"):
        found = generated(model, ids, logits_processor=[copied_after_four], **asked)
    assert found.sequences.tolist() == expected and len(num_steps) == 4


@pytest.mark.parametrize(
    "wrong", [{"decoder_start_token_id": 1000}, {"pad_token_id": 1000, "eos_token_id": [*range(50)]}]
)
def test_an_id_outside_the_vocabulary_never_reaches_the_graph(wrong: dict[str, Any], num_steps: list[int]) -> None:
    model = tiny_model("modern")
    with (
        torch.compiler.set_stance("force_eager"),
        pytest.raises(Seq2SeqInputError, match="token id 1000 is outside the vocabulary"),
    ):
        generated(model, some_ids(9), min_new_tokens=0, max_new_tokens=20, **wrong, **{**ASKED, "do_sample": True})
    assert not num_steps


def test_one_text_for_several_rows_of_the_decoder(monkeypatch: pytest.MonkeyPatch, num_steps: list[int]) -> None:
    model = tiny_model("modern")
    start = torch.full((3, 1), model.generation_config.decoder_start_token_id or 0)
    with torch.compiler.set_stance("force_eager"):
        expected = generated_by_forward(monkeypatch, model, some_ids(1), decoder_input_ids=start, do_sample=False)
        found = generated(model, some_ids(1), decoder_input_ids=start, **ASKED)
    assert found.sequences.tolist() == expected.sequences.tolist() and not num_steps


def test_a_copy_forgets_the_model_that_was_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = tiny_model("modern"), some_ids(1)
    with torch.compiler.set_stance("force_eager"):
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


def test_without_a_compiler_the_prepared_step_goes_on(monkeypatch: pytest.MonkeyPatch, num_steps: list[int]) -> None:
    def missing() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr(compiled_step, "get_cpp_compiler", missing)
    compiled_step._has_compiler.cache_clear()
    model, ids = tiny_model("modern"), some_ids(1)
    expected = generated(model, ids, do_sample=False).sequences.tolist()
    assert generated(model, ids, **ASKED).sequences.tolist() == expected and not num_steps
    compiled_step._has_compiler.cache_clear()


def test_more_rows_and_columns_stay_with_the_prepared_step(num_steps: list[int]) -> None:
    with torch.compiler.set_stance("force_eager"):
        model = tiny_model("modern")
        expected = [generated(model, some_ids(num_rows), do_sample=False).sequences.tolist() for num_rows in (33, 1)]
        assert generated(model, some_ids(33), **ASKED).sequences.tolist() == expected[0]
        model.lay_out_for_decoding()
        assert generated(model, some_ids(1), **ASKED).sequences.tolist() == expected[1]
        assert not num_steps
        model = tiny_model("modern").lay_out_for_decoding(compiled=True)
        assert not model.model.encoder.layers[0].mlp.up_proj.weight.is_contiguous()
        assert generated(model, some_ids(1), **ASKED).sequences.tolist() == expected[1]
        assert len(num_steps) == 9
        num_steps.clear()
        trained = tiny_model("modern", hidden_act="prelu")
        with torch.no_grad():
            trained.model.decoder.layers[0].mlp.activation.weight.fill_(0.9)
        expected = generated(trained, some_ids(1), do_sample=False).sequences.tolist()
        assert generated(trained, some_ids(1), **ASKED).sequences.tolist() == expected, "an activation with weights"
        assert not num_steps
        model = tiny_model("modern")
        generated(model, some_ids(1), do_sample=False, cache_implementation="static")
        generated(model, some_ids(1), **{**ASKED, "disable_compile": True})
    assert not num_steps, "nobody has asked for it"


def test_a_text_longer_than_the_positions_is_refused(num_steps: list[int]) -> None:
    with (
        torch.compiler.set_stance("force_eager"),
        pytest.raises(Seq2SeqInputError, match="65 tokens; allowed: up to max_position_embeddings 64"),
    ):
        tiny_model("vanilla").generate(some_ids(1), max_new_tokens=80, min_new_tokens=80, **ASKED)
    assert num_steps
