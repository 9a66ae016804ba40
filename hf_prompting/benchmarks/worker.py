"""The process of one contender: prepare, then do a round whenever the parent says so. Standard library only.

It is run as a file, by any Python, so that a contender which needs an old library can live in another environment:
``python worker.py CONTENDER.py FUNCTION`` with the settings as one JSON line on standard input. ``FUNCTION(settings)``
prepares and returns what does one round: a callable without arguments that returns a dictionary of plain values.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")
_FORGET_PEAK = Path("/proc/self/clear_refs")


def main() -> None:
    """Answer on the real standard output, one JSON line a message; whatever the contender prints goes to the errors."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    file, function = sys.argv[1:3]
    sys.path.pop(0)  # this folder: its file names must not shadow anyone's modules
    one_round = getattr(_module(file), function)(json.loads(sys.stdin.readline()))
    _answer(answers, {"held_bytes": memory("VmRSS")})
    for _ in sys.stdin:
        _forget_peak()
        before = memory("VmHWM")
        start = time.perf_counter()
        facts = one_round()
        seconds = time.perf_counter() - start
        _answer(answers, {"seconds": seconds, "peak_bytes": memory("VmHWM"), "before_bytes": before, "facts": facts})


def memory(name: str) -> int:
    """Return a line of Linux's account of this process in bytes (``VmRSS`` now, ``VmHWM`` peak); else the peak."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _forget_peak() -> None:
    try:
        _FORGET_PEAK.write_text("5")
    except OSError:  # not Linux, or not allowed: the peak then counts from the start of the process
        return


def _module(file: str) -> Any:
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _answer(answers: Any, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
