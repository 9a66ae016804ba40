"""The page as a Space: what is written, what is refused, and that the written ``app.py`` runs."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from gradio_client import Client
from saved_prompts import HOSTILE, save_prompt
from tiny_recipes import write_rows

from hf_prompting.demo.answers import answer_texts
from hf_prompting.demo.space import write_space
from hf_prompting.errors import ArtifactError, DataError
from hf_prompting.recipe.prediction import load_classifier

BASE_ID = "tests/tiny-llama"
COMMIT = "0" * 40


@pytest.fixture(scope="module")
def portable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prompt that names its base by a Hub id, as the folder of a real run does."""
    saved = save_prompt(tmp_path_factory.mktemp("space"), name=f"tiny {HOSTILE}", about="好 --- [x](y)")
    config = saved / "config.json"
    values = json.loads(config.read_text(encoding="utf-8"))
    changed = {"base_model_name_or_path": BASE_ID, "base_model_is_folder": False, "checksums": None}
    config.write_text(json.dumps({**values, **changed}), encoding="utf-8")
    (saved / "training_args.bin").write_bytes(b"a pickle")
    (saved / "notes").mkdir()
    return saved


def header_of(readme: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(readme.read_text(encoding="utf-8").split("---\n")[1]))


def cached_base(folder: Path, home: Path) -> Path:
    """Lay a base into a cache of the Hub, as if it had been downloaded."""
    repository = home / "hub" / f"models--{BASE_ID.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    return home


def test_a_space_has_what_spaces_reads_and_the_prompt(portable: Path, tmp_path: Path) -> None:
    target = tmp_path / "space"
    write_space(str(portable), target)
    header = header_of(target / "README.md")
    assert (header["sdk"], header["app_file"], header["models"]) == ("gradio", "app.py", [BASE_ID])
    assert header["title"] == f"tiny {HOSTILE}"
    assert header["sdk_version"][0].isdigit()
    assert "<script" not in (target / "README.md").read_text(encoding="utf-8").split("---\n", 2)[2]
    requirements = (target / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("transformers") for line in requirements)
    assert not any("extra" in line for line in requirements)
    copied = {file.name for file in (target / "prompt").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= copied
    assert not copied & {"training_args.bin", "notes"}
    assert not list(target.rglob("__pycache__"))


def test_a_base_that_only_this_machine_has_is_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="--base-model"):
        write_space(str(saved), tmp_path / "space")
    assert not (tmp_path / "space").exists()
    write_space(str(saved), tmp_path / "space", base_model=BASE_ID)
    assert f"base_model={BASE_ID!r}" in (tmp_path / "space" / "app.py").read_text(encoding="utf-8")


def test_a_full_folder_or_a_bad_file_of_examples_is_refused(portable: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").touch()
    with pytest.raises(ArtifactError, match="is not empty"):
        write_space(str(portable), tmp_path / "full")
    with pytest.raises(DataError, match="no column 'text'"):
        write_space(str(portable), tmp_path / "new", examples=write_rows(tmp_path / "rows.jsonl", [{"a": "b"}]))
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_the_written_app_runs_with_nothing_but_its_folder_and_the_base(portable: Path, tmp_path: Path) -> None:
    examples = write_rows(tmp_path / "rows.jsonl", [{"text": "好看", "label": "positive"}])
    write_space(str(portable), tmp_path / "space", examples=examples)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(cached_base(portable.parent / "base", tmp_path / "home")), "HF_HUB_OFFLINE": "1"}
    environment |= {"GRADIO_SERVER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "app.py"]
    with subprocess.Popen(
        command, cwd=tmp_path / "space", env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if line.startswith("Open "):
                    break
            assert said[-1].startswith(f"Open http://127.0.0.1:{port}/"), said
            client = Client(f"http://127.0.0.1:{port}", verbose=False, analytics_enabled=False)
            label, *_ = client.predict("great fun", api_name="/classify")
        finally:
            process.terminate()
    loaded = load_classifier(str(portable), base_model=str(portable.parent / "base"))
    expected = answer_texts(loaded, {"text": "great fun"}).scores
    assert {row["label"]: row["confidence"] for row in label["confidences"]} == pytest.approx(dict(expected), abs=2e-6)
