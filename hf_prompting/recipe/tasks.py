"""The tasks that a recipe can name, and what reads, checks and runs each; one line in ``TASKS`` adds one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_prompting.errors import RecipeError, did_you_mean
from hf_prompting.recipe.generation_schema import GenerationRecipe
from hf_prompting.recipe.pretraining_schema import PretrainingRecipe
from hf_prompting.recipe.reader import Read, read_recipe_as, task_of
from hf_prompting.recipe.schema import Recipe, Section

if TYPE_CHECKING:
    from hf_prompting.recipe.run import RunResult


@dataclass(frozen=True)
class Task:
    """What belongs to a task; the functions import what is heavy only when they are called.

    Attributes:
        schema: dataclass of the whole recipe.
        check: checks a recipe and its data, and returns a line that says what it holds.
        run: does what the recipe says; takes ``overwrite`` and ``resume``.
    """

    schema: type[Section]
    check: Callable[[Read[Any]], str]
    run: Callable[..., RunResult]


def read_any_recipe(path: str | Path, *, overrides: Sequence[str] = (), smoke: bool = False) -> Read[Any]:
    """Read a recipe of whichever task it names.

    Args:
        path, overrides, smoke: as for ``read_recipe_as``.
    Raises:
        RecipeError: the task is unknown; else as ``read_recipe_as``.
    Example:
        >>> read_any_recipe("recipes/translation-en-zh-scratch").recipe.task  # doctest: +SKIP
        'generation'
    """
    name = task_of(path)
    if name not in TASKS:
        raise RecipeError(f"task {name!r} is unknown; allowed: {', '.join(TASKS)}.{did_you_mean(name, TASKS)}")
    return read_recipe_as(TASKS[name].schema, path, overrides=overrides, smoke=smoke)


def check_any_recipe(read: Read[Any]) -> str:
    """Check a recipe of any task and its data, without a model; return a line that says what it holds.

    Raises:
        RecipeError: lists every problem.
    """
    return TASKS[read.recipe.task].check(read)


def run_any_recipe(read: Read[Any], *, overwrite: bool = False, resume: bool = False) -> RunResult:
    """Do everything that a recipe of any task says; see ``run_recipe`` and ``run_generation``."""
    return TASKS[read.recipe.task].run(read, overwrite=overwrite, resume=resume)


def _check_classification(read: Read[Any]) -> str:
    from hf_prompting.recipe.check import check_recipe

    checked = check_recipe(read)
    dev = f"{len(checked.dev.labels)} dev, " if checked.dev else ""
    rows = f"{len(checked.train.labels)} train, {dev}{len(checked.test.labels)} test rows"
    return f"{read.file.name} is in order: {rows}, {len(checked.verbalizer.labels)} labels"


def _run_classification(read: Read[Any], *, overwrite: bool, resume: bool) -> RunResult:
    from hf_prompting.recipe.run import run_recipe

    return run_recipe(read, overwrite=overwrite, resume=resume)


def _check_generation(read: Read[Any]) -> str:
    from hf_prompting.recipe.generation_check import check_generation

    checked = check_generation(read)
    dev = f"{len(checked.dev)} dev, " if checked.dev else ""
    return f"{read.file.name} is in order: {len(checked.train)} train, {dev}{len(checked.test)} test pairs"


def _run_generation(read: Read[Any], *, overwrite: bool, resume: bool) -> RunResult:
    from hf_prompting.recipe.generation import run_generation

    return run_generation(read, overwrite=overwrite, resume=resume)


def _check_pretraining(read: Read[Any]) -> str:
    from hf_prompting.recipe.pretraining_check import check_pretraining

    checked = check_pretraining(read)
    return f"{read.file.name} is in order: {len(checked.train)} train, {len(checked.dev)} dev texts"


def _run_pretraining(read: Read[Any], *, overwrite: bool, resume: bool) -> RunResult:
    from hf_prompting.recipe.pretraining import run_pretraining

    return run_pretraining(read, overwrite=overwrite, resume=resume)


TASKS: dict[str, Task] = {
    "classification": Task(Recipe, _check_classification, _run_classification),
    "generation": Task(GenerationRecipe, _check_generation, _run_generation),
    "pretraining": Task(PretrainingRecipe, _check_pretraining, _run_pretraining),
}
