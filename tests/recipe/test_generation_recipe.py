"""Recipes of task generation: read with the same care as every recipe, and checked before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_generation import generation_values, write_generation_recipe
from tiny_recipes import recipe_values, write_recipe, write_rows
from tiny_tokenizers import t5_unigram

from hf_prompting.errors import RecipeError
from hf_prompting.recipe import read_recipe
from hf_prompting.recipe.generation_check import check_generation
from hf_prompting.recipe.generation_models import bart_model
from hf_prompting.recipe.generation_schema import GenerationRecipe
from hf_prompting.recipe.tasks import check_any_recipe, read_any_recipe


def refused(folder: Path, *overrides: str, values: dict[str, Any] | None = None) -> str:
    write_generation_recipe(folder, values)
    with pytest.raises(RecipeError) as caught:
        check_any_recipe(read_any_recipe(folder, overrides=overrides))
    return str(caught.value)


def test_the_task_chooses_the_schema_and_classification_needs_no_key(tmp_path: Path) -> None:
    read = read_any_recipe(write_generation_recipe(tmp_path / "generation"))
    assert isinstance(read.recipe, GenerationRecipe)
    assert read.recipe.training.schedule == "inverse_sqrt"
    other = read_any_recipe(write_recipe(tmp_path / "classification", recipe_values(tmp_path)))
    assert other.recipe.task == "classification"


def test_check_says_what_a_recipe_holds(tmp_path: Path) -> None:
    read = read_any_recipe(write_generation_recipe(tmp_path))
    assert check_any_recipe(read) == "recipe.yaml is in order: 48 train, 8 dev, 10 test pairs"


def test_smoke_and_set_change_values_and_paths_stay_private(tmp_path: Path) -> None:
    write_generation_recipe(tmp_path)
    read = read_any_recipe(tmp_path, smoke=True, overrides=["data.prefix=translate: ", "compare.bart={}"])
    assert read.recipe.training.max_steps == 2
    assert read.recipe.compare.bart is not None
    assert check_generation(read).test.sources[0].startswith("translate: ")
    assert read.public_values()["data"]["path"] == "data"
    assert str(tmp_path) not in str(read.public_values())


def test_an_unknown_task_and_the_wrong_reader_are_named(tmp_path: Path) -> None:
    assert "task 'generatoin' is unknown" in refused(tmp_path, values={**generation_values(), "task": "generatoin"})
    write_generation_recipe(tmp_path)
    with pytest.raises(RecipeError, match=r"recipe.yaml:1: task is the text 'generation'; one of classification"):
        read_recipe(tmp_path)


def test_all_mistakes_are_listed_with_their_lines(tmp_path: Path) -> None:
    values = generation_values()
    values["training"]["learning_rte"] = 1
    values["training"]["schedule"] = "sinus"
    values["model"]["dropout"] = 1.0
    said = refused(tmp_path, "evaluation.num_beams=0", values=values)
    assert said.splitlines()[0] == "recipe.yaml has 4 problems:"
    assert "Did you mean 'learning_rate'?" in said
    assert "one of linear, cosine, exponential, inverse_sqrt, constant is needed" in said
    assert "model.dropout is 1.0; it must be below 1" in said
    assert "--set evaluation.num_beams: " in said


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.num_attention_heads=3"], "hidden_size 32 is not divisible by num_attention_heads 3"),
        (["model.arguments={norm_type: none}"], "norm_type 'none' is unknown"),
        (["model.arguments={norm_type: 7}"], "norm_type"),
        (["model.arguments={dtype: nope}"], "model.arguments: "),
        (["soft_prompt.source=3"], "needs a model that has learned something"),
        (["compare.full_fine_tuning={}"], "needs a soft_prompt"),
        (["compare.random_weights={}"], "needs model.pretrained"),
        (["compare.brat={}"], "Did you mean 'bart'?"),
        (["compare.bart={attention_dropuot: 0.1}"], "Did you mean 'attention_dropout'?"),
        (["compare.bart={activation_dropout: 1.0}"], "activation_dropout is 1.0; it must be below 1"),
        (
            ["model.num_attention_heads=3", "model.arguments={head_dim: 16}", "compare.bart={}"],
            "hidden_size 32 is not divisible by num_attention_heads 3",
        ),
        (["data.source=english"], "has no column 'english'"),
        (["data.dev=null", "training.early_stopping_patience=2"], "data.dev is null"),
        (["data.dev=null", "training.best_by=chrf"], "best_by 'chrf' measures dev rows"),
        (["training.arguments={bf16: true}"], "use training.mixed_precision"),
        (["training.arguments={max_grad_nrm: 1}"], "Did you mean 'max_grad_norm'?"),
        (["tokenizer.path=/no/such"], "'/no/such' is not a folder"),
        (["tokenizer.vocab_size=10"], "must be at least 300"),
        (["evaluation.metrics=[meteor]"], "one of bleu, chrf, rouge_l is needed"),
        (["data.test=none.jsonl"], "no file 'none.jsonl'"),
    ],
)
def test_what_does_not_fit_is_said_before_training(overrides: list[str], said: str, tmp_path: Path) -> None:
    assert said in refused(tmp_path, *overrides)


def test_bart_has_the_sizes_of_our_model_and_dropouts_of_its_own(tmp_path: Path) -> None:
    write_generation_recipe(tmp_path)
    peer = "compare.bart={attention_dropout: 0.1, activation_dropout: 0.2}"
    recipe = read_any_recipe(tmp_path, overrides=[peer, "model.dropout=0.3"]).recipe
    config = bart_model(recipe, t5_unigram()).config
    assert (config.dropout, config.attention_dropout, config.activation_dropout) == (0.3, 0.1, 0.2)
    assert (config.d_model, config.encoder_ffn_dim) == (recipe.model.hidden_size, 4 * recipe.model.hidden_size)


def test_a_pretrained_model_brings_its_tokenizer_and_excludes_new_ones(tmp_path: Path) -> None:
    values = generation_values()
    values["model"] = {"pretrained": str(tmp_path / "nothing")}
    values["soft_prompt"] = {"source": 0, "target": 0}
    values["compare"] = {"bart": {}}
    said = refused(tmp_path, values=values)
    assert "take the section tokenizer out" in said
    assert "nothing would be tuned" in said
    assert "compare.bart is a new model" in said
    assert "is not a folder with a config.json" in said


def test_a_row_without_a_text_is_named(tmp_path: Path) -> None:
    write_generation_recipe(tmp_path)
    write_rows(tmp_path / "data" / "dev.jsonl", [{"en": "one cat", "zh": "一只猫"}, {"en": "two", "zh": None}])
    with pytest.raises(RecipeError, match=r"dev.jsonl, line 2: column 'zh' is missing or null"):
        check_any_recipe(read_any_recipe(tmp_path))
