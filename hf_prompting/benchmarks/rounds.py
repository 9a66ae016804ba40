"""Contenders in processes of their own, taking turns, so that a busy moment of the machine meets all of them."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hf_prompting.benchmarks import worker
from hf_prompting.errors import BenchmarkError

_SHOWN_LINES = 15  # of a failed contender's own words


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to do the same job.

    Args:
        name: for table and picture.
        file: Python file that holds ``function``.
        function: called once with ``settings``; returns what does one round and gives back a dictionary of plain values
            (losses, scores) to compare.
        settings: plain values.
        python: interpreter to run it with; another environment's where it needs older libraries.
        may_fail: record a failure instead of raising it.
    """

    name: str
    file: Path
    function: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    python: Path = Path(sys.executable)
    may_fail: bool = False


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What the rounds of one contender showed.

    Attributes:
        name: of the contender.
        seconds: of each counted round.
        held_bytes: memory of the process when it was ready, its model loaded.
        peak_bytes: the most memory that the process held during a counted round.
        facts: what the last round returned.
        error: why it could not run; then there are no seconds.
    """

    name: str
    seconds: tuple[float, ...] = ()
    held_bytes: int = 0
    peak_bytes: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def median(self) -> float:
        """Median seconds of a round; NaN where it could not run."""
        return statistics.median(self.seconds) if self.seconds else float("nan")

    @property
    def spread(self) -> float:
        """Slowest minus fastest round, over the median."""
        return (max(self.seconds) - min(self.seconds)) / self.median if self.seconds else float("nan")


def take_turns(
    contenders: Sequence[Contender],
    *,
    num_rounds: int,
    num_warmup: int = 1,
    timeout: float = 300.0,
    on_round: Callable[[str], None] = lambda name: None,
) -> dict[str, Timing]:
    """Run all contenders, one round each in turn, in an order that rotates.

    Args:
        contenders: with distinct names.
        num_rounds: counted rounds of each.
        num_warmup: rounds before them that are not counted.
        timeout: seconds that preparing, or one round, may take.
        on_round: told the contender's name before each of its rounds.
    Returns:
        name -> ``Timing``, in the order given.
    Raises:
        BenchmarkError: a contender that must not fail did, or took too long; its last words are quoted.
    Example:
        >>> take_turns([ours, theirs], num_rounds=5)["ours"].median  # doctest: +SKIP
        0.31
    """
    found: dict[str, list[dict[str, Any]]] = {contender.name: [] for contender in contenders}
    held: dict[str, int] = {}
    errors: dict[str, str] = {}
    with ExitStack() as stack:
        on_round("prepare " + ", ".join(contender.name for contender in contenders))
        processes = {
            contender.name: stack.enter_context(_Process(contender, timeout)) for contender in contenders
        }  # all are started before any is waited for
        for contender in contenders:
            try:
                held[contender.name] = processes[contender.name].receive()["held_bytes"]
            except BenchmarkError as error:
                _note(contender, error, errors)
        for number in range(num_warmup + num_rounds):
            for place in range(len(contenders)):
                contender = contenders[(place + number) % len(contenders)]
                if contender.name in errors:
                    continue
                on_round(contender.name)
                try:
                    answer = processes[contender.name].one_round()
                except BenchmarkError as error:
                    _note(contender, error, errors)
                    continue
                if number >= num_warmup:
                    found[contender.name].append(answer)
    return {
        name: Timing(name=name, error=errors[name])
        if name in errors
        else Timing(
            name=name,
            seconds=tuple(answer["seconds"] for answer in answers),
            held_bytes=held[name],
            peak_bytes=max(answer["peak_bytes"] for answer in answers),
            facts=answers[-1]["facts"],
        )
        for name, answers in found.items()
    }


def _note(contender: Contender, error: BenchmarkError, errors: dict[str, str]) -> None:
    if not contender.may_fail:
        raise error
    # A result is published: what went wrong, without the lines of the traceback, which name this machine's folders.
    what, _, words = str(error).partition("; its last words:")
    errors[contender.name] = ": ".join([what, *words.strip().splitlines()[-1:]])


class _Process:
    """A contender's process, and its lines in and out."""

    def __init__(self, contender: Contender, timeout: float) -> None:
        self.contender = contender
        self.timeout = timeout

    def __enter__(self) -> _Process:
        self.words: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        command = [str(self.contender.python), worker.__file__, str(self.contender.file), self.contender.function]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.words, text=True, encoding="utf-8"
        )
        self._send(json.dumps(dict(self.contender.settings)))
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue
        self.words.close()

    def one_round(self) -> dict[str, Any]:
        self._send("round")
        return self.receive()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        timer = threading.Timer(self.timeout, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        in_time = timer.is_alive()
        timer.cancel()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self.process.wait()
        self.words.seek(0)
        words = "\n".join(self.words.read().strip().splitlines()[-_SHOWN_LINES:])
        reason = f"ended with code {self.process.returncode}" if in_time else f"took more than {self.timeout:g} s"
        raise BenchmarkError(f"contender {self.contender.name!r} {reason}; its last words:\n{words}")

    def _send(self, line: str) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return  # it has ended; ``receive`` says why
