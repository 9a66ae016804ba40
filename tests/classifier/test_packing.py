"""Rows in one line, behind a beginning that is read once: the same scores and gradients as padded rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from classifier_parts import TEXTS, classifier, scores
from peft import LoraConfig, get_peft_model
from test_answers import MULTI, PAD, SINGLE, batch, rows
from tiny_models import CAUSAL, tiny_model
from torch import Tensor

from hf_prompting.classifier.answers import AnswerSlot, WordScorer
from hf_prompting.classifier.packing import Nodes, pack_rows
from hf_prompting.verbalizers import LabelTrie

BEGINNING = [50, 51, 52, 53, 54, 55]
PROMPTS = [[*BEGINNING, *prompt] for prompt in rows("causal", 0)]
WIDE, NARROW = {}, {"gemma3": {"sliding_window": 6}, "qwen3": {"sliding_window": 6, "use_sliding_window": True}}


def scorer(model: Any, words: Any = SINGLE, **kwargs: Any) -> WordScorer:
    return WordScorer(model, AnswerSlot(words, PAD), **kwargs)


@pytest.mark.parametrize("words", [SINGLE, MULTI], ids=["single", "multi"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", CAUSAL)
def test_one_line_changes_neither_scores_nor_gradients(family: str, side: str, words: Any) -> None:
    """In float64, so that only a real difference shows; prompts are longer than Gemma's window and a Qwen's."""
    model = tiny_model(family, **NARROW.get(family, {})).double()
    results = []
    for settings in ({"pack": False}, {"share_prefix": False}, {}):
        score = scorer(model, words, **settings)
        assert score.packing_is_exact(torch.device("cpu"))
        scores = score.causal(*batch(PROMPTS, side, extra=3))
        model.zero_grad()
        scores.log_softmax(-1)[:, 0].sum().backward()
        results.append((scores.detach().log_softmax(-1), model.get_input_embeddings().weight.grad.clone()))
    for scores, gradient in results[1:]:
        torch.testing.assert_close(scores, results[0][0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(gradient, results[0][1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", CAUSAL)
@torch.no_grad()
def test_kept_states_give_the_same_scores_to_the_last_bit(family: str) -> None:
    model = tiny_model(family, **NARROW.get(family, {}))
    score, given = scorer(model, MULTI), batch(PROMPTS, "left")
    first = score.causal(*given)
    kept = score.prefix._states
    assert kept and kept[0][0].shape[2] == len(BEGINNING)
    assert torch.equal(score.causal(*given), first)
    assert score.prefix._states is kept
    plain = scorer(model, MULTI, pack=False).causal(*given)
    torch.testing.assert_close(first.log_softmax(-1), plain.log_softmax(-1), atol=1e-4, rtol=1e-4)
    alone = torch.cat([score.causal(*batch([prompt], "right")) for prompt in PROMPTS])
    assert score.prefix._states is kept, "a single row uses them too"
    torch.testing.assert_close(alone.log_softmax(-1), first.log_softmax(-1), atol=1e-4, rtol=1e-4)


def in_place(model: Any) -> None:
    model.get_input_embeddings().weight.mul_(1.5)


def fused_step(model: Any) -> None:
    weight = model.get_input_embeddings().weight
    with torch.enable_grad():
        scorer_of[model].causal(*batch(PROMPTS, "left"))[:, 0].sum().backward()
    torch.optim.AdamW([weight], lr=0.5, fused=True).step()


def loaded(model: Any) -> None:
    model.load_state_dict(tiny_model("llama", seed=3).state_dict())


def other_dtype(model: Any) -> None:
    model.to(torch.float64)


scorer_of: dict[Any, WordScorer] = {}


@pytest.mark.parametrize("change", [in_place, fused_step, loaded, other_dtype])
@torch.no_grad()
def test_kept_states_end_with_any_change_of_the_weights(change: Any) -> None:
    model, given = tiny_model("llama"), batch(PROMPTS, "left")
    score = scorer_of[model] = scorer(model)
    before = score.causal(*given)
    change(model)
    after = score.causal(*given)
    assert not torch.allclose(after.float(), before) or change is other_dtype
    fresh = scorer(model).causal(*given)
    assert after.dtype == fresh.dtype and torch.equal(after, fresh)


@torch.no_grad()
def test_a_beginning_that_some_texts_share_by_chance_does_not_stay() -> None:
    model = tiny_model("llama")
    score, plain = scorer(model), scorer(model, pack=False)
    by_chance = [[*BEGINNING, 60, 61, 62], [*BEGINNING, 60, 61, 63]]
    for prompts in (by_chance, PROMPTS, by_chance, [[9] * 30, [9] * 28], [[5], [6]], [[*BEGINNING]]):
        found = score.causal(*batch(prompts, "left")).log_softmax(-1)
        torch.testing.assert_close(found, plain.causal(*batch(prompts, "left")).log_softmax(-1), atol=1e-4, rtol=1e-4)
    assert score.prefix._ids is not None


def num_kept(model: Any, **kwargs: Any) -> int:
    score = scorer(model, **kwargs)
    with torch.no_grad():
        score.causal(*batch(PROMPTS, "left"))
    return 0 if score.prefix._ids is None else score.prefix._ids.shape[0]


def test_nothing_is_shared_where_it_would_not_be_exact() -> None:
    assert num_kept(tiny_model("gpt2", resid_pdrop=0.1)) == len(BEGINNING)
    assert num_kept(tiny_model("gpt2", resid_pdrop=0.1).train()) == 0
    checkpointing = tiny_model("llama").train()
    checkpointing.activation_checkpointing_enable()
    assert num_kept(checkpointing) == 0
    assert num_kept(tiny_model("llama"), share_prefix=False) == 0
    lora = get_peft_model(tiny_model("llama"), LoraConfig(target_modules=["q_proj"])).get_base_model()
    assert num_kept(lora) == 0, "adapters are switched without a weight changing"


def test_an_architecture_that_mixes_neighbours_is_read_with_padding() -> None:
    """A convolution over the line would carry one row's tokens into the next."""
    model = tiny_model("llama")
    layer = model.model.layers[0].mlp
    plain_forward = layer.forward
    layer.forward = lambda states: plain_forward(states) + states.roll(1, dims=1)
    score = scorer(model)
    assert not score.packing_is_exact(torch.device("cpu"))
    eager = tiny_model("llama")
    eager.set_attn_implementation("eager")
    assert not scorer(eager).packing_is_exact(torch.device("cpu"))


