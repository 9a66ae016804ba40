"""Two runs never write one folder at once, and a dead run blocks nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hf_prompting.artifacts import output_lock
from hf_prompting.errors import ArtifactError

HOLDS = """
import sys
from pathlib import Path
from hf_prompting.artifacts.lock import output_lock
with output_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_process_is_refused_and_a_killed_first_one_blocks_nobody(tmp_path: Path) -> None:
    target = tmp_path / "outputs" / "tiny"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        with (
            pytest.raises(ArtifactError, match=r"another run is writing .*tiny now.*--output-dir"),
            output_lock(target),
        ):
            pass
        with output_lock(tmp_path / "outputs" / "other"):
            pass
        os.kill(first.pid, signal.SIGKILL)
        first.wait(20)
    with output_lock(target):
        pass


def test_the_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    with output_lock(tmp_path / "a" / "b" / "c"):
        assert (tmp_path / "a" / "b" / ".c.lock").exists()
    assert list(tmp_path.iterdir()) == []
    with output_lock(tmp_path / "a" / "b" / "c"):
        (tmp_path / "a" / "b" / "c").mkdir()
    assert [entry.name for entry in (tmp_path / "a" / "b").iterdir()] == ["c"]


def test_two_names_of_one_folder_share_their_lock(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with (
        output_lock(tmp_path / "real"),
        pytest.raises(ArtifactError, match="another run"),
        output_lock(tmp_path / "link"),
    ):
        pass
