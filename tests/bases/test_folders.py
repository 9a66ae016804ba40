"""Where local base models are, remembered beside the cache."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from hf_prompting.bases import BaseFingerprint, find_folder, remember_folder

FOUND = BaseFingerprint("a-b", "c", "")


def a_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}", encoding="utf-8")
    return path


def test_a_folder_is_found_by_name_and_fingerprint(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "base")
    assert find_folder("base", FOUND) is None
    remember_folder(folder, FOUND)
    assert find_folder("base", FOUND) == folder
    assert find_folder("base", BaseFingerprint("a-b", "other", "")) is None
    assert find_folder("other", FOUND) is None
    moved = folder.rename(tmp_path / "moved")
    assert find_folder("base", FOUND) is None
    remember_folder(moved.rename(tmp_path / "base"), FOUND)
    assert find_folder("base", FOUND) == folder


def test_a_base_beside_the_prompt_is_found_but_a_name_leads_nowhere_else(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "there" / "base")
    a_folder(tmp_path / "secret")
    assert find_folder("base", None, beside=tmp_path / "there" / "prompt") == folder
    assert find_folder("../secret", None, beside=tmp_path / "there" / "prompt") is None
    assert find_folder(str(tmp_path / "secret"), None, beside=tmp_path / "there" / "prompt") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"path": 3}', '{"path": "/no/such"}'])
def test_a_damaged_note_is_as_good_as_none(tmp_path: Path, cache: Path, text: str) -> None:
    remember_folder(a_folder(tmp_path / "base"), FOUND)
    next(cache.with_name("folders").iterdir()).write_text(text, encoding="utf-8")
    assert find_folder("base", FOUND) is None


def test_a_cache_that_cannot_be_written_does_not_stop_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("HF_PROMPTING_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        remember_folder(a_folder(tmp_path / "base"), FOUND)
    assert "loading will need base_model=" in caplog.text
