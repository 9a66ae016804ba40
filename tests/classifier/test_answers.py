"""Word scores against the plain computation: one forward a word, logits over the whole vocabulary."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import CAUSAL, MASKED, SEQ2SEQ, tiny_model
from torch import Tensor

from hf_prompting.classifier.answers import SCORERS, AnswerSlot, WordScorer
from hf_prompting.errors import InputTextError

PAD, MASK, PREFIX = 0, 99, (2, 98)
SINGLE = ((11,), (12,), (13,))
MULTI = ((11,), (12, 13), (12, 13, 14), (12, 15), (16, 13))
TASK = {**dict.fromkeys(CAUSAL, "causal"), **dict.fromkeys(MASKED, "masked"), **dict.fromkeys(SEQ2SEQ, "seq2seq")}


def rows(task: str, num_masks: int) -> list[list[int]]:
    prompts = [[5, 6, 7], [8, 9, 10, 20, 21, 22, 23, 24, 25, 26, 27, 28], [30]]
    return [[*prompt, *[MASK] * num_masks, 40] for prompt in prompts] if task == "masked" else prompts


def batch(prompts: list[list[int]], side: str, extra: int = 0) -> tuple[Tensor, Tensor]:
    width = max(map(len, prompts)) + extra
    ids = torch.full((len(prompts), width), PAD)
    for row, prompt in enumerate(prompts):
        place = slice(width - len(prompt), width) if side == "left" else slice(0, len(prompt))
        ids[row, place] = torch.tensor(prompt)
    return ids, ids != PAD


def scorer(model: Any, words: tuple[tuple[int, ...], ...]) -> WordScorer:
    num_masks = max(map(len, words))
    return WordScorer(model, AnswerSlot(words, PAD, mask_id=MASK, num_masks=num_masks, decoder_prefix=PREFIX))


def plain_score(model: Any, task: str, prompt: list[int], word: tuple[int, ...]) -> Tensor:
    """Log-probability of one word behind one unpadded prompt, from full-vocabulary logits."""
    if task == "causal":
        logits = model(input_ids=torch.tensor([[*prompt, *word]])).logits[0].float().log_softmax(-1)
        return sum(logits[len(prompt) - 1 + i, piece] for i, piece in enumerate(word))
    if task == "seq2seq":
        decoder = torch.tensor([[*PREFIX, *word]])
        logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=decoder).logits[0].float().log_softmax(-1)
        return sum(logits[len(PREFIX) - 1 + i, piece] for i, piece in enumerate(word))
    kept = [token for token in prompt if token != MASK]
    ids = torch.tensor([[*kept[:-1], *[MASK] * len(word), kept[-1]]])
    logits = model(input_ids=ids).logits[0].float().log_softmax(-1)
    return sum(logits[len(kept) - 1 + i, piece] for i, piece in enumerate(word))


@pytest.mark.parametrize("words", [SINGLE, MULTI], ids=["single", "multi"])
@pytest.mark.parametrize("family", TASK)
@torch.no_grad()
def test_word_scores_equal_one_full_forward_per_word(family: str, words: tuple[tuple[int, ...], ...]) -> None:
    model, task = tiny_model(family), TASK[family]
    prompts = rows(task, max(map(len, words)))
    got = SCORERS[task](scorer(model, words), *batch(prompts, "right"))
    expected = torch.stack([torch.stack([plain_score(model, task, p, w) for w in words]) for p in prompts])
    # Up to a constant per row, which no class probability depends on.
    torch.testing.assert_close(got - got[:, :1], expected - expected[:, :1], atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("family", TASK)
@torch.no_grad()
def test_padding_side_padding_width_and_batch_order_change_nothing(family: str) -> None:
    model, task = tiny_model(family), TASK[family]
    prompts, score = rows(task, 3), scorer(model, MULTI)
    reference = SCORERS[task](score, *batch(prompts, "right"))
    for side, extra in (("left", 0), ("left", 5), ("right", 7)):
        again = SCORERS[task](score, *batch(prompts, side, extra))
        torch.testing.assert_close(again, reference, atol=1e-4, rtol=1e-4)
    reversed_rows = SCORERS[task](score, *batch(prompts[::-1], "left")).flip(0)
    torch.testing.assert_close(reversed_rows, reference, atol=1e-4, rtol=1e-4)
    alone = torch.cat([SCORERS[task](score, *batch([prompt], "right")) for prompt in prompts])
    torch.testing.assert_close(alone, reference, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", CAUSAL)
def test_activation_checkpointing_gives_the_same_scores_and_gradients(family: str) -> None:
    results = []
    for checkpointing in (False, True):
        model = tiny_model(family).train()
        if checkpointing:
            model.activation_checkpointing_enable()
        scores = SCORERS["causal"](scorer(model, MULTI), *batch(rows("causal", 0), "left"))
        (scores.softmax(-1)[:, 1]).sum().backward()
        results.append((scores.detach().softmax(-1), model.get_input_embeddings().weight.grad.clone()))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-5, rtol=1e-3)


@torch.no_grad()
def test_rows_that_are_all_equal_keep_a_token_to_answer_from() -> None:
    model = tiny_model("qwen3")
    prompt = [5, 6, 7, 8, 9, 10]
    got = scorer(model, SINGLE).causal(*batch([prompt, prompt, [*prompt, 11]], "left"))
    expected = torch.stack([plain_score(model, "causal", p, w) for p in (prompt, [*prompt, 11]) for w in SINGLE])
    expected = expected.reshape(2, 3)[[0, 0, 1]]
    torch.testing.assert_close(got - got[:, :1], expected - expected[:, :1], atol=2e-4, rtol=2e-4)


def test_soft_capped_logits_are_normalised_after_the_cap() -> None:
    model = tiny_model("gemma3")
    model.config.final_logit_softcapping = 2.0
    prompts = rows("causal", 0)
    with torch.no_grad():
        got = SCORERS["causal"](scorer(model, MULTI), *batch(prompts, "left"))
        expected = torch.stack([torch.stack([plain_score(model, "causal", p, w) for w in MULTI]) for p in prompts])
    torch.testing.assert_close(got - got[:, :1], expected - expected[:, :1], atol=2e-4, rtol=2e-4)


def test_a_row_without_its_masks_is_an_error() -> None:
    ids, keep = batch([[5, 6, MASK, 40]], "right")
    with pytest.raises(InputTextError, match="exactly 3 mask tokens"):
        SCORERS["masked"](scorer(tiny_model("bert"), MULTI), ids, keep)


def test_the_output_head_is_left_as_it_was() -> None:
    model = tiny_model("bart")
    bias = model.final_logits_bias
    SCORERS["seq2seq"](scorer(model, MULTI), *batch(rows("seq2seq", 0), "right"))
    assert model.final_logits_bias is bias
    assert "forward" not in model.lm_head.__dict__
