"""Show one prompt token by token, in colours, for people."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from hf_prompting.artifacts.escaping import visible
from hf_prompting.errors import RecipeError
from hf_prompting.recipe.check import parse_prompt
from hf_prompting.recipe.prediction import load_tokenizer
from hf_prompting.recipe.reader import RECIPE_FILE, read_recipe, task_of
from hf_prompting.recipe.run import compiled_tokenizer
from hf_prompting.recipe.schema import Recipe
from hf_prompting.templates import PromptToken, describe_prompt, tokenization_difference

STYLES: dict[str, str] = {
    "special": "magenta",
    "template": "cyan",
    "soft": "bold yellow",
    "field": "green",
    "slot": "bold red",
}
MAX_SOFT_SHOWN = 2


def tokenizer_of(folder_or_recipe: str, *, overrides: Sequence[str] = ()) -> Any:
    """Return the compiled tokenizer of a saved folder, or of a recipe (which loads its base model).

    Raises:
        HfPromptingError: it is neither, or has mistakes.
    """
    path = Path(folder_or_recipe)
    is_recipe = path.suffix in {".yaml", ".yml"} or (
        (path / RECIPE_FILE).is_file() and not (path / "config.json").is_file()
    )
    if is_recipe:
        if (task := task_of(path)) != Recipe.task:
            raise RecipeError(f"{path} is a recipe of task {task!r}; show is for prompts, task {Recipe.task!r}")
        read = read_recipe(path, overrides=overrides)
        return compiled_tokenizer(read.recipe, *parse_prompt(read))
    if overrides:
        raise RecipeError(f"--set changes a recipe, but {folder_or_recipe} is no recipe")
    return load_tokenizer(folder_or_recipe)


def view_prompt(tokenizer: Any, text: str, text_pair: str | None = None) -> list[Text]:
    """Return lines for a terminal: one per run of tokens of a kind, then the counts and the difference, if any.

    Args:
        tokenizer: a compiled tokenizer.
        text: the first field's text.
        text_pair: the second field's.
    Returns:
        Styled lines. Control characters of the text are shown as escapes, and nothing in it is read as markup.
    Raises:
        FieldError, InputTextError: the texts do not fit the template, or cannot be tokenised.
    Example:
        >>> print(view_prompt(tokenizer, "great fun")[0])  # doctest: +SKIP
        soft       20  <|soft_0|> … <|soft_19|>
    """
    tokens = describe_prompt(tokenizer, text, text_pair)
    lines = [
        _run_line(kind, list(run)) for kind, run in itertools.groupby(tokens, key=lambda token: str(token.kind.value))
    ]
    if not any(token.kind.value == "slot" for token in tokens):
        lines.append(Text.assemble((f"{'slot':<9}  0", STYLES["slot"]), "  the model answers here"))
    lines.append(Text(f"{len(tokens)} tokens"))
    difference = tokenization_difference(tokenizer, text, text_pair)
    if difference is None:
        lines.append(Text("Tokenisation is that of the prompt written as one string."))
    else:
        native, rendered = (
            " ".join(visible(name) for name in tokenizer.convert_ids_to_tokens(list(ids)))
            for ids in _differing(difference.native_ids, difference.rendered_ids)
        )
        lines.append(
            Text(f"Tokenisation differs from the prompt written as one string: {native!r} here, {rendered!r} there.")
        )
    return lines


def _run_line(kind: str, run: Sequence[PromptToken]) -> Text:
    style = STYLES[kind]
    if kind == "soft" and len(run) > MAX_SOFT_SHOWN:
        shown = f"{visible(run[0].token)} … {visible(run[-1].token)}"
    else:
        shown = "│".join(visible(token.text) for token in run)
    return Text.assemble((f"{kind:<9} {len(run):>2}", style), "  ", (shown, style))


def _differing(first: Sequence[int], second: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    """Cut off what two lists have in common at their beginnings and ends."""
    start = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
    first, second = first[start:], second[start:]
    backwards = zip(reversed(first), reversed(second), strict=False)
    end = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], backwards))
    return first[: len(first) - end], second[: len(second) - end]
