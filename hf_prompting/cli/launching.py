"""``--accelerate CONFIG``: the same command again, in the processes that a configuration of ``accelerate`` asks for."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hf_prompting.errors import RecipeError
from hf_prompting.processes import num_processes

Accelerate = Annotated[
    Path | None,
    typer.Option(
        metavar="CONFIG",
        help="Run in several processes, as this file of `accelerate config` says; see recipes/accelerate.",
    ),
]


def launch_again(context: typer.Context, config: Path) -> None:
    """Run the command of ``context`` under ``accelerate launch`` and end with the exit code of its first failure.

    It is ``accelerate launch --config_file CONFIG -m hf_prompting …`` without the launcher's own traceback at the end.

    Args:
        context: of the command; its option ``--accelerate`` is left out.
        config: a file as ``accelerate config`` writes it.
    Raises:
        RecipeError: there is no such file, it cannot be read, or this is such a process already.
    """
    if num_processes() > 1:
        raise RecipeError("--accelerate starts the processes itself; leave out `accelerate launch` or `torchrun`")
    if not config.is_file():
        raise RecipeError(f"--accelerate {str(config)!r}: no such file; recipes/accelerate holds ready ones")
    import logging

    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from yaml import YAMLError

    try:
        settings = load_config_from_file(str(config))
    except (YAMLError, ValueError, TypeError, AttributeError) as error:
        raise RecipeError(f"--accelerate {str(config)!r} is no configuration of accelerate: {error}") from error
    if settings.use_cpu:  # accelerate forgets it where it starts several processes
        os.environ["ACCELERATE_USE_CPU"] = "true"
    words = ["--config_file", str(config), "-m", "hf_prompting", *_same_command(context)]
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        launch_command(launch_command_parser().parse_args(words))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            print(f"error: process {rank} was ended by {name} (out of memory?)", file=sys.stderr)
        raise typer.Exit(_shell_code(failure.exitcode)) from None
    except SignalException as stop:
        raise typer.Exit(128 + int(stop.sigval)) from None
    except (ImportError, ValueError, ConnectionError) as error:
        raise RecipeError(f"--accelerate {str(config)!r}: {error}") from error


def _same_command(context: typer.Context) -> list[str]:
    words = [str(context.info_name)]
    for parameter in context.command.params:
        value: Any = context.params.get(str(parameter.name))
        if value is None or value is False or parameter.name == "accelerate":
            continue
        if parameter.param_type_name == "argument":
            words.append(str(value))
        elif value is True:
            words.append(parameter.opts[0])
        else:
            for part in value if isinstance(value, list | tuple) else [value]:
                words.append(f"{parameter.opts[0]}={part}")
    return words


def _shell_code(exit_code: int) -> int:
    return 128 - exit_code if exit_code < 0 else exit_code
