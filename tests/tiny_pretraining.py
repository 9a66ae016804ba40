"""A pre-training recipe over made-up texts that runs in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tiny_generation import generation_values, pairs, write_generation_recipe
from tiny_recipes import write_rows


def pretraining_values() -> dict[str, Any]:
    """Return the values of a recipe that trains a two-layer model for some steps."""
    return {
        "task": "pretraining",
        "name": "tiny-pretraining",
        "description": "A test.",
        "data": {"path": "texts", "title": "made up texts"},
        "tokenizer": {"kind": "unigram", "vocab_size": 600},
        "model": {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2},
        "objective": {"max_length": 16},
        "training": {
            "learning_rate": 0.01,
            "max_steps": 20,
            "per_device_train_batch_size": 8,
            "warmup_steps": 2,
            "eval_steps": 5,
        },
        "output": {"dir": "outputs/tiny", "language": ["en", "zh"]},
    }


def write_pretraining_recipe(folder: Path, values: Mapping[str, Any] | None = None) -> Path:
    """Write a recipe folder with its texts, and beside it a recipe that fine-tunes the model on pairs."""
    for name, first, num_rows in (("train", 0, 60), ("dev", 300, 12)):
        texts = [text for row in pairs(num_rows, first) for text in (f"{row['en']}. ", f"{row['zh']}。")]
        write_rows(folder / "texts" / f"{name}.jsonl", [{"text": text * 3} for text in texts])
    text = yaml.safe_dump(dict(values or pretraining_values()), allow_unicode=True, sort_keys=False)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    tuning = {
        **generation_values(),
        "name": "tiny-fine-tuning",
        "model": {"pretrained": "somewhere"},
        "compare": {"random_weights": {}},
        "output": {"dir": "outputs/tuned"},
    }
    del tuning["tokenizer"]
    write_generation_recipe(folder / "fine-tuning", tuning)
    return folder
