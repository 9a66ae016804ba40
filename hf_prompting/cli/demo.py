"""``demo``: a page in the browser to try a saved prompt."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from hf_prompting.cli.errors import user_errors
from hf_prompting.cli.options import BaseModel, Debug
from hf_prompting.errors import DemoError


def demo(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder that a run saved, or its Hub id.")],
    examples: Annotated[
        Path | None, typer.Option("--examples", help="A file of rows; the first ones become examples to click.")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Default: the first free one from 7860 on.")
    ] = None,
    write_space: Annotated[
        Path | None,
        typer.Option("--write-space", metavar="DIR", help="Write the page as a Space instead of opening it."),
    ] = None,
    base_model: BaseModel = None,
    debug: Debug = False,
) -> None:
    """Try a saved prompt in the browser: labels, the tokens of the prompt, a file of rows, the soft tokens.

    The page is served on this machine only, and needs no internet: pip install "hf_prompting[demo]".

    Examples:

    \b
    hf-prompting demo outputs/movie-reviews-soft-prompt
    hf-prompting demo outputs/movie-reviews-soft-prompt --examples recipes/movie-reviews-soft-prompt/data/dev.jsonl
    hf-prompting demo outputs/movie-reviews-soft-prompt --write-space my-space
    """
    with user_errors(debug):
        if importlib.util.find_spec("gradio") is None:
            raise DemoError(
                'the page needs the Python package gradio. Install it with: pip install "hf_prompting[demo]"'
            )
        if write_space is not None:
            from hf_prompting.demo.space import write_space as write

            write(folder, write_space, base_model=base_model, examples=examples)
            print(f"Written to {write_space}; try it with: cd {write_space} && python app.py")
            return

        from hf_prompting.demo.serve import serve

        serve(folder, base_model=base_model, examples=examples, port=port)
