"""Why something could not be read from the Hub, in one sentence with a way out."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

from httpx2 import HTTPError  # what huggingface_hub's client raises where a connection breaks
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


def hub_problem(name: str, error: BaseException) -> str | None:
    """Explain an error that came while ``name`` was read from the Hub.

    Args:
        name: id of a repository.
        error: what was raised; its causes are looked at too, because transformers wraps them.

    Returns:
        What is wrong and the way out; None for a local folder, or where the Hub is not the reason.

    Example:
        >>> hub_problem("me/prompt", ValueError("x")) is None
        True
    """
    if Path(name).is_dir():
        return None
    for cause in _causes(error):
        match cause:
            case GatedRepoError():
                return f"{name!r} asks for consent; give it at {constants.ENDPOINT}/{name}, then log in: hf auth login"
            case RepositoryNotFoundError():
                return (
                    f"there is no {name!r} on the Hub for you: it does not exist, or it is private; check the id, or "
                    "log in with `hf auth login` (or set HF_TOKEN)"
                )
            case RevisionNotFoundError():
                return f"{name!r} has no such revision on the Hub; see {constants.ENDPOINT}/{name}/commits/main"
            case OfflineModeIsEnabled():
                return _offline(name)
            case LocalEntryNotFoundError() if constants.HF_HUB_OFFLINE:
                return _offline(name)
            case OSError(errno=errno.EACCES | errno.EROFS | errno.EPERM | errno.ENOSPC):
                return f"the cache of the Hub cannot be written: {cause}; set HF_HOME to a folder that can be"
            case HTTPError() | LocalEntryNotFoundError() | ConnectionError():
                return (
                    f"the connection to {constants.ENDPOINT} broke off while {name!r} was read "
                    f"({type(cause).__name__}); nothing half-read is kept for whole: try again"
                )
    return None


def _offline(name: str) -> str:
    return f"HF_HUB_OFFLINE is set, and {name!r} is not whole in the cache; unset it and load {name!r} once"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
