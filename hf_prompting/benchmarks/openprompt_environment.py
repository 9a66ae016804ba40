"""An environment of its own for OpenPrompt 1.0.1, which today's transformers cannot run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from hf_prompting.bases.cache import cache_folder
from hf_prompting.errors import BenchmarkError

OPENPROMPT = "openprompt==1.0.1"
# Its own list asks for sentencepiece 0.1.96, which has no wheel for this Python; and for the newest of everything else,
# where it needs what was new in its time.
_WITH = (
    "transformers==4.33.3", "datasets<3", "pyarrow<16", "numpy<2", "sentencepiece", "tensorboardX", "nltk", "yacs",
    "dill", "rouge", "scipy",
)  # fmt: skip
_DONE = "ready"


def openprompt_python(*, timeout: float = 900.0) -> Path:
    """Make the environment once, in the cache, and return its interpreter.

    PyTorch is this environment's own, added to the end of the other's path, so both run the same kernels.

    Raises:
        BenchmarkError: it cannot be installed; the reason is in the message.
    """
    folder = (
        cache_folder().parent
        / "benchmarks"
        / f"openprompt-1.0.1-python{sys.version_info.major}.{sys.version_info.minor}"
    )
    python = folder / "bin" / "python"
    if (folder / _DONE).exists():
        return python
    _run([sys.executable, "-m", "venv", "--clear", str(folder)], timeout)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--no-deps", OPENPROMPT], timeout)
    _run([*pip, *_WITH], timeout)
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "pytorch.pth").write_text(str(Path(torch.__file__).parent.parent) + "\n", encoding="utf-8")
    _run([str(python), "-c", "import torch, openprompt"], timeout)
    (folder / _DONE).touch()
    return python


def _run(command: list[str], timeout: float) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except (subprocess.TimeoutExpired, OSError) as error:
        raise BenchmarkError(f"OpenPrompt's environment cannot be made: {error}") from error
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise BenchmarkError(f"OpenPrompt's environment cannot be made: {' | '.join(words[-3:])}")
