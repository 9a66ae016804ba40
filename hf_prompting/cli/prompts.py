"""``predict`` and ``show``: use a saved prompt, and look at its tokens."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hf_prompting.cli.errors import user_errors
from hf_prompting.cli.options import BaseModel, Debug, Overrides
from hf_prompting.errors import RecipeError


def predict(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder that a run saved, or its Hub id.")],
    text: Annotated[list[str] | None, typer.Option("--text", help="A text to classify; repeatable.")] = None,
    text_pair: Annotated[
        list[str] | None,
        typer.Option("--text-pair", help="The second text, where the template has two fields."),
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", help="Rows: .jsonl, .json, .csv, .tsv or .parquet.")] = None,
    field: Annotated[
        list[str] | None,
        typer.Option("--field", help="Column for the template's field; once per field, in order. Default: same names."),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Rows at a time.")] = 32,
    base_model: BaseModel = None,
    debug: Debug = False,
) -> None:
    """Classify texts; prints one JSON object a line, in the order of the texts.

    Without --text and --file, every line of standard input is a text (with --field: a JSON object).

    Examples:

    \b
    hf-prompting predict outputs/movie-reviews-soft-prompt --text "great fun" --text "a bore"
    hf-prompting predict outputs/movie-reviews-soft-prompt --file rows.jsonl --field review
    cat reviews.txt | hf-prompting predict outputs/movie-reviews-soft-prompt
    """
    with user_errors(debug):
        if bool(text) + (file is not None) > 1:
            raise RecipeError("--text and --file exclude each other; give one of them")
        if text and field:
            raise RecipeError("--field names columns of --file or of lines on standard input; --text has none")
        if not text and file is None and sys.stdin.isatty():
            raise RecipeError("nothing to classify; give --text, --file, or lines on standard input")
        from hf_prompting.artifacts.escaping import json_line
        from hf_prompting.recipe import prediction

        classifier = prediction.load_classifier(folder, base_model=base_model)
        if text:
            rows = iter(prediction.rows_of_texts(classifier.template, text, text_pair or []))
        elif file is not None:
            rows = iter(prediction.rows_of_file(classifier.template, file, field or []))
        else:
            rows = prediction.rows_of_lines(classifier.template, sys.stdin.buffer, field or [])
        ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
        for result in prediction.predict_rows(classifier, rows, batch_size=batch_size):
            print(json_line(result, ascii_only=ascii_only), flush=True)


def show(
    folder_or_recipe: Annotated[str, typer.Argument(metavar="FOLDER_OR_RECIPE", help="Saved folder, or a recipe.")],
    text: Annotated[str, typer.Option("--text", help="The text of the first field.")],
    text_pair: Annotated[str | None, typer.Option("--text-pair", help="The text of the second field.")] = None,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Show the tokens of one prompt: the template's, the fields', soft tokens and the answer slot.

    Examples:

    \b
    hf-prompting show outputs/movie-reviews-soft-prompt --text "great fun"
    hf-prompting show recipes/movie-reviews-soft-prompt --text "great fun" --set template="{text} It was{mask}"
    """
    with user_errors(debug):
        from rich.console import Console

        from hf_prompting.recipe.prompt_view import tokenizer_of, view_prompt

        tokenizer = tokenizer_of(folder_or_recipe, overrides=overrides or [])
        console = Console(soft_wrap=True, highlight=False)
        for line in view_prompt(tokenizer, text, text_pair):
            console.print(line)
