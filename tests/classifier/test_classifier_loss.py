"""The loss: worked out by hand, and the same however a batch is cut into pieces."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from classifier_parts import ALL_FAMILIES, TEXTS, classifier, encode, scramble
from torch import Tensor

from hf_prompting import Verbalizer
from hf_prompting.errors import LabelWordError

Base = Callable[[str], str]
LABELS = torch.tensor([2, 0, 0, 1])


def loss_of(model: Any, inputs: dict[str, Tensor], labels: Tensor = LABELS, **kwargs: Any) -> Tensor:
    loss: Tensor = model(**inputs, labels=labels, **kwargs).loss
    return loss


def gradient_of(model: Any) -> Tensor:
    gradient: Tensor = model.soft_prompt.rows.grad
    model.soft_prompt.rows.grad = None
    return gradient


def test_the_loss_is_the_mean_negative_log_probability(base_of: Base) -> None:
    model, tokenizer = classifier(base_of("gpt2"), "gpt2")
    inputs = encode(tokenizer)
    rows = model(**inputs).logits.tolist()
    by_hand = 0.0
    for row, label in zip(rows, LABELS.tolist(), strict=True):
        by_hand += math.log(sum(math.exp(value) for value in row)) - row[label]
    assert loss_of(model, inputs).item() == pytest.approx(by_hand / 4, rel=1e-5)


def test_class_weights_and_smoothing_by_hand(base_of: Base) -> None:
    weights, smoothing = [1.0, 2.0, 4.0], 0.1
    model, tokenizer = classifier(base_of("gpt2"), "gpt2", class_weights=weights, label_smoothing=smoothing)
    inputs = encode(tokenizer)
    rows = model(**inputs).logits.log_softmax(-1).tolist()
    by_hand = 0.0
    for row, label in zip(rows, LABELS.tolist(), strict=True):
        smooth = sum(weight * value for weight, value in zip(weights, row, strict=True)) / 3
        by_hand -= (1 - smoothing) * weights[label] * row[label] + smoothing * smooth
    assert loss_of(model, inputs).item() == pytest.approx(by_hand / 4, rel=1e-5)


def test_rows_labelled_minus_100_do_not_count(base_of: Base) -> None:
    model, tokenizer = classifier(base_of("bert"), "bert")
    inputs = encode(tokenizer)
    some = loss_of(model, inputs, torch.tensor([2, -100, 0, -100]))
    two = loss_of(model, {name: value[[0, 2]] for name, value in inputs.items()}, LABELS[[0, 2]])
    torch.testing.assert_close(some, two, atol=1e-5, rtol=1e-5)


def test_a_batch_without_any_label_has_a_finite_loss(base_of: Base) -> None:
    model, tokenizer = classifier(base_of("bert"), "bert")
    loss = loss_of(model, encode(tokenizer), torch.full((4,), -100))
    assert loss.item() == 0.0


def test_a_class_number_without_a_class_is_an_error_that_names_the_labels(base_of: Base) -> None:
    model, tokenizer = classifier(base_of("gpt2"), "gpt2")
    with pytest.raises(LabelWordError, match=r"\[0, 1, 2, 7\]; allowed: 0 to 2"):
        loss_of(model, encode(tokenizer), torch.tensor([2, 0, 7, 1]))


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("settings", [{}, {"class_weights": [1.0, 2.0, 4.0], "label_smoothing": 0.1}])
@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_accumulated_pieces_add_up_to_the_big_batch(
    base_of: Base, family: str, settings: dict[str, Any], as_tensor: bool
) -> None:
    model, tokenizer = classifier(base_of(family), family, **settings)
    inputs = encode(tokenizer)
    whole = loss_of(model, inputs)
    whole.backward()
    gradient = gradient_of(model)
    num_items: Any = torch.tensor(4) if as_tensor else 4
    total = 0.0
    for piece in ([0], [1, 2, 3]):  # uneven on purpose
        part = {name: value[piece] for name, value in inputs.items()}
        loss = loss_of(model, part, LABELS[piece], num_items_in_batch=num_items)
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(whole.item(), rel=1e-5)
    torch.testing.assert_close(gradient_of(model), gradient, atol=1e-4 * float(gradient.abs().max()), rtol=1e-3)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_one_step_against_the_gradient_lowers_the_loss(base_of: Base, family: str) -> None:
    model, tokenizer = classifier(base_of(family), family)
    inputs = encode(tokenizer)
    before = loss_of(model, inputs)
    before.backward()
    gradient = gradient_of(model)
    assert (gradient.abs().sum(1) > 0).all()
    with torch.no_grad():
        model.soft_prompt.rows -= 1e-2 * before.item() * gradient / gradient.square().sum()
    assert loss_of(model, inputs) < before
    assert all(parameter.grad is None for parameter in model.base.parameters())


def test_learned_word_weights_get_gradients_where_a_class_has_several_words(base_of: Base) -> None:
    words = {"negative": ["terrible", "bad"], "positive": ["great", "good", "funny"]}
    verbalizer = Verbalizer(words, aggregation="weighted")
    model, tokenizer = classifier(base_of("bert"), "bert", verbalizer=verbalizer)
    loss_of(model, encode(tokenizer), torch.tensor([1, 0, 0, 1])).backward()
    gradient = model.word_weights.grad
    assert gradient.isfinite().all()
    assert (gradient[:, :2].abs() > 0).all() and gradient[0, 2] == 0  # the padding of the shorter class


@pytest.mark.parametrize("family", ["llama", "gemma3", "bert", "t5", "bart"])
def test_padding_order_and_size_of_the_batch_change_nothing(base_of: Base, family: str) -> None:
    model, tokenizer = classifier(base_of(family), family)
    scramble(model)
    reference = scores_of(model, encode(tokenizer))
    close = {"atol": 1e-4, "rtol": 1e-3}
    for side in ("left", "right"):
        for extra in ({}, {"pad_to_multiple_of": 16}):
            tokenizer.padding_side = side
            torch.testing.assert_close(scores_of(model, encode(tokenizer, **extra)), reference, **close)
    reversed_rows = scores_of(model, encode(tokenizer, TEXTS[::-1])).flip(0)
    torch.testing.assert_close(reversed_rows, reference, **close)
    alone = torch.cat([scores_of(model, encode(tokenizer, [text])) for text in TEXTS])
    torch.testing.assert_close(alone, reference, **close)


def test_a_missing_attention_mask_means_that_all_tokens_count(base_of: Base) -> None:
    model, tokenizer = classifier(base_of("gpt2"), "gpt2")
    inputs = encode(tokenizer, TEXTS[:1])
    assert torch.equal(model(input_ids=inputs["input_ids"]).logits, model(**inputs).logits)


@torch.no_grad()
def scores_of(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    logits: Tensor = model(**inputs).logits.softmax(-1)
    return logits


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_activation_checkpointing_gives_equal_loss_and_gradient(base_of: Base, family: str) -> None:
    results = []
    for checkpointing in (False, True):
        model, tokenizer = classifier(base_of(family), family)
        if checkpointing:
            model.activation_checkpointing_enable()
            assert model.base.is_activation_checkpointing
        model.train()
        loss = loss_of(model, encode(tokenizer))
        loss.backward()
        results.append((loss.item(), gradient_of(model)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    rounding = 1e-4 * float(results[0][1].abs().max())
    torch.testing.assert_close(results[0][1], results[1][1], atol=rounding, rtol=1e-3)
