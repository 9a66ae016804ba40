"""Out of memory, in words that say what to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hf_prompting.errors import TrainingError

# How PyTorch words it where it has no error class of its own: the CPU allocator, C++, cuBLAS and oneDNN.
MESSAGES = ("can't allocate memory", "not enough memory", "bad_alloc", "ALLOC_FAILED", "out of memory")


@contextmanager
def out_of_memory_says(advice: str) -> Iterator[None]:
    """Turn whatever PyTorch raises when memory runs out into one error with advice.

    Args:
        advice: what to lower.
    Raises:
        TrainingError: memory ran out in the block. Other errors pass.
    Example:
        >>> with out_of_memory_says("lower evaluation.batch_size"):  # doctest: +SKIP
        ...     model(**batch)
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TrainingError(f"out of memory: {advice}. PyTorch says: {reason[:200]}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out.

    Example:
        >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"))
        True
    """
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or (isinstance(error, RuntimeError) and any(text in str(error) for text in MESSAGES))
