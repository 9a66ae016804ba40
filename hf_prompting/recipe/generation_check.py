"""Everything about a generation recipe that can be wrong without training, all of it at once."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError

from hf_prompting.data import Rows, load_rows
from hf_prompting.data.pairs import texts_of
from hf_prompting.errors import DataError, HfPromptingError, RecipeError
from hf_prompting.recipe.conversion import Problem
from hf_prompting.recipe.generation_models import new_config
from hf_prompting.recipe.generation_schema import GenerationRecipe
from hf_prompting.recipe.reader import Read, list_problems
from hf_prompting.training.generation_arguments import check_generation_arguments

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Pairs:
    """The texts of one split."""

    sources: list[str]
    targets: list[str]

    def __len__(self) -> int:
        return len(self.sources)

    def head(self, num_rows: int | None) -> Pairs:
        """Return the first ``num_rows`` pairs, or all of them for ``None``."""
        return Pairs(self.sources[:num_rows], self.targets[:num_rows])


@dataclass(frozen=True, kw_only=True)
class CheckedGeneration:
    """A generation recipe whose sections fit each other and the data.

    Attributes:
        recipe: the values.
        train: pairs to train on.
        dev: pairs that choose, if any.
        test: pairs to measure.
    """

    recipe: GenerationRecipe
    train: Pairs
    dev: Pairs | None
    test: Pairs


def check_generation(read: Read[GenerationRecipe]) -> CheckedGeneration:
    """Check sections against each other, columns and sizes; load the data.

    Args:
        read: from ``read_recipe_as(GenerationRecipe, ...)``.
    Returns:
        The recipe with its pairs; the prefix stands before each source.
    Raises:
        RecipeError: lists every problem with the recipe's line, and the data file's where it is a row.
    Example:
        >>> len(check_generation(read).test)  # doctest: +SKIP
        1051
    """
    problems = [*_fit_problems(read), *_training_problems(read), *_model_problems(read)]
    splits = {name: pairs for name in SPLITS if (pairs := _split(read, name, problems))}
    if problems:
        raise RecipeError(list_problems(read.file.name, problems))
    recipe = read.recipe
    return CheckedGeneration(
        recipe=recipe,
        train=splits["train"].head(recipe.data.max_train_rows),
        dev=splits.get("dev"),
        test=splits["test"].head(recipe.evaluation.max_test_rows),
    )


def _fit_problems(read: Read[GenerationRecipe]) -> Iterator[Problem]:
    recipe = read.recipe
    pretrained = recipe.model.pretrained
    if pretrained is not None and recipe.tokenizer is not None:
        yield read.problem("tokenizer", "model.pretrained brings its own tokenizer; take the section tokenizer out")
    if pretrained is None and recipe.soft_prompt is not None:
        text = "a soft prompt needs a model that has learned something: give model.pretrained, or take soft_prompt out"
        yield read.problem("soft_prompt", text)
    if recipe.soft_prompt is not None and recipe.soft_prompt.source + recipe.soft_prompt.target == 0:
        yield read.problem("soft_prompt", "source and target are both 0, so nothing would be tuned")
    if recipe.soft_prompt is not None and recipe.soft_prompt.target and recipe.training.best_by != "loss":
        text = "best_by: bleu and chrf generate without soft tokens before the target; use loss"
        yield read.problem("training.best_by", text)
    compare = recipe.compare
    if compare.bart is not None and pretrained is not None:
        yield read.problem("compare.bart", "compare.bart is a new model; it fits recipes without model.pretrained")
    if compare.random_weights is not None and pretrained is None:
        text = "compare.random_weights needs model.pretrained; without it the recipe's own model starts at random"
        yield read.problem("compare.random_weights", text)
    if compare.full_fine_tuning is not None and recipe.soft_prompt is None:
        text = "compare.full_fine_tuning needs a soft_prompt to compare with"
        yield read.problem("compare.full_fine_tuning", text)
    if recipe.tokenizer is not None and (path := recipe.tokenizer.path) is not None and not Path(path).is_dir():
        yield read.problem("tokenizer.path", f"tokenizer.path {path!r} is not a folder")


def _training_problems(read: Read[GenerationRecipe]) -> Iterator[Problem]:
    training = read.recipe.training
    for key, text in check_generation_arguments(training.arguments):
        yield read.problem(f"training.arguments.{key}", text)
    if read.recipe.data.dev is None:
        if training.early_stopping_patience is not None:
            text = "early_stopping_patience counts measurements of dev rows, but data.dev is null"
            yield read.problem("training.early_stopping_patience", text)
        if training.best_by != "loss":
            text = f"best_by {training.best_by!r} measures dev rows, but data.dev is null"
            yield read.problem("training.best_by", text)
    if "rouge_l" in read.recipe.evaluation.metrics and importlib.util.find_spec("rouge_score") is None:
        text = 'metric rouge_l needs the package rouge-score: pip install "hf_prompting[rouge]"'
        yield read.problem("evaluation.metrics", text)


def _model_problems(read: Read[GenerationRecipe]) -> Iterator[Problem]:
    """Make the configuration that the run will make, so that sizes which do not fit are found before the data is."""
    section = read.recipe.model
    if section.pretrained is not None:
        folder = Path(section.pretrained)
        if folder.is_absolute() and not (folder / "config.json").is_file():
            text = f"model.pretrained {section.pretrained!r} is not a folder with a config.json"
            yield read.problem("model.pretrained", f"{text}; train it first, or --set model.pretrained=FOLDER")
        return
    has_own_width = "head_dim" in section.arguments and read.recipe.compare.bart is None  # BART's heads share its width
    if section.hidden_size % section.num_attention_heads and not has_own_width:
        text = f"hidden_size {section.hidden_size} is not divisible by num_attention_heads"
        yield read.problem("model.num_attention_heads", f"{text} {section.num_attention_heads}")
        return
    try:
        new_config(read.recipe, vocab_size=8)
    except HfPromptingError as error:
        yield read.problem("model", f"model: {error}")
    except (StrictDataclassError, AttributeError, TypeError, ValueError) as error:  # a field's type or value
        yield read.problem("model.arguments", f"model.arguments: {' '.join(str(error).split())}")


def _split(read: Read[GenerationRecipe], name: str, problems: list[Problem]) -> Pairs | None:
    data = read.recipe.data
    file: str | None = getattr(data, name)
    if file is None:
        return None
    try:
        rows = load_rows(data.path, file, config=data.config)
    except DataError as error:
        key = f"data.{name}" if Path(data.path).is_dir() else "data.path"
        problems.append(read.problem(key, str(error)))
        return None
    sources = _column(read, rows, "source", problems)
    targets = _column(read, rows, "target", problems)
    return Pairs([data.prefix + source for source in sources], targets)


def _column(read: Read[GenerationRecipe], rows: Rows, key: str, problems: list[Problem]) -> list[str]:
    try:
        return texts_of(rows, getattr(read.recipe.data, key))
    except DataError as error:
        problems.append(read.problem(f"data.{key}", str(error)))
        return []
