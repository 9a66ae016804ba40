"""Share the work on a stream between processes: one reads, all work, the results come in the order of the stream."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from hf_prompting.errors import HfPromptingError
from hf_prompting.processes import gathered, handed_out, is_main_process, num_processes

Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(
    items: Iterable[Item], size: int, work: Callable[[list[Item]], tuple[list[Result], HfPromptingError | None]]
) -> Iterator[Result]:
    """Work on chunks of a stream, one a process at a time; every process yields all results in order.

    Args:
        items: the stream; only process 0 reads it, so it may be standard input.
        size: items of a chunk.
        work: gives the results of a chunk, and the error that ended them, if any.
    Yields:
        What ``work`` gave, in the order of the items.
    Raises:
        HfPromptingError: in every process, after all results before it were yielded.
    Example:
        >>> list(spread([1, 2, 3], 2, lambda chunk: ([10 * item for item in chunk], None)))
        [10, 20, 30]
    """
    remaining = iter(items)
    is_last = False
    while not is_last:
        chunks: list[tuple[list[Item], HfPromptingError | None, bool]] = []
        if is_main_process():
            read, error, is_last = _read(remaining, size * num_processes())
            parts = (read[size * n : size * (n + 1)] for n in range(num_processes()))
            chunks = [(part, error, is_last) for part in parts]
        chunk, read_error, is_last = handed_out(chunks)
        for results, error in gathered(work(chunk) if chunk else ([], None)):
            yield from results
            if error is not None:
                raise error
        if read_error is not None:
            raise read_error


def _read(remaining: Iterator[Item], count: int) -> tuple[list[Item], HfPromptingError | None, bool]:
    """Read up to ``count`` items; also say why reading broke off, and whether it is at its end."""
    read: list[Item] = []
    try:
        for item in itertools.islice(remaining, count):
            read.append(item)
    except HfPromptingError as error:
        return read, error, True
    return read, None, len(read) < count
