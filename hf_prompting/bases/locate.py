"""Where to load a base model from: a folder, a converted GGUF file, or the Hub, in this order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hf_prompting.bases.cache import convert_into_cache, find_converted
from hf_prompting.bases.gguf import installed_parts
from hf_prompting.bases.packaged import PACKAGED_BASES
from hf_prompting.bases.source import BaseModelSource
from hf_prompting.errors import BaseModelError


@dataclass(frozen=True)
class LocatedBase:
    """A place that ``from_pretrained`` understands.

    Args:
        id: the identity to record, whatever the place.
        path_or_id: an existing folder, or a Hub id.
        revision: only for a Hub id, and None for its default branch.
        is_local: whether `path_or_id` is a folder.
    """

    id: str
    path_or_id: str
    revision: str | None
    is_local: bool


def as_source(source: BaseModelSource | str) -> BaseModelSource:
    """The source with the GGUF file of its package, where the id is a known one and no other file is named.

    Example:
        >>> as_source("google/gemma-3-270m").gguf is None
        False
    """
    named = BaseModelSource(source) if isinstance(source, str) else source
    return named if named.gguf is not None else replace(named, gguf=PACKAGED_BASES.get(named.id))


def locate_base(source: BaseModelSource | str, *, revision: str | None = None) -> LocatedBase:
    """Find a base model on this machine, else leave it to the Hub.

    Tried in this order: the source's path; a folder of the id's name; a folder converted before from a GGUF file; the
    GGUF file of an installed package, which is converted now; the Hub id. Where the source names no GGUF file, a
    converted model stands in for the Hub's only if no revision is asked for, or it was recorded for that revision: ask
    for ``"main"`` to insist on the Hub's weights. Nothing is downloaded here.

    Args:
        source: a Hub id, the path of a folder, or both and more as a `BaseModelSource`.
        revision: takes the place of the source's revision.

    Returns:
        The place to load from and the identity to record.

    Raises:
        BaseModelError: if the source's path is no model folder, or its GGUF file is damaged.

    Example:
        >>> locate_base("nobody/nothing").path_or_id
        'nobody/nothing'
    """
    names_gguf = isinstance(source, BaseModelSource) and source.gguf is not None
    wanted = as_source(source)
    if revision is not None:
        wanted = replace(wanted, revision=revision)
    folder = _named_folder(wanted)
    if folder is None:
        folder = _converted_folder(wanted, names_gguf=names_gguf)
    if folder is not None:
        return LocatedBase(wanted.id, str(folder), None, is_local=True)
    return LocatedBase(wanted.id, wanted.id, wanted.revision, is_local=False)


def _named_folder(source: BaseModelSource) -> Path | None:
    if source.path is not None:
        path = Path(source.path).expanduser()
        if not (path / "config.json").is_file():
            raise BaseModelError(
                f"base model path {source.path!r} is not a folder with a config.json; allowed: a folder written by "
                "save_pretrained. Correct the path, or leave it out to use "
                f"{source.id!r} from the cache or the Hub"
            )
        return path
    path = Path(source.id).expanduser()
    return path if (path / "config.json").is_file() else None


def _converted_folder(source: BaseModelSource, *, names_gguf: bool) -> Path | None:
    # Whoever names a GGUF file wants exactly that one; then the revision is only for the Hub.
    sha256 = source.gguf.sha256 if names_gguf and source.gguf else None
    revision = None if names_gguf else source.revision
    found = find_converted(source.id, sha256=sha256, revision=revision)
    if found is None and source.gguf is not None and revision is None:
        paths = installed_parts(source.gguf)
        found = convert_into_cache(source, source.gguf, paths) if paths is not None else None
    return found.folder if found is not None else None
