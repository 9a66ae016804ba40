"""A whole pre-training run over tiny models: perplexity, folder, resume, fine-tuning, and one list of mistakes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pretraining import pretraining_values, write_pretraining_recipe
from torch.utils.data import DataLoader
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from typer.testing import CliRunner

from hf_prompting.cli import app
from hf_prompting.data import chunk_texts, load_rows
from hf_prompting.errors import ArtifactError, RecipeError
from hf_prompting.evaluation import perplexity
from hf_prompting.recipe.pretraining import run_pretraining
from hf_prompting.recipe.tasks import check_any_recipe, read_any_recipe
from hf_prompting.training.callbacks import StopOnNonFinite
from hf_prompting.training.objectives import build_objective, with_noise_keys


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def recipe_in(folder: Path, **sections: Any) -> Path:
    values = pretraining_values()
    return write_pretraining_recipe(folder / "recipe", {**values, **sections})


def test_perplexity_falls_and_the_saved_folder_has_it(tmp_path: Path) -> None:
    result = run_pretraining(read_any_recipe(recipe_in(tmp_path)))
    before, after = (result.rows[name]["perplexity"] for name in ("random weights", "pretrained"))
    assert after < 0.7 * before
    tokenizer = AutoTokenizer.from_pretrained(result.folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(result.folder)
    dev = load_rows(tmp_path / "recipe" / "texts", "dev.jsonl")
    rows = with_noise_keys(chunk_texts(dev, "text", tokenizer=tokenizer, max_length=16, pack=True))
    objective = build_objective("span_corruption", tokenizer)
    again = perplexity(model, DataLoader(rows, batch_size=3, collate_fn=objective))  # type: ignore[arg-type]
    assert again.value == pytest.approx(after, rel=1e-5)
    metrics = json.loads((result.folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["dev"]["pretrained"]["num_tokens"] == again.num_tokens
    measured = [entry["eval_loss"] for entry in metrics["curve"] if "eval_loss" in entry]
    assert len(measured) == 5
    assert math.exp(measured[0]) == pytest.approx(before) and math.exp(min(measured)) == pytest.approx(after)
    assert (result.folder / "results.png").is_file()
    card = (result.folder / "README.md").read_text(encoding="utf-8")
    assert f"| pretrained | {after:.2f} |" in card and str(tmp_path) not in card
    assert sorted(path.name for path in result.folder.parent.iterdir()) == ["tiny"]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["denoising", "prefix_lm"])
def test_other_objectives_are_a_word_in_the_recipe(objective: str, tmp_path: Path) -> None:
    path = recipe_in(tmp_path, objective={"name": objective, "max_length": 16, "pack": False})
    result = run_pretraining(read_any_recipe(path))
    assert result.rows["pretrained"]["perplexity"] < result.rows["random weights"]["perplexity"]


def test_one_command_pretrains_and_fine_tunes_beside_random_weights(tmp_path: Path) -> None:
    path = recipe_in(tmp_path, fine_tuning={"recipe": "fine-tuning"})
    done = CliRunner().invoke(app, ["run", str(path)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    for row in ("random weights", "pretrained", "fine-tuned, seed 0", "from random weights, seed 0"):
        assert row in done.stdout
    own, peer = json.loads(Path("outputs/tuned/metrics.json").read_text(encoding="utf-8"))["models"]
    assert own["num_parameters"] == peer["num_parameters"]
    assert own["dev_score"] > peer["dev_score"]


def test_a_resumed_run_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recipe_in(tmp_path)
    whole = run_pretraining(read_any_recipe(path, overrides=["output.dir=whole"]))
    read = read_any_recipe(path, overrides=["output.dir=broken"])

    def press_ctrl_c(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 13:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(StopOnNonFinite, "on_step_end", press_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            run_pretraining(read)
    with pytest.raises(ArtifactError, match="again with --resume"):
        run_pretraining(read)
    resumed = run_pretraining(read, resume=True)
    assert resumed.rows == whole.rows
    weights = [AutoModelForSeq2SeqLM.from_pretrained(folder).state_dict() for folder in ("whole", "broken")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
def test_a_run_interrupted_while_fine_tuning_goes_on_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recipe_in(tmp_path, fine_tuning={"recipe": "fine-tuning"})
    trained: list[int] = []

    def press_ctrl_c(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trained.append(state.max_steps)
        if state.max_steps == 12 and state.global_step == 7:  # the fine-tuning has 12 steps, the pre-training 20
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(StopOnNonFinite, "on_step_end", press_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            run_pretraining(read_any_recipe(path))
        assert trained.count(20) == 20
        trained.clear()
        patched.setattr(
            StopOnNonFinite, "on_step_end", lambda self, args, state, *_, **__: trained.append(state.max_steps)
        )
        resumed = run_pretraining(read_any_recipe(path), resume=True)
    assert trained.count(20) == 0 and trained.count(12) == 6 + 12
    assert "fine-tuned, seed 0" in resumed.rows
    assert sorted(path.name for path in Path("outputs").iterdir()) == ["tiny", "tuned"]
    with pytest.raises(ArtifactError, match="add --overwrite"):
        run_pretraining(read_any_recipe(path))
    assert run_pretraining(read_any_recipe(path), overwrite=True).rows == resumed.rows


def test_all_mistakes_are_said_at_once(tmp_path: Path) -> None:
    path = recipe_in(
        tmp_path,
        data={"path": "texts", "dev": "nothing.jsonl"},
        model={"hidden_size": 30, "num_attention_heads": 4},
        objective={"arguments": {"noise_densty": 0.1}},
        fine_tuning={"recipe": "nowhere"},
    )
    with pytest.raises(RecipeError) as caught:
        check_any_recipe(read_any_recipe(path))
    said = str(caught.value)
    assert "4 problems" in said
    for part in (
        "no file 'nothing.jsonl'",
        "hidden_size 30 is not divisible",
        "no option 'noise_densty'",
        "fine_tuning.recipe: no recipe at",
    ):
        assert part in said
    assert check_any_recipe(read_any_recipe(recipe_in(tmp_path / "good"))).endswith("120 train, 24 dev texts")
