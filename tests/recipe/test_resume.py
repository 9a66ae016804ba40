"""A run that was cut: what is kept, how it goes on, and what is refused."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tiny_recipes import labelled_rows, recipe_values, write_base, write_recipe, write_rows

from hf_prompting.errors import ArtifactError, Interrupted, RecipeError
from hf_prompting.recipe import read_recipe
from hf_prompting.recipe.run import RunResult, run_recipe

SETTINGS = ("training.max_steps=16", "training.eval_steps=4", "training.seeds=[3, 1]", "evaluation.metrics=[accuracy]")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """An unbroken run."""
    folder = tmp_path_factory.mktemp("whole")
    return run(folder, base, f"output.dir={folder / 'out'}")


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def run(folder: Path, base: Path, *overrides: str, said: io.StringIO | None = None, **options: Any) -> RunResult:
    recipe = folder / "recipe"
    if not recipe.exists():
        write_recipe(recipe, recipe_values(base))
    console = Console(file=said or io.StringIO(), width=500)
    return run_recipe(read_recipe(recipe, overrides=[*SETTINGS, *overrides]), console=console, **options)


@contextmanager
def signal_when(happened: Callable[[], bool], number: signal.Signals) -> Iterator[None]:
    """Send this process a signal as soon as something is true, as a user or a scheduler would."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            if happened():
                os.kill(os.getpid(), number)
                return
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def interrupted(folder: Path, base: Path, where: str, *overrides: str, **options: Any) -> Interrupted:
    """Run until something appears in the folder of the unfinished run, then be told to stop."""
    unfinished = folder / "work" / "outputs" / ".tiny.unfinished"
    happened = (unfinished / where).exists
    with pytest.raises(Interrupted) as caught, signal_when(happened, signal.SIGTERM):
        run(folder, base, *overrides, **options)
    return caught.value


