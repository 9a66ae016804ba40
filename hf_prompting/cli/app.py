"""The command line: parses, calls the layers below, prints. Also ``python -m hf_prompting``.

One file per group of commands; this one puts them together.
"""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from hf_prompting.cli.bench import bench
from hf_prompting.cli.demo import demo
from hf_prompting.cli.errors import USER_MISTAKE
from hf_prompting.cli.hub import export, push
from hf_prompting.cli.prompts import predict, show
from hf_prompting.cli.recipes import check, run
from hf_prompting.cli.tokenizer import tokenizer

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Tune a prompt instead of a model.",
    epilog="Begin with: hf-prompting run recipes/movie-reviews-soft-prompt",
)


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


app.command()(run)
app.command()(check)
app.command()(predict)
app.command()(show)
app.command()(push)
app.command()(demo)
app.command()(export)
app.add_typer(bench, name="bench")
app.command()(tokenizer)


def main() -> None:
    """Run the command line; the entry point of ``hf-prompting``."""
    app()
