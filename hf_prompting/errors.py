"""All errors that a user's input can cause, and the one helper that words them.

Every message names the value, what was allowed and the way out. ``except HfPromptingError`` catches them all; each
also derives from the builtin that callers of transformers would expect.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HfPromptingError(Exception):
    """Base of every error raised on purpose by this library."""


class TemplateSyntaxError(HfPromptingError, ValueError):
    """A template string cannot be parsed; the message shows the column."""


class TemplateError(HfPromptingError, ValueError):
    """A well-formed template does not fit the tokenizer or the kind of model it is compiled for."""


class TemplateLengthError(HfPromptingError, ValueError):
    """A prompt, or the template alone, is longer than the tokens allowed."""


class FieldError(HfPromptingError, KeyError):
    """A row lacks a column that the template names, or a call passes too few or too many texts."""

    def __str__(self) -> str:  # KeyError would print the repr, with escaped newlines
        return str(self.args[0]) if self.args else ""


class InputTextError(HfPromptingError, ValueError):
    """A text cannot be tokenised, for instance because it holds a lone surrogate."""


class LabelWordError(HfPromptingError, ValueError):
    """A label or label word is unusable: empty, lost by the tokenizer, or shared by two classes."""


class SoftPromptError(HfPromptingError, ValueError):
    """A soft prompt's configuration or stored table does not fit the model."""


class BaseModelError(HfPromptingError, OSError):
    """A base model cannot be found or read."""


class BaseModelMismatchError(HfPromptingError, ValueError):
    """A base model was found but is not the one that a prompt was tuned on."""


class ArtifactError(HfPromptingError, OSError):
    """A saved folder is unreadable, incomplete, of a newer version, or must not be overwritten."""


class HubError(HfPromptingError, OSError):
    """The Hub refused something, or could not be reached."""


class RecipeError(HfPromptingError, ValueError):
    """A recipe has mistakes; the message lists all of them with their lines."""


class DataError(HfPromptingError, ValueError):
    """A data file cannot be read, or its rows do not fit the recipe."""


class TaskError(HfPromptingError, KeyError):
    """A bank of prompts holds no task of that name, or already holds one."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class TrainingError(HfPromptingError, RuntimeError):
    """Training cannot go on, for instance because the loss is not a number."""


class BenchmarkError(HfPromptingError, RuntimeError):
    """A benchmark cannot be run, or its contenders did not compute the same."""


class DemoError(HfPromptingError, RuntimeError):
    """The demo page cannot be opened: a package is missing, or the port is taken."""


class ObjectiveError(HfPromptingError, ValueError):
    """A pre-training objective's options, its tokenizer and the rows do not fit together."""


class TokenizerTrainingError(HfPromptingError, ValueError):
    """A tokenizer of the asked kind and size cannot be trained from these texts."""


class ShapeError(HfPromptingError, ValueError):
    """A tensor argument has a shape that the function does not accept."""


class Seq2SeqConfigError(HfPromptingError, ValueError):
    """A value of an encoder-decoder's configuration is not allowed, or two values do not fit together."""


class Seq2SeqInputError(HfPromptingError, ValueError):
    """An encoder-decoder was given ids, lengths or labels that it has no rows for."""


class Seq2SeqConversionError(HfPromptingError, ValueError):
    """A T5 checkpoint lacks weights, has weights too many, or a model is not one that T5 can express."""


class Interrupted(KeyboardInterrupt):
    """A signal asked to stop; like ``KeyboardInterrupt`` no ``Exception``, so that nothing on the way swallows it.

    Attributes:
        signal: its number.
        exit_code: what a shell expects: 130 for Ctrl-C, 143 for SIGTERM.

    Example:
        >>> Interrupted(2).exit_code
        130
    """

    def __init__(self, signal: int, message: str = "interrupted") -> None:
        super().__init__(message)
        self.signal = signal
        self.exit_code = 128 + signal


def did_you_mean(value: str, allowed: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest allowed word, or an empty string.

    Example:
        >>> did_you_mean("tempalte", ["template", "data"])
        " Did you mean 'template'?"
    """
    near = difflib.get_close_matches(value, list(allowed), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