def test_the_attention_of_the_model_is_left_as_it_was() -> None:
    model = tiny_model("llama").train()
    scorer(model).causal(*batch(PROMPTS, "left"))
    assert model.config._attn_implementation == "sdpa"
    assert model.training and all(module.training for module in model.modules())


@pytest.mark.parametrize("family", CAUSAL)
@torch.no_grad()
def test_rows_of_one_length_need_no_mask(family: str) -> None:
    model = tiny_model(family)
    prompts = [[5, 6, 7, 8, 9, 10, 11], [20, 21, 22, 23, 24, 25, 26]]
    found = [scorer(model, pack=pack).causal(*batch(prompts, "left")).log_softmax(-1) for pack in (True, False)]
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_threads_share_a_classifier(base_of: Any) -> None:
    model, tokenizer = classifier(base_of("llama"), "llama")
    expected = [scores(model, tokenizer, [text]) for text in TEXTS]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: scores(model, tokenizer, [text]), TEXTS * 8))
    for got, wanted in zip(found, expected * 8, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_a_line_by_hand() -> None:
    """Rows (7 8 | 5 6) and (7 8 | 9) behind two shared tokens, and a tree: node 0 (30), node 1 (31) below node 0."""
    ids = torch.tensor([[7, 8, 5, 6], [7, 8, 9, 0]])
    trie = LabelTrie.build([(30, 31, 32), (33,)])
    packed = pack_rows(ids, ids != 0, num_shared=2, nodes=Nodes.of_trie(trie, ids.device).expand(2))
    assert packed.prefix_P.tolist() == [7, 8]
    assert packed.ids_S.tolist() == [5, 6, 30, 31, 9, 30, 31]
    assert packed.positions_S.tolist() == [2, 3, 4, 5, 2, 3, 4]
    assert packed.answers_BK.tolist() == [[1, 2, 3], [4, 5, 6]]
    full, near_mask = packed.mask(None), packed.mask(2)
    assert full is not None and near_mask is not None
    seen = full[1, 0].int().tolist()  # second row: two shared, 9, padding, node 0, node 1
    assert [seen[0], seen[2], seen[3]] == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 1, 0], [1, 1, 1, 0, 1, 1]]
    near = near_mask[1, 0].int().tolist()  # only the token itself and the one before it
    assert [near[0], near[2], near[3]] == [[0, 1, 1, 0, 0, 0], [0, 0, 1, 0, 1, 0], [0, 0, 0, 0, 1, 1]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compares a CUDA device with the CPU; this machine has none")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", CAUSAL)
@torch.no_grad()
def test_one_line_on_a_gpu(family: str, dtype: torch.dtype) -> None:
    model = tiny_model(family).to("cuda", dtype)
    given = tuple(tensor.cuda() for tensor in batch(PROMPTS, "left"))
    found = [scorer(model, MULTI, pack=pack).causal(*given).log_softmax(-1) for pack in (True, False)]
    atol = 1e-4 if dtype is torch.float32 else 0.5
    torch.testing.assert_close(found[0], found[1], atol=atol, rtol=1e-2)


@pytest.mark.parametrize("family", CAUSAL)
@torch.no_grad()
def test_bfloat16_rows_come_out_alike(family: str) -> None:
    model = tiny_model(family).to(torch.bfloat16)
    results: list[Tensor] = []
    for pack in (True, False):
        score = scorer(model, pack=pack)
        results.append(score.causal(*batch(PROMPTS, "left")).softmax(-1))
        assert not pack or score.packing_is_exact(torch.device("cpu"))
    torch.testing.assert_close(results[0], results[1], atol=0.1, rtol=0)
