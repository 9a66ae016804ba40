from __future__ import annotations

from pathlib import Path

import pytest
from tiny_gguf import tiny_llama, write_gguf


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test; returns the folder of converted models."""
    monkeypatch.setenv("HF_PROMPTING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bases"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture(scope="session")
def gguf_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A GGUF file of tiny_llama() in float32."""
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write_gguf(path, *tiny_llama())
    return path.read_bytes()
