"""One run in several processes: which one this is, who prints, and how they agree.

``accelerate launch`` and ``torchrun`` start the same command once per device and say in the environment who is who.
Training and evaluation share the work through ``Trainer``; this file holds what is left: process 0 alone prints and
writes, what it decided reaches the others, and one error gives one message. Torch is imported only where there is more
than one process.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

T = TypeVar("T")
_LETTING_GO = 0.5  # seconds
PATIENCE = timedelta(seconds=5)  # a mistake of the input is found by all processes within seconds; process 0 says it


def num_processes() -> int:
    """Return how many processes were started together.

    Example:
        >>> num_processes()
        1
    """
    return int(os.environ.get("WORLD_SIZE") or 1)


def process_index() -> int:
    """Return the number of this process, from 0.

    Example:
        >>> process_index()
        0
    """
    return int(os.environ.get("RANK") or 0)


def is_main_process() -> bool:
    """Tell whether this process prints and writes: process 0, or the only one.

    Example:
        >>> is_main_process()
        True
    """
    return process_index() == 0


def join_processes() -> None:
    """Connect the processes and silence all but process 0; does nothing in a run of one process.

    Without an accelerator the processes are joined on the CPU: libraries would otherwise take each for a run of its
    own, which would train as many times and save the last.

    Example:
        >>> join_processes()
    """
    if num_processes() == 1:
        return
    import torch
    from accelerate import PartialState

    if not torch.accelerator.is_available():
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    PartialState(cpu=os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true"))
    if not is_main_process():
        _be_silent()


def leave_processes() -> None:
    """Wait for the others at the end of a run, so that none is cut off while it still works.

    Example:
        >>> leave_processes()
    """
    if num_processes() == 1:
        return
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()
        # Gloo's thread still has to let go of the barrier's tensor, for which it needs Python's lock. A process group
        # that is destroyed holds the lock and waits for that thread (pytorch/pytorch#56297), so let it go first.
        time.sleep(_LETTING_GO)
        dist.destroy_process_group()


def agreed(value: T) -> T:
    """Return process 0's value in every process; all of them must call.

    Example:
        >>> agreed("a name that is drawn at random")
        'a name that is drawn at random'
    """
    if num_processes() == 1:
        return value
    import torch.distributed as dist

    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def gathered(value: T) -> list[T]:
    """Return the values of all processes, in their order, in every process; all of them must call.

    Example:
        >>> gathered(1)
        [1]
    """
    if num_processes() == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * num_processes()
    dist.all_gather_object(values, value)
    return values


def handed_out(values: list[T]) -> T:
    """Return value i of process 0's list in process i; all of them must call, and only process 0's list counts.

    Example:
        >>> handed_out(["mine"])
        'mine'
    """
    if num_processes() == 1:
        return values[0]
    import torch.distributed as dist

    mine: list[Any] = [None]
    dist.scatter_object_list(mine, list(values) if is_main_process() else None, src=0)
    return mine[0]  # type: ignore[no-any-return]


@contextmanager
def one_first() -> Iterator[None]:
    """Let one process of every machine go before its others, for work that fills a cache.

    Example:
        >>> with one_first():
        ...     pass
    """
    if num_processes() == 1:
        yield
        return
    from accelerate import PartialState

    with PartialState().local_main_process_first():
        yield


def shards_weights() -> bool:
    """Tell whether ``accelerate launch`` asked for a model that is split over the processes (FSDP, DeepSpeed).

    Example:
        >>> shards_weights()
        False
    """
    return any(
        os.environ.get(name, "").lower() == "true" for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    )


def may_report_error() -> bool:
    """Tell whether this process is the one that prints an error; of several that fail, one does.

    What one process meets soon breaks the others too, by a lost connection. Process 0 speaks at once; another one waits
    a few seconds first, since a mistake of the input is met by all, and then speaks if none has.

    Example:
        >>> may_report_error()
        True
    """
    if num_processes() == 1:
        return True
    try:
        store = _store()
        if not is_main_process():
            try:
                store.wait(["error"], PATIENCE)
            except Exception:  # each kind of store has its own for a time that ran out
                pass
            else:
                return False
        return int(store.add("error", 1)) == 1
    except Exception:  # no store, or its keeper is gone: an error said twice is better than one not said
        return True


def error_prefix() -> str:
    """Return the words before an error that only this process met: empty in process 0.

    Example:
        >>> error_prefix()
        ''
    """
    return "" if is_main_process() else f"process {process_index()} of {num_processes()}: "


def _store() -> Store:
    """Return the key-value store that the launcher keeps for its processes."""
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"hf_prompting/{attempt}", TCPStore(host, port, is_master=False, timeout=timedelta(seconds=20)))


def _be_silent() -> None:
    import logging

    import datasets
    import transformers

    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 -- for as long as the process lives
    warnings.simplefilter("ignore")
    logging.getLogger("hf_prompting").setLevel(logging.ERROR)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
