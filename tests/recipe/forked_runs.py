"""Runs in processes of their own that are killed, interrupted, or out of disk; a script of the tests beside it.

Each run is forked from this process, which has imported everything and computed nothing: a fresh process in some
milliseconds instead of seconds. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_prompting.cli import app
from hf_prompting.recipe import run  # noqa: F401  the heavy import, once

PATIENCE = 120  # seconds; a run takes two


def begin(*arguments: str, setup: Callable[[], None] = lambda: None) -> int:
    """Start ``hf-prompting ARGUMENTS`` in a process of its own, with its output in the file ``said``."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        said = os.open("said", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(said, 1)
        os.dup2(said, 2)
        setup()
        app(list(arguments))
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 99
    except BaseException as error:
        code = getattr(error, "exit_code", 99)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def end(child: int) -> int:
    """Wait for a run; return its exit code, or minus the signal that killed it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    raise TimeoutError(f"a run took over {PATIENCE} s: {said()}")


def said() -> str:
    return Path("said").read_text(encoding="utf-8", errors="replace")


def wait_for(path: Path, child: int) -> bool:
    """Wait until a path exists; false if the run ended before."""
    while not path.exists():
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return False
        time.sleep(0.0005)
    return True


def numbers(folder: Path) -> dict[str, Any]:
    """What a run found, without times."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    losses = [entry["loss"] for entry in metrics["learning_curve"] if "loss" in entry]
    seeds = [{**seed, "seconds": 0} for seed in metrics["seeds"]]
    return {"losses": losses, "seeds": seeds, "weights": (folder / "model.safetensors").read_bytes().hex()}


def killed(recipe: str, rounds: int, max_steps: int) -> dict[str, Any]:
    """Kill runs at random moments and go on with each, killing some of those as well."""
    chance = random.Random(0)
    settings = ("run", recipe, "--set", f"training.max_steps={max_steps}")
    assert end(begin(*settings, "--output-dir", "whole")) == 0, said()
    whole = numbers(Path("whole"))
    report: dict[str, Any] = {"rounds": rounds, "equal": 0, "killed": 0, "partial": 0, "at": []}
    for number in range(rounds):
        checkpoints = Path(f".out-{number}.unfinished/checkpoints-0")
        arguments = (*settings, "--output-dir", f"out-{number}", "--resume")
        for _ in range(chance.choice((1, 1, 2))):
            child = begin(*arguments)
            step = chance.randrange(1, max_steps)
            if wait_for(checkpoints / f"checkpoint-{step}", child):
                time.sleep(chance.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
            report["killed"] += end(child) == -signal.SIGKILL
            report["at"].append(step)
            found = list(checkpoints.glob("checkpoint-*"))
            report["partial"] += sum(not (checkpoint / "manifest.json").exists() for checkpoint in found)
        if not Path(f"out-{number}").exists():
            assert end(begin(*arguments)) == 0, said()
        report["equal"] += numbers(Path(f"out-{number}")) == whole
    return report


def signalled(recipe: str) -> dict[str, Any]:
    """Interrupt a run as Ctrl-C and as a scheduler does, then go on."""
    report = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        name = signal.Signals(number).name
        arguments = ("run", recipe, "--set", "training.max_steps=40", "--output-dir", name)
        child = begin(*arguments)
        wait_for(Path(f".{name}.unfinished/checkpoints-0/checkpoint-3"), child)
        os.kill(child, number)
        code = end(child)
        words = said()
        report[name] = {"code": code, "said": words, "resumed": end(begin(*arguments, "--resume"))}
    return report


def second(recipe: str) -> dict[str, Any]:
    """Start a run into a folder that another run is writing."""
    arguments = ("run", recipe, "--set", "training.max_steps=40", "--output-dir", "both")
    first = begin(*arguments)
    wait_for(Path(".both.unfinished/checkpoints-0/checkpoint-2"), first)
    os.kill(first, signal.SIGSTOP)
    code = end(begin(*arguments, "--overwrite"))
    words = said()
    os.kill(first, signal.SIGCONT)
    return {"second": code, "said": words, "first": end(first)}


def memory(recipe: str) -> dict[str, Any]:
    """Run a batch that does not fit into the memory that the process may have."""

    def limit() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))

    large = ("--set", "training.per_device_train_batch_size=8000", "--set", "data.train=large.jsonl")
    code = end(begin("run", recipe, *large, "--output-dir", "memory", setup=limit))
    return {"code": code, "said": said()}


def disk(recipe: str) -> dict[str, Any]:
    """Run on a disk that is too small, make room, go on; then write to a disk that is read-only."""

    def mount(*options: str) -> None:
        subprocess.run(["mount", *options, "small"], check=True, capture_output=True)

    settings = ("run", recipe, "--set", "training.max_steps=12")
    assert end(begin(*settings, "--output-dir", "whole")) == 0, said()
    Path("small").mkdir()
    report: dict[str, Any] = {}
    for size in (40, 80, 120, 160, 200, 240):  # kilobytes: from not one checkpoint to almost enough
        mount("-t", "tmpfs", "-o", f"size={size}k", "tmpfs")
        code = end(begin(*settings, "--output-dir", "small/out"))
        report[str(size)] = {"code": code, "said": said(), "output": Path("small/out").exists()}
        if code:
            mount("-o", "remount,size=50m")
            report[str(size)]["resumed"] = end(begin(*settings, "--output-dir", "small/out", "--resume"))
        report[str(size)]["equal"] = numbers(Path("small/out")) == numbers(Path("whole"))
        subprocess.run(["umount", "small"], check=True)
    mount("-t", "tmpfs", "-o", "ro", "tmpfs")
    report["read-only"] = {"code": end(begin(*settings, "--output-dir", "small/out")), "said": said()}
    return report


SCENES: dict[str, Callable[..., dict[str, Any]]] = {
    "killed": killed,
    "disk": disk,
    "quick": lambda recipe: {"signalled": signalled(recipe), "second": second(recipe), "memory": memory(recipe)},
}

if __name__ == "__main__":
    print(json.dumps(SCENES[sys.argv[1]](sys.argv[2], *map(int, sys.argv[3:]))))
