"""Push to and pull from a Hub on the loopback, by the unmodified client in processes of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hub_prompts import error_line, loaded, pushed, save_prompt
from hub_worker import Worker
from loopback_hub import TOKEN, LoopbackHub

OTHER_FILES = ("tokenizer.json", "config.json", "tokenizer_config.json")


def test_a_pushed_prompt_loads_into_an_empty_cache(
    worker: Worker, hub: LoopbackHub, prompt: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    folder, expected = prompt
    (folder / "training_args.bin").write_bytes(b"a pickle")
    (folder / "checkpoint-3").mkdir()
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    ran = pushed(worker, folder, tmp_path)
    assert f"Pushed to {hub.endpoint}/alice/prompt" in ran.out and TOKEN not in ran.out + ran.err
    names = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert set(hub.files("alice/prompt")) == {*names, ".gitattributes"}
    assert not (folder / "README.md").exists()  # the folder itself is as it was
    card = hub.files("alice/prompt")["README.md"].decode()
    assert 'model="alice/prompt"' in card and "base_model: org/base" in card and "很好" in card
    found = loaded(worker, tmp_path / "reader").answer
    torch.testing.assert_close(torch.tensor(found), expected, atol=1e-6, rtol=1e-5)
    # from the cache, without any connection
    requests = len(hub.requests)
    assert loaded(worker, tmp_path / "reader", offline=True).answer == found
    assert len(hub.requests) == requests


@pytest.mark.slow
def test_pushing_again_makes_a_new_commit_and_the_old_one_can_still_be_pulled(
    worker: Worker, hub: LoopbackHub, prompt: tuple[Path, torch.Tensor], base: Path, tmp_path: Path
) -> None:
    folder, first = prompt
    pushed(worker, folder, tmp_path)
    commit = hub.repositories["model", "alice/prompt"].branches["main"][-1][0]
    newer, second = save_prompt(base, tmp_path / "newer", seed=6)
    pushed(worker, newer, tmp_path)
    pushed(worker, newer, tmp_path, "--branch", "trial", "--commit-message", "try it")
    assert not torch.allclose(first, second)
    for revision, expected in ((None, second), (commit, first), ("trial", second)):
        keyword = {"revision": revision} if revision else {}
        found = loaded(worker, tmp_path / "reader", keyword=keyword).answer
        torch.testing.assert_close(torch.tensor(found), expected, atol=1e-6, rtol=1e-5)


def test_a_private_repository_is_for_its_owner_only(
    worker: Worker, hub: LoopbackHub, prompt: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    pushed(worker, prompt[0], tmp_path, "--private")
    assert hub.repositories["model", "alice/prompt"].private
    assert loaded(worker, tmp_path / "owner", token=TOKEN).answer
    for name in ("alice/prompt", "alice/missing"):
        ran = worker.command("predict", name, "--text", "great", home=tmp_path / "stranger")
        said = error_line(ran)
        assert name in said and "private" in said and "hf auth login" in said, said
    ran = loaded(worker, tmp_path / "stranger")
    assert ran.code == 1 and "private" in ran.err


def test_an_existing_public_repository_is_not_taken_for_a_private_one(
    worker: Worker, hub: LoopbackHub, prompt: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    hub.add("alice/prompt", {"README.md": b"old"})
    ran = worker.command(
        "push", prompt[0], "--repo-id", "alice/prompt", "--private", home=tmp_path / "author", token=TOKEN
    )
    assert "exists and is public" in error_line(ran)
    assert set(hub.files("alice/prompt")) == {"README.md"}


@pytest.mark.parametrize(
    "repo_id, token, said",
    [
        ("alice/prompt", None, "hf auth login"),
        ("alice/prompt", "hf_" + "wrong" * 8, "hf auth login"),
        ("bob/prompt", TOKEN, "may not write there"),
        ("not an id!", TOKEN, "allowed: user/name"),
    ],
)
def test_who_may_not_push_is_told_why(
    worker: Worker, prompt: tuple[Path, torch.Tensor], tmp_path: Path, repo_id: str, token: str | None, said: str
) -> None:
    ran = worker.command("push", prompt[0], "--repo-id", repo_id, home=tmp_path / "author", token=token)
    assert said in error_line(ran)
    assert (token or "no token") not in ran.err
    arguments = ("push", prompt[0], "--repo-id", repo_id, "--debug")
    ran = worker.command(*arguments, home=tmp_path / "author", token=token)  # a traceback does not tell it either
    assert "Traceback" in ran.err and (token or "no token") not in ran.err + ran.out


def test_the_page_of_a_prompt_is_pushed_as_a_space(
    worker: Worker, hub: LoopbackHub, prompt: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    pytest.importorskip("gradio", reason="the pushed page runs on the extra package gradio")
    ran = worker.command(
        "push", prompt[0], "--space", "--repo-id", "alice/try-it", home=tmp_path / "author", token=TOKEN
    )
    assert ran.code == 0, ran.err
    files = hub.files("alice/try-it", kind="space")
    assert {"app.py", "requirements.txt", "README.md", "prompt/config.json", "prompt/model.safetensors"} <= set(files)
    assert b"sdk: gradio" in files["README.md"]
    assert ("model", "alice/try-it") not in hub.repositories


def test_a_push_offline_is_refused(worker: Worker, prompt: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    ran = worker.command(
        "push", prompt[0], "--repo-id", "alice/prompt", home=tmp_path / "author", token=TOKEN, offline=True
    )
    assert "HF_HUB_OFFLINE is set" in error_line(ran)


def test_an_upload_that_is_cut_leaves_the_branch_as_it_was_and_a_retry_works(
    worker: Worker, hub: LoopbackHub, prompt: tuple[Path, torch.Tensor], base: Path, tmp_path: Path
) -> None:
    pushed(worker, prompt[0], tmp_path)
    before = hub.files("alice/prompt")
    newer, expected = save_prompt(base, tmp_path / "newer", seed=6)
    hub.cut_uploads = 1  # the client itself repeats the upload of a large file
    hub.cut_commits = 1
    ran = worker.command("push", newer, "--repo-id", "alice/prompt", home=tmp_path / "author", token=TOKEN)
    assert "nothing half-sent is there" in error_line(ran)
    assert hub.files("alice/prompt") == before
    assert hub.cut_uploads == hub.cut_commits == 0
    pushed(worker, newer, tmp_path)
    found = loaded(worker, tmp_path / "reader").answer
    torch.testing.assert_close(torch.tensor(found), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "file", ["model.safetensors", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHER_FILES)]
)
def test_a_download_that_is_cut_is_an_error_and_a_retry_works(
    worker: Worker, hub: LoopbackHub, prompt: tuple[Path, torch.Tensor], tmp_path: Path, file: str
) -> None:
    pushed(worker, prompt[0], tmp_path)
    hub.cut_downloads = file
    ran = worker.command("predict", "alice/prompt", "--text", "great", home=tmp_path / "reader")
    said = error_line(ran)
    assert "alice/prompt" in said or "org/base" in said
    half = [path for path in (tmp_path / "reader" / "hub").rglob(file) if path.is_file()]
    assert all(path.read_bytes() in (hub.files("alice/prompt")[file], hub.files("org/base")[file]) for path in half)
    hub.cut_downloads = None
    found = loaded(worker, tmp_path / "reader").answer
    torch.testing.assert_close(torch.tensor(found), prompt[1], atol=1e-6, rtol=1e-5)
