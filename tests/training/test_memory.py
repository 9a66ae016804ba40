"""Memory that really runs out gives advice instead of a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from hf_prompting.errors import TrainingError
from hf_prompting.training import out_of_memory_says

# The address space of a process is limited to what it has now and a little more; then a step asks for 8 GB.
RUNS_OUT = """
import resource
import torch
from hf_prompting.errors import TrainingError
from hf_prompting.training.memory import out_of_memory_says

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
try:
    with out_of_memory_says("lower training.per_device_train_batch_size"):
        torch.empty(2**31, dtype=torch.float32)
except TrainingError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space, which only Linux keeps to")
def test_a_batch_too_large_for_the_memory_names_what_to_lower() -> None:
    result = subprocess.run([sys.executable, "-c", RUNS_OUT], capture_output=True, text=True, timeout=120)
    assert result.stdout.startswith("out of memory: lower training.per_device_train_batch_size."), result.stderr
    assert "allocate" in result.stdout


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ..."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        RuntimeError("std::bad_alloc"),
        MemoryError(),
    ],
)
def test_every_way_to_say_it_is_understood(error: Exception) -> None:
    explained = pytest.raises(TrainingError, match=r"^out of memory: lower it\. PyTorch says: [^\n]+$")
    with explained, out_of_memory_says("lower it"):
        raise error


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"), out_of_memory_says("lower it"):
        raise RuntimeError("size mismatch")
