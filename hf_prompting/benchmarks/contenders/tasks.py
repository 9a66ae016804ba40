"""A batch of rows of many tasks, and the same rows all of one task, from one bank of prompts."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from hf_prompting.benchmarks.contenders.given import Settings, classifier, load, rows
from hf_prompting.checksums import seal
from hf_prompting.classifier import PromptBank


def alternating(settings: Settings) -> Callable[[], dict[str, Any]]:
    """Every row of another task, and all rows of one, in turn; in one process, whose memory is the same for both."""
    base, tokenizer = load(settings)
    bank = PromptBank(base, tokenizer, share_prefix=False)
    folder = Path(tempfile.mkdtemp())
    try:
        _fill(bank, settings, folder)
    finally:
        shutil.rmtree(folder)  # the mapped files live on until the process ends
    texts = [{"text": row["text"]} for row in rows(settings)]
    step = settings["num_tasks"] // settings["num_rows"]
    batches = {
        "many": [(f"task {number * step}", text) for number, text in enumerate(texts)],
        "one": [("task 0", text) for text in texts],
    }

    def one_round() -> dict[str, Any]:
        seconds: dict[str, list[float]] = {name: [] for name in batches}
        for _ in range(settings["num_turns"]):
            for name, batch in batches.items():
                start = time.perf_counter()
                bank.classify(batch, batch_size=len(batch))
                seconds[name].append(time.perf_counter() - start)
        return {"num_used": len({task for task, _ in batches["many"]}), **seconds}

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
