"""What ``check`` finds beyond the YAML: template, columns, labels, names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_recipes import labelled_rows, recipe_values, write_base, write_recipe, write_rows

from hf_prompting.errors import RecipeError
from hf_prompting.recipe import read_recipe
from hf_prompting.recipe.check import check_recipe


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


def problems(folder: Path, values: dict[str, Any], *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        check_recipe(read_recipe(write_recipe(folder, values), overrides=overrides))
    return str(caught.value)


def test_a_good_recipe_gives_its_parsed_parts(tmp_path: Path, base: Path) -> None:
    overrides = ["data.shots=2", "evaluation.max_test_rows=5"]
    checked = check_recipe(read_recipe(write_recipe(tmp_path, recipe_values(base)), overrides=overrides))
    assert checked.template.num_soft_tokens == 3
    assert checked.train.labels.count(0) == checked.train.labels.count(1) == 2
    assert len(checked.test.rows) == len(checked.test.labels) == 5


def test_problems_of_all_parts_are_listed_at_once(tmp_path: Path, base: Path) -> None:
    values = recipe_values(base)
    values["template"] = "{soft:3}{txt} was{mask}"
    values["verbalizer"]["words"] = {"negative": ["bad"], "postive": ["good"]}
    values["training"]["arguments"] = {"max_grad_norn": 1}
    values["evaluation"]["metrics"] = ["acuracy"]
    text = problems(tmp_path, values)
    assert "recipe.yaml has" in text
    assert "'max_grad_norn' is not an argument of TrainingArguments. Did you mean 'max_grad_norm'?" in text
    assert "metric 'acuracy' is unknown. Did you mean 'accuracy'?" in text
    assert "train.jsonl has no column 'txt'; its columns are ['text', 'label']. Did you mean 'text'?" in text
    assert "label 'positive' is not in the verbalizer" in text
    assert "Did you mean 'postive'?" in text
    lines = {line.strip().split(": ")[0] for line in text.splitlines()[1:]}
    assert all(place.startswith("recipe.yaml:") for place in lines)


@pytest.mark.parametrize("path", ["no/such/folder", "nobody/nothing"])
def test_a_wrong_data_path_is_said_once(path: str, tmp_path: Path, base: Path) -> None:
    text = problems(tmp_path, recipe_values(base), f"data.path={path}")
    assert text.count("data.path: ") == 1


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("template='{soft:3}{text was{mask}'", "--set template: template: column"),
        ("template='{text} was{mask}'", "no soft tokens, so nothing would be tuned"),
        ("template='{soft:3}{text}'", "--set template: template: "),
        ("data.path=/no/such", "--set data.path: no such folder of data"),
        ("data.train=trian.jsonl", "--set data.train: no file 'trian.jsonl'"),
        ("data.label=lable", "no column 'lable'"),
        ("data.shots=9", "fewer than the 9 to draw"),
        ("base_model.path=/no/such", "is not a folder with a config.json"),
        ("soft_prompt.init=text", "needs soft_prompt.init_text"),
        ("verbalizer.words.negative=[great]", "belongs to label"),
        ("training.class_weights={negative: 1, positve: 2}", "Did you mean 'positive'?"),
        ("training.arguments.seed=3", "use training.seeds"),
        ("training.lr_scheduler_type=linar", "Did you mean 'linear'?"),
        ("template={soft:3}was{mask}", "the template has no field"),
        ("template={soft:3}{text} {label}{mask}", "the template shows the label itself"),
        ("evaluation.metrics=[owner/x]", "metric 'owner/x' is unknown"),
    ],
)
def test_each_problem_is_said_where_it_was_set(tmp_path: Path, base: Path, override: str, said: str) -> None:
    assert said in problems(tmp_path, recipe_values(base), override)


def test_early_stopping_needs_dev_rows(tmp_path: Path, base: Path) -> None:
    overrides = ["data.dev=null", "training.early_stopping_patience=2"]
    assert "data.dev is null" in problems(tmp_path, recipe_values(base), *overrides)


def test_a_bad_row_is_named_with_file_and_line(tmp_path: Path, base: Path) -> None:
    folder = write_recipe(tmp_path, recipe_values(base))
    rows = labelled_rows(4)
    write_rows(folder / "data" / "dev.jsonl", [*rows, {"text": "x", "label": "postive"}])
    (folder / "data" / "test.jsonl").write_text(json.dumps(rows[0]) + "\n{oops}\n", encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        check_recipe(read_recipe(folder))
    assert "dev.jsonl, line 5: label 'postive' is not in the verbalizer" in str(caught.value)
    assert "test.jsonl, line 2: not valid JSON at column 2" in str(caught.value)


@pytest.mark.parametrize("name", ["movie-reviews-soft-prompt", "reviews-zh-soft-prompt"])
def test_the_shipped_recipes_are_in_order(name: str) -> None:
    read = read_recipe(Path(__file__).parents[2] / "recipes" / name, smoke=True)
    assert read.recipe.name == name
    if Path(read.recipe.data.path).is_dir():
        checked = check_recipe(read)
        assert len(checked.train.labels) == 32
        assert len(checked.test.labels) == read.recipe.evaluation.max_test_rows
        assert len(check_recipe(read_recipe(read.file)).test.labels) == 1018
