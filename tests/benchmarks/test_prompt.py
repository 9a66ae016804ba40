"""The benchmark of prompts: its settings, and all of its contenders on tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tiny_models import tiny_model
from tiny_tokenizers import llama_metaspace_bpe
from typer.testing import CliRunner

from hf_prompting.benchmarks.prompt import Bench, measure_prompts, settings_without_paths
from hf_prompting.benchmarks.prompt_settings import PromptBenchmark
from hf_prompting.cli.app import app
from hf_prompting.errors import BenchmarkError, RecipeError
from hf_prompting.recipe.reader import read_recipe_as

ROOT = Path(__file__).parents[2]
SETTINGS = ROOT / "recipes" / "benchmarks" / "prompt.yaml"


def test_the_shipped_settings_are_in_order() -> None:
    settings = read_recipe_as(PromptBenchmark, SETTINGS).recipe
    assert Path(settings.test).is_file() and Path(settings.train).is_file()
    assert [section.bar for section in settings.training] == [4.0, 1.8, 5.0]
    assert {section.name: section.data is not None for section in settings.words} == {
        "banking15": True,
        "banking77": True,
        "tnews": False,
        "iflytek": False,
    }
    smoke = read_recipe_as(PromptBenchmark, SETTINGS, smoke=True).recipe
    assert (smoke.num_rounds, smoke.openprompt_model, smoke.tasks.num_tasks) == (1, None, 8)
    assert smoke.shared_prompt.model == settings.shared_prompt.model


def test_mistakes_in_the_settings_are_named_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("num_round: 3\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"a\.yaml:1: unknown key 'num_round' .*Did you mean 'num_rounds'"):
        read_recipe_as(PromptBenchmark, tmp_path / "a.yaml")


def test_nothing_of_this_machine_is_published() -> None:
    settings = settings_without_paths(read_recipe_as(PromptBenchmark, SETTINGS).recipe)
    assert str(ROOT) not in json.dumps(settings) and settings["test"] == "test.jsonl"


def test_data_of_an_unknown_name_is_refused_before_anything_runs(tmp_path: Path) -> None:
    settings = read_recipe_as(PromptBenchmark, SETTINGS).recipe
    with pytest.raises(BenchmarkError, match=r"tnew.*allowed are .*'tnews'"):
        next(measure_prompts(settings, data={"tnew": str(tmp_path)}))
    result = CliRunner().invoke(app, ["bench", "prompt", "--settings", str(SETTINGS), "--data", f"tnews={tmp_path}"])
    assert result.exit_code == 2 and "labels.json and test.jsonl" in result.output


def test_contenders_are_given_the_same_template() -> None:
    settings = read_recipe_as(PromptBenchmark, SETTINGS).recipe
    bench = Bench(settings=settings, data={}, say=print)
    given = bench.reviews("HuggingFaceTB/SmolLM2-135M-Instruct", 3)
    assert given["template"] == "{soft:3}Review: {text}\nSentiment:{mask}"


@pytest.mark.slow
def test_every_contender_runs_on_tiny_models(tmp_path: Path) -> None:
    base, tokenizer = str(tmp_path / "base"), llama_metaspace_bpe()
    tokenizer.save_pretrained(base)
    tiny_model("llama", vocab_size=len(tokenizer), max_position_embeddings=1024).save_pretrained(base)
    settings = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    smoke = settings.pop("smoke")
    for section in (settings["shared_prompt"], settings["tokenising"], settings["tasks"]):
        section["model"] = base
    settings.update(train=str(SETTINGS.parent / settings["train"]), test=str(SETTINGS.parent / settings["test"]))
    for section in (*smoke["training"], *smoke["words"]):
        section["model"] = base
    smoke["words"][0]["data"] = str(SETTINGS.parent / smoke["words"][0]["data"])
    smoke["shared_prompt"]["num_prompt_tokens"] = 20
    for section in smoke["training"]:
        section["same_order"] = False  # this tiny tokenizer begins with <s>
    (tmp_path / "prompt.yaml").write_text(yaml.safe_dump({**settings, "smoke": smoke}), encoding="utf-8")
    arguments = ["--settings", str(tmp_path / "prompt.yaml"), "--output-dir", str(tmp_path / "out"), "--smoke"]
    result = CliRunner().invoke(app, ["bench", "prompt", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "prompt.json").read_text(encoding="utf-8"))
    assert len(found["measures"]) == 9 and all(measure["value"] is not None for measure in found["measures"])
    assert str(tmp_path) not in json.dumps(found)
    assert (tmp_path / "out" / "prompt.png").stat().st_size > 1000
