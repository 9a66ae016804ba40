"""What replaces torch's dropout, norm and weight layout on a CPU is the same function."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from tiny_seq2seq import PRESETS, some_ids, tiny_model
from torch import Tensor

from hf_prompting.errors import Seq2SeqInputError
from hf_prompting.seq2seq import Seq2SeqTransformerForConditionalGeneration
from hf_prompting.seq2seq.cpu_functions import dropout, prepared_rms_norm, rms_norm


def test_dropout_keeps_the_expectation_and_drops_the_same_in_both_directions() -> None:
    torch.manual_seed(0)
    states = torch.ones(300, 701, requires_grad=True)
    dropped = dropout(states, 0.1, training=True)
    kept = dropped != 0
    scale = 65536 / (65536 - 6554)  # 0.1 of 65536, rounded
    torch.testing.assert_close(dropped[kept].unique(), torch.tensor([scale]))
    assert kept.float().mean().item() == pytest.approx(1 / scale, abs=4 * (0.09 / states.numel()) ** 0.5)
    for part in (kept[:, ::4], kept[:, 1::4], kept[:, 2::4], kept[:, 3::4]):  # the four decisions of one number
        assert part.float().mean().item() == pytest.approx(1 / scale, abs=4 * (0.09 / part.numel()) ** 0.5)
    (gradient,) = torch.autograd.grad(dropped.sum(), states)
    assert torch.equal(gradient, dropped.detach())


def test_dropout_follows_the_seed_and_is_off_outside_of_training() -> None:
    states = torch.randn(5, 7, requires_grad=True)
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(dropout(states, 0.5, training=True))
    assert torch.equal(*found)
    assert dropout(states, 0.5, training=False) is states and dropout(states, 0.0, training=True) is states
    half = dropout(states.bfloat16(), 0.5, training=True)
    assert half.dtype == torch.bfloat16
    with torch.no_grad():
        torch.manual_seed(0)
        expected = F.dropout(states, 0.5)
        torch.manual_seed(0)
        assert torch.equal(dropout(states, 0.5, training=True), expected)


def written_out(states: Tensor, weight: Tensor) -> Tensor:
    wide = states.float()
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)).to(states.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_and_its_gradients_are_those_of_the_formula(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    states = (torch.randn(2, 5, 32) * 3).to(dtype).requires_grad_()
    weight = torch.randn(32).to(dtype).requires_grad_()
    outer = torch.randn(2, 5, 32).to(dtype)
    expected = written_out(states, weight)
    found = rms_norm(states, weight, 1e-6)
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.05}
    torch.testing.assert_close(found, expected, **tolerance)
    gradients = [torch.autograd.grad(output, (states, weight), outer) for output in (found, expected)]
    torch.testing.assert_close(*gradients, **tolerance)
    with torch.no_grad():
        torch.testing.assert_close(rms_norm(states, weight, 1e-6), expected, **tolerance)


def test_a_prepared_norm_is_the_norm() -> None:
    torch.manual_seed(0)
    states, weight = torch.randn(3, 32) * torch.tensor([[1.0], [1e-4], [0.0]]), torch.randn(32)
    torch.testing.assert_close(prepared_rms_norm(weight, 1e-6)(states), F.rms_norm(states, (32,), weight, 1e-6))


@pytest.mark.parametrize("preset", PRESETS)
def test_the_layout_for_decoding_changes_no_answer(preset: str, tmp_path: Path) -> None:
    model, ids = tiny_model(preset), some_ids()
    logits, weights = model(ids, labels=ids).logits, {name: one.clone() for name, one in model.state_dict().items()}
    text = model.generate(ids, max_new_tokens=8).tolist()
    assert model.lay_out_for_decoding() is model
    assert model.model.decoder.layers[0].mlp.up_proj.weight.stride() == (1, 48)
    assert model.lm_head.weight is model.model.shared.weight
    torch.testing.assert_close(model(ids, labels=ids).logits, logits, atol=1e-6, rtol=1e-6)
    assert model.generate(ids, max_new_tokens=8).tolist() == text
    assert all(torch.equal(one, weights[name]) for name, one in model.state_dict().items())
    model.save_pretrained(tmp_path)
    assert not model.lm_head.weight.is_contiguous()
    loaded = Seq2SeqTransformerForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded(ids, labels=ids).logits, logits)


def test_a_model_laid_out_for_decoding_still_learns_with_an_adapter() -> None:
    model, ids = tiny_model("modern").lay_out_for_decoding(), some_ids()
    tuned = get_peft_model(model, LoraConfig(target_modules=["q_proj"])).train()
    optimizer = torch.optim.AdamW(tuned.parameters(), lr=0.01, fused=True)
    losses = []
    for _ in range(4):
        loss = tuned(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_model_in_training_is_not_laid_out() -> None:
    with pytest.raises(Seq2SeqInputError, match=r"model\.eval"):
        tiny_model("modern").train().lay_out_for_decoding()
