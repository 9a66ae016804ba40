"""A whole run over a tiny base: what is measured, chosen and saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_recipes import labelled_rows, recipe_values, write_base, write_recipe
from transformers import AutoTokenizer

from hf_prompting.classifier import PromptForSequenceClassification
from hf_prompting.errors import ArtifactError, BaseModelError, TemplateLengthError, TrainingError
from hf_prompting.recipe import read_recipe
from hf_prompting.recipe.prediction import InputRow, load_classifier, predict_rows
from hf_prompting.recipe.run import RunResult, SeedRun, best_run, run_recipe
from hf_prompting.recipe.unfinished import run_folder
from hf_prompting.training import Tuning


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def run(folder: Path, base: Path, *overrides: str, values: dict[str, Any] | None = None, **options: Any) -> RunResult:
    read = read_recipe(write_recipe(folder / "recipe", values or recipe_values(base)), overrides=overrides)
    return run_recipe(read, **options)


def test_a_run_leaves_a_small_folder_that_predicts_what_was_measured(tmp_path: Path, base: Path, work: Path) -> None:
    result = run(tmp_path, base, "training.seeds=[0, 1]")
    folder = work / "outputs" / "tiny"
    names = {entry.name for entry in folder.iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "metrics.json",
        "README.md",
        "results.png",
    }
    assert sum(entry.stat().st_size for entry in folder.iterdir() if entry.name != "tokenizer.json") < 200_000
    assert [entry.name for entry in (work / "outputs").iterdir()] == ["tiny"]

    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics == json.loads(json.dumps(result.metrics))
    assert [seed["seed"] for seed in metrics["seeds"]] == [0, 1]
    assert set(metrics["mean"]) == {"accuracy", "f1"}
    padding = metrics["seeds"][0]["padding"]
    assert padding["read"] == 0 < padding["blind"], "a Llama reads a batch in one line"
    best = max(metrics["seeds"], key=lambda seed: (seed["dev_score"], -seed["seed"]))
    assert metrics["saved_seed"] == best["seed"]

    classifier = load_classifier(str(folder), base_model=str(base))
    rows = [InputRow(f"row {n}", {"text": row["text"]}) for n, row in enumerate(labelled_rows(12))]
    predicted = [found["label"] for found in predict_rows(classifier, rows, batch_size=5)]
    right = sum(label == row["label"] for label, row in zip(predicted, labelled_rows(12), strict=True))
    assert right / 12 == pytest.approx(best["test"]["accuracy"])
    assert classifier.tokenizer.model_max_length == 64


def test_no_private_path_and_no_token_is_in_any_saved_file(
    tmp_path: Path, base: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    run(tmp_path, base)
    for file in (work / "outputs" / "tiny").iterdir():
        content = file.read_bytes()
        for secret in (str(tmp_path), str(base), str(Path.home() / ".cache"), "hf_secretsecretsecret"):
            assert secret.encode() not in content, file.name


def test_a_run_is_repeatable_to_the_last_bit(tmp_path: Path, base: Path, work: Path) -> None:
    run(tmp_path, base, "output.dir=a")
    run(tmp_path, base, "output.dir=b", "training.seeds=[1, 0]")
    first = json.loads((work / "a" / "metrics.json").read_text(encoding="utf-8"))["seeds"][0]
    second = json.loads((work / "b" / "metrics.json").read_text(encoding="utf-8"))["seeds"][1]
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_an_existing_folder_is_refused_before_any_work(tmp_path: Path, base: Path, work: Path) -> None:
    run(tmp_path, base)
    with pytest.raises(ArtifactError, match="--overwrite"):
        run(tmp_path, base, "base_model.path=/no/such")
    assert run(tmp_path, base, overwrite=True).folder.is_dir()


def test_without_dev_rows_and_without_zero_shot_a_run_still_saves(tmp_path: Path, base: Path, work: Path) -> None:
    result = run(tmp_path, base, "data.dev=", "evaluation.zero_shot=false", "training.eval_steps=")
    assert list(result.rows) == ["tuned, seed 0"]
    assert result.metrics["seeds"][0]["dev_score"] is None


def test_other_settings_reach_the_training(tmp_path: Path, base: Path, work: Path) -> None:
    result = run(
        tmp_path,
        base,
        "training.class_weights=balanced",
        "training.label_smoothing=0.1",
        "soft_prompt={init: label_words, reparameterization: mlp, reparameterization_hidden_size: 8}",
        "verbalizer.aggregation=weighted",
        "training.arguments.max_grad_norm=0.5",
    )
    config = json.loads((result.folder / "config.json").read_text(encoding="utf-8"))
    assert config["class_weights"] == [1.0, 1.0]
    assert config["label_smoothing"] == 0.1
    assert config["soft_prompt"]["reparameterization"] is None


def test_a_broken_loss_keeps_the_previous_folder_and_the_last_good_checkpoint(
    tmp_path: Path, base: Path, work: Path
) -> None:
    run(tmp_path, base)
    before = (work / "outputs" / "tiny" / "metrics.json").read_bytes()
    with pytest.raises(TrainingError, match=r"stopped at step \d+") as caught:
        run(
            tmp_path,
            base,
            "training.learning_rate=1e38",
            "training.arguments.max_grad_norm=0",
            "training.eval_steps=1",
            overwrite=True,
        )
    assert (work / "outputs" / "tiny" / "metrics.json").read_bytes() == before
    kept = list((work / "outputs" / ".tiny.unfinished").glob("checkpoints-0/checkpoint-*"))
    assert kept or "no checkpoint was saved" in str(caught.value)


def test_a_base_that_is_not_there_leaves_nothing_behind(tmp_path: Path, base: Path, work: Path) -> None:
    values = recipe_values(base)
    del values["base_model"]["path"]
    with pytest.raises(BaseModelError, match="tests/tiny-llama"):
        run(tmp_path, base, values=values)
    assert not (work / "outputs").exists()


def test_a_template_longer_than_max_length_is_one_clear_error(tmp_path: Path, base: Path, work: Path) -> None:
    with pytest.raises(TemplateLengthError, match="max_length is 5"):
        run(tmp_path, base, "training.max_length=5", "evaluation.zero_shot=false")


def test_the_base_is_as_it_was_after_every_measurement(tmp_path: Path, base: Path, work: Path) -> None:
    result = run(tmp_path, base, "training.seeds=[0, 1]")
    model = PromptForSequenceClassification.from_pretrained(result.folder, base_model=str(base))
    tokenizer = AutoTokenizer.from_pretrained(result.folder)
    with torch.inference_mode():
        logits = model(**tokenizer(["great", "bad, so bad"], padding=True, return_tensors="pt")).logits
    assert logits.isfinite().all()


def test_the_best_dev_score_wins_and_the_smaller_seed_breaks_ties() -> None:
    def tuned(seed: int, score: float | None) -> SeedRun:
        tuning = Tuning(num_steps=1, best_step=1, dev_score=score, curve=[], seconds=0.0)
        return SeedRun(seed=seed, tuning=tuning, test=None, num_trained=1, folder=Path())  # type: ignore[arg-type]

    assert best_run([tuned(0, -0.5), tuned(1, -0.2)]).seed == 1
    assert best_run([tuned(5, 0.5), tuned(2, 0.5), tuned(3, 0.4)]).seed == 2
    assert best_run([tuned(5, None), tuned(2, None)]).seed == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_disk_that_fills_while_a_checkpoint_is_written_is_one_clear_error(tmp_path: Path, work: Path) -> None:
    with (
        pytest.raises(ArtifactError, match="free some space"),
        run_folder(work / "out", record={}, resume=False, overwrite=False),
    ):
        torch.save(torch.zeros(100_000), "/dev/full")
    assert list(work.iterdir()) == []


def test_a_local_base_is_named_in_what_may_be_published_without_its_path(
    tmp_path: Path, base: Path, work: Path
) -> None:
    values = recipe_values(base)
    values["base_model"] = {"id": str(base)}
    folder = run(tmp_path, base, values=values).folder
    for name in ("README.md", "metrics.json"):
        text = (folder / name).read_text(encoding="utf-8")
        assert base.name in text
        assert str(base.parent) not in text
    assert not (folder / "README.md").read_text(encoding="utf-8").partition("# ")[0].count("base_model:")


def test_the_card_says_whether_the_base_was_tuned_too(tmp_path: Path, base: Path, work: Path) -> None:
    for value, said in (("false", "is unchanged and not in this folder"), ("true", "is tuned too, and in this folder")):
        folder = run(tmp_path, base, f"training.trainable_base={value}", overwrite=True).folder
        assert said in (folder / "README.md").read_text(encoding="utf-8")
