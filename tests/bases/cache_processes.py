"""What other processes do in the tests of the cache; importable, so that they can be started cheaply."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from pathlib import Path

import torch

from hf_prompting.bases import BaseModelSource, locate_base
from hf_prompting.errors import BaseModelError


def convert(source: BaseModelSource, cache: Path, site: Path, answer: Path) -> None:
    """Locate the base, and write what was found and at which times it began and ended."""
    _prepare(cache, site)
    began = time.monotonic()
    located = locate_base(source)
    answer.write_text(f"{located.path_or_id}\n{Path(located.path_or_id).stat().st_ino}\n{began}\n{time.monotonic()}")


def convert_and_die(source: BaseModelSource, cache: Path, site: Path, event: str, name: str) -> None:
    """Kill this process, as `kill -9` would, at the first audit event about a path that contains `name`."""
    _prepare(cache, site)

    def die(found: str, args: tuple[object, ...]) -> None:
        if found == event and name in str(args[0]):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die)
    locate_base(source)


def convert_on_a_full_disk(source: BaseModelSource, cache: Path, site: Path, answer: Path, num_bytes: int) -> None:
    """Write the error that comes up when no file may grow beyond `num_bytes`."""
    _prepare(cache, site)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))
    try:
        locate_base(source)
    except BaseModelError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        answer.write_text(str(error))


def _prepare(cache: Path, site: Path) -> None:
    torch.set_num_threads(1)
    os.environ["HF_PROMPTING_CACHE"] = str(cache)
    sys.path.insert(0, str(site))
