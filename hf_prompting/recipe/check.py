"""Everything about a recipe that can be wrong without loading a model, all of it at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from transformers import SchedulerType

from hf_prompting.data import Rows, encode_labels, load_rows, sample_few_shot
from hf_prompting.errors import DataError, HfPromptingError, LabelWordError, RecipeError, did_you_mean
from hf_prompting.evaluation.metrics import METRICS
from hf_prompting.recipe.conversion import Problem
from hf_prompting.recipe.reader import ReadRecipe, list_problems
from hf_prompting.recipe.schema import Recipe
from hf_prompting.templates import PromptTemplate
from hf_prompting.training import check_extra_arguments
from hf_prompting.verbalizers import Verbalizer

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class LabelledRows:
    """The rows of one split and the class number of each."""

    rows: Rows
    labels: list[int]


@dataclass(frozen=True, kw_only=True)
class CheckedRecipe:
    """A recipe whose template, label words and data fit each other.

    Attributes:
        recipe: the values.
        template: parsed.
        verbalizer: its labels are those of the data.
        train: rows to tune on, after the few-shot draw.
        dev: rows that choose, if any.
        test: rows to measure.
    """

    recipe: Recipe
    template: PromptTemplate
    verbalizer: Verbalizer
    train: LabelledRows
    dev: LabelledRows | None
    test: LabelledRows


def check_recipe(read: ReadRecipe) -> CheckedRecipe:
    """Check template syntax, columns against fields, labels against label words, and names; load the data.

    Args:
        read: from ``read_recipe``.
    Returns:
        The recipe with its parsed parts and loaded rows.
    Raises:
        RecipeError: lists every problem with the recipe's line, and the data file's where it is a row.
    Example:
        >>> len(check_recipe(read_recipe("recipes/movie-reviews-soft-prompt")).test.labels)  # doctest: +SKIP
        1018
    """
    problems = list(_setting_problems(read))
    template = _parsed(read, problems)
    verbalizer = _verbalizer(read, problems)
    tunes_more = read.recipe.training.trainable_base or read.recipe.verbalizer.aggregation == "weighted"
    if template is not None and not template.num_soft_tokens and not tunes_more:
        text = "the template has no soft tokens, so nothing would be tuned; add {soft:20}"
        problems.append(read.problem("template", text))
    if template is not None:
        problems += _field_problems(read, template)
    splits = {name: rows for name in SPLITS if (rows := _split(read, name, template, verbalizer, problems))}
    if problems or template is None or verbalizer is None:
        raise RecipeError(list_problems(read.file.name, problems))
    test = splits["test"]
    test_rows = test.rows.head(read.recipe.evaluation.max_test_rows)
    return CheckedRecipe(
        recipe=read.recipe,
        template=template,
        verbalizer=verbalizer,
        train=splits["train"],
        dev=splits.get("dev"),
        test=LabelledRows(test_rows, test.labels[: len(test_rows)]),
    )


def parse_prompt(read: ReadRecipe) -> tuple[PromptTemplate, Verbalizer]:
    """Parse the template and the label words alone, without looking at the data or at what would be tuned.

    Raises:
        RecipeError: with the recipe's lines.
    """
    problems: list[Problem] = []
    template, verbalizer = _parsed(read, problems), _verbalizer(read, problems)
    if template is None or verbalizer is None:
        raise RecipeError(list_problems(read.file.name, problems))
    return template, verbalizer


def _parsed(read: ReadRecipe, problems: list[Problem]) -> PromptTemplate | None:
    try:
        return PromptTemplate.parse(read.recipe.template)
    except HfPromptingError as error:
        problems.append(read.problem("template", f"template: {_first_line(error)}"))
        return None


def _field_problems(read: ReadRecipe, template: PromptTemplate) -> Iterator[Problem]:
    names = [field.name for field in template.fields]
    if not names:
        yield read.problem("template", "the template has no field, so every row gives the same prompt; add {text}")
    if read.recipe.data.label in names:
        text = f"the template shows the label itself: {{{read.recipe.data.label}}} is data.label; take it out"
        yield read.problem("template", text)


def _verbalizer(read: ReadRecipe, problems: list[Problem]) -> Verbalizer | None:
    section = read.recipe.verbalizer
    try:
        return Verbalizer(section.words, aggregation=section.aggregation, leading_space=section.leading_space)
    except LabelWordError as error:
        problems.append(read.problem("verbalizer.words", str(error)))
        return None


def _setting_problems(read: ReadRecipe) -> Iterator[Problem]:
    recipe = read.recipe
    for key, text in check_extra_arguments(recipe.training.arguments):
        yield read.problem(f"training.arguments.{key}", text)
    for name in recipe.evaluation.metrics:
        if name not in METRICS and not name.isidentifier():
            text = f"metric {name!r} is unknown; allowed: {', '.join(METRICS)}, or a plain name of `evaluate`"
            yield read.problem("evaluation.metrics", text)
        elif name not in METRICS and (near := did_you_mean(name, METRICS)):
            yield read.problem("evaluation.metrics", f"metric {name!r} is unknown.{near}")
    scheduler, schedulers = recipe.training.lr_scheduler_type, [kind.value for kind in SchedulerType]
    if scheduler not in schedulers:
        text = f"lr_scheduler_type {scheduler!r} is unknown; allowed: {', '.join(schedulers)}."
        yield read.problem("training.lr_scheduler_type", f"{text}{did_you_mean(scheduler, schedulers)}")
    if recipe.training.early_stopping_patience is not None and recipe.data.dev is None:
        text = "early_stopping_patience counts measurements of dev rows, but data.dev is null"
        yield read.problem("training.early_stopping_patience", text)
    soft = recipe.soft_prompt
    if soft.init == "text" and not (soft.init_text or "").strip():
        yield read.problem("soft_prompt.init", "soft_prompt.init is 'text', which needs soft_prompt.init_text")
    if isinstance(weights := recipe.training.class_weights, dict):
        labels = list(recipe.verbalizer.words)
        for label in weights:
            if label not in labels:
                text = f"class_weights names {label!r}, which is no label of the verbalizer: {labels}."
                yield read.problem("training.class_weights", f"{text}{did_you_mean(label, labels)}")
        if missing := [label for label in labels if label not in weights]:
            yield read.problem("training.class_weights", f"class_weights lacks the labels {missing}")
    path = recipe.base_model.path
    if path is not None and not (Path(path) / "config.json").is_file():
        yield read.problem("base_model.path", f"base_model.path {path!r} is not a folder with a config.json")


def _split(
    read: ReadRecipe,
    name: str,
    template: PromptTemplate | None,
    verbalizer: Verbalizer | None,
    problems: list[Problem],
) -> LabelledRows | None:
    data = read.recipe.data
    file: str | None = getattr(data, name)
    if file is None:
        return None
    try:
        rows = load_rows(data.path, file, config=data.config)
    except DataError as error:
        key = f"data.{name}" if Path(data.path).is_dir() else "data.path"
        found = read.problem(key, str(error))
        said = [problem.text.partition("(split")[0] for problem in problems]
        if found.text.partition("(split")[0] not in said:  # a wrong path is wrong for all splits
            problems.append(found)
        return None
    try:
        rows.require_texts([data.label])
        if name == "train" and data.shots is not None:
            rows = sample_few_shot(rows, column=data.label, num_per_label=data.shots, seed=data.shots_seed)
        labels = (
            encode_labels(rows, data.label, {label: n for n, label in enumerate(verbalizer.labels)})
            if verbalizer
            else []
        )
    except DataError as error:
        problems.append(read.problem("data.label", str(error)))
        labels = []
    if template is not None:
        try:
            rows.require_texts(field.name for field in template.fields)
        except DataError as error:
            problems.append(read.problem("template", f"template: {error}"))
    return LabelledRows(rows, labels)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
