"""The ordinary ``Trainer``: accumulation, checkpoints, the best model, resuming."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from classifier_parts import TEXTS, classifier
from datasets import Dataset
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments

from hf_prompting import SoftPromptConfig, Verbalizer

Base = Callable[[str], str]
ROWS = {"text": TEXTS * 2, "label": [2, 0, 0, 2, 1, 0, 2, 1]}


def arguments(folder: Path, **kwargs: Any) -> TrainingArguments:
    settings: dict[str, Any] = {
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.05,
        "save_steps": 2,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "seed": 1,
        "disable_tqdm": True,
        **kwargs,
    }
    return TrainingArguments(str(folder), **settings)


def trainer(base: str, family: str, folder: Path, *, parts: dict[str, Any] | None = None, **kwargs: Any) -> Trainer:
    model, tokenizer = classifier(base, family, **(parts or {}))
    rows = Dataset.from_dict(ROWS).map(lambda batch: tokenizer(batch["text"]), batched=True)
    return Trainer(
        model=model,
        args=arguments(folder, **kwargs),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=tokenizer,
    )


def trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("family", ["llama", "bert", "t5", "bart"])
def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(base_of: Base, family: str, tmp_path: Path) -> None:
    unbroken = trainer(base_of(family), family, tmp_path / "a")
    unbroken.train()
    checkpoint = tmp_path / "a" / "checkpoint-2"
    assert set(load_file(checkpoint / "model.safetensors")) == {"soft_prompt.rows"}
    resumed = trainer(base_of(family), family, tmp_path / "b")
    resumed.train(resume_from_checkpoint=str(checkpoint))
    for name, value in trained(unbroken.model).items():
        assert torch.equal(trained(resumed.model)[name], value), name


@pytest.mark.parametrize("reparameterization", ["lstm", "mlp", pytest.param("residual_mlp", marks=pytest.mark.slow)])
def test_a_reparameterised_run_is_resumed_exactly_with_word_weights(
    base_of: Base, reparameterization: str, tmp_path: Path
) -> None:
    parts = {
        "soft_prompt": SoftPromptConfig(seed=0, reparameterization=reparameterization),
        "verbalizer": Verbalizer({"a": ["bad", "awful"], "b": "no", "c": ["great", "good"]}, aggregation="weighted"),
    }
    unbroken = trainer(base_of("bert"), "bert", tmp_path / "a", parts=parts)
    unbroken.train()
    resumed = trainer(base_of("bert"), "bert", tmp_path / "b", parts=parts)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    for name, value in trained(unbroken.model).items():
        assert torch.equal(trained(resumed.model)[name], value), name
    torch.testing.assert_close(
        resumed.model.soft_prompt.materialize(), unbroken.model.soft_prompt.materialize(), atol=0, rtol=0
    )


@pytest.mark.parametrize("family", ["gpt2", "t5", pytest.param("bert", marks=pytest.mark.slow)])
def test_the_best_model_is_loaded_at_the_end(base_of: Base, family: str, tmp_path: Path) -> None:
    run = trainer(
        base_of(family),
        family,
        tmp_path,
        load_best_model_at_end=True,
        eval_strategy="steps",
        eval_steps=1,
        save_steps=1,
        learning_rate=3.0,  # so high that the loss goes up
        metric_for_best_model="eval_loss",
    )
    run.train()
    best = Path(run.state.best_model_checkpoint)
    losses = {entry["step"]: entry["eval_loss"] for entry in run.state.log_history if "eval_loss" in entry}
    assert best.name == f"checkpoint-{min(losses, key=losses.__getitem__)}"
    assert torch.equal(run.model.soft_prompt.rows, load_file(best / "model.safetensors")["soft_prompt.rows"])
    assert run.evaluate()["eval_loss"] == pytest.approx(min(losses.values()), rel=1e-5)


@pytest.mark.parametrize("parts", [{}, {"class_weights": [1.0, 2.0, 4.0], "label_smoothing": 0.1}])
def test_gradient_accumulation_equals_the_big_batch(base_of: Base, parts: dict[str, Any], tmp_path: Path) -> None:
    settings: dict[str, Any] = {"max_steps": 2, "save_strategy": "no", "optim": "sgd", "max_grad_norm": 0.0}
    big = trainer(base_of("gpt2"), "gpt2", tmp_path / "a", parts=parts, per_device_train_batch_size=8, **settings)
    small = trainer(
        base_of("gpt2"),
        "gpt2",
        tmp_path / "b",
        parts=parts,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        **settings,
    )
    losses = []
    for run in (big, small):
        run.train()
        losses.append([entry["loss"] for entry in run.state.log_history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    torch.testing.assert_close(big.model.soft_prompt.rows, small.model.soft_prompt.rows, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "t5", pytest.param("bert", marks=pytest.mark.slow)])
def test_activation_checkpointing_through_trainer_changes_nothing(base_of: Base, family: str, tmp_path: Path) -> None:
    plain = trainer(base_of(family), family, tmp_path / "a", max_steps=2, optim="sgd")
    saving = trainer(base_of(family), family, tmp_path / "b", max_steps=2, optim="sgd", activation_checkpointing=True)
    for run in (plain, saving):
        run.train()
    assert saving.model.base.is_activation_checkpointing
    torch.testing.assert_close(plain.model.soft_prompt.rows, saving.model.soft_prompt.rows, atol=1e-4, rtol=1e-3)


def test_learned_word_weights_are_trained(base_of: Base, tmp_path: Path) -> None:
    words = {"a": ["bad", "awful"], "b": "no", "c": ["great", "good"]}
    run = trainer(
        base_of("bert"), "bert", tmp_path, parts={"verbalizer": Verbalizer(words, aggregation="weighted")}, max_steps=2
    )
    run.train()
    assert run.model.word_weights.abs().sum() > 0
    run.save_model(str(tmp_path / "out"))
    state = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(state["word_weights"], run.model.word_weights)


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_a_trainable_base_is_trained_saved_and_resumed(base_of: Base, family: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"parts": {"trainable_base": True}, "learning_rate": 1e-3}
    unbroken = trainer(base_of(family), family, tmp_path / "a", **settings)
    start = trained(unbroken.model)
    unbroken.train()
    assert all(not torch.equal(value, start[name]) for name, value in trained(unbroken.model).items() if "norm" in name)
    resumed = trainer(base_of(family), family, tmp_path / "b", **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    for name, value in trained(unbroken.model).items():
        assert torch.equal(trained(resumed.model)[name], value), name


def test_predictions_are_class_scores(base_of: Base, tmp_path: Path) -> None:
    run = trainer(base_of("gpt2"), "gpt2", tmp_path)
    prediction = run.predict(run.eval_dataset)
    assert prediction.predictions.shape == (8, 3)
    assert prediction.label_ids.tolist() == ROWS["label"]
