"""Slow: prompts and the encoder-decoder in two processes, in the ordinary ``Trainer``, as in one."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from launched import DDP, FSDP2, launch
from tiny_models import tiny_model

from hf_prompting.training.sharding import one_embedding_module, whole_state

WORKER = Path(__file__).with_name("parallel_trainer.py")


def trained(kind: str, config: Path | None, folder: Path, *checkpoint: Path) -> dict[str, Any]:
    folder.mkdir()
    done = launch(config, WORKER, kind, folder, 1 if config is None else 2, *checkpoint, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prompt", "encoder-decoder"])
def test_two_processes_give_the_losses_of_one_and_count_every_dev_row_once(kind: str, tmp_path: Path) -> None:
    one = trained(kind, None, tmp_path / "one")
    for name, config in (("ddp", DDP), ("fsdp2", FSDP2)):
        two = trained(kind, config, tmp_path / name)
        assert two["processes"] == 2
        assert two["split"] == (name == "fsdp2")
        assert two["losses"] == pytest.approx(one["losses"], abs=1e-4)
        assert two["dev_rows"] == one["dev_rows"] == [7.0, 7.0]
        for key, rows in one["state"].items():
            assert two["state"][key] == pytest.approx(rows, abs=1e-4)


@pytest.mark.slow
def test_a_network_behind_the_soft_tokens_is_trained_and_saved_whole_under_fsdp2(tmp_path: Path) -> None:
    one, two = trained("lstm-prompt", None, tmp_path / "one"), trained("lstm-prompt", FSDP2, tmp_path / "two")
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-4)
    [key] = [key for key in one["state"] if key.endswith(".rows")]
    assert two["state"][key] == pytest.approx(one["state"][key], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prompt", "encoder-decoder"])
def test_two_processes_go_on_from_the_checkpoint_of_one_and_back(kind: str, tmp_path: Path) -> None:
    one, two = trained(kind, None, tmp_path / "one"), trained(kind, DDP, tmp_path / "two")
    joined = trained(kind, DDP, tmp_path / "joined", tmp_path / "one" / "checkpoint-2")
    parted = trained(kind, None, tmp_path / "parted", tmp_path / "two" / "checkpoint-2")
    for resumed in (joined, parted):
        assert resumed["losses"] == pytest.approx(one["losses"], abs=1e-4)
        for key, rows in two["state"].items():
            assert resumed["state"][key] == pytest.approx(rows, abs=1e-4)


def test_whole_weights_leave_out_what_is_not_saved() -> None:
    layer = torch.nn.Linear(2, 1)
    layer._keys_to_ignore_on_save = {"bias"}
    assert list(whole_state(layer)) == ["weight"]


def test_encoder_and_decoder_can_call_one_embedding_with_equal_results() -> None:
    model = tiny_model("t5")
    ids = torch.arange(5, 15).view(2, 5)
    before = model(input_ids=ids, labels=ids).logits
    names = set(model.state_dict())
    one_embedding_module(model)
    assert model.encoder.embed_tokens is model.decoder.embed_tokens is model.shared
    assert torch.equal(model(input_ids=ids, labels=ids).logits, before)
    assert set(model.state_dict()) == names


def test_accelerate_still_splits_weights_on_accelerators_only() -> None:
    """If this fails, accelerate splits weights on CPUs itself: delete ``shard_on_cpu_too``."""
    source = inspect.getsource(AcceleratorState.__init__)
    listed = source[source.index("elif self.distributed_type in [") : source.index("DistributedType.FSDP")]
    assert "MULTI_GPU" in listed
    assert "MULTI_CPU" not in listed
