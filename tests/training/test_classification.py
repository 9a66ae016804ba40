"""A classifier's batches hold rows of similar length where padding costs time, and answers do not depend on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bucketed_classifier import LENGTHS, bucketed_arguments, bucketed_classifier, rows_of_steps
from launched import DDP, launch
from transformers import Trainer

from hf_prompting.training import tune
from hf_prompting.training.classification import ClassifierTrainer, bucket_sampler
from hf_prompting.training.length_buckets import LengthBucketSampler, padding_share

WORKER = Path(__file__).with_name("bucketed_classifier.py")


@pytest.mark.parametrize(
    ("family", "settings", "is_padded"),
    [
        ("bert", {}, True),
        ("t5", {}, True),
        ("llama", {}, False),
        ("llama", {"activation_checkpointing": True}, True),
        ("llama", {"attention": "eager"}, True),
    ],
)
def test_batches_are_bucketed_where_padding_costs_time(
    family: str, settings: dict[str, Any], is_padded: bool, tmp_path: Path
) -> None:
    model, tokenizer, rows = bucketed_classifier(family)
    model.base.set_attn_implementation(settings.pop("attention", "sdpa"))
    arguments = bucketed_arguments(tmp_path, extra=settings)
    steps = rows_of_steps(model)
    tuning = tune(model, tokenizer, train=rows, dev=None, arguments=arguments)
    buckets = list(bucket_sampler(rows, arguments))
    expected = [sorted(LENGTHS[row] for row in buckets[first : first + 4]) for first in (0, 4, 8, 12)]
    assert (steps == expected) == is_padded
    assert tuning.padding["read"] == (tuning.padding["bucketed"] if is_padded else 0.0)
    assert tuning.padding["bucketed"] < tuning.padding["blind"]
    assert tuning.padding["bucketed"] == pytest.approx(padding_share([(n, 0) for n in LENGTHS], buckets, 4), abs=1e-4)


def test_the_choice_can_be_made_by_hand(tmp_path: Path) -> None:
    for family, chosen in (("bert", False), ("llama", True)):
        model, tokenizer, rows = bucketed_classifier(family)
        arguments = bucketed_arguments(tmp_path / family)
        steps = rows_of_steps(model)
        tuning = tune(model, tokenizer, train=rows, dev=None, arguments=arguments, bucket_by_length=chosen)
        buckets = list(bucket_sampler(rows, arguments))
        assert (steps[0] == sorted(LENGTHS[row] for row in buckets[:4])) == chosen
        assert tuning.padding["read"] == (0.0 if chosen else tuning.padding["blind"])


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_checkpointed_activations_give_the_same_tuning(family: str, tmp_path: Path) -> None:
    found = []
    for checkpointing in (False, True):
        model, tokenizer, rows = bucketed_classifier(family)
        extra = {"activation_checkpointing": checkpointing, "optim": "sgd"}
        arguments = bucketed_arguments(tmp_path / str(checkpointing), extra=extra)
        tuning = tune(model, tokenizer, train=rows, dev=None, arguments=arguments, bucket_by_length=True)
        assert model.base.is_activation_checkpointing == checkpointing
        losses = [entry["loss"] for entry in tuning.curve if "loss" in entry]
        found.append((losses, model.soft_prompt.rows.detach()))
    assert found[1][0] == pytest.approx(found[0][0], abs=1e-4)
    torch.testing.assert_close(found[1][1], found[0][1], atol=1e-5, rtol=1e-4)


def test_dev_rows_sorted_by_length_give_the_same_numbers(tmp_path: Path) -> None:
    found = []
    for sort in (False, True):
        model, tokenizer, rows = bucketed_classifier("bert")
        arguments = bucketed_arguments(tmp_path / str(sort), best_by="loss", eval_steps=1, learning_rate=1e-12)
        found.append(tune(model, tokenizer, train=rows, dev=rows, arguments=arguments, bucket_by_length=sort))
    losses = [[entry["eval_loss"] for entry in tuning.curve if "eval_loss" in entry] for tuning in found]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    accuracies = [[entry["eval_accuracy"] for entry in tuning.curve if "eval_loss" in entry] for tuning in found]
    assert accuracies[0] == accuracies[1]


@pytest.mark.parametrize("family", ["bert", "t5"])
@torch.no_grad()
def test_a_row_has_the_same_scores_among_rows_of_any_length(family: str) -> None:
    model, tokenizer, rows = bucketed_classifier(family)
    model.eval()

    def scores(order: list[int]) -> torch.Tensor:
        found = torch.empty(len(order), 2)
        for first in range(0, len(order), 4):
            batch = order[first : first + 4]
            inputs = tokenizer.pad({"input_ids": [rows[row]["input_ids"] for row in batch]}, return_tensors="pt")
            found[batch] = model(**inputs).logits.log_softmax(-1)
        return found

    blind = list(range(len(LENGTHS)))
    torch.testing.assert_close(scores(sorted(blind, key=LENGTHS.__getitem__)), scores(blind), atol=1e-5, rtol=1e-4)


def test_rows_of_one_s_own_need_no_column_of_lengths(tmp_path: Path) -> None:
    curves = []
    for drop in ([], ["length"]):
        model, tokenizer, rows = bucketed_classifier("bert")
        arguments = bucketed_arguments(tmp_path / str(len(drop)), best_by="loss", eval_steps=4)
        rows = rows.remove_columns(drop)
        curves.append(tune(model, tokenizer, train=rows, dev=rows, arguments=arguments).curve[0]["loss"])
    assert curves[0] == curves[1]


def test_half_of_the_epoch_is_sorted_at_most(tmp_path: Path) -> None:
    _, _, rows = bucketed_classifier("bert")
    assert bucket_sampler(rows, bucketed_arguments(tmp_path)).pool_batches == 2  # of 4
    assert bucket_sampler(rows, bucketed_arguments(tmp_path, train_batch_size=16)).pool_batches == 1
    assert bucket_sampler(rows, bucketed_arguments(tmp_path, gradient_accumulation_steps=2)).batch_size == 8


def test_transformers_still_asks_for_its_sampler_by_this_name() -> None:
    """If this fails, Trainer renamed the hook: rename ClassifierTrainer's, or rows are drawn blindly."""
    assert callable(Trainer._get_train_sampler)
    assert issubclass(ClassifierTrainer, Trainer) and issubclass(LengthBucketSampler, torch.utils.data.Sampler)


@pytest.mark.slow
def test_two_processes_read_the_batches_of_one(tmp_path: Path) -> None:
    found = []
    for processes, config in ((1, None), (2, DDP)):
        folder = tmp_path / str(processes)
        folder.mkdir()
        done = launch(config, WORKER, folder, processes, cwd=folder)
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(json.loads((folder / "found.json").read_text(encoding="utf-8")))
    one, two = found
    assert two["processes"] == 2
    assert two["steps"] == one["steps"]
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-4)
    assert two["padding"]["read"] <= one["padding"]["read"], "smaller batches of the same order"
