"""A folder is written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hf_prompting.artifacts import atomic_folder, refuse_existing
from hf_prompting.errors import ArtifactError

OLD = '{"model_type": "prompt_classifier"}'


def names_in(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def saved(folder: Path, text: str = OLD) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(text, encoding="utf-8")
    return folder


def test_a_new_folder_appears_whole_with_usual_permissions(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "a" / "b") as folder:
        (folder / "config.json").write_text("new", encoding="utf-8")
        (folder / "config.json").chmod(0o600)
        assert not (tmp_path / "a" / "b").exists()
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a" / "b" / "config.json").stat().st_mode) == 0o666 & ~mask
    assert names_in(tmp_path / "a") == ["b"]


def test_an_existing_folder_is_refused_unless_it_may_be_replaced(tmp_path: Path) -> None:
    target = saved(tmp_path / "out")
    (target / "tokenizer.json").write_text("old", encoding="utf-8")
    with pytest.raises(ArtifactError, match="add --overwrite"):
        refuse_existing(target, overwrite=False)
    with atomic_folder(target, overwrite=True) as folder:
        (folder / "config.json").write_text("new", encoding="utf-8")
    assert names_in(target) == ["config.json"]
    assert names_in(tmp_path) == ["out"]
    refuse_existing(tmp_path / "none", overwrite=False)


@pytest.mark.parametrize("foreign", ["thesis.tex", ".git", "checkpoint-3"])
def test_a_folder_with_foreign_things_is_never_replaced(tmp_path: Path, foreign: str) -> None:
    target = saved(tmp_path / "out")
    (target / foreign).mkdir() if "." not in foreign[1:] else (target / foreign).write_text("", encoding="utf-8")
    with pytest.raises(ArtifactError, match="did not save"), atomic_folder(target, overwrite=True):
        pass
    assert (target / foreign).exists()


@pytest.mark.parametrize("config", [None, '{"model_type": "llama"}', "[]", "{"])
def test_a_folder_that_is_no_saved_classifier_is_never_replaced(tmp_path: Path, config: str | None) -> None:
    """Such as a recipe's folder, or a base model's: all their names are names that this library writes too."""
    target = tmp_path / "out"
    target.mkdir()
    (target / "README.md").write_text("mine", encoding="utf-8")
    if config is not None:
        (target / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(ArtifactError, match="not that of a saved prompt classifier"):
        refuse_existing(target, overwrite=True)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("x"), KeyboardInterrupt()])
def test_whatever_fails_the_previous_folder_stays_whole(tmp_path: Path, error: BaseException) -> None:
    target = saved(tmp_path / "out")
    expected = ArtifactError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), atomic_folder(target, overwrite=True) as folder:
        (folder / "config.json").write_text("half", encoding="utf-8")
        raise error
    assert (target / "config.json").read_text(encoding="utf-8") == OLD
    assert names_in(tmp_path) == ["out"]


def test_a_failing_swap_puts_the_previous_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = saved(tmp_path / "out")
    rename = Path.rename

    def fails_for_the_new_one(path: Path, to: Path) -> Path:
        if ".new-" in path.name:
            raise OSError(28, "No space left on device")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", fails_for_the_new_one)
    with pytest.raises(ArtifactError, match="No space left"), atomic_folder(target, overwrite=True) as folder:
        (folder / "config.json").write_text("new", encoding="utf-8")
    assert (target / "config.json").read_text(encoding="utf-8") == OLD
    assert names_in(tmp_path) == ["out"]


def test_a_full_disk_while_writing_leaves_the_previous_folder(tmp_path: Path) -> None:
    """/dev/full is Linux's always full disk."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, the device that is always full")
    target = saved(tmp_path / "out")
    with (
        pytest.raises(ArtifactError, match=r"No space left.*untouched"),
        atomic_folder(target, overwrite=True) as folder,
    ):
        (folder / "model.safetensors").symlink_to("/dev/full")
        (folder / "model.safetensors").write_bytes(b"x" * 100_000)
    assert (target / "config.json").read_text(encoding="utf-8") == OLD


def test_a_file_in_the_way_and_an_impossible_parent_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ArtifactError, match="is not a folder"):
        refuse_existing(tmp_path / "file", overwrite=True)
    with pytest.raises(ArtifactError, match="not a folder that can be written"):
        refuse_existing(tmp_path / "file" / "out", overwrite=True)


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    target = saved(tmp_path / "real")
    (tmp_path / "link").symlink_to(target)
    with atomic_folder(tmp_path / "link", overwrite=True) as folder:
        (folder / "config.json").write_text("new", encoding="utf-8")
    assert (tmp_path / "link").is_symlink()
    assert (target / "config.json").read_text(encoding="utf-8") == "new"
