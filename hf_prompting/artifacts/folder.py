"""Write a whole folder or nothing: whatever fails, the folder that was there before is still there."""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_prompting.classifier import PromptClassifierConfig
from hf_prompting.errors import ArtifactError
from hf_prompting.seq2seq.remote_code import SOURCE_FILES

# Only saved models made of these names are ever replaced, so that --overwrite cannot take a home folder, a recipe
# or a base model.
OWN_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template.*",
    "metrics.json",
    "README.md",
    "*.png",
    "training_args.bin",
    *(path.name for path in SOURCE_FILES),
    "hf_prompting_*.py",
)


def refuse_existing(target: Path, *, overwrite: bool) -> None:
    """Raise unless a folder may be written at ``target``; call it before minutes of work as well.

    Args:
        target: the folder to write.
        overwrite: whether an existing folder that this library saved may be replaced.
    Raises:
        ArtifactError: ``target`` is a file, or a folder that is not empty and may not be replaced, or lies where
            nothing can be written.
    Example:
        >>> refuse_existing(Path("outputs/new"), overwrite=False)  # doctest: +SKIP
    """
    if target.is_dir():
        _refuse_folder(target, overwrite=overwrite)
    elif target.exists() or target.is_symlink():
        raise ArtifactError(f"output {target} is not a folder; choose another --output-dir")
    parent = target.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ArtifactError(f"output {target} cannot be made: {parent} is not a folder that can be written to")


@contextmanager
def atomic_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a new folder beside ``target`` to write into; it takes the target's place when the block ends well.

    Everything is flushed to the disk before the swap. The swap is two renames; if the machine itself stops between
    them, the previous folder is whole beside the target, named ``.NAME.previous-…``.

    Args:
        target: where the folder shall be.
        overwrite: replace an existing folder of this library.
    Yields:
        The folder to write into.
    Raises:
        ArtifactError: the target may not be replaced, or the disk refused something; any other error of the block
            passes through. In each case ``target`` is as it was and the new folder is gone.
    Example:
        >>> with atomic_folder(Path("out")) as folder:  # doctest: +SKIP
        ...     model.save_pretrained(folder)
    """
    target = Path(os.path.realpath(target))
    refuse_existing(target, overwrite=overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))
    except OSError as error:
        raise ArtifactError(f"output {target} cannot be made: {error.strerror or error}") from error
    try:
        yield staging
        refuse_existing(target, overwrite=overwrite)
        _open_to_readers(staging)
        _flush(staging)
        _swap(staging, target)
    except ArtifactError:
        raise
    except OSError as error:
        raise ArtifactError(
            f"{target} could not be saved ({error.strerror or error}); what was there before is untouched. "
            "Free some space or choose another --output-dir"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _refuse_folder(target: Path, *, overwrite: bool) -> None:
    names = sorted(entry.name for entry in target.iterdir())
    if not names:
        return
    if not overwrite:
        raise ArtifactError(
            f"output folder {target} exists and is not empty; add --overwrite to replace it, or choose another "
            "--output-dir"
        )
    foreign = [name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in OWN_FILES)]
    foreign += [name for name in names if (target / name).is_dir() and name not in foreign]
    if foreign:
        raise ArtifactError(
            f"output folder {target} holds things that hf_prompting did not save: {foreign[:5]}; move them, or choose "
            "another --output-dir"
        )
    if not (_is_saved_classifier(target) or _is_saved_run(target)):
        raise ArtifactError(
            f"output folder {target} holds {names[:5]}, but its config.json is not that of a saved prompt classifier, "
            "nor its metrics.json that of a run, so it is not replaced; move it, or choose another --output-dir"
        )


def _is_saved_classifier(folder: Path) -> bool:
    return _json_object(folder / "config.json").get("model_type") == PromptClassifierConfig.model_type


def _is_saved_run(folder: Path) -> bool:
    versions = _json_object(folder / "metrics.json").get("versions")
    return isinstance(versions, dict) and "hf_prompting" in versions


def _json_object(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _open_to_readers(folder: Path) -> None:
    """Give the permissions that new files usually get; temporary ones, and safetensors, are for their owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)
    for path in folder.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def _flush(folder: Path) -> None:
    for directory, _, names in os.walk(folder):
        for path in [*(Path(directory) / name for name in names), Path(directory)]:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _swap(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    previous = Path(tempfile.mkdtemp(prefix=f".{target.name}.previous-", dir=target.parent)) / target.name
    target.rename(previous)
    try:
        staging.rename(target)
    except BaseException:
        previous.rename(target)
        raise
    finally:
        if target.exists():
            shutil.rmtree(previous.parent, ignore_errors=True)
