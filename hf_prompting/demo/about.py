"""What the head of the page says about a prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from hf_prompting.classifier import PromptClassifierConfig
from hf_prompting.recipe.prediction import InputRow, rows_of_file
from hf_prompting.templates import PromptTemplate

METRICS_FILE = "metrics.json"
MAX_EXAMPLES = 6


@dataclass(frozen=True)
class About:
    """Title and facts of a prompt; every string may come from a stranger's folder.

    Attributes:
        title: the recipe's name, else the folder's.
        description: the recipe's, or empty.
        base_model: Hub id of the base, or the name of its folder without its path.
        template: the template's source.
        labels: in class order.
        num_soft_tokens: how many the template has.
        examples: texts to try, one per field.
    """

    title: str
    description: str
    base_model: str
    template: str
    labels: tuple[str, ...]
    num_soft_tokens: int
    examples: tuple[tuple[str, ...], ...] = ()


def about_prompt(
    folder: str, config: PromptClassifierConfig, template: PromptTemplate, examples: Path | None = None
) -> About:
    """Gather what the page says of a saved prompt.

    Args:
        folder: where it is, a folder or a Hub id.
        config: its ``config.json``.
        template: its template.
        examples: a file of rows with the template's columns, whose first rows become examples to click; None for none.
    Raises:
        DataError: the file of examples cannot be read or lacks a column.
    Example:
        >>> about_prompt("outputs/movie-reviews-soft-prompt", model.config, template).labels  # doctest: +SKIP
        ('negative', 'positive')
    """
    recipe = _recipe_values(folder)
    rows = () if examples is None else tuple(islice(rows_of_file(template, examples, []), MAX_EXAMPLES))
    return About(
        title=_text(recipe.get("name")) or Path(folder).resolve().name,
        description=_text(recipe.get("description")),
        base_model=public_base_name(config.base_model_name_or_path or ""),
        template=str(template),
        labels=tuple(label for _, label in sorted(config.id2label.items())),
        num_soft_tokens=template.num_soft_tokens,
        examples=tuple(_values(row, [field.name for field in template.fields]) for row in rows),
    )


def public_base_name(name: str) -> str:
    """Return a base's Hub id as it is, and only the last part of a path, which can name a person or a machine.

    Example:
        >>> public_base_name("/home/ann/models/tiny"), public_base_name("google/gemma-3-270m")
        ('tiny', 'google/gemma-3-270m')
    """
    is_path = name.startswith((".", "~")) or name.count("/") > 1 or Path(name).is_absolute() or Path(name).is_dir()
    return Path(name).name if is_path else name


def _recipe_values(folder: str) -> dict[str, Any]:
    """The recipe that a run recorded; a folder that ``save_pretrained`` wrote has none, and a page needs none."""
    try:
        file = cached_file(folder, METRICS_FILE)
        recipe = json.loads(Path(file).read_text(encoding="utf-8"))["recipe"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return recipe if isinstance(recipe, dict) else {}


def _text(value: object) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def _values(row: InputRow, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(row.values[name]) for name in names)
