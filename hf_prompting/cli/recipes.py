"""``run`` and ``check``: what a recipe says, done or only checked."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from hf_prompting.cli.errors import user_errors
from hf_prompting.cli.launching import Accelerate, launch_again
from hf_prompting.cli.options import Debug, Overrides, RecipePath, Smoke
from hf_prompting.errors import RecipeError


def run(
    context: typer.Context,
    recipe: RecipePath,
    overrides: Overrides = None,
    smoke: Smoke = False,
    seeds: Annotated[
        str | None, typer.Option("--seeds", "--seed", metavar="N[,N…]", help="One prompt is tuned for each seed.")
    ] = None,
    output_dir: Annotated[str | None, typer.Option("--output-dir", help="Folder to save.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a folder that an earlier run saved.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was cut, if there is one.")] = False,
    accelerate: Accelerate = None,
    debug: Debug = False,
) -> None:
    """Tune a prompt as a recipe says, and save it with its numbers.

    Examples:

    \b
    hf-prompting run recipes/movie-reviews-soft-prompt
    hf-prompting run recipes/movie-reviews-soft-prompt --smoke --output-dir /tmp/try
    hf-prompting run recipes/movie-reviews-soft-prompt --seeds 0,1,2 --overwrite
    hf-prompting run recipes/movie-reviews-soft-prompt --seeds 0,1,2 --resume
    hf-prompting run recipes/reviews-zh-soft-prompt --set data.path=FOLDER --set training.max_steps=60
    hf-prompting run recipes/translation-en-zh-scratch --resume
    hf-prompting run recipes/movie-reviews-soft-prompt --accelerate recipes/accelerate/ddp-one-machine.yaml
    """
    with user_errors(debug):
        if accelerate is not None:
            launch_again(context, accelerate)
            return
        given = [*(overrides or []), *_seed_override(seeds), *_folder_override(output_dir)]
        from hf_prompting.recipe.tasks import read_any_recipe, run_any_recipe

        read = read_any_recipe(recipe, overrides=given, smoke=smoke)

        from rich.console import Console

        from hf_prompting.processes import join_processes, leave_processes
        from hf_prompting.recipe.progress import result_table

        join_processes()
        result = run_any_recipe(read, overwrite=overwrite, resume=resume)
        leave_processes()
        Console().print(result_table(result.metrics["name"], result.rows, result.spread))
        print(f"Saved in {result.folder}")


def check(recipe: RecipePath, overrides: Overrides = None, debug: Debug = False) -> None:
    """Check a recipe and its data, without loading a model.

    Examples:

    \b
    hf-prompting check recipes/movie-reviews-soft-prompt
    hf-prompting check my-recipe.yaml --set data.path=my-data
    """
    with user_errors(debug):
        from hf_prompting.recipe.tasks import check_any_recipe, read_any_recipe

        print(check_any_recipe(read_any_recipe(recipe, overrides=overrides or [])))


def _seed_override(seeds: str | None) -> list[str]:
    if seeds is None:
        return []
    numbers = [part.strip() for part in seeds.split(",")]
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise RecipeError(f"--seeds {seeds!r} is not a list of whole numbers such as 0,1,2")
    return [f"training.seeds=[{', '.join(str(int(number)) for number in numbers)}]"]


def _folder_override(output_dir: str | None) -> list[str]:
    return [] if output_dir is None else [f"output.dir={json.dumps(output_dir)}"]
