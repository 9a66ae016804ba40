"""What all contenders are given alike: the base, the rows, and the ids of every prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_prompting.classifier import PromptForSequenceClassification
from hf_prompting.soft_prompts import SoftPromptConfig

Settings = dict[str, Any]


def load(settings: Settings) -> tuple[Any, Any]:
    """Load the base in float32, and its tokenizer."""
    base = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32)
    return base.eval(), AutoTokenizer.from_pretrained(settings["model"])


def classifier(settings: Settings) -> tuple[PromptForSequenceClassification, Any]:
    """Lay the benchmark's template and words over the base."""
    base, tokenizer = load(settings)
    return PromptForSequenceClassification.from_base(
        base,
        tokenizer=tokenizer,
        template=settings["template"],
        verbalizer=settings["words"],
        soft_prompt=SoftPromptConfig(init="vocabulary", seed=0),
    )


def rows(settings: Settings) -> list[dict[str, str]]:
    """Read rows of a .jsonl file: the first ``num_rows`` of a fixed shuffle, so that labels and lengths are mixed."""
    lines = Path(settings["data"]).read_text(encoding="utf-8").splitlines()
    read = [row for row in map(json.loads, lines) if row["label"] in settings["words"]]
    order = torch.randperm(len(read), generator=torch.Generator().manual_seed(0)).tolist()
    return [read[place] for place in order[: settings["num_rows"]]]


def batches(settings: Settings, tokenizer: Any, labels: list[str]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Ids, mask and class numbers of each batch, in one order for everybody."""
    found, size, given = [], settings["batch_size"], rows(settings)
    for start in range(0, len(given), size):
        part = given[start : start + size]
        encoded = tokenizer(
            [row["text"] for row in part],
            padding=True,
            truncation=True,
            max_length=settings["max_length"],
            return_tensors="pt",
        )
        classes = torch.tensor([labels.index(row["label"]) for row in part])
        found.append((encoded["input_ids"], encoded["attention_mask"], classes))
    return found


def real_ids(ids: Tensor, mask: Tensor, without: tuple[int, ...] = ()) -> list[list[int]]:
    """Return every row's ids without padding, and without some, such as our soft tokens."""
    dropped = set(without)
    return [
        [token for token, kept in zip(row, keep, strict=True) if kept and token not in dropped]
        for row, keep in zip(ids.tolist(), mask.tolist(), strict=True)
    ]


def right_padded(sequences: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids and mask with padding on the right."""
    width = max(map(len, sequences))
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in sequences])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in sequences])
    return ids, mask
