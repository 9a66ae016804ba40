"""The machine that numbers were measured on, and how fast it multiplies matrices."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hf_prompting.artifacts import installed_versions
from hf_prompting.cpu_products import linear

_CPU_INFO = Path("/proc/cpuinfo")
_MEMORY_INFO = Path("/proc/meminfo")


def describe_machine() -> dict[str, Any]:
    """Return what the numbers depend on: processor, threads, memory, versions; no names of hosts, users or folders.

    Example:
        >>> sorted(describe_machine())
        ['accelerator', 'architecture', 'cores', 'cpu', 'memory_bytes', 'python', 'system', 'threads', 'versions']
    """
    return {
        "cpu": _first(_CPU_INFO, "model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": int((_first(_MEMORY_INFO, "MemTotal") or "0 kB").split()[0]) * 1024,
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": installed_versions(),
    }


def matrix_rates(*, size: int = 1536, seconds: float = 1.5) -> dict[str, float]:
    """Measure the float32 operations per second of this process's threads in a square matrix product.

    The fastest of all products counts: it is the limit that a model's operations are held against, and other work on
    the machine can only lower it.

    Args:
        size: rows and columns of the matrices; large enough for the product to be bound by operations, not bytes.
        seconds: how long to measure.
    Returns:
        ``torch_rate`` of ``torch.mm``, and ``rate``, the best that is known here: that, or oneDNN's.
    Example:
        >>> sorted(matrix_rates(size=64, seconds=0.01))
        ['rate', 'torch_rate']
    """
    left, right = torch.rand(size, size), torch.rand(size, size)
    best: dict[Callable[[Tensor, Tensor], Tensor], float] = {torch.mm: float("inf"), linear: float("inf")}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for product in best:
            start = time.perf_counter()
            product(left, right)
            best[product] = min(best[product], time.perf_counter() - start)
    operations = 2 * size**3
    return {"rate": operations / min(best.values()), "torch_rate": operations / best[torch.mm]}


def _first(file: Path, key: str) -> str | None:
    if not file.is_file():
        return None
    lines = (line.partition(":") for line in file.read_text(encoding="utf-8").splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), None)
