"""A training that was cut at any moment and resumed ends exactly where an unbroken one ends."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tiny_models import tiny_model
from tiny_recipes import labelled_rows
from tiny_tokenizers import smollm_bpe
from torch import Tensor, nn

from hf_prompting.classifier import PromptForSequenceClassification
from hf_prompting.data import Rows, tokenize_rows
from hf_prompting.soft_prompts import SoftPromptConfig
from hf_prompting.templates import PromptTemplate
from hf_prompting.training import (
    Tuning,
    drop_partial_checkpoints,
    is_whole,
    make_arguments,
    newest_whole_checkpoint,
    seal_folder,
    tune,
)
from hf_prompting.verbalizers import Verbalizer

TEMPLATE = PromptTemplate.parse("{soft:3}Review: {text}\nThe movie was{mask}")
# Half of the rows are dropped out, so that the random state has to be the same as well.
DROPOUT = {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}
SETTINGS: dict[str, dict[str, Any]] = {
    "steps": {"eval_steps": 1},
    "steps, each of two batches": {"eval_steps": 2, "gradient_accumulation_steps": 2},
    "epochs, stopped early": {"best_by": "accuracy", "learning_rate": 1e-12, "max_steps": 30},
    "no dev rows": {"eval_steps": 2, "best_by": None},
    "buckets": {"eval_steps": 1, "best_by": None, "train_batch_size": 3, "bucket_by_length": True},
}
OTHERS = ("steps", "epochs, stopped early", "no dev rows")


class Cut(BaseException):
    """What a power cut would be, if it were an exception."""


def tuned(
    folder: Path,
    *,
    resume: bool = False,
    cut_at: int = 0,
    bucket_by_length: bool | None = None,
    **changes: Any,
) -> tuple[Tuning, dict[str, Tensor]]:
    """Tune a fresh model; with ``cut_at``, break off in that call of it."""
    tokenizer = smollm_bpe()
    model, tokenizer = PromptForSequenceClassification.from_base(
        tiny_model("gpt2", vocab_size=len(tokenizer), **DROPOUT),
        template=TEMPLATE,
        verbalizer=Verbalizer({"negative": "terrible", "positive": "great"}),
        soft_prompt=SoftPromptConfig(seed=0),
        tokenizer=tokenizer,
    )
    table = Rows(Dataset.from_list(labelled_rows(12)), "made.jsonl")
    rows = tokenize_rows(table, template=TEMPLATE, tokenizer=tokenizer, max_length=64, labels=[0, 1] * 6)
    calls = 0

    def count(module: nn.Module, inputs: Any) -> None:
        nonlocal calls
        calls += module.training
        if calls == cut_at and module.training:
            raise Cut

    model.register_forward_pre_hook(count)
    defaults = {
        "seed": 0,
        "learning_rate": 0.05,
        "max_steps": 7,  # ends in the middle of an epoch of three
        "num_train_epochs": 1.0,
        "train_batch_size": 4,
        "eval_batch_size": 8,
    }
    settings = {**defaults, **changes}
    has_dev = settings.get("best_by", "loss") is not None
    tuning = tune(
        model,
        tokenizer,
        train=rows,
        dev=rows if has_dev else None,
        arguments=make_arguments(output_dir=folder, **settings),
        bucket_by_length=bucket_by_length,
        early_stopping_patience=2 if settings.get("best_by") == "accuracy" else None,
        resume=resume,
    )
    assert tuning.seconds >= 0
    return replace(tuning, seconds=0.0, curve=[entry for entry in map(without_times, tuning.curve) if entry]), {
        name: value.clone() for name, value in model.state_dict().items() if value.requires_grad or "soft" in name
    }


def without_times(entry: dict[str, float]) -> dict[str, float]:
    if "train_runtime" in entry:
        return {}
    return {name: value for name, value in entry.items() if not name.endswith(("_runtime", "_per_second"))}


def assert_same(one: tuple[Tuning, dict[str, Tensor]], other: tuple[Tuning, dict[str, Tensor]]) -> None:
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    for name, value in one[1].items():
        assert torch.equal(value, other[1][name]), name


@pytest.mark.parametrize(
    "name",
    ["steps, each of two batches", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS), "buckets"],
)
def test_a_training_that_was_cut_ends_to_the_last_bit_as_if_it_was_not(tmp_path: Path, name: str) -> None:
    whole = tuned(tmp_path / "whole", **SETTINGS[name])
    for cut_at in (2, 6):
        folder = tmp_path / f"cut-{cut_at}"
        with pytest.raises(Cut):
            tuned(folder, cut_at=cut_at, **SETTINGS[name])
        assert_same(tuned(folder, resume=True, **SETTINGS[name]), whole)


@pytest.mark.parametrize(
    "name",
    ["epochs, stopped early", *(pytest.param(name, marks=pytest.mark.slow) for name in ("steps", "no dev rows"))],
)
def test_a_training_that_was_cut_after_its_last_step_makes_no_step_more(tmp_path: Path, name: str) -> None:
    settings = {**SETTINGS[name], **({"eval_steps": 1} if name == "no dev rows" else {})}
    whole = tuned(tmp_path, **settings)
    assert_same(tuned(tmp_path, resume=True, cut_at=1, **settings), whole)


@pytest.mark.slow
def test_a_training_may_be_cut_again_and_again(tmp_path: Path) -> None:
    settings = {"eval_steps": 1, "max_steps": 4}
    whole = tuned(tmp_path / "whole", **settings)
    for _ in range(3):  # one step each time
        with pytest.raises(Cut):
            tuned(tmp_path / "cut", resume=True, cut_at=2, **settings)
    assert_same(tuned(tmp_path / "cut", resume=True, **settings), whole)


@pytest.mark.slow
def test_a_moved_folder_still_ends_with_the_best_moment(tmp_path: Path) -> None:
    whole = tuned(tmp_path / "whole", eval_steps=1)
    with pytest.raises(Cut):
        tuned(tmp_path / "here", cut_at=6, eval_steps=1)
    (tmp_path / "here").rename(tmp_path / "there")
    assert_same(tuned(tmp_path / "there", resume=True, eval_steps=1), whole)


@pytest.mark.slow
def test_without_resume_a_training_begins_anew_and_deletes_no_whole_checkpoint_first(tmp_path: Path) -> None:
    whole = tuned(tmp_path, eval_steps=1)
    assert_same(tuned(tmp_path, eval_steps=1), whole)


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of a training that was cut in its sixth step."""
    folder = tmp_path_factory.mktemp("cut")
    with pytest.raises(Cut):
        tuned(folder, cut_at=6, eval_steps=1, best_by=None)
    return folder


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "add", "no manifest", "half a manifest"])
def test_a_checkpoint_that_is_not_as_it_was_sealed_is_never_taken_for_whole(
    cut: Path, tmp_path: Path, damage: str
) -> None:
    shutil.copytree(cut, tmp_path, dirs_exist_ok=True)
    newest = newest_whole_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "checkpoint-5"
    file = newest / "optimizer.pt"
    content = file.read_bytes()
    if damage == "truncate":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        file.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    elif damage == "delete":
        file.unlink()
    elif damage == "add":
        (newest / "optimizer.bin").write_bytes(content)
    elif damage == "no manifest":
        (newest / "manifest.json").unlink()
    else:
        (newest / "manifest.json").write_text((newest / "manifest.json").read_text()[:50])
    assert not is_whole(newest)
    assert newest_whole_checkpoint(tmp_path) is None
    drop_partial_checkpoints(tmp_path)
    assert not newest.exists()


