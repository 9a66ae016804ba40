"""Start something in two processes, as ``accelerate launch`` does with the CPU configurations of the recipes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hf_prompting

ROOT = Path(hf_prompting.__file__).parents[1]
CONFIGS = ROOT / "recipes" / "accelerate"
DDP, FSDP2 = CONFIGS / "cpu-two-processes.yaml", CONFIGS / "cpu-two-processes-fsdp2.yaml"
MINUTES = 4


def environment(**more: str) -> dict[str, str]:
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    single = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
    plain = {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, "PYTHONPATH": paths, **single, **plain, **more}


def run_python(*words: object, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run ``python WORDS…`` in one process."""
    return subprocess.run(
        [sys.executable, *(str(word) for word in words)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * MINUTES,
        **options,  # type: ignore[call-overload]
    )


def launch(config: Path | None, *words: object, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run ``accelerate launch --config_file CONFIG WORDS…``; without a configuration, plain ``python WORDS…``."""
    launcher = [] if config is None else ["-m", "accelerate.commands.launch", "--config_file", config]
    return run_python(*launcher, *words, cwd=cwd, **options)
