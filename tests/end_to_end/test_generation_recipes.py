"""The generation recipes of this repository: in order, credited, and their smoke runs end well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hf_prompting.recipe.tasks import check_any_recipe, read_any_recipe, run_any_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
FROM_SCRATCH = {"translation-en-zh-scratch": (8000, 504, 1051), "couplets-zh-scratch": (8998, 419, 753)}


@pytest.mark.parametrize("name", FROM_SCRATCH)
def test_a_recipe_is_in_order_with_all_of_its_data(name: str) -> None:
    train, dev, test = FROM_SCRATCH[name]
    read = read_any_recipe(RECIPES / name)
    assert check_any_recipe(read) == f"recipe.yaml is in order: {train} train, {dev} dev, {test} test pairs"
    assert read.recipe.evaluation.max_test_rows is None and read.recipe.training.early_stopping_patience
    assert "licence" in read.recipe.data.credit or "CC BY" in read.recipe.data.credit


def test_every_translated_sentence_names_its_contributors() -> None:
    for file in (RECIPES / "translation-en-zh-scratch" / "data").glob("*.jsonl"):
        for line in file.read_text(encoding="utf-8").splitlines():
            assert json.loads(line)["attribution"].startswith("#")


@pytest.mark.slow
def test_the_smoke_runs_end_well_and_the_third_recipe_starts_from_the_second(tmp_path: Path) -> None:
    for name in FROM_SCRATCH:
        read = read_any_recipe(RECIPES / name, smoke=True, overrides=[f"output.dir={tmp_path / name}"])
        assert len(run_any_recipe(read).rows) == 2
    overrides = [f"model.pretrained={tmp_path / 'couplets-zh-scratch'}", f"output.dir={tmp_path / 'tuned'}"]
    read = read_any_recipe(RECIPES / "prompt-tune-pretrained-seq2seq", smoke=True, overrides=overrides)
    result = run_any_recipe(read)
    own, full = result.metrics["models"]
    soft_prompt = read.recipe.soft_prompt
    assert own["num_trained"] == (soft_prompt.source + soft_prompt.target) * 32 < full["num_trained"]
