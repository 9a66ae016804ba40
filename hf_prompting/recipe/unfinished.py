"""What a run keeps on its way, for ``--resume``: a folder beside the output with finished parts and checkpoints.

``outputs/.NAME.unfinished/`` holds ``run.json`` (what the run was asked to do), one sealed folder for every finished
part, and ``checkpoints-…`` of the part at work. It goes when the run is done, and when there is nothing in it to go on
from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from hf_prompting.artifacts import installed_versions
from hf_prompting.errors import ArtifactError, HfPromptingError, Interrupted, RecipeError
from hf_prompting.training import is_whole, newest_whole_checkpoint, seal_folder

RECORD = "run.json"
RESULT = "result.json"
GO_ON = "run the same command again with --resume to go on, or with --overwrite to begin anew"
# How torch.save and the Rust libraries word a full disk, in errors of no particular class.
WRITE_FAILURES = ("iostream", "PytorchStreamWriter", "unexpected pos", "(os error ")


def unfinished_folder(target: Path) -> Path:
    """Return where a run into ``target`` keeps its unfinished work.

    Example:
        >>> unfinished_folder(Path("outputs/reviews")).name
        '.reviews.unfinished'
    """
    target = Path(os.path.realpath(target))
    return target.parent / f".{target.name}.unfinished"


def run_record(recipe: Any, splits: Mapping[str, Iterable[Any] | None], base: Mapping[str, str]) -> dict[str, Any]:
    """Return what has to be the same for a run to be gone on with: the recipe's values, the rows, the base, versions.

    Args:
        recipe: the recipe's dataclass.
        splits: the rows by name, of plain values.
        base: the base model's fingerprint; empty without one.
    Example:
        >>> run_record(recipe, {"train": rows.table}, fingerprint.to_dict())["rows"]  # doctest: +SKIP
        {'train': '8d969eef…'}
    """
    values = dataclasses.asdict(recipe)
    values["output"].pop("dir")  # the record lies beside it
    rows = {name: _digest(rows) for name, rows in splits.items() if rows is not None}
    record = {"recipe": values, "rows": rows, "base": dict(base), "versions": installed_versions()}
    plain: dict[str, Any] = json.loads(json.dumps(record, default=str))
    return plain


@contextmanager
def run_folder(target: Path, *, record: Mapping[str, Any], resume: bool, overwrite: bool) -> Iterator[Path]:
    """Give the folder for a run's unfinished work: with ``resume`` that of an earlier run which was cut.

    Args:
        target: the output folder.
        record: from ``run_record``.
        resume: go on with an unfinished run, if there is one.
        overwrite: without ``resume``, throw an unfinished run away.
    Yields:
        The folder.
    Raises:
        ArtifactError: there is an unfinished run and nobody said what to do with it, or the disk is full.
        RecipeError: the unfinished run was asked to do something else; the message names each difference.
        Interrupted: a signal stopped the block; the message says how to go on.
    Example:
        >>> with run_folder(Path("out"), record=record, resume=True, overwrite=False) as work:  # doctest: +SKIP
        ...     pass
    """
    folder = unfinished_folder(target)
    try:
        _begin(folder, target, record, resume=resume, overwrite=overwrite)
    except OSError as error:
        if isinstance(error, HfPromptingError):
            raise
        raise ArtifactError(
            f"no folder for checkpoints can be made in {folder.parent}: {error.strerror or error}"
        ) from error
    finished = False
    try:
        yield folder
        finished = True
    except KeyboardInterrupt as error:
        how = GO_ON if can_go_on(folder) else "nothing was finished yet, so nothing is kept"
        raise Interrupted(getattr(error, "signal", signal.SIGINT), f"interrupted; {how}") from None
    except HfPromptingError:
        raise
    except Exception as error:
        is_writing = isinstance(error, OSError | SafetensorError) or any(word in str(error) for word in WRITE_FAILURES)
        if is_writing:
            raise _not_written(folder, error) from error
        raise
    finally:
        if finished or not can_go_on(folder):
            shutil.rmtree(folder, ignore_errors=True)


def keep_result(folder: Path, values: Mapping[str, Any]) -> None:
    """Finish a part of a run: write its result into its folder and seal that.

    Args:
        folder: the part's folder; made if it does not exist.
        values: plain JSON values.
    Example:
        >>> keep_result(work / "seed-0", {"score": 0.8})  # doctest: +SKIP
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    seal_folder(folder)


def kept_result(folder: Path) -> dict[str, Any] | None:
    """Return the result of a finished part, or ``None``; a folder that is not whole is deleted.

    Example:
        >>> kept_result(Path("no such folder")) is None
        True
    """
    if not is_whole(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return None
    values: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return values


def can_go_on(folder: Path) -> bool:
    """Tell whether an unfinished run holds a finished part or a whole checkpoint.

    Example:
        >>> can_go_on(Path("no such folder"))
        False
    """
    parts = [part for part in folder.glob("*") if part.is_dir()]
    return any(
        ((part / RESULT).is_file() and is_whole(part)) or newest_whole_checkpoint(part) is not None for part in parts
    )


def _begin(folder: Path, target: Path, record: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
    if folder.is_dir():
        earlier = _read_record(folder)
        if earlier is None and any(folder.iterdir()):
            raise ArtifactError(f"{folder} holds no {RECORD}, so hf_prompting did not make it; move it away")
        if earlier is not None and can_go_on(folder):
            if resume:
                _refuse_other_run(folder, earlier, record)
                return
            if not overwrite:
                raise ArtifactError(f"an unfinished run into {target} was found ({folder}); {GO_ON}")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    new = folder / f".{RECORD}"
    new.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    new.replace(folder / RECORD)


def _read_record(folder: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _refuse_other_run(folder: Path, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    before, after = _flat(earlier), _flat(now)
    changed = [
        f"{name.removeprefix('recipe.')} was {before.get(name)!r:.60} and is {after.get(name)!r:.60}"
        for name in sorted({**before, **after})
        if before.get(name) != after.get(name)
    ]
    if changed:
        raise RecipeError(
            f"--resume goes on with exactly what was begun ({folder}), but since then:\n  "
            + "\n  ".join(changed)
            + "\nChange it back, or begin anew with --overwrite instead of --resume"
        )


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        inner = f"{path}.{name}" if path else name
        flat.update(_flat(value, inner) if isinstance(value, Mapping) else {inner: value})
    return flat


def _digest(rows: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _not_written(folder: Path, error: Exception) -> ArtifactError:
    way_out = f"; then {GO_ON}" if can_go_on(folder) else ""
    return ArtifactError(f"checkpoints could not be written to {folder}: {error}; free some space there{way_out}")
