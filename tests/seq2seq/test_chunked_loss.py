"""The loss straight from the states is the loss of the scores, with the same gradients; and who gets the scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_seq2seq import PRESETS, some_ids, tiny_model
from torch import Tensor, nn
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from hf_prompting.errors import Seq2SeqInputError
from hf_prompting.seq2seq import chunked_loss
from hf_prompting.seq2seq.chunked_loss import can_chunk, states_loss
from hf_prompting.seq2seq.loss import token_loss


def head_of(num_tokens: int = 50, width: int = 8) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(width, num_tokens, bias=False)


def padded_labels() -> Tensor:
    labels = torch.randint(0, 50, (4, 90), generator=torch.Generator().manual_seed(1))
    labels[1, 20:] = -100
    labels[2] = -100
    return labels


@pytest.mark.parametrize("num_items", [None, 700, torch.tensor(700)])
def test_loss_and_gradients_are_those_of_the_scores(num_items: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_loss, "_NUM_SCORES", 1)  # 200 labels count: two chunks of at most 128 rows
    head, labels = head_of(), padded_labels()
    states = torch.randn(4, 90, 8) * 3
    found = []
    for chunked in (False, True):
        head.weight.grad, one = None, states.clone().requires_grad_()
        loss = states_loss(one, head, labels, num_items) if chunked else token_loss(head(one), labels, num_items)
        (loss * 3).backward()
        found.append((loss.detach(), one.grad, head.weight.grad))
    for ours, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)
    assert not found[1][1][2].any()


def test_a_frozen_head_or_frozen_states_get_no_gradient() -> None:
    head, labels, states = head_of(), padded_labels(), torch.randn(4, 90, 8)
    states_loss(states, head, labels).backward()
    assert head.weight.grad is not None and states.grad is None
    expected = head.weight.grad
    head.weight.requires_grad_(False)
    one = states.clone().requires_grad_()
    states_loss(one, head, labels).backward()
    assert one.grad is not None and head.weight.grad is expected


def test_no_label_that_counts_is_a_loss_of_zero() -> None:
    head, states = head_of(), torch.randn(2, 8, requires_grad=True)
    loss = states_loss(states, head, torch.tensor([-100, -100]))
    loss.backward()
    assert loss.item() == 0 and not states.grad.any() and not head.weight.grad.any()


def test_a_label_without_a_row_is_named() -> None:
    with pytest.raises(Seq2SeqInputError, match="label 50 is outside the classes; allowed: 0 to 49"):
        states_loss(torch.zeros(1, 8), head_of(), torch.tensor([50]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(dtype: torch.dtype) -> None:
    head, labels = head_of(), padded_labels()
    states = torch.randn(4, 90, 8).to(dtype)
    exact = states.float().requires_grad_()
    token_loss(nn.functional.linear(exact, head.weight.to(dtype).float()), labels).backward()
    one = states.clone().requires_grad_()
    loss = states_loss(one, head.to(dtype), labels)
    loss.backward()
    assert one.grad.dtype == head.weight.grad.dtype == dtype
    torch.testing.assert_close(one.grad.float(), exact.grad, atol=1e-3, rtol=2e-2)


def test_autocast_scores_in_the_dtype_that_it_names() -> None:
    head, labels, states = head_of(), padded_labels(), torch.randn(4, 90, 8)
    found = []
    for chunked in (False, True):
        one = states.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            loss = states_loss(one, head, labels) if chunked else token_loss(head(one), labels)
        loss.backward()
        found.append((loss.detach(), one.grad))
    assert found[1][1].dtype == torch.float32
    torch.testing.assert_close(found[1], found[0], atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_training_step_is_the_same_with_and_without_scores(preset: str, tied: bool) -> None:
    ids, labels = some_ids(3), some_ids(3, 5, seed=2)
    labels[0, 3:] = -100
    found = []
    for skip in (False, None):
        model = tiny_model(preset, tie_word_embeddings=tied).train()
        output = model(ids, labels=labels, skip_logits=skip)
        assert (output.logits is None) is (skip is None)
        output.loss.backward()
        found.append((output.loss.detach(), {name: weight.grad for name, weight in model.named_parameters()}))
    torch.testing.assert_close(found[1], found[0], atol=1e-6, rtol=1e-5)


def test_scores_are_there_outside_of_training() -> None:
    model, ids = tiny_model("modern"), some_ids()
    assert model(ids, labels=ids).logits is not None
    assert model(ids, labels=ids, skip_logits=True).logits is None
    model.train()
    assert model(ids).logits is not None
    with torch.no_grad():
        assert model(ids, labels=ids).logits is not None
    loss, scores = model(ids, labels=ids, skip_logits=False, return_dict=False)[:2]
    assert loss.ndim == 0 and scores.shape == (2, 7, 99)


def test_a_head_that_is_more_than_a_matrix_is_called() -> None:
    model, ids = tiny_model("modern", tie_word_embeddings=False), some_ids()
    assert can_chunk(model.lm_head)
    adapted = get_peft_model(model, LoraConfig(target_modules=["lm_head"], init_lora_weights=False)).train()
    assert not can_chunk(model.lm_head)
    assert adapted(input_ids=ids, labels=ids).logits is not None
    hooked = head_of()
    hooked.register_forward_hook(lambda module, inputs, output: output * 2)
    assert not can_chunk(hooked) and not can_chunk(nn.Linear(8, 50)) and can_chunk(head_of())


def test_label_smoothing_of_the_trainer_still_gets_its_scores(tmp_path: Path) -> None:
    ids = some_ids(4, 3)
    model = tiny_model("modern").train()
    rows = [
        {
            "input_ids": row,
            "labels": row,
            "decoder_input_ids": model.prepare_decoder_input_ids_from_labels(row[None])[0],
        }
        for row in ids
    ]
    options: dict[str, Any] = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "max_steps": 1}
    arguments = Seq2SeqTrainingArguments(str(tmp_path), label_smoothing_factor=0.1, save_strategy="no", **options)
    trainer = Seq2SeqTrainer(model, arguments, train_dataset=rows)
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    expected = nn.functional.cross_entropy(
        model(ids, labels=ids, skip_logits=False).logits.flatten(0, 1), ids.flatten(), label_smoothing=0.1
    )
    torch.testing.assert_close(trainer.compute_loss(model, batch), expected, atol=1e-5, rtol=1e-5)
    trainer.train()
