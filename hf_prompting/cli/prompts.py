"""``predict`` and ``show``: use a saved prompt, and look at its tokens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from hf_prompting.cli.errors import user_errors
from hf_prompting.cli.options import BaseModel, Debug, Overrides
from hf_prompting.errors import RecipeError


def predict(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder that a run saved, or its Hub id.")],
    text: Annotated[list[str] | None, typer.Option("--text", help="A text; repeatable.")] = None,
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
    """Classify texts, or generate from them; prints one JSON object a line, in the order of the texts.

    Without --text and --file, every line of standard input is a text (with --field: a JSON object); a blank line is not
    classified and gives {"label": null, ...}. Files are read as they are needed, whatever their size, and `accelerate
    launch -m hf_prompting predict` shares the rows between processes.

    Examples:

    \b
    hf-prompting predict outputs/movie-reviews-soft-prompt --text "great fun" --text "a bore"
    hf-prompting predict outputs/movie-reviews-soft-prompt --file rows.jsonl --field review
    cat reviews.txt | hf-prompting predict outputs/movie-reviews-soft-prompt
    hf-prompting predict outputs/translation-en-zh-scratch --text "Good morning."
    """
    with user_errors(debug):
        if bool(text) + (file is not None) > 1:
            raise RecipeError("--text and --file exclude each other; give one of them")
        if text and field:
            raise RecipeError("--field names columns of --file or of lines on standard input; --text has none")
        if not text and file is None and sys.stdin.isatty():
            raise RecipeError("no text; give --text, --file, or lines on standard input")
        from hf_prompting.artifacts.escaping import json_line
        from hf_prompting.processes import join_processes, leave_processes
        from hf_prompting.recipe import generation_prediction, prediction

        join_processes()
        batches_ahead = 1 if file is None else prediction.BATCHES_AHEAD
        results: Callable[..., Iterator[dict[str, Any]]]
        if generation_prediction.generates_text(folder):
            generator = generation_prediction.load_generator(folder)
            template, results = generator.template, partial(generation_prediction.generate_rows, generator)
        else:
            classifier = prediction.load_classifier(folder, base_model=base_model)
            template, results = classifier.template, partial(prediction.predict_rows, classifier)
        if text:
            rows = iter(prediction.rows_of_texts(template, text, text_pair or []))
        elif file is not None:
            rows = prediction.rows_of_file(template, file, field or [])
        else:
            rows = prediction.rows_of_lines(template, sys.stdin.buffer, field or [])
        ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
        for result in results(rows, batch_size=batch_size, batches_ahead=batches_ahead):
            print(json_line(result, ascii_only=ascii_only), flush=True)
        leave_processes()


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
