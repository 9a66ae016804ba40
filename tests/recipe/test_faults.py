"""What goes wrong on real machines, done for real: kills, signals, a full disk, no memory, two runs at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_recipes import recipe_values, write_base, write_recipe

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("forked_runs.py")
OWN_MOUNTS = ("unshare", "--user", "--map-root-user", "--mount")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that saves a checkpoint at every step."""
    values = recipe_values(write_base(tmp_path_factory.mktemp("base")))
    values["training"]["eval_steps"] = 1
    values["evaluation"] = {"metrics": ["accuracy"], "batch_size": 8, "zero_shot": False}
    return write_recipe(tmp_path_factory.mktemp("recipe"), values)


def play(scene: str, recipe: Path, folder: Path, *numbers: int, before: tuple[str, ...] = ()) -> dict[str, Any]:
    command = [*before, sys.executable, str(SCRIPT), scene, str(recipe), *map(str, numbers)]
    # The size of the picture of the working memory depends on the number of threads; one is enough.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    report: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return report


def test_a_run_killed_at_any_moment_ends_as_an_unbroken_one(recipe: Path, tmp_path: Path) -> None:
    report = play("killed", recipe, tmp_path, 20, 12)
    assert report["killed"] >= 20
    assert len(set(report["at"])) > 5
    assert report["equal"] == report["rounds"] == 20


@pytest.fixture(scope="module")
def quick(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Three scenes in one process, because starting it takes longer than they do."""
    train = recipe / "data" / "train.jsonl"
    (recipe / "data" / "large.jsonl").write_text(train.read_text(encoding="utf-8") * 1000, encoding="utf-8")
    return play("quick", recipe, tmp_path_factory.mktemp("quick"))


def test_ctrl_c_and_sigterm_save_say_how_to_go_on_and_exit_as_a_shell_expects(quick: dict[str, Any]) -> None:
    report = quick["signalled"]
    for name, code in (("SIGINT", 130), ("SIGTERM", 143)):
        assert report[name]["code"] == code, report[name]["said"]
        assert "saving a checkpoint after this step" in report[name]["said"]
        assert "--resume" in report[name]["said"].splitlines()[-1]
        assert "Traceback" not in report[name]["said"]
        assert report[name]["resumed"] == 0


def test_the_second_run_into_a_folder_is_refused_and_the_first_goes_on(quick: dict[str, Any]) -> None:
    report = quick["second"]
    assert report["second"] == 2
    assert "error: another run is writing" in report["said"]
    assert report["first"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space, which only Linux keeps to")
def test_a_batch_that_does_not_fit_into_memory_says_what_to_lower(quick: dict[str, Any]) -> None:
    report = quick["memory"]
    assert report["code"] == 2
    last = report["said"].splitlines()[-1]
    assert last.startswith("error: out of memory: lower training.per_device_train_batch_size")
    assert "activation_checkpointing" in last


def can_mount(folder: Path) -> bool:
    command = [*OWN_MOUNTS, "mount", "-t", "tmpfs", "tmpfs", str(folder)]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


def test_a_full_disk_is_one_clear_error_and_the_run_goes_on_when_there_is_room(recipe: Path, tmp_path: Path) -> None:
    if not can_mount(tmp_path):
        pytest.skip("this system lets nobody mount a small disk")
    report = play("disk", recipe, tmp_path, before=OWN_MOUNTS)
    failed = [size for size, found in report.items() if size != "read-only" and found["code"]]
    assert len(failed) >= 4
    assert any("--resume" in report[size]["said"].splitlines()[-1] for size in failed)
    for size in failed:
        assert report[size]["code"] == 2, report[size]["said"]
        error = report[size]["said"].splitlines()[-1]
        assert error.startswith("error: "), report[size]["said"]
        assert "ree some space" in error or "can be made" in error or "cannot be written" in error
        assert not report[size]["output"]
        assert report[size]["resumed"] == 0
    assert all(found["equal"] for size, found in report.items() if size != "read-only")
    assert report["read-only"]["code"] == 2
    assert "cannot be" in report["read-only"]["said"].splitlines()[-1]