def test_the_newest_whole_checkpoint_is_the_one_with_the_highest_step(tmp_path: Path) -> None:
    for step, best in ((2, None), (10, 2), (9, 2)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text(json.dumps({"best_global_step": best}), encoding="utf-8")
        seal_folder(folder)
    (tmp_path / "checkpoint-11").mkdir()
    (tmp_path / "checkpoint-last").mkdir()
    newest = newest_whole_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "checkpoint-10"
    (tmp_path / "checkpoint-2" / "trainer_state.json").write_text("{}", encoding="utf-8")
    assert newest_whole_checkpoint(tmp_path) is None  # without its best moment, the result would be another
    assert newest_whole_checkpoint(tmp_path / "none") is None


class Bomb:
    """A pickle that makes a file when it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_pickle_that_would_run_code_does_not_run_it_even_in_a_sealed_checkpoint(
    cut: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(cut, tmp_path / "run", dirs_exist_ok=True)
    checkpoint = newest_whole_checkpoint(tmp_path / "run")
    assert checkpoint is not None
    torch.save({"state": Bomb(tmp_path / "ran")}, checkpoint / name)
    seal_folder(checkpoint)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        tuned(tmp_path / "run", resume=True, eval_steps=1, best_by=None)
    assert not (tmp_path / "ran").exists()


def test_the_pickles_of_weights_and_arguments_in_a_checkpoint_are_not_read_at_all(cut: Path, tmp_path: Path) -> None:
    shutil.copytree(cut, tmp_path / "run", dirs_exist_ok=True)
    checkpoint = newest_whole_checkpoint(tmp_path / "run")
    assert checkpoint is not None
    for name in ("training_args.bin", "pytorch_model.bin", "adapter_model.bin"):
        (checkpoint / name).write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    seal_folder(checkpoint)
    resumed = tuned(tmp_path / "run", resume=True, eval_steps=1, best_by=None)
    assert resumed[0].num_steps == 7
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Bomb(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()  # the bomb itself works
