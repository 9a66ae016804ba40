"""Slow: a model split over two processes, by tensors or by FSDP2, gives the logits of the whole one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_seq2seq import tiny_model

import hf_prompting

WORKER = Path(__file__).with_name("parallel_worker.py")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "how"),
    [("modern", "tensor"), ("vanilla", "tensor"), ("t5", "tensor"), ("modern", "fsdp"), ("t5", "fsdp")],
)
def test_two_processes_give_the_logits_of_one(preset: str, how: str, tmp_path: Path) -> None:
    tiny_model(preset).save_pretrained(tmp_path)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    root = str(Path(hf_prompting.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [*launcher, str(WORKER), str(tmp_path), how]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("equal") == 2
    assert "match nothing" not in done.stderr
