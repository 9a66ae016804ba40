"""Ctrl-C and a scheduler's SIGTERM: save a checkpoint after the step, then stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

from hf_prompting.errors import Interrupted
from hf_prompting.processes import is_main_process

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Let SIGTERM raise ``Interrupted`` as Ctrl-C raises ``KeyboardInterrupt``, so that locks and folders are tidied.

    Outside of a program's main thread nothing changes: Python allows signal handlers only there.

    Example:
        >>> with signals_as_exceptions():  # doctest: +SKIP
        ...     trainer.train()
    """
    with _handling(_raise):
        yield


class SaveBeforeStop(TrainerCallback):  # type: ignore[misc]
    """Ask ``Trainer`` for a checkpoint at the end of the step in which a signal came, and stop when it is saved.

    Use it as a context manager around ``trainer.train()``, and add it behind ``SealCheckpoints``. A second signal stops
    at once. Several processes agree at every step, so that none waits for one that has left.

    Raises:
        Interrupted: after the checkpoint; its exit code is what a shell expects of the signal.
    Example:
        >>> with SaveBeforeStop() as stop:  # doctest: +SKIP
        ...     trainer.add_callback(stop)
        ...     trainer.train()
    """

    def __init__(self) -> None:
        self.signal: int = 0
        self._handlers = _handling(self._note)

    def __enter__(self) -> SaveBeforeStop:
        self._handlers.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        self._handlers.__exit__(kind, *rest)
        if self.signal and kind is None:  # it came after the last step
            raise Interrupted(self.signal)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint if a signal came to any process."""
        if self._agreed(args):
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop, now that the checkpoint is there."""
        if number := self._agreed(args):
            raise Interrupted(number)

    def _agreed(self, args: Any) -> int:
        """Return the signal that came to this or to any other process, or 0."""
        if args.world_size == 1:
            return self.signal
        numbers = torch.tensor([self.signal], device=args.device)
        torch.distributed.all_reduce(numbers, op=torch.distributed.ReduceOp.MAX)
        return int(numbers.item())

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            _raise(number, frame)
        self.signal = number
        # print() is not allowed in a signal handler that may have interrupted a print().
        if is_main_process():
            os.write(2, b"\ninterrupted: saving a checkpoint after this step (once more stops at once)\n")


@contextmanager
def _handling(handler: Any) -> Iterator[None]:
    previous: dict[int, Any] = {}
    try:
        for number in SIGNALS:
            previous[int(number)] = signal.signal(number, handler)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        for caught, old in previous.items():
            signal.signal(caught, old)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)
