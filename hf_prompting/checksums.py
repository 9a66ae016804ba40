"""SHA-256 sums of saved files: what a damaged disk, a cut download or a slip of an editor cannot get past in silence.

A saved model or tokenizer keeps the sums where it keeps its settings, under ``checksums`` of ``config.json`` and
``tokenizer_config.json``: the sums of the files beside it, and that of the settings themselves. So they travel with
every copy, push and checkpoint, and need no file of their own. They are no signature: whoever may write the folder may
write the sums too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from hf_prompting.errors import ArtifactError

KEY = "checksums"
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder", "_commit_hash")
PUSH_ARGUMENTS = ("repo_id", "commit_message", "private", "token", "create_pr", "tags")


class SealsWhatItSaves:
    """Mixin for a model or tokenizer: ``save_pretrained`` records the sums of its files.

    Attributes:
        settings_file: the JSON file that keeps the sums.
        sealed_files: what it vouches for.
    """

    settings_file: str
    sealed_files: tuple[str, ...]

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Save as transformers does, and write the sums into the settings; only then push, if asked to."""
        push = {name: kwargs.pop(name) for name in PUSH_ARGUMENTS if name in kwargs}
        wants_push = kwargs.pop("push_to_hub", False)
        saved = super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        settings = Path(save_directory) / self.settings_file
        if kwargs.get("is_main_process", True) and settings.is_file():
            seal(settings, self.sealed_files)
        if wants_push:
            self.push_to_hub(push.pop("repo_id", Path(save_directory).name), **push)  # type: ignore[attr-defined]
        return saved


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Example:
        >>> file_digest(Path("model.safetensors"))[:8]  # doctest: +SKIP
        '1f0c7f7a'
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seal(settings: Path, names: Iterable[str]) -> None:
    """Write the sums of the files beside a JSON file, and its own, into it.

    Args:
        settings: the JSON file, such as ``config.json``; replaced in one step.
        names: names of the files beside it; those that do not exist are left out.
    Example:
        >>> seal(Path("out/config.json"), ["model.safetensors"])  # doctest: +SKIP
    """
    values = json.loads(settings.read_text(encoding="utf-8"))
    sums = {name: file_digest(settings.parent / name) for name in names if (settings.parent / name).is_file()}
    values[KEY] = {**sums, settings.name: _own_digest(values)}
    new = settings.with_name(f".{settings.name}.new")
    try:
        new.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        new.replace(settings)
    finally:
        new.unlink(missing_ok=True)


def reseal(settings: Path) -> None:
    """Write the sums again after this library itself changed the settings; files without sums stay without.

    Args:
        settings: the JSON file, such as ``config.json``.
    Example:
        >>> reseal(Path("out/config.json"))  # doctest: +SKIP
    """
    sums = json.loads(settings.read_text(encoding="utf-8")).get(KEY)
    if isinstance(sums, dict):
        seal(settings, [name for name in sums if name != settings.name])


def verify(settings: Path, find: Callable[[str], Path | None]) -> None:
    """Make sure that a JSON file and the files it vouches for are as they were saved.

    ``"checksums": null`` says that someone changed the settings on purpose; then nothing is compared.

    Args:
        settings: the JSON file.
        find: gives the place of a file by its name (a folder, or the Hub's cache), or ``None``.
    Raises:
        ArtifactError: a file is missing, damaged or was changed; the message names it and the ways out.
    Example:
        >>> verify(Path("out/config.json"), lambda name: Path("out") / name)  # doctest: +SKIP
    """
    way_out = f'save or download it again, or, if you changed it on purpose, write "{KEY}": null in {settings.name}'
    values = _read(settings)
    if KEY not in values:
        raise ArtifactError(f"{settings} holds no {KEY}, so it is damaged or was not saved to the end; {way_out}")
    if values[KEY] is None:
        return
    sums = values[KEY]
    if not isinstance(sums, dict) or sums.get(settings.name) != _own_digest(values):
        raise ArtifactError(f"{settings} is not as it was saved (its SHA-256 differs); {way_out}")
    for name, wanted in sums.items():
        file = settings if name == settings.name else find(name)
        if file is None or not file.is_file():
            raise ArtifactError(f"{name} is missing beside {settings}; {way_out}")
        if file is not settings and file_digest(file) != wanted:
            raise ArtifactError(f"{file} is not as it was saved (its SHA-256 differs); {way_out}")


def verify_pretrained(folder: str | os.PathLike[str], settings_file: str, hub: dict[str, Any]) -> None:
    """Verify a saved folder or a repository on the Hub; one without the settings file is left to transformers' error.

    Args:
        folder: path or Hub id.
        settings_file: name of the JSON file.
        hub: arguments of ``from_pretrained``; those that say where the files are count.
    Raises:
        ArtifactError: see ``verify``.
    Example:
        >>> verify_pretrained("out", "config.json", {})  # doctest: +SKIP
    """
    where = {name: hub[name] for name in HUB_ARGUMENTS if name in hub}

    def find(name: str) -> Path | None:
        found = cached_file(str(folder), name, _raise_exceptions_for_missing_entries=False, **where)
        return None if found is None else Path(found)

    settings = find(settings_file)
    if settings is not None:
        verify(settings, find)


def _read(settings: Path) -> dict[str, Any]:
    try:
        values = json.loads(settings.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{settings} is unreadable or no JSON: {error}; save or download it again") from error
    if not isinstance(values, dict):
        raise ArtifactError(f"{settings} holds no JSON object; save or download it again")
    return values


def _own_digest(values: dict[str, Any]) -> str:
    """Of the settings without their sums, whatever the spacing and the order of the keys."""
    rest = {name: value for name, value in values.items() if name != KEY}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
