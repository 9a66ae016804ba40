"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

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
