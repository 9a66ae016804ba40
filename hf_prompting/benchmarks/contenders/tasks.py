"""A batch of rows of many tasks, and the same rows all of one task, from one bank of prompts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from hf_prompting.benchmarks.contenders.given import Settings, classifier, load, rows
from hf_prompting.checksums import seal
from hf_prompting.classifier import PromptBank


def many(settings: Settings) -> Callable[[], dict[str, Any]]:
    """Every row of another task."""
    return _prepare(settings, lambda row: f"task {row * (settings['num_tasks'] // settings['num_rows'])}")


def one(settings: Settings) -> Callable[[], dict[str, Any]]:
    """All rows of one of as many loaded tasks."""
    return _prepare(settings, lambda row: "task 0")


def _prepare(settings: Settings, task_of_row: Callable[[int], str]) -> Callable[[], dict[str, Any]]:
    base, tokenizer = load(settings)
    bank = PromptBank(base, tokenizer, share_prefix=False)
    folder = Path(tempfile.mkdtemp())
    try:
        _fill(bank, settings, folder)
    finally:
        shutil.rmtree(folder)  # the mapped files live on until the process ends
    given = [(task_of_row(number), {"text": row["text"]}) for number, row in enumerate(rows(settings))]

    def one_round() -> dict[str, Any]:
        results = bank.classify(given, batch_size=len(given))
        return {"num_tasks": len(bank), "num_used": len({name for name, _ in given}), "num_rows": len(results)}

    return one_round


def _fill(bank: PromptBank, settings: Settings, folder: Path) -> None:
    model, _ = classifier(settings)
    model.save_pretrained(folder / "first")
    assert model.soft_prompt is not None
    shape = model.soft_prompt.rows.shape
    generator = torch.Generator().manual_seed(0)
    for number in range(settings["num_tasks"]):
        own = folder / str(number)
        own.mkdir()
        shutil.copy(folder / "first" / "config.json", own)
        table = torch.randn(shape, generator=generator) * 0.05
        save_file({"soft_prompt.rows": table}, own / "model.safetensors", metadata={"format": "pt"})
        seal(own / "config.json", ["model.safetensors"])
        bank.add(f"task {number}", own)
