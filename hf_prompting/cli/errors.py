"""From exceptions to one clear line and an exit code.

Exit codes: 0 done; 1 an error of this program, or the reader of a pipe went away; 2 a mistake in what the user gave,
said in one line (a recipe's mistakes: one line each); 130 interrupted. ``--debug`` shows the traceback.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from hf_prompting.errors import HfPromptingError, RecipeError

USER_MISTAKE = 2


@contextmanager
def user_errors(debug: bool) -> Iterator[None]:
    """End with one line and an exit code instead of a traceback; with ``debug``, with both."""
    try:
        yield
    except HfPromptingError as error:
        _fail(error, _one_line(error), USER_MISTAKE, debug=debug)
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except KeyboardInterrupt as interrupt:
        print("; ".join(["interrupted", *getattr(interrupt, "__notes__", [])]), file=sys.stderr)
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
