"""Recipes as text: every mistake at once, with its line, and the nearest valid key."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_recipes import recipe_values, write_recipe

from hf_prompting.errors import RecipeError
from hf_prompting.recipe import read_recipe
from hf_prompting.recipe.schema import SoftPromptSection, TrainingSection, VerbalizerSection

MINIMAL = """\
name: tiny
data: {path: data}
base_model: {id: owner/base}
template: "{soft:2}{text} It was{mask}"
verbalizer: {words: {no: bad, 1: [good, 2]}}
output: {dir: out}
"""


def written(folder: Path, text: str) -> Path:
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return folder


def mistakes(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        read_recipe(written(folder, text), overrides=overrides)
    return str(caught.value)


def test_a_short_recipe_has_defaults_for_the_rest(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, MINIMAL)).recipe
    assert recipe.training == TrainingSection()
    assert recipe.verbalizer.words == {"no": ("bad",), "1": ("good", "2")}
    assert recipe.output.dir == str(Path.cwd() / "out")


def test_all_mistakes_are_listed_with_their_lines(tmp_path: Path) -> None:
    text = mistakes(
        tmp_path,
        MINIMAL.replace("data: {path: data}", "data: {paht: data}\ntrainin: {seeds: [0]}")
        + "training:\n  learning_rate: fast\n  max_steps: 1.5\n  seeds: [0, x]\n  seeds: 1\n"
        + "evaluation: {batch_size: 0}\nsoft_prompt: {init: txet}\n",
    )
    for line in (
        "recipe.yaml has 9 problems:",
        "recipe.yaml:2: unknown key 'paht' in data. Did you mean 'path'?",
        "recipe.yaml:2: data.path is missing; it has no default",
        "recipe.yaml:3: unknown key 'trainin' at the top. Did you mean 'training'?",
        "recipe.yaml:9: training.learning_rate is the text 'fast'; a number is needed",
        "recipe.yaml:10: training.max_steps is the number '1.5'; a whole number or null is needed",
        "recipe.yaml:11: training.seeds[1] is the text 'x'; a whole number is needed",
        "recipe.yaml:12: key 'seeds' is there twice (first at recipe.yaml:11); keep one",
        "recipe.yaml:13: evaluation.batch_size is 0; it must be at least 1",
        "recipe.yaml:14: soft_prompt.init is the text 'txet'; one of vocabulary, random, text, label_words is needed",
    ):
        assert line in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("description: [a]", "description is a list; a text is needed"),
        ("description: 5", "description is the number '5'; a text is needed"),
        ("training: 5", "training is the number '5'; a mapping is needed"),
        ("training: {learning_rate: .nan}", "training.learning_rate is nan; a finite number is needed"),
        ("training: {learning_rate: '0.1'}", "training.learning_rate is the text '0.1'"),
        ("training: {learning_rate: -1}", "training.learning_rate is -1.0; it must be above 0"),
        ("training: {label_smoothing: 1}", "it must be below 1"),
        ("training: {seeds: []}", "training.seeds is empty"),
        ("training: {seeds: [-1]}", "training.seeds is -1; it must be at least 0"),
        ("training: {trainable_base: 1}", "true or false is needed"),
        ("training: {arguments: {a: {b: 1, b: 2}}}", "key 'b' is there twice"),
        ("training: {arguments: {a: !!python/name:os.system x}}", "has the tag"),
        ("training: !mine {seeds: 0}", "has the tag '!mine'"),
        ("evaluation: {metrics: [1]}", "evaluation.metrics is the number '1'"),
        ("smoke: 3", "smoke needs a mapping"),
        ("smoke: {training: {max_step: 3}}", "unknown key 'max_step' in training. Did you mean 'max_steps'?"),
        ("smoke: {}\nsmoke: {}", "key 'smoke' is there twice"),
        ("? [a, b]\n: 1", "a key in the recipe is not a text"),
        ("description: [", "recipe.yaml:8: not valid YAML"),
        ("description: *nothing", "recipe.yaml:7: not valid YAML: found undefined alias"),
        ("--- \nname: x", "not valid YAML: expected a single document"),
        ("description: a\x00b", "recipe.yaml:7: the character U+0000 is not allowed"),
        ("description: " + "[" * 3000, "nested too deeply"),
        ("training: {arguments: &a {x: *a}}", "nested too deeply"),
    ],
)
def test_each_kind_of_mistake_is_one_clear_line(tmp_path: Path, change: str, said: str) -> None:
    assert said in mistakes(tmp_path, MINIMAL + change + "\n")


def test_what_is_no_recipe_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no recipe at"):
        read_recipe(tmp_path / "nothing")
    assert "a recipe is a mapping" in mistakes(tmp_path, "- a\n")
    assert "a recipe is a mapping" in mistakes(tmp_path, "")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff")
    with pytest.raises(RecipeError, match="byte 7 is not UTF-8"):
        read_recipe(tmp_path / "latin.yaml")


def test_numbers_may_be_written_as_people_write_them(tmp_path: Path) -> None:
    text = MINIMAL + "training: {learning_rate: 3e-3, warmup_steps: 10, seeds: 4}\n"
    training = read_recipe(written(tmp_path, text)).recipe.training
    assert (training.learning_rate, training.warmup_steps, training.seeds) == (0.003, 10.0, (4,))


def test_overrides_replace_add_and_are_checked(tmp_path: Path) -> None:
    written(tmp_path, MINIMAL)
    overrides = [
        "training.seeds=[3, 4]",
        "template='{text}: {soft:2}{mask}'",
        "verbalizer.words.no=[worse]",
        "base_model.revision=main",
    ]
    recipe = read_recipe(tmp_path, overrides=overrides).recipe
    assert recipe.training.seeds == (3, 4)
    assert recipe.template == "{text}: {soft:2}{mask}"
    assert recipe.verbalizer.words["no"] == ("worse",)
    assert recipe.base_model.revision == "main"
    text = mistakes(tmp_path, MINIMAL, "training.seed=1", "name.x=1", "oops", "training={a} b", "data.dev=", "name=")
    assert "--set training.seed: unknown key 'seed' in training. Did you mean 'seeds'?" in text
    assert "--set name.x: 'name' is a single value without keys inside" in text
    assert "--set oops: write it as key=value" in text
    assert "--set training: not valid YAML" in text
    assert "put the value in quotes" in text
    assert "--set name: name is empty; a text is needed" in text
    assert "data.dev" not in text


def test_an_override_that_is_a_text_is_taken_as_written(tmp_path: Path) -> None:
    written(tmp_path, MINIMAL)
    for text in (
        "{text} It was{mask}",
        "Review: {text} #1: {soft:2}{mask}",
        "[{text}] was{mask}",
        "评论：{text}{mask}",
    ):
        assert read_recipe(tmp_path, overrides=[f"template={text}"]).recipe.template == text
    recipe = read_recipe(tmp_path, overrides=["name=2024", "output.license=null", 'data.title="a b"']).recipe
    assert (recipe.name, recipe.output.license, recipe.data.title) == ("2024", None, "a b")


def test_smoke_lays_its_values_over_the_others_and_overrides_win(tmp_path: Path) -> None:
    text = MINIMAL + "training: {max_steps: 40, seeds: [1]}\nsmoke: {training: {max_steps: 2}}\n"
    written(tmp_path, text)
    assert read_recipe(tmp_path).recipe.training.max_steps == 40
    smoke = read_recipe(tmp_path, smoke=True).recipe.training
    assert (smoke.max_steps, smoke.seeds) == (2, (1,))
    assert read_recipe(tmp_path, smoke=True, overrides=["training.max_steps=3"]).recipe.training.max_steps == 3


def test_paths_are_relative_to_where_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("recipe/data", "work/data", "work/mine"):
        (tmp_path / folder).mkdir(parents=True)
    written(tmp_path / "recipe", MINIMAL)
    monkeypatch.chdir(tmp_path / "work")
    assert read_recipe(tmp_path / "recipe").recipe.data.path == str(tmp_path / "recipe" / "data")
    assert read_recipe("../recipe/recipe.yaml", overrides=["data.path=mine"]).recipe.data.path == str(
        tmp_path / "work" / "mine"
    )
    assert read_recipe(tmp_path / "recipe", overrides=["data.path=owner/id"]).recipe.data.path == "owner/id"
    assert read_recipe(tmp_path / "recipe").recipe.output.dir == str(tmp_path / "work" / "out")


def test_published_values_hold_no_path_of_this_machine(tmp_path: Path) -> None:
    values = recipe_values(tmp_path / "base")
    values["training"]["arguments"] = {"run_name": str(tmp_path / "private")}
    read = read_recipe(write_recipe(tmp_path / "recipe", values))
    assert str(tmp_path) not in str(read.public_values())
    assert str(Path.cwd()) not in str(read.public_values())
    assert read.public_values()["data"]["path"] == "data"


def test_a_section_judges_itself_without_a_file() -> None:
    with pytest.raises(RecipeError, match=r"TrainingSection\.learning_rate is -1; it must be above 0"):
        TrainingSection(learning_rate=-1)
    with pytest.raises(RecipeError, match=r"is empty"):
        VerbalizerSection(words={})


def test_the_schema_names_exactly_what_the_library_has() -> None:
    from hf_prompting.bases.tasks import BASE_TASKS
    from hf_prompting.recipe.schema import BaseModelSection
    from hf_prompting.soft_prompts.initialization import INITIALIZERS
    from hf_prompting.soft_prompts.reparameterization import REPARAMETERIZATIONS
    from hf_prompting.verbalizers.scoring import AGGREGATIONS

    def choices(section: type[Any], name: str) -> set[str]:
        hint = typing.get_type_hints(section)[name]
        options = [option for option in typing.get_args(hint) if typing.get_origin(option) is typing.Literal]
        return set(typing.get_args(options[0] if options else hint))

    assert choices(SoftPromptSection, "init") == set(INITIALIZERS)
    assert choices(SoftPromptSection, "reparameterization") == set(REPARAMETERIZATIONS)
    assert choices(VerbalizerSection, "aggregation") == set(AGGREGATIONS)
    assert choices(BaseModelSection, "task") == set(BASE_TASKS)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=120))
def test_any_text_is_read_or_refused_with_our_own_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "recipe.yaml").write_bytes((MINIMAL + text).encode("utf-8", "surrogatepass"))
    try:
        assert read_recipe(folder).recipe.name
    except RecipeError as error:
        assert str(error)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_value_under_any_key_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    values = recipe_values(Path("/base"))
    section = data.draw(st.sampled_from(sorted(values)))
    if isinstance(values[section], dict) and data.draw(st.booleans()):
        values[section][data.draw(st.sampled_from([*values[section], "other"]))] = data.draw(PLAIN)
    else:
        values[section] = data.draw(PLAIN)
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    try:
        recipe = read_recipe(folder).recipe
        assert dataclasses.is_dataclass(recipe)
    except RecipeError as error:
        assert str(error)
