"""Attention in a form that suits a CPU changes nothing but the time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_answers import MULTI, PAD, SINGLE, batch, rows
from tiny_models import CAUSAL, tiny_model
from torch import Tensor

from hf_prompting.classifier import cpu_attention, packing
from hf_prompting.classifier.answers import AnswerSlot, WordScorer
from hf_prompting.classifier.cpu_attention import bias_of

NAMES = ("query", "key", "value", "shared key", "shared value")


def parts(rows: int, heads: int, key_heads: int, width: int, shared: int, size: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(rows, heads, width, size), *[(rows, key_heads, width, size)] * 2, *[(key_heads, shared, size)] * 2]
    return [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]


def by_sdpa(given: list[Tensor], may_see: Tensor, scaling: float) -> Tensor:
    query, key, value, shared_key, shared_value = given
    keys, values = (
        torch.cat([shared.expand(len(own), -1, -1, -1), own], dim=2)
        for shared, own in ((shared_key, key), (shared_value, value))
    )
    return F.scaled_dot_product_attention(
        query, keys, values, may_see[:, None], scale=scaling, enable_gqa=True
    ).transpose(1, 2)


def test_two_shared_tokens_and_an_own_one_by_hand() -> None:
    query = torch.tensor([[[[1.0]]]])
    key, shared_key = torch.tensor([[[[0.0]]]]), torch.tensor([[[math.log(2.0)], [math.log(5.0)]]])
    value, shared_value = torch.tensor([[[[8.0]]]]), torch.tensor([[[16.0], [24.0]]])
    found = cpu_attention.shared_attention(
        query, key, value, shared_key, shared_value, torch.zeros(1, 1, 1), None, scaling=1.0
    )
    assert found.item() == pytest.approx((1 * 8 + 2 * 16 + 5 * 24) / (1 + 2 + 5))


@pytest.mark.parametrize("num_scores", [2**20, 1], ids=["in one block", "row by row"])
@pytest.mark.parametrize("hides_shared", [False, True])
def test_it_is_attention_over_both_parts(hides_shared: bool, num_scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_attention, "_NUM_SCORES", num_scores)
    given = parts(rows=3, heads=6, key_heads=2, width=5, shared=7, size=4)
    see_own = torch.ones(5, 5, dtype=torch.bool).tril().expand(3, -1, -1)
    see_shared = torch.ones(3, 5, 7, dtype=torch.bool)
    see_shared[..., :3] = not hides_shared
    shared_bias = bias_of(see_shared) if hides_shared else None
    ours = cpu_attention.shared_attention(*given, bias_of(see_own), shared_bias, scaling=0.3)
    theirs = by_sdpa(given, torch.cat([see_shared, see_own], dim=-1), 0.3)
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for name, mine, other in zip(
        NAMES, torch.autograd.grad(ours, given, upstream), torch.autograd.grad(theirs, given, upstream), strict=True
    ):
        torch.testing.assert_close(mine, other, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("heads", [1, 6])
def test_short_rows_are_attended_to_without_repeating_keys(heads: int) -> None:
    query, key, value, *_ = parts(rows=3, heads=heads, key_heads=1, width=5, shared=1, size=4)
    may_see = torch.ones(5, 5, dtype=torch.bool).tril().expand(3, -1, -1)
    ours = cpu_attention.grouped_attention(query, key, value, bias_of(may_see), scaling=0.3)
    theirs = F.scaled_dot_product_attention(query, key, value, may_see[:, None], scale=0.3, enable_gqa=True)
    torch.testing.assert_close(ours, theirs.transpose(1, 2))
    for mine, other in zip(
        torch.autograd.grad(ours.square().sum(), (query, key, value)),
        torch.autograd.grad(theirs.square().sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(mine, other)


def test_a_column_that_sees_nothing_stays_finite_and_sends_no_gradient() -> None:
    given = parts(rows=1, heads=1, key_heads=1, width=2, shared=3, size=4)
    see_own = torch.tensor([[[True, False], [False, False]]])
    see_shared = torch.tensor([[[True] * 3, [False] * 3]])
    found = cpu_attention.shared_attention(*given, bias_of(see_own), bias_of(see_shared), scaling=1.0)
    assert found.isfinite().all()
    gradients = torch.autograd.grad(found[:, 0].sum(), given)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[1][0, 0, 1].abs().sum() == 0 and gradients[2][0, 0, 1].abs().sum() == 0


NARROW: dict[str, dict[str, Any]] = {
    "gemma3": {"sliding_window": 6},
    "qwen3": {"sliding_window": 6, "use_sliding_window": True},
}


@pytest.mark.parametrize("words", [SINGLE, MULTI], ids=["single", "multi"])
@pytest.mark.parametrize("family", CAUSAL)
def test_scores_and_gradients_of_models_are_those_of_padded_rows(
    family: str, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64 but for the norms of the models; the beginning is longer than Gemma's window and a Qwen's."""
    monkeypatch.setattr(packing, "MIN_SHARED_APART", 8)
    used: list[int] = []
    attend = cpu_attention.shared_attention

    def counted(*args: Any, **kwargs: Any) -> Tensor:
        used.append(args[3].shape[1])
        return attend(*args, **kwargs)

    monkeypatch.setattr(packing, "shared_attention", counted)
    prompts = [[*range(40, 52), *prompt] for prompt in rows("causal", 0)]
    model = tiny_model(family, **NARROW.get(family, {})).double()
    results = []
    for settings in ({"pack": False, "share_prefix": False}, {}):
        scores = WordScorer(model, AnswerSlot(words, PAD), **settings).causal(*batch(prompts, "left", extra=3))
        model.zero_grad()
        scores.sum().backward()
        results.append((scores.detach(), [w.grad.clone() for w in model.parameters() if w.grad is not None]))
    with torch.no_grad():
        kept = WordScorer(model, AnswerSlot(words, PAD)).causal(*batch(prompts, "left", extra=3))
    assert used and set(used) == {12}
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(kept, results[0][0], rtol=1e-5, atol=1e-5)
    for mine, other in zip(results[1][1], results[0][1], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", CAUSAL)
def test_mixed_precision_leaves_attention_to_the_model(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under autocast, queries may be float32 after their rotation while values are bfloat16."""
    monkeypatch.setattr(packing, "MIN_SHARED_APART", 8)
    prompts = [[*range(40, 52), *prompt] for prompt in rows("causal", 0)]
    model = tiny_model(family)
    found = []
    for settings in ({"pack": False, "share_prefix": False}, {}):
        score = WordScorer(model, AnswerSlot(SINGLE, PAD), **settings)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            assert score.packing_is_exact(torch.device("cpu"))
            scores = score.causal(*batch(prompts, "left", extra=3)).float()
        scores.log_softmax(-1)[:, 0].sum().backward()
        found.append((scores.detach().log_softmax(-1), model.get_input_embeddings().weight.grad.clone()))
    torch.testing.assert_close(found[1][0], found[0][0], atol=0.1, rtol=0.1)
    torch.testing.assert_close(found[1][1], found[0][1], atol=0.1, rtol=0.1)
