"""One run at a time into one folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hf_prompting.errors import ArtifactError


@contextmanager
def output_lock(target: Path) -> Iterator[None]:
    """Refuse to go on while another process writes the same folder.

    The operating system holds the lock, so it ends with the process, however that ends. The file ``.NAME.lock`` beside
    the folder, and folders made for it, are taken away afterwards.

    Args:
        target: the folder to be written.
    Raises:
        ArtifactError: another process holds the lock, or the place cannot be written to.
    Example:
        >>> with output_lock(Path("outputs/movie-reviews")):  # doctest: +SKIP
        ...     pass
    """
    target = Path(os.path.realpath(target))
    made = [folder for folder in target.parents if not folder.exists()]  # the innermost first
    file = target.parent / f".{target.name}.lock"
    lock = FileLock(file)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ArtifactError(
            f"another run is writing {target} now; wait for it, stop it, or choose another --output-dir"
        ) from error
    except OSError as error:
        raise ArtifactError(f"output {target} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # while it is still held: a newcomer sees that its lock has no name, and retries
        lock.release()
        for folder in made:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
