"""Push to and pull from a Hub on the loopback, by the unmodified client in processes of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from classifier_parts import TEXTS, classifier, save_base, scores, scramble
from hub_worker import Ran, Worker, worker_of
from loopback_hub import TOKEN, LoopbackHub, loopback_hub

LOAD = """
import json, sys
import hf_prompting
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
import torch
name, texts = sys.argv[1], json.loads(sys.argv[2])
options = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
model = AutoModelForSequenceClassification.from_pretrained(name, **options)
tokenizer = AutoTokenizer.from_pretrained(name, **options)
with torch.no_grad():
    scores = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.softmax(-1)
classify = pipeline("text-classification", model=name, **options)
best = classify(texts)
assert [one["label"] for one in best] == [model.config.id2label[int(n)] for n in scores.argmax(-1)]
print(json.dumps(scores.tolist()))
"""
LABELS = ["negative", "neutral", "positive"]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with loopback_hub() as hub, worker_of(hub, tmp_path_factory.mktemp("home")) as process:
        yield process


@pytest.fixture
def hub(worker: Worker) -> LoopbackHub:
    """An empty Hub."""
    fresh = LoopbackHub(endpoint=worker.hub.endpoint)
    vars(worker.hub).update(vars(fresh))
    return worker.hub


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(save_base("gpt2", tmp_path_factory.mktemp("base") / "tiny-base"))


@pytest.fixture
def prompt(hub: LoopbackHub, base: Path, tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """A tuned prompt whose base is on the Hub, and its scores."""
    hub.add_folder("org/base", base)
    return save_prompt(base, tmp_path / "prompt", seed=5)


def save_prompt(base: Path, folder: Path, *, seed: int) -> tuple[Path, torch.Tensor]:
    model, tokenizer = classifier(str(base), "gpt2")
    model.config.base_model_name_or_path, model.config.base_model_is_folder = "org/base", False
    scramble(model, seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, scores(model, tokenizer)


def pushed(worker: Worker, folder: Path, tmp_path: Path, *options: str) -> Ran:
    ran = worker.command("push", folder, "--repo-id", "alice/prompt", *options, home=tmp_path / "author", token=TOKEN)
    assert ran.code == 0, ran.err
    return ran


def loaded(worker: Worker, home: Path, *, name: str = "alice/prompt", **options: Any) -> Ran:
    keyword = options.pop("keyword", {})
    return worker.run(LOAD, name, json.dumps(TEXTS), json.dumps(keyword), home=home, **options)


def error_line(ran: Ran, code: int = 2) -> str:
    assert ran.code == code, ran.err
    lines = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in ran.err, ran.err
    assert TOKEN not in ran.err + ran.out
    return lines[0]


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
    hub.cut_commits = 1
    ran = worker.command("push", newer, "--repo-id", "alice/prompt", home=tmp_path / "author", token=TOKEN)
    assert "nothing half-sent is there" in error_line(ran)
    assert hub.files("alice/prompt") == before
    hub.cut_uploads = 1  # the client itself repeats the upload of a large file
    pushed(worker, newer, tmp_path)
    assert hub.cut_uploads == 0
    found = loaded(worker, tmp_path / "reader").answer
    torch.testing.assert_close(torch.tensor(found), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_download_that_is_cut_is_an_error_and_a_retry_works(
    worker: Worker, hub: LoopbackHub, prompt: tuple[Path, torch.Tensor], tmp_path: Path, file: str
) -> None:
    pushed(worker, prompt[0], tmp_path)
    hub.cut_downloads = f"prompt/resolve/{hub.repositories['model', 'alice/prompt'].branches['main'][-1][0]}/{file}"
    hub.cut_downloads = file
    ran = worker.command("predict", "alice/prompt", "--text", "great", home=tmp_path / "reader")
    said = error_line(ran)
    assert "alice/prompt" in said or "org/base" in said
    half = [path for path in (tmp_path / "reader" / "hub").rglob(file) if path.is_file()]
    assert all(path.read_bytes() in (hub.files("alice/prompt")[file], hub.files("org/base")[file]) for path in half)
    hub.cut_downloads = None
    found = loaded(worker, tmp_path / "reader").answer
    torch.testing.assert_close(torch.tensor(found), prompt[1], atol=1e-6, rtol=1e-5)
