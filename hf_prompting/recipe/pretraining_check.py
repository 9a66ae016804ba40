"""Everything about a pre-training recipe that can be wrong without training, all of it at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from hf_prompting.data import Rows, load_rows
from hf_prompting.data.pairs import texts_of
from hf_prompting.errors import DataError, HfPromptingError, RecipeError
from hf_prompting.recipe.conversion import Problem
from hf_prompting.recipe.generation_check import check_generation
from hf_prompting.recipe.generation_models import config_of
from hf_prompting.recipe.generation_schema import GenerationRecipe
from hf_prompting.recipe.pretraining_schema import FineTuningSection, PretrainingRecipe
from hf_prompting.recipe.reader import Read, list_problems, read_recipe_as
from hf_prompting.training.generation_arguments import check_generation_arguments
from hf_prompting.training.objectives.table import check_options


@dataclass(frozen=True, kw_only=True)
class CheckedPretraining:
    """A pre-training recipe whose sections fit each other and the data.

    Attributes:
        recipe: the values.
        train: texts to train on.
        dev: texts to measure.
        more_texts: further texts for the tokenizer.
    """

    recipe: PretrainingRecipe
    train: Rows
    dev: Rows
    more_texts: list[str]


def check_pretraining(read: Read[PretrainingRecipe]) -> CheckedPretraining:
    """Check sections against each other, columns and sizes; load the texts; check the fine-tuning's recipe, too.

    Args:
        read: from ``read_recipe_as(PretrainingRecipe, ...)``.
    Raises:
        RecipeError: lists every problem with the recipe's line, and the data file's where it is a row.
    Example:
        >>> len(check_pretraining(read).dev)  # doctest: +SKIP
        109
    """
    recipe = read.recipe
    problems = [*_section_problems(read)]
    splits = {name: rows for name in ("train", "dev") if (rows := _split(read, name, problems))}
    more: list[str] = []
    for number, section in enumerate(recipe.tokenizer.more_texts):
        try:
            rows = load_rows(section.path, section.file)
            more += [text for column in section.columns for text in texts_of(rows, column)]
        except DataError as error:
            problems.append(read.problem(f"tokenizer.more_texts.{number}", f"tokenizer.more_texts: {error}"))
    if recipe.fine_tuning is not None:
        try:
            check_generation(fine_tuning_recipe(recipe.fine_tuning, only_check=True))
        except RecipeError as error:
            problems.append(read.problem("fine_tuning.recipe", f"fine_tuning.recipe: {error}"))
    if problems:
        raise RecipeError(list_problems(read.file.name, problems))
    return CheckedPretraining(
        recipe=recipe,
        train=splits["train"].head(recipe.data.max_train_rows),
        dev=splits["dev"],
        more_texts=more,
    )


def fine_tuning_recipe(
    section: FineTuningSection, *, pretrained: str | None = None, only_check: bool = False
) -> Read[GenerationRecipe]:
    """Read the fine-tuning's recipe, with the pretrained model in its place.

    Args:
        section: names it.
        pretrained: folder of the pretrained model.
        only_check: read it as if it needed no pretrained model, because that is not trained yet.
    Raises:
        RecipeError: lists every mistake with its line.
    """
    overrides = ["model.pretrained=null", "compare.random_weights=null"] if only_check else []
    if pretrained is not None:
        overrides = [f"model.pretrained={json.dumps(pretrained)}"]
    return read_recipe_as(GenerationRecipe, section.recipe, overrides=overrides, smoke=section.smoke)


def _section_problems(read: Read[PretrainingRecipe]) -> Iterator[Problem]:
    recipe = read.recipe
    if recipe.model.pretrained is not None:
        text = "model.pretrained: pre-training starts from random weights; take it out"
        yield read.problem("model.pretrained", text)
    for key, text in check_generation_arguments(recipe.training.arguments):
        yield read.problem(f"training.arguments.{key}", text)
    try:
        check_options(recipe.objective.name, recipe.objective.arguments)
    except HfPromptingError as error:
        yield read.problem("objective.arguments", f"objective.arguments: {error}")
    try:
        config_of(recipe.model, vocab_size=8, longest_text=recipe.objective.max_length)
    except HfPromptingError as error:
        yield read.problem("model", f"model: {error}")
    except (StrictDataclassError, TypeError, ValueError) as error:  # checks of a field's type or its own
        yield read.problem("model.arguments", f"model.arguments: {' '.join(str(error).split())}")


def _split(read: Read[PretrainingRecipe], name: str, problems: list[Problem]) -> Rows | None:
    data: Any = read.recipe.data
    try:
        rows = load_rows(data.path, getattr(data, name), config=data.config)
        rows.require_texts([data.column])
    except DataError as error:
        problems.append(read.problem(f"data.{name}", str(error)))
        return None
    return rows
