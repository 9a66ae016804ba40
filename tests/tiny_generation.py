"""Tiny pairs of texts and a generation recipe over them that runs in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tiny_recipes import write_rows

NUMBERS = {
    "one": "一",
    "two": "二",
    "three": "三",
    "four": "四",
    "five": "五",
    "six": "六",
    "seven": "七",
    "eight": "八",
}
THINGS = {"cats": "只猫", "books": "本书", "days": "天", "people": "个人", "cars": "辆车", "flowers": "朵花"}


def pairs(num_rows: int, first: int = 0) -> list[dict[str, str]]:
    """Return rows of English counts and their Chinese, from one to three things long."""
    rows = []
    for number in range(first, first + num_rows):
        words = [(number * 7 + part * 5, number * 3 + part) for part in range(1 + number % 3)]
        english = [f"{list(NUMBERS)[i % 8]} {list(THINGS)[j % 6]}" for i, j in words]
        chinese = [f"{list(NUMBERS.values())[i % 8]}{list(THINGS.values())[j % 6]}" for i, j in words]
        rows.append({"en": " and ".join(english), "zh": "和".join(chinese)})
    return rows


def generation_values() -> dict[str, Any]:
    """Return the values of a recipe that trains a two-layer model for some steps."""
    return {
        "task": "generation",
        "name": "tiny-translation",
        "description": "A test.",
        "data": {"path": "data", "source": "en", "target": "zh", "title": "made up pairs"},
        "tokenizer": {"kind": "unigram", "vocab_size": 600},
        "model": {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2},
        "training": {
            "max_source_length": 16,
            "max_target_length": 16,
            "learning_rate": 0.01,
            "max_steps": 12,
            "per_device_train_batch_size": 8,
            "warmup_steps": 2,
            "eval_steps": 6,
        },
        "evaluation": {"bleu_tokenizer": "zh", "num_beams": 2, "max_new_tokens": 8, "batch_size": 8, "num_samples": 2},
        "output": {"dir": "outputs/tiny", "language": ["en", "zh"]},
        "smoke": {"training": {"max_steps": 2, "eval_steps": 2}},
    }


def write_generation_recipe(folder: Path, values: Mapping[str, Any] | None = None) -> Path:
    """Write a recipe folder with its data: 48 training, 8 dev and 10 test pairs."""
    for name, first, num_rows in (("train", 0, 48), ("dev", 100, 8), ("test", 200, 10)):
        write_rows(folder / "data" / f"{name}.jsonl", pairs(num_rows, first))
    text = yaml.safe_dump(dict(values or generation_values()), allow_unicode=True, sort_keys=False)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return folder
