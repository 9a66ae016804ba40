"""Soft tokens under padding, activation checkpointing and every way to generate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from soft_models import (
    ALL_FAMILIES,
    SOFT_IDS,
    VOCAB_SIZE,
    batch,
    config_for,
    inputs_for,
    logits_of,
    new_rows,
    prompts,
    soft_model,
    table,
    write,
)
from tiny_models import CAUSAL, MASKED, SEQ2SEQ, tiny_model

GENERATING = (*CAUSAL, *SEQ2SEQ)
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "beam": {"num_beams": 3, "do_sample": False},
    "sampling": {"do_sample": True, "temperature": 0.7},
    "static_cache": {"do_sample": False, "cache_implementation": "static", "disable_compile": True},
    "no_cache": {"do_sample": False, "use_cache": False},
}


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_activation_checkpointing_gives_equal_loss_and_gradients(family: str) -> None:
    results = []
    for checkpointing in (False, True):
        model = soft_model(family)
        if checkpointing:
            model.base_model.model.activation_checkpointing_enable()
        model.train()
        loss = model(**inputs_for(family)).logits.float().log_softmax(-1)[..., 5].mean()
        loss.backward()
        results.append((loss.detach(), table(model).rows.grad))
    torch.testing.assert_close(results[0][0], results[1][0], atol=0, rtol=1e-6)
    rounding = 1e-5 * float(results[0][1].abs().max())
    torch.testing.assert_close(results[0][1], results[1][1], atol=rounding, rtol=1e-4)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_padding_on_either_side_gives_equal_logits_at_real_positions(family: str) -> None:
    model, pad_id = soft_model(family), 1 if family in ("roberta", "bart") else 0
    rows = prompts()
    alone = [logits_of(model, {**decoder(family, 1), **batch([row], pad_id)})[0] for row in rows]
    for side, extra in (("right", 0), ("right", 5), ("left", 0), ("left", 3)):
        if side == "left" and family in (*MASKED, "bart"):
            continue  # these count positions from the left, padding included: the base itself is not invariant
        inputs = {**batch(rows, pad_id, side, extra), **decoder(family, len(rows))}
        if family == "gpt2":
            inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
        together = logits_of(model, inputs)
        for number, row in enumerate(rows):
            real = inputs["attention_mask"][number].bool() if family not in SEQ2SEQ else slice(None)
            got = together[number][real]
            assert got.shape[0] == (len(row) if family not in SEQ2SEQ else 2)
            torch.testing.assert_close(got, alone[number], atol=5e-3, rtol=1e-3)


def decoder(family: str, num_rows: int) -> dict[str, torch.Tensor]:
    return {"decoder_input_ids": torch.tensor([[2, 31]] * num_rows)} if family in SEQ2SEQ else {}


def generate(model: Any, family: str, way: str, ids: tuple[int, ...] = SOFT_IDS) -> torch.Tensor:
    inputs = {n: v for n, v in inputs_for(family, side="left", ids=ids).items() if "decoder" not in n}
    torch.manual_seed(3)
    output: torch.Tensor = model.generate(**inputs, max_new_tokens=6, min_new_tokens=4, **WAYS[way])
    return output if family in SEQ2SEQ else output[:, inputs["input_ids"].shape[1] :]


@pytest.mark.parametrize("family", GENERATING)
@pytest.mark.parametrize("way", WAYS)
def test_generation_equals_that_of_the_merged_model(family: str, way: str) -> None:
    tuned = generate(soft_model(family), family, way)
    merged = soft_model(family).merge_and_unload()
    if way == "sampling":  # the merged head has more columns, and sampling draws over all of them
        assert torch.equal(tuned, generate(soft_model(family), family, way))
        tuned, way = generate(soft_model(family), family, "greedy"), "greedy"
    assert torch.equal(tuned, generate(merged, family, way))
    assert tuned.max() < VOCAB_SIZE


@pytest.mark.parametrize("family", GENERATING)
def test_sampling_equals_that_of_a_merge_into_ids_inside_the_vocabulary(family: str) -> None:
    ids = (290, 291, 292, 293)
    tuned = generate(soft_model(family, token_ids=list(ids)), family, "sampling", ids)
    merged = soft_model(family, token_ids=list(ids)).merge_and_unload()
    assert torch.equal(tuned, generate(merged, family, "sampling", ids))


@pytest.mark.parametrize("family", GENERATING)
@pytest.mark.parametrize("way", WAYS)
def test_soft_ids_inside_a_padded_vocabulary_are_never_generated(family: str, way: str) -> None:
    base, ids = tiny_model(family), (290, 291, 292, 293)
    favour(base, ids)
    free = generate(base, family, way, ids)
    assert torch.isin(free, torch.tensor(ids)).any()  # the base alone would
    model = soft_model(family, base, token_ids=list(ids))
    assert not torch.isin(generate(model, family, way, ids), torch.tensor(ids)).any()
    with model.disable_adapter():
        assert torch.equal(generate(model, family, way, ids), free)
    model.delete_adapter("default")
    assert base.generation_config.suppress_tokens is None


def favour(model: Any, ids: tuple[int, ...]) -> None:
    """Make the output head love the given ids."""
    head = model.get_output_embeddings()

    def forward(states: torch.Tensor) -> torch.Tensor:
        logits = type(head).forward(head, states)
        logits[..., list(ids)] += 1e4
        return logits

    head.forward = forward


def test_ids_of_a_second_soft_prompt_are_never_generated_either() -> None:
    base = tiny_model("llama")
    model = soft_model("llama", base, token_ids=[290, 291, 292, 293])
    model.add_adapter("second", config_for("llama", token_ids=[294, 295]))
    assert base.generation_config.suppress_tokens == [290, 291, 292, 293, 294, 295]
    write(model, new_rows(2), "second")
    model.delete_adapter("second")
    assert base.generation_config.suppress_tokens == [290, 291, 292, 293]
