"""The folder of converted base models: one folder a GGUF file, complete or absent, made by one process only."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from huggingface_hub import constants
from safetensors import SafetensorError

from hf_prompting.bases.convert import convert_gguf
from hf_prompting.bases.fingerprint import BaseFingerprint, fingerprint_base
from hf_prompting.bases.gguf import checked_file
from hf_prompting.bases.source import BaseModelSource, GgufFile
from hf_prompting.errors import BaseModelError, HfPromptingError

FORMAT_VERSION = 1
RECORD_NAME = "base_model.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConvertedBase:
    """One complete folder of the cache.

    Args:
        folder: holds config.json, model.safetensors, the tokenizer's files and base_model.json.
        id: the base model's identity, a Hub id.
        revision: the Hub revision that the GGUF file stands for, if its source named one.
        sha256: checksum of the GGUF file it was made from.
        fingerprint: of the converted weights.
    """

    folder: Path
    id: str
    revision: str | None
    sha256: str
    fingerprint: BaseFingerprint


def cache_folder() -> Path:
    """Where converted base models are kept: ``$HF_PROMPTING_CACHE/bases``, else ``$HF_HOME/hf_prompting/bases``.

    Example:
        >>> cache_folder().name
        'bases'
    """
    root = os.environ.get("HF_PROMPTING_CACHE") or Path(constants.HF_HOME) / "hf_prompting"
    return Path(root).expanduser() / "bases"


def find_converted(id: str, *, sha256: str | None = None, revision: str | None = None) -> ConvertedBase | None:
    """The newest complete folder of this id, or None.

    Args:
        id: Hub id, compared exactly.
        sha256: accept only a conversion of this GGUF file.
        revision: accept only a conversion that stands for this Hub revision.

    Example:
        >>> find_converted("nobody/nothing") is None
        True
    """
    found = []
    for record in cache_folder().glob(f"[!.]*/{RECORD_NAME}"):
        base = _read_record(record)
        if base is None or base.id != id or sha256 not in (None, base.sha256):
            continue
        if revision in (None, base.revision):
            found.append((record.stat().st_mtime, base))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def convert_into_cache(source: BaseModelSource, gguf: GgufFile, paths: tuple[Path, ...]) -> ConvertedBase:
    """Convert a GGUF file once; later calls, and other processes meanwhile, get the same folder.

    The folder is written under a temporary name and renamed when everything is on the disk, so that a process killed
    halfway leaves nothing that could be taken for a model.

    Args:
        source: names the identity to record.
        gguf: the file wanted.
        paths: its installed parts.

    Raises:
        BaseModelError: if the file is damaged, cannot be read, or the disk is full.
    """
    readable_id = re.sub(r"[^\w.-]+", "--", source.id).strip(".-")
    folder = cache_folder() / f"{readable_id}--{gguf.sha256[:12]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            # Another process may have finished while this one waited for the lock.
            return find_converted(source.id, sha256=gguf.sha256) or _convert(source, gguf, paths, folder)
    except HfPromptingError:
        raise
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as its own error
        raise BaseModelError(
            f"cannot convert {source.id} into {folder}: {error}. Free some space (about 4 bytes for each parameter) or "
            "set HF_PROMPTING_CACHE to another folder"
        ) from error


def _convert(source: BaseModelSource, gguf: GgufFile, paths: tuple[Path, ...], folder: Path) -> ConvertedBase:
    logger.warning("Converting %s from %s, once, into %s (up to a minute)", source.id, paths[0].name, folder)
    with _replacing(folder) as unfinished:
        with tempfile.TemporaryDirectory(dir=unfinished) as scratch:
            model = convert_gguf(checked_file(gguf, paths, Path(scratch)), unfinished)
        fingerprint = fingerprint_base(model)
        _write_record(unfinished, source, gguf, fingerprint)
    return ConvertedBase(folder, source.id, source.revision, gguf.sha256, fingerprint)


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` in one step if the block succeeds; needs the lock."""
    prefix = f".unfinished-{folder.name}-"
    for stale in folder.parent.glob(f"{prefix}*"):  # left by killed processes: a live one would hold the lock
        shutil.rmtree(stale, ignore_errors=True)
    unfinished = folder.with_name(f"{prefix}{os.getpid()}")
    unfinished.mkdir()
    try:
        yield unfinished
        for path in [*unfinished.iterdir(), unfinished]:
            _flush(path)
        if folder.exists():  # incomplete, or it would have been found
            folder.rename(unfinished.with_name(f"{unfinished.name}-old"))
        unfinished.replace(folder)
        _flush(folder.parent)
    finally:
        for leftover in folder.parent.glob(f"{prefix}*"):
            shutil.rmtree(leftover, ignore_errors=True)


def _flush(path: Path) -> None:
    """Wait until the file or folder is on the disk (folders cannot be opened on Windows)."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_record(folder: Path, source: BaseModelSource, gguf: GgufFile, fingerprint: BaseFingerprint) -> None:
    record = {
        "format_version": FORMAT_VERSION,
        "id": source.id,
        "revision": source.revision,
        "gguf_sha256": gguf.sha256,
        "fingerprint": fingerprint.to_dict(),
        "file_sizes": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
    }
    (folder / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _read_record(path: Path) -> ConvertedBase | None:
    """None for a folder of another format, or one whose files are missing or cut short."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format_version"] != FORMAT_VERSION:
            return None
        if any((path.parent / name).stat().st_size != size for name, size in record["file_sizes"].items()):
            return None
        fingerprint = BaseFingerprint.from_dict(record["fingerprint"])
        return ConvertedBase(path.parent, record["id"], record["revision"], record["gguf_sha256"], fingerprint)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
