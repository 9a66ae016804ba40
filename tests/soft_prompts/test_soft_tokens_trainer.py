"""A PEFT model of soft tokens in the ordinary ``Trainer``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from soft_models import config_for, inputs_for, logits_of, table
from tiny_models import tiny_model
from transformers import Trainer, TrainingArguments

FAMILIES = ("gemma3", "bert", "t5", "bart")
TWO_FAST = ["gemma3", "bart", *(pytest.param(family, marks=pytest.mark.slow) for family in ("bert", "t5"))]
NUM_ROWS = 8


def rows(family: str) -> list[dict[str, list[int]]]:
    generator = torch.Generator().manual_seed(4)
    texts = torch.randint(5, 290, (NUM_ROWS, 6), generator=generator)
    ids = torch.cat([torch.tensor([[300, 301]] * NUM_ROWS), texts, torch.tensor([[302, 303]] * NUM_ROWS)], dim=1)
    labels = torch.randint(5, 290, ids.shape, generator=generator)
    return [
        {"input_ids": row, "attention_mask": [1] * len(row), "labels": targets}
        for row, targets in zip(ids.tolist(), labels.tolist(), strict=True)
    ]


def trainer(family: str, folder: Path, reparameterization: str | None = None, **kwargs: Any) -> Trainer:
    torch.manual_seed(0)
    model = get_peft_model(tiny_model(family), config_for(family, reparameterization=reparameterization))
    settings: dict[str, Any] = {
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.05,
        "save_steps": 2,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "label_names": ["labels"],
        **kwargs,
    }
    args = TrainingArguments(str(folder), **settings)
    return Trainer(model=model, args=args, train_dataset=rows(family), eval_dataset=rows(family))


def trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


@pytest.mark.parametrize(
    ("family", "reparameterization"),
    [*((family, None) for family in FAMILIES), ("gemma3", "mlp"), ("gemma3", "lstm"), ("t5", "residual_mlp")],
)
def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(
    family: str, reparameterization: str | None, tmp_path: Path
) -> None:
    unbroken = trainer(family, tmp_path / "a", reparameterization)
    unbroken.train()
    checkpoint = tmp_path / "a" / "checkpoint-2"
    assert reparameterization or (checkpoint / "adapter_model.safetensors").stat().st_size < 1_000
    resumed = trainer(family, tmp_path / "b", reparameterization)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    for name, value in trained(unbroken.model).items():
        assert torch.equal(trained(resumed.model)[name], value), name
    assert torch.equal(table(resumed.model).materialize(), table(unbroken.model).materialize())


@pytest.mark.parametrize("family", TWO_FAST)
def test_the_best_model_is_loaded_at_the_end(family: str, tmp_path: Path) -> None:
    run = trainer(
        family,
        tmp_path,
        load_best_model_at_end=True,
        eval_strategy="steps",
        eval_steps=1,
        save_steps=1,
        learning_rate=5.0,  # so high that the loss goes up
        metric_for_best_model="eval_loss",
    )
    run.train()
    best = Path(run.state.best_model_checkpoint)
    losses = [entry["eval_loss"] for entry in run.state.log_history if "eval_loss" in entry]
    assert best.name == f"checkpoint-{losses.index(min(losses)) + 1}"
    saved = next(iter(load_file(best / "adapter_model.safetensors").values()))
    assert torch.equal(table(run.model).rows, saved)
    again = PeftModel.from_pretrained(tiny_model(family), best).eval()
    assert torch.equal(logits_of(again, inputs_for(family)), logits_of(run.model.eval(), inputs_for(family)))


@pytest.mark.parametrize("family", ["gemma3", "bart"])
def test_gradient_accumulation_equals_the_big_batch(family: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "max_steps": 2,
        "save_strategy": "no",
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "learning_rate": 1e-4,
    }
    big = trainer(family, tmp_path / "a", per_device_train_batch_size=NUM_ROWS, **settings)
    small = trainer(
        family, tmp_path / "b", per_device_train_batch_size=2, gradient_accumulation_steps=NUM_ROWS // 2, **settings
    )
    for run in (big, small):
        run.train()
    torch.testing.assert_close(table(big.model).rows, table(small.model).rows, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("family", TWO_FAST)
def test_activation_checkpointing_through_trainer_changes_nothing(family: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "max_steps": 2,
        "save_strategy": "no",
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "learning_rate": 1e-4,
    }
    plain = trainer(family, tmp_path / "a", **settings)
    saving = trainer(family, tmp_path / "b", activation_checkpointing=True, **settings)
    for run in (plain, saving):
        run.train()
    assert saving.model.base_model.model.is_activation_checkpointing
    torch.testing.assert_close(table(plain.model).rows, table(saving.model).rows, atol=1e-5, rtol=1e-4)
