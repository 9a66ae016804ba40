"""Where on this machine a base model's folder is, kept beside the cache so that no saved file has to hold a path.

A saved prompt names a local base by its folder's name and its fingerprint. The path, which is private and means nothing
on another machine, stays here: one small file for each base, found by the fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path

from hf_prompting.bases.cache import cache_folder
from hf_prompting.bases.fingerprint import BaseFingerprint

logger = logging.getLogger(__name__)


def remember_folder(path: Path, fingerprint: BaseFingerprint) -> None:
    """Note where a base model was found; a cache that cannot be written is only reported.

    Args:
        path: the base model's folder.
        fingerprint: of the model that was loaded from it.

    Example:
        >>> remember_folder(Path("my-base"), fingerprint_base(model))  # doctest: +SKIP
    """
    record = _record(path.name, fingerprint)
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=record.parent, encoding="utf-8", delete=False) as file:
            json.dump({"path": str(path.absolute())}, file)
        os.replace(file.name, record)  # noqa: PTH105  whole or not at all, also among several processes
    except OSError as error:
        logger.warning("the place of %s cannot be noted (%s); loading will need base_model=...", path.name, error)


def find_folder(name: str, fingerprint: BaseFingerprint | None, *, beside: Path | None = None) -> Path | None:
    """Find a base model's folder: where it was when a prompt was tuned on it, else beside the saved prompt.

    Args:
        name: of the folder.
        fingerprint: of the base that is wanted.
        beside: the saved prompt's folder; the base may have moved together with it.

    Returns:
        A folder with a config.json, or None. Whoever loads it still compares the fingerprint.

    Example:
        >>> find_folder("nothing", None) is None
        True
    """
    places = [] if fingerprint is None else _recorded(_record(name, fingerprint))
    if beside is not None and name == Path(name).name:  # a name from a foreign config.json must not lead elsewhere
        places.append(beside.absolute().parent / name)
    return next((place for place in places if (place / "config.json").is_file()), None)


def _record(name: str, fingerprint: BaseFingerprint) -> Path:
    key = hashlib.sha256(json.dumps([name, fingerprint.to_dict()]).encode()).hexdigest()[:32]
    return cache_folder().with_name("folders") / f"{key}.json"


def _recorded(record: Path) -> list[Path]:
    try:
        return [Path(json.loads(record.read_text(encoding="utf-8"))["path"])]
    except (OSError, ValueError, KeyError, TypeError):
        return []