def without_times(metrics: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a run without those that measure time, and without its place."""
    metrics = json.loads(json.dumps(metrics))
    curve = [
        {name: value for name, value in entry.items() if not name.endswith(("runtime", "per_second"))}
        for entry in metrics["learning_curve"]
        if "train_runtime" not in entry
    ]
    del metrics["recipe"]["output"]["dir"]
    return {**metrics, "seeds": [{**seed, "seconds": 0} for seed in metrics["seeds"]], "learning_curve": curve}


def test_a_signal_saves_a_checkpoint_and_resume_ends_as_an_unbroken_run(
    tmp_path: Path, base: Path, work: Path, whole: RunResult
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    stopped = interrupted(tmp_path, base, "checkpoints-3/checkpoint-4")
    assert stopped.exit_code == 143
    assert "--resume" in str(stopped)
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (work / "outputs" / "tiny").exists()
    assert list((work / "outputs").glob(".tiny.unfinished/checkpoints-3/checkpoint-*/manifest.json"))
    resumed = run(tmp_path, base, resume=True).metrics
    assert without_times(resumed) == without_times(whole.metrics)
    assert [entry.name for entry in (work / "outputs").iterdir()] == ["tiny"]
    saved = [(folder / "model.safetensors").read_bytes() for folder in (whole.folder, work / "outputs" / "tiny")]
    assert saved[0] == saved[1]


def test_finished_seeds_and_zero_shot_are_not_repeated(
    tmp_path: Path, base: Path, work: Path, whole: RunResult
) -> None:
    interrupted(tmp_path, base, "checkpoints-1/checkpoint-8")
    kept = json.loads((work / "outputs" / ".tiny.unfinished" / "seed-3" / "result.json").read_text(encoding="utf-8"))
    assert not (work / "outputs" / ".tiny.unfinished" / "checkpoints-3").exists()
    said = io.StringIO()
    resumed = run(tmp_path, base, resume=True, said=said).metrics
    assert "seed 3 was finished before" in said.getvalue()
    assert "zero-shot" not in said.getvalue()
    assert resumed["seeds"][0]["seconds"] == kept["tuning"]["seconds"]
    assert without_times(resumed) == without_times(whole.metrics)
    names = {entry.name for entry in (work / "outputs" / "tiny").iterdir()}
    assert not names & {"manifest.json", "result.json"}


@pytest.mark.slow
def test_a_damaged_part_is_done_again(tmp_path: Path, base: Path, work: Path, whole: RunResult) -> None:
    interrupted(tmp_path, base, "checkpoints-1/checkpoint-8")
    unfinished = work / "outputs" / ".tiny.unfinished"
    with (unfinished / "seed-3" / "model.safetensors").open("r+b") as weights:
        weights.seek(-3, os.SEEK_END)
        weights.write(b"?")
    for checkpoint in unfinished.glob("checkpoints-1/checkpoint-*"):
        os.truncate(checkpoint / "optimizer.pt", 100)
    resumed = run(tmp_path, base, resume=True).metrics
    assert without_times(resumed) == without_times(whole.metrics)


def test_resume_refuses_another_recipe_other_rows_and_another_base_and_names_each(
    tmp_path: Path, base: Path, work: Path
) -> None:
    interrupted(tmp_path, base, "checkpoints-3/checkpoint-4")
    with pytest.raises(RecipeError) as caught:
        run(tmp_path, base, "training.learning_rate=0.01", "training.arguments.max_grad_norm=2", resume=True)
    assert "training.learning_rate was 0.05 and is 0.01" in str(caught.value)
    assert "training.arguments.max_grad_norm was None and is 2" in str(caught.value)
    assert "--overwrite" in str(caught.value)
    assert "seeds" not in str(caught.value)
    write_rows(tmp_path / "recipe" / "data" / "train.jsonl", labelled_rows(8)[::-1])
    with pytest.raises(RecipeError, match=r"rows\.train was '"):
        run(tmp_path, base, resume=True)
    write_rows(tmp_path / "recipe" / "data" / "train.jsonl", labelled_rows(8))
    other = write_base(tmp_path / "other")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-400:] = bytes(400)
    (other / "model.safetensors").write_bytes(weights)
    with pytest.raises(RecipeError, match=r"base\.[a-z0-9_]+ was"):
        run(tmp_path, base, f"base_model.path={other}", resume=True)
    run(tmp_path, base, "output.license=mit", overwrite=True)
    assert [entry.name for entry in (work / "outputs").iterdir()] == ["tiny"]


def test_an_unfinished_run_is_neither_repeated_nor_thrown_away_unasked(tmp_path: Path, base: Path, work: Path) -> None:
    interrupted(tmp_path, base, "checkpoints-3/checkpoint-4")
    with pytest.raises(ArtifactError, match=r"unfinished run.*--resume.*--overwrite"):
        run(tmp_path, base)
    assert list((work / "outputs").glob(".tiny.unfinished/checkpoints-3/checkpoint-*"))
    said = io.StringIO()
    run(tmp_path, base, overwrite=True, said=said)
    assert "zero-shot" in said.getvalue()
    with pytest.raises(ArtifactError, match="add --overwrite"):
        run(tmp_path, base, resume=True)


@pytest.mark.slow
def test_resume_begins_where_nothing_was_begun(tmp_path: Path, base: Path, work: Path) -> None:
    assert run(tmp_path, base, resume=True).metrics["seeds"]
    assert [entry.name for entry in (work / "outputs").iterdir()] == ["tiny"]


@pytest.mark.slow
def test_a_run_that_replaces_a_folder_may_be_cut_and_resumed_too(tmp_path: Path, base: Path, work: Path) -> None:
    run(tmp_path, base, "training.learning_rate=0.001")
    before = (work / "outputs" / "tiny" / "model.safetensors").read_bytes()
    interrupted(tmp_path, base, "checkpoints-3/checkpoint-4", overwrite=True)
    assert (work / "outputs" / "tiny" / "model.safetensors").read_bytes() == before
    run(tmp_path, base, resume=True, overwrite=True)
    assert (work / "outputs" / "tiny" / "model.safetensors").read_bytes() != before


def test_a_signal_before_anything_was_finished_leaves_nothing(tmp_path: Path, base: Path, work: Path) -> None:
    stopped = interrupted(tmp_path, base, "run.json")
    if "nothing is kept" in str(stopped):  # else it came when a checkpoint was there already
        assert not (work / "outputs").exists()


def test_a_folder_of_someone_else_in_the_way_is_not_deleted(tmp_path: Path, base: Path, work: Path) -> None:
    (work / "outputs" / ".tiny.unfinished").mkdir(parents=True)
    (work / "outputs" / ".tiny.unfinished" / "thesis.tex").write_text("mine", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"holds no run\.json"):
        run(tmp_path, base, resume=True)
    assert (work / "outputs" / ".tiny.unfinished" / "thesis.tex").exists()
