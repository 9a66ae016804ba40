"""Slow: whole commands in two processes leave what one process leaves, and say it once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from launched import DDP, FSDP2, launch, run_python
from tiny_recipes import POSITIVE, labelled_rows, recipe_values, write_base, write_recipe, write_rows

COMMAND = ("-m", "hf_prompting")
# Two words of several tokens, so that the caches that split weights forbid would be used.
WORDS = "verbalizer.words={negative: [terrible, very bad], positive: [great, so good]}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base and a recipe whose dev and test rows do not fill the last batch of two processes."""
    place = tmp_path_factory.mktemp("place")
    write_recipe(place / "recipe", recipe_values(write_base(place / "base")))
    for name in ("dev", "test"):
        write_rows(place / "recipe" / "data" / f"{name}.jsonl", labelled_rows(11))
    return place


def metrics(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return values


def numbers(folder: Path) -> list[float]:
    """All numbers of a run that do not depend on the machine's speed."""
    found = metrics(folder)
    losses = [entry["loss"] for entry in found["learning_curve"] if "loss" in entry]
    return [*losses, found["seeds"][0]["test"]["loss"], found["zero_shot"]["loss"], found["seeds"][0]["dev_score"]]


@pytest.mark.slow
@pytest.mark.parametrize("config", [DDP, FSDP2], ids=["ddp", "fsdp2"])
def test_two_processes_save_one_folder_with_the_numbers_of_one_process(place: Path, config: Path) -> None:
    settings = ["--set", WORDS, "--set", "training.gradient_accumulation_steps=2"]
    batches = {None: 4, config: 2}
    for how, batch_size in batches.items():
        name = "one" if how is None else config.stem
        if (place / name).exists():
            continue
        accelerate = () if how is None else ("--accelerate", how)
        size = f"training.per_device_train_batch_size={batch_size}"
        done = run_python(
            *COMMAND, "run", "recipe", "--output-dir", name, *settings, "--set", size, *accelerate, cwd=place
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("Saved in") == 1
        assert done.stderr.count("tune with seed 0") == 1
    assert numbers(place / config.stem) == pytest.approx(numbers(place / "one"), abs=1e-4)
    assert metrics(place / config.stem)["seeds"][0]["test"]["num_rows"] == 11
    assert [entry.name for entry in place.iterdir() if entry.name.startswith(".")] == []

    fresh = [  # a fresh process loads either folder and gives equal scores
        run_python(*COMMAND, "predict", name, "--base-model", "base", "--text", POSITIVE[0], cwd=place)
        for name in ("one", config.stem)
    ]
    scores = [json.loads(done.stdout)["scores"]["positive"] for done in fresh]
    assert scores[1] == pytest.approx(scores[0], abs=1e-4)


@pytest.mark.slow
def test_half_precision_and_checkpointed_activations_run_in_two_processes(place: Path) -> None:
    settings = ("--set", "training.arguments={bf16: true, activation_checkpointing: true}", "--set", WORDS)
    done = run_python(*COMMAND, "run", "recipe", "--output-dir", "half", *settings, "--accelerate", FSDP2, cwd=place)
    assert done.returncode == 0, done.stderr[-3000:]
    assert metrics(place / "half")["seeds"][0]["num_steps"] == 4


@pytest.mark.slow
def test_an_error_of_process_0_ends_all_with_one_message_and_its_exit_code(place: Path) -> None:
    (place / "taken").mkdir()
    (place / "taken" / "thesis.txt").write_text("mine", encoding="utf-8")
    done = run_python(*COMMAND, "run", "recipe", "--output-dir", "taken", "--accelerate", DDP, cwd=place)
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    assert len(said) == 1, done.stderr
    assert "--overwrite" in said[0]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_predict_shares_the_rows_and_joins_them_in_order(place: Path) -> None:
    saved = place / "predictor"
    assert run_python(*COMMAND, "run", "recipe", "--output-dir", saved, "--smoke", cwd=place).returncode == 0
    rows = [{"text": f"{'so ' * (number * 7 % 23)}{row['text']}"} for number, row in enumerate(labelled_rows(83))]
    write_rows(place / "rows.jsonl", rows)
    words = (*COMMAND, "predict", saved, "--base-model", "base", "--batch-size", 2)
    alone = run_python(*words, "--file", "rows.jsonl", cwd=place)
    shared = launch(DDP, *words, "--file", "rows.jsonl", cwd=place)
    assert shared.returncode == 0, shared.stderr[-3000:]
    expected = [json.loads(line) for line in alone.stdout.splitlines()]
    found = [json.loads(line) for line in shared.stdout.splitlines()]
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    assert len(found) == 83
    for one, other in zip(found, expected, strict=True):
        assert one["scores"] == pytest.approx(other["scores"], abs=2e-6)

    lines = "".join(f"{row['text']}\n" for row in rows[:5])
    piped = launch(DDP, *words, cwd=place, input=f"{lines}\n")  # five texts and a blank line, read by process 0 alone
    labels = [json.loads(line)["label"] for line in piped.stdout.splitlines()]
    assert labels == [*(row["label"] for row in expected[:5]), None]
