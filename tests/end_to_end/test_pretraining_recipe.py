"""The pre-training recipe of this repository: in order, of free texts, and its smoke run ends well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_prompting.recipe.pretraining import run_pretraining
from hf_prompting.recipe.tasks import check_any_recipe, read_any_recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "pretrain-span-corruption"


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (RECIPE / "data" / name).read_text(encoding="utf-8").splitlines()]


def test_the_recipe_is_in_order_and_says_its_counts() -> None:
    said = check_any_recipe(read_any_recipe(RECIPE))
    assert said.endswith("4135 train, 123 dev texts")
    recipe = (RECIPE / "recipe.yaml").read_text(encoding="utf-8")
    assert "4,135 paragraphs" in recipe and "123 others" in recipe


def test_no_dev_text_is_a_training_text_and_chinese_ones_are_the_lyrics_that_are_credited() -> None:
    train, dev = rows("train.jsonl"), rows("dev.jsonl")
    assert not {row["text"] for row in train} & {row["text"] for row in dev}
    assert all(row["source"].startswith("宋词") for row in (*train, *dev) if row["language"] == "zh")
    assert "JackeyGao" in (RECIPE / "data" / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_smoke_run_pretrains_and_fine_tunes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_pretraining(read_any_recipe(RECIPE, smoke=True))
    assert result.rows["pretrained"]["perplexity"] < result.rows["random weights"]["perplexity"]
    folder = tmp_path / "outputs" / "pretrain-span-corruption-fine-tuned-smoke"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    assert model.config.vocab_size == len(tokenizer) <= 3500
