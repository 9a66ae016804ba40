"""Positions and attention, worked out by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_seq2seq import some_ids, tiny_config, tiny_model
from transformers.models.t5.modeling_t5 import T5Attention

from hf_prompting.errors import Seq2SeqInputError
from hf_prompting.seq2seq.attention import Seq2SeqTransformerAttention, eager_attention
from hf_prompting.seq2seq.positions import (
    Seq2SeqTransformerRotaryEmbedding,
    relative_position_buckets,
    rotate,
    signed,
    sinusoidal_positions,
)


def test_sinusoids_are_those_of_the_paper() -> None:
    found = sinusoidal_positions(torch.tensor([0, 3]), 4)
    expected = [[0, 1, 0, 1], [math.sin(3), math.cos(3), math.sin(3 / 100), math.cos(3 / 100)]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_sinusoids_of_a_batch_have_its_shape() -> None:
    assert sinusoidal_positions(torch.zeros(2, 3, dtype=torch.long), 6).shape == (2, 3, 6)


def test_learned_rows_that_hold_sinusoids_are_sinusoidal_positions() -> None:
    sinusoidal = tiny_model("vanilla")
    learned = tiny_model("vanilla", position_type="learned")
    rows = sinusoidal_positions(torch.arange(64), 32)
    tables = {f"model.{side}.learned_positions.weight": rows for side in ("encoder", "decoder")}
    learned.load_state_dict({**sinusoidal.state_dict(), **tables})
    batch = {"input_ids": some_ids(), "decoder_input_ids": some_ids(num_tokens=5, seed=2)}
    torch.testing.assert_close(learned(**batch).logits, sinusoidal(**batch).logits)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_learned_positions_go_on_where_the_cache_ends(cache: str) -> None:
    model = tiny_model("modern", position_type="learned", embedding_initializer_range=1.0)
    model.generation_config.update(max_new_tokens=9, min_new_tokens=9, do_sample=False)
    without = model.generate(some_ids(), use_cache=False)
    assert model.generate(some_ids(), cache_implementation=cache).tolist() == without.tolist()


def test_a_text_longer_than_the_learned_positions_is_refused() -> None:
    with pytest.raises(Seq2SeqInputError, match=r"the text has 65 tokens; allowed: up to max_position_embeddings 64"):
        tiny_model("modern", position_type="learned").model.encoder(some_ids(num_tokens=65))


@pytest.mark.parametrize(("scale", "expected"), [(False, 0.3), (True, 0.3 * math.sqrt(32))])
def test_learned_positions_start_as_far_apart_as_the_embedded_tokens(scale: bool, expected: float) -> None:
    model = tiny_model("modern", position_type="learned", scale_embedding=scale, embedding_initializer_range=0.3)
    for stack in (model.model.encoder, model.model.decoder):
        assert stack.learned_positions.weight.std().item() == pytest.approx(expected, rel=0.1)


def test_rotary_angles_are_position_times_frequency() -> None:
    rotary = Seq2SeqTransformerRotaryEmbedding(tiny_config("modern", head_dim=4))
    cos, sin = rotary(torch.zeros(1), torch.tensor([[2]]))
    slow = 2 / math.sqrt(10000)
    torch.testing.assert_close(cos, torch.tensor([[2.0, slow, 2.0, slow]])[None].cos())
    torch.testing.assert_close(sin, torch.tensor([[2.0, slow, 2.0, slow]])[None].sin())


def test_rotation_turns_each_pair_by_its_angle() -> None:
    quarter = torch.full((1, 1, 2), math.pi / 2)
    turned = rotate(torch.tensor([3.0, 4.0]).view(1, 1, 1, 2), *signed(quarter.cos(), quarter.sin()))
    torch.testing.assert_close(turned.flatten(), torch.tensor([-4.0, 3.0]))


def test_rotated_scores_depend_on_the_distance_alone() -> None:
    rotary = Seq2SeqTransformerRotaryEmbedding(tiny_config("modern", head_dim=8))
    query, key = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(query_position: int, key_position: int) -> torch.Tensor:
        at = [signed(*rotary(query, torch.tensor([[position]]))) for position in (query_position, key_position)]
        return (rotate(query, *at[0]) * rotate(key, *at[1])).sum()

    torch.testing.assert_close(score(5, 2), score(25, 22), atol=1e-5, rtol=1e-5)


def test_relative_buckets_are_exact_when_near_and_logarithmic_when_far() -> None:
    distances = torch.tensor([0, -1, -2, -3, -4, -6, -8, -11, -15, -16, -500, 1, 9])
    causal = relative_position_buckets(distances, bidirectional=False, num_buckets=8, max_distance=16)
    # exact below 4; then 4 + floor(4 * log(d / 4) / log(4)): 4, 5, 6, 6 (5.46 -> 4 + 2.9), 7, and 7 for the rest
    assert causal.tolist() == [0, 1, 2, 3, 4, 5, 6, 6, 7, 7, 7, 0, 0]
    both = relative_position_buckets(distances, bidirectional=True, num_buckets=8, max_distance=16)
    # 4 buckets a side: exact below 2, then 2 + floor(2 * log(d / 2) / log(8)); keys to the right start at bucket 4
    assert both.tolist() == [0, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 5, 7]


@given(st.integers(2, 32), st.integers(1, 200), st.booleans())
def test_relative_buckets_are_those_of_t5(half: int, further: int, bidirectional: bool) -> None:
    num_buckets = 2 * half
    options = {"bidirectional": bidirectional, "num_buckets": num_buckets, "max_distance": half + further}
    distances = torch.arange(-300, 300)
    expected = T5Attention._relative_position_bucket(distances, **options)
    assert relative_position_buckets(distances, **options).tolist() == expected.tolist()


def test_attention_is_softmax_of_scaled_products() -> None:
    query = torch.tensor([[1.0, 0.0]]).view(1, 1, 1, 2)
    key = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).view(1, 1, 2, 2)
    value = torch.tensor([[10.0, 0.0], [0.0, 10.0]]).view(1, 1, 2, 2)
    module = SimpleNamespace(num_key_value_groups=1, training=False)
    states, weights = eager_attention(module, query, key, value, None, scaling=0.5)  # type: ignore[arg-type]
    first = math.e / (math.e + 1)  # scores 1 and 0
    torch.testing.assert_close(weights.flatten(), torch.tensor([first, 1 - first]))
    torch.testing.assert_close(states.flatten(), torch.tensor([10 * first, 10 * (1 - first)]))


def test_bias_and_mask_are_added_before_the_softmax() -> None:
    query, key, value = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 3, 2), torch.eye(3)[None, None]
    module = SimpleNamespace(num_key_value_groups=1, training=False)
    bias = torch.tensor([math.log(3.0), 0.0, 0.0]).view(1, 1, 1, 3)
    mask = torch.tensor([0.0, 0.0, -1e30]).view(1, 1, 1, 3)
    _, weights = eager_attention(module, query, key, value, mask, 1.0, position_bias=bias)  # type: ignore[arg-type]
    torch.testing.assert_close(weights.flatten(), torch.tensor([0.75, 0.25, 0.0]))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_grouped_key_heads_equal_repeated_ones(implementation: str) -> None:
    torch.manual_seed(0)
    grouped_config = tiny_config("modern", num_key_value_heads=2)
    full_config = tiny_config("modern")
    grouped_config._attn_implementation = full_config._attn_implementation = implementation
    grouped, full = Seq2SeqTransformerAttention(grouped_config, 0), Seq2SeqTransformerAttention(full_config, 0)
    weights = grouped.state_dict()
    for name in ("k_proj.weight", "v_proj.weight"):
        weights[name] = weights[name].view(2, 1, 8, 32).expand(2, 2, 8, 32).reshape(32, 32)
    full.load_state_dict(weights)
    states = torch.randn(2, 5, 32)
    torch.testing.assert_close(grouped(states)[0], full(states)[0])
