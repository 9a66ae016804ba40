"""A Hub on the loopback with a worker, and a tuned prompt over a base model that is on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from classifier_parts import save_base
from hub_prompts import save_prompt
from hub_worker import Worker, worker_of
from loopback_hub import LoopbackHub, loopback_hub


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with loopback_hub() as hub, worker_of(hub, tmp_path_factory.mktemp("home")) as process:
        yield process


@pytest.fixture
def hub(worker: Worker) -> LoopbackHub:
    """An empty Hub."""
    fresh = LoopbackHub(endpoint=worker.hub.endpoint)
    vars(worker.hub).update(vars(fresh))
    return worker.hub


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(save_base("gpt2", tmp_path_factory.mktemp("base") / "tiny-base"))


@pytest.fixture
def prompt(hub: LoopbackHub, base: Path, tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """A tuned prompt whose base is on the Hub, and its scores."""
    hub.add_folder("org/base", base)
    return save_prompt(base, tmp_path / "prompt", seed=5)
