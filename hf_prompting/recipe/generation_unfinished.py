"""The folder of a run that is not finished: checkpoints and models so far, from which ``--resume`` goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_prompting.errors import ArtifactError, HfPromptingError

RECIPE_OF_RUN = "recipe.json"


@contextmanager
def unfinished_folder(
    target: Path, *, recipe: Mapping[str, Any], resume: bool = False, discard: bool = False
) -> Iterator[Path]:
    """Give the folder ``.NAME.unfinished`` beside the target; it goes when the block ends well, and else stays.

    Args:
        target: where the finished folder will be.
        recipe: the run's values; a run is resumed with the same ones only.
        resume: use what an interrupted run left, if there is something.
        discard: delete what an interrupted run left.
    Yields:
        The folder, empty or as it was left.
    Raises:
        ArtifactError: an interrupted run is in the way, or is another one; or the disk is full.
    Example:
        >>> with unfinished_folder(Path("outputs/model"), recipe={}) as work:  # doctest: +SKIP
        ...     train(work / "checkpoints")
    """
    work = target.absolute().parent / f".{target.name}.unfinished"
    written = work / RECIPE_OF_RUN
    if resume and written.is_file():
        _check_same(written, recipe)
    elif discard:
        shutil.rmtree(work, ignore_errors=True)
    elif work.exists():
        raise ArtifactError(
            f"an interrupted run is kept in {work}; add --resume to go on with it, or --overwrite to drop it"
        )
    try:
        work.mkdir(parents=True, exist_ok=True)
        written.write_text(json.dumps(recipe, ensure_ascii=False, indent=2), encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"no folder for checkpoints can be made at {work}: {error.strerror or error}") from error
    try:
        yield work
    except OSError as error:
        if isinstance(error, HfPromptingError):
            raise
        raise ArtifactError(f"checkpoints could not be written to {work}: {error}; free some space there") from error
    except KeyboardInterrupt as interrupt:
        if _has_progress(work):
            interrupt.add_note(f"what is trained so far is kept in {work}; add --resume to the same command to go on")
        raise
    else:
        shutil.rmtree(work, ignore_errors=True)
    finally:
        if not _has_progress(work):
            shutil.rmtree(work, ignore_errors=True)


def _has_progress(work: Path) -> bool:
    return any(work.glob("*/checkpoints/checkpoint-*")) or any(work.glob("*/result.json"))


def _check_same(written: Path, recipe: Mapping[str, Any]) -> None:
    before = json.loads(written.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(recipe))
    changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    if changed:
        raise ArtifactError(
            f"the interrupted run in {written.parent} had another recipe: {', '.join(changed)} changed; resume with "
            "the same values, or drop it with --overwrite"
        )
