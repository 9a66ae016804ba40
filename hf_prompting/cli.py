"""The command line: parses, calls ``recipe/``, prints. Also ``python -m hf_prompting``.

Exit codes: 0 done; 1 an error of this program, or the reader of a pipe went away; 2 a mistake in what the user gave,
said in one line (a recipe's mistakes: one line each); 130 interrupted. ``--debug`` shows the traceback.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from hf_prompting.errors import HfPromptingError, RecipeError

USER_MISTAKE = 2

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Tune a prompt instead of a model.",
    epilog="Begin with: hf-prompting run recipes/movie-reviews-soft-prompt",
)

RecipePath = Annotated[str, typer.Argument(metavar="RECIPE", help="Folder with recipe.yaml, or a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a value, such as training.max_steps=20; repeatable."),
]
Smoke = Annotated[bool, typer.Option("--smoke", help="Use the recipe's smoke section: seconds instead of minutes.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
BaseModel = Annotated[
    str | None, typer.Option("--base-model", help="Id or folder of the base model, instead of the recorded one.")
]


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Tune a prompt instead of a model."""
    if version:
        print(metadata.version("hf_prompting"))
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise typer.Exit(USER_MISTAKE)


@app.command()
def run(
    recipe: RecipePath,
    overrides: Overrides = None,
    smoke: Smoke = False,
    seeds: Annotated[
        str | None, typer.Option("--seeds", "--seed", metavar="N[,N…]", help="One prompt is tuned for each seed.")
    ] = None,
    output_dir: Annotated[str | None, typer.Option("--output-dir", help="Folder to save.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a folder that an earlier run saved.")] = False,
    debug: Debug = False,
) -> None:
    """Tune a prompt as a recipe says, and save it with its numbers.

    Examples:

    \b
    hf-prompting run recipes/movie-reviews-soft-prompt
    hf-prompting run recipes/movie-reviews-soft-prompt --smoke --output-dir /tmp/try
    hf-prompting run recipes/movie-reviews-soft-prompt --seeds 0,1,2 --overwrite
    hf-prompting run recipes/reviews-zh-soft-prompt --set data.path=FOLDER --set training.max_steps=60
    """
    with user_errors(debug):
        given = [*(overrides or []), *_seed_override(seeds), *_folder_override(output_dir)]
        from hf_prompting.recipe.reader import read_recipe

        read = read_recipe(recipe, overrides=given, smoke=smoke)

        from rich.console import Console

        from hf_prompting.recipe.run import result_table, run_recipe

        result = run_recipe(read, overwrite=overwrite)
        Console().print(result_table(result))
        print(f"Saved in {result.folder}")


@app.command()
def check(recipe: RecipePath, overrides: Overrides = None, debug: Debug = False) -> None:
    """Check a recipe and its data, without loading a model.

    Examples:

    \b
    hf-prompting check recipes/movie-reviews-soft-prompt
    hf-prompting check my-recipe.yaml --set data.path=my-data
    """
    with user_errors(debug):
        from hf_prompting.recipe.reader import read_recipe

        read = read_recipe(recipe, overrides=overrides or [])

        from hf_prompting.recipe.check import check_recipe

        checked = check_recipe(read)
        dev = f"{len(checked.dev.labels)} dev, " if checked.dev else ""
        rows = f"{len(checked.train.labels)} train, {dev}{len(checked.test.labels)} test rows"
        print(f"{read.file.name} is in order: {rows}, {len(checked.verbalizer.labels)} labels")


@app.command()
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
            print(json.dumps(result, ensure_ascii=ascii_only), flush=True)


@app.command()
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


@contextmanager
def user_errors(debug: bool) -> Iterator[None]:
    """End with one line and an exit code instead of a traceback; with ``debug``, with both."""
    try:
        yield
    except HfPromptingError as error:
        _fail(error, _one_line(error), USER_MISTAKE, debug=debug)
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise typer.Exit(130) from None
    except Exception as error:  # whatever else goes wrong is ours: say so briefly, and how to see more
        text = f"unexpected {type(error).__name__}: {_one_line(error)} (--debug shows where)"
        _fail(error, text, 1, debug=debug)


def _fail(error: Exception, text: str, code: int, *, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    print(f"error: {text}", file=sys.stderr)
    raise typer.Exit(code) from None


def _one_line(error: Exception) -> str:
    """Return the message without characters that could steer a terminal; only a recipe's list keeps its lines."""
    from hf_prompting.artifacts.escaping import visible

    lines = [visible(line) for line in str(error).splitlines() if line.strip(" ^~")]
    if isinstance(error, RecipeError):
        return "\n".join(lines)
    return " ".join(line.strip() for line in lines)


def _seed_override(seeds: str | None) -> list[str]:
    if seeds is None:
        return []
    numbers = [part.strip() for part in seeds.split(",")]
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise RecipeError(f"--seeds {seeds!r} is not a list of whole numbers such as 0,1,2")
    return [f"training.seeds=[{', '.join(str(int(number)) for number in numbers)}]"]


def _folder_override(output_dir: str | None) -> list[str]:
    return [] if output_dir is None else [f"output.dir={json.dumps(output_dir)}"]


def main() -> None:
    """Run the command line; the entry point of ``hf-prompting``."""
    app()
