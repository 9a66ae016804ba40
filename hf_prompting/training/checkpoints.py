"""Folders that are known to be whole: ``Trainer``'s checkpoints, and whatever else a run keeps on its way.

``Trainer`` writes a checkpoint file by file, so a process that dies leaves a folder that looks like one. Here a list of
the files with their sums is written last; only a folder that agrees with its list counts. ``Trainer`` reads the
pickles in a checkpoint with ``weights_only=True``, which builds tensors and runs nothing.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from hf_prompting.checksums import file_digest

MANIFEST = "manifest.json"
TRAINER_STATE = "trainer_state.json"


def seal_folder(folder: Path) -> None:
    """Declare a folder whole, by a list of its files with their SHA-256 sums. Call it when all is written.

    Example:
        >>> seal_folder(Path("checkpoints/checkpoint-20"))  # doctest: +SKIP
    """
    unfinished = folder / f".{MANIFEST}"
    unfinished.write_text(json.dumps(_sums(folder), indent=2) + "\n", encoding="utf-8")
    unfinished.replace(folder / MANIFEST)


def is_whole(folder: Path) -> bool:
    """Tell whether a folder was sealed and is as it was then.

    Example:
        >>> is_whole(Path("no such folder"))
        False
    """
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return bool(listed == _sums(folder))
    except (OSError, ValueError, RecursionError):
        return False


def newest_whole_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint to go on from: the newest whole one whose best checkpoint so far is whole as well.

    Args:
        folder: ``output_dir`` of a ``Trainer`` with the callback ``SealCheckpoints``.
    Example:
        >>> newest_whole_checkpoint(Path("no such folder")) is None
        True
    """
    return next((found for found in reversed(_checkpoints(folder)) if is_whole(found) and _best_is_whole(found)), None)


def drop_partial_checkpoints(folder: Path) -> None:
    """Delete the checkpoints that are not whole, so that nothing can take them for one.

    Example:
        >>> drop_partial_checkpoints(Path("checkpoints"))  # doctest: +SKIP
    """
    for checkpoint in _checkpoints(folder):
        if not is_whole(checkpoint):
            shutil.rmtree(checkpoint)


class SealCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Seal every checkpoint of a ``Trainer`` when all processes have written it, and only then delete older ones.

    ``Trainer`` itself would delete them before the new one is sealed, so leave ``save_total_limit`` unset: the newest
    and the best stay.

    Example:
        >>> Trainer(model=model, args=arguments, callbacks=[SealCheckpoints()])  # doctest: +SKIP
    """

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Find the best checkpoint again where the folder was moved; ``Trainer`` remembers an absolute path."""
        if state.best_global_step and state.best_model_checkpoint is None:
            best = _checkpoint(Path(args.output_dir), state.best_global_step)
            if best.is_dir():
                state.best_model_checkpoint = str(best)

    def on_save(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Seal the checkpoint that was just written."""
        args.distributed_state.wait_for_everyone()
        if state.is_world_process_zero:
            seal_folder(_checkpoint(Path(args.output_dir), state.global_step))
            if args.save_total_limit is None:
                best = state.best_model_checkpoint
                rotate_checkpoints(args.output_dir, save_total_limit=1, best_model_checkpoint=best)
        args.distributed_state.wait_for_everyone()


def _sums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name.lstrip(".") != MANIFEST)
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def _checkpoint(folder: Path, step: int) -> Path:
    return folder / f"{PREFIX_CHECKPOINT_DIR}-{step}"


def _checkpoints(folder: Path) -> list[Path]:
    """All folders named like checkpoints, the earliest first."""
    found = [path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.is_dir() and _step(path) is not None]
    return sorted(found, key=lambda path: _step(path) or 0)


def _step(checkpoint: Path) -> int | None:
    number = checkpoint.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
    return int(number) if number.isascii() and number.isdigit() else None


def _best_is_whole(checkpoint: Path) -> bool:
    best = json.loads((checkpoint / TRAINER_STATE).read_text(encoding="utf-8")).get("best_global_step")
    return not best or is_whole(_checkpoint(checkpoint.parent, best))
