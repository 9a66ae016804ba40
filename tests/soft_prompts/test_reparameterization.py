"""Rows trained through a small network: where they start, what is saved, how training goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from soft_models import inputs_for, logits_of, soft_model, table
from tiny_models import tiny_model

from hf_prompting.soft_prompts.initialization import initial_rows
from hf_prompting.soft_prompts.layer import SoftTokenTable
from hf_prompting.soft_prompts.reparameterization import REPARAMETERIZATIONS

KINDS = tuple(REPARAMETERIZATIONS)
WEIGHTS = "adapter_model.safetensors"


def steps(model: Any, num_steps: int, seed: int = 0) -> list[float]:
    """Plain gradient descent, which has no state besides the weights."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.02)
    losses = []
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss = -model(**inputs_for("llama")).logits.float().log_softmax(-1)[..., 5].mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def trained(kind: str, **kwargs: Any) -> Any:
    torch.manual_seed(1)
    model = soft_model("llama", reparameterization=kind, **kwargs).train()
    steps(model, 3)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hidden_size", [None, 5])
def test_training_starts_at_the_initial_rows_whatever_the_network(kind: str, hidden_size: int | None) -> None:
    model = soft_model("llama", reparameterization=kind, reparameterization_hidden_size=hidden_size)
    weight = tiny_model("llama").get_input_embeddings().weight
    expected = initial_rows(weight, 4, init="vocabulary", seed=0)
    torch.testing.assert_close(table(model).materialize(), expected, atol=1e-6, rtol=1e-6)
    plain = soft_model("llama", rows=expected)
    torch.testing.assert_close(
        logits_of(model, inputs_for("llama")), logits_of(plain, inputs_for("llama")), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("kind", KINDS)
def test_training_moves_the_network_and_lowers_the_loss(kind: str) -> None:
    model = soft_model("llama", reparameterization=kind).train()
    names = {name.rpartition("encoder.")[2] for name, p in model.named_parameters() if p.requires_grad}
    assert "latent" in names and any(name.startswith("network.") for name in names)
    losses = steps(model, 6)
    assert losses[-1] < losses[0]
    assert not table(model).rows.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_the_saved_file_holds_plain_rows_equal_to_the_materialised_ones(kind: str, tmp_path: Path) -> None:
    model = trained(kind)
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / WEIGHTS)
    rows = [value for name, value in state.items() if name.endswith(".soft_tokens_table.rows")]
    torch.testing.assert_close(rows, [table(model).materialize().detach()])
    assert not any("default" in name for name in state)


@pytest.mark.parametrize("kind", KINDS)
def test_inference_needs_only_the_rows(kind: str, tmp_path: Path) -> None:
    model = trained(kind).eval()
    model.save_pretrained(tmp_path)
    expected = logits_of(model, inputs_for("llama"))
    keep_rows_alone(tmp_path)
    again = PeftModel.from_pretrained(tiny_model("llama"), tmp_path)
    assert table(again).encoder is None
    torch.testing.assert_close(logits_of(again, inputs_for("llama")), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_training_continues_exactly_where_the_network_was_saved(
    kind: str, low_cpu_mem_usage: bool, tmp_path: Path
) -> None:
    model = trained(kind)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(
        tiny_model("llama"), tmp_path, is_trainable=True, low_cpu_mem_usage=low_cpu_mem_usage
    ).train()
    assert all(torch.equal(value, table(again).encoder.state_dict()[name]) for name, value in network(model).items())
    assert steps(again, 3) == steps(model, 3)
    assert all(torch.equal(value, network(again)[name]) for name, value in network(model).items())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_training_continues_from_the_rows_where_no_network_was_saved(
    kind: str, low_cpu_mem_usage: bool, tmp_path: Path
) -> None:
    model = trained(kind)
    model.save_pretrained(tmp_path)
    keep_rows_alone(tmp_path)
    again = PeftModel.from_pretrained(
        tiny_model("llama"), tmp_path, is_trainable=True, low_cpu_mem_usage=low_cpu_mem_usage
    ).train()
    torch.testing.assert_close(table(again).materialize(), table(model).materialize(), atol=1e-5, rtol=1e-5)
    losses = steps(again, 6)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("kind", KINDS)
def test_dropping_the_network_keeps_the_rows_and_lets_them_be_trained(kind: str, tmp_path: Path) -> None:
    model = trained(kind)
    rows = table(model).materialize().detach().clone()
    table(model).drop_reparameterization()
    assert torch.equal(table(model).materialize(), rows)
    assert next(name for name, p in model.named_parameters() if p.requires_grad).endswith("default.rows")
    model.save_pretrained(tmp_path)
    assert len(load_file(tmp_path / WEIGHTS)) == 1
    steps(model, 1)
    assert not torch.equal(table(model).materialize(), rows)
    table(model).drop_reparameterization()  # a second time changes nothing


def test_the_state_dict_of_a_table_round_trips_between_all_forms() -> None:
    rows = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    tables = {kind: SoftTokenTable(rows, [5, 6, 7], reparameterization=kind) for kind in (None, *KINDS)}
    for source in tables.values():
        for kind in tables:
            target = SoftTokenTable(torch.zeros(3, 8), [5, 6, 7], reparameterization=kind)
            result = target.load_state_dict(source.state_dict(), strict=kind == source_kind(tables, source))
            torch.testing.assert_close(target.materialize(), rows, atol=1e-5, rtol=1e-5)
            assert not result.missing_keys


def source_kind(tables: dict[str | None, SoftTokenTable], source: SoftTokenTable) -> str | None:
    return next(kind for kind, each in tables.items() if each is source)


def network(model: Any) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = table(model).encoder.state_dict()
    return state


def keep_rows_alone(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    save_file({name: value for name, value in state.items() if name.endswith(".rows")}, folder / WEIGHTS)
