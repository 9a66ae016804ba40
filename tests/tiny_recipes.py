"""A tiny base model in a folder, tiny data and a recipe over them: what the run, check, predict and show tests need."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tiny_models import tiny_model
from tiny_tokenizers import smollm_bpe

POSITIVE = ("I loved every minute of it", "the actors were great", "a wonderful and funny film", "good, moving story")
NEGATIVE = ("I hated it", "a bad and boring story", "the film is awful and slow", "2 hours of my life, terrible")


def write_base(folder: Path) -> Path:
    """Save a seeded two-layer Llama and its tokenizer, as any base model is saved."""
    tokenizer = smollm_bpe()
    tiny_model("llama", vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as JSONL."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def labelled_rows(num_rows: int) -> list[dict[str, str]]:
    """Return rows that alternate between the two labels."""
    texts = {"negative": NEGATIVE, "positive": POSITIVE}
    labels = list(texts)
    return [
        {"text": f"{texts[labels[i % 2]][i // 2 % 4]} {'so ' * (i % 5)}it was", "label": labels[i % 2]}
        for i in range(num_rows)
    ]


def recipe_values(base: Path) -> dict[str, Any]:
    """Return the values of a recipe that runs in about a second."""
    return {
        "name": "tiny",
        "description": "A test.",
        "data": {"path": "data", "title": "made up rows"},
        "base_model": {"id": "tests/tiny-llama", "path": str(base)},
        "template": "{soft:3}Review: {text}\nThe movie was{mask}",
        "soft_prompt": {"init": "vocabulary"},
        "verbalizer": {"words": {"negative": ["terrible", "bad"], "positive": ["great", "good"]}},
        "training": {
            "seeds": [0],
            "max_length": 64,
            "learning_rate": 0.05,
            "max_steps": 4,
            "per_device_train_batch_size": 4,
            "eval_steps": 2,
        },
        "evaluation": {"metrics": ["accuracy", "f1"], "batch_size": 8},
        "output": {"dir": "outputs/tiny", "language": ["en"]},
        "smoke": {"training": {"max_steps": 2}, "evaluation": {"max_test_rows": 4}},
    }


def write_recipe(folder: Path, values: Mapping[str, Any]) -> Path:
    """Write a recipe folder with its data: 8 training, 8 dev and 12 test rows."""
    for name, num_rows in (("train", 8), ("dev", 8), ("test", 12)):
        write_rows(folder / "data" / f"{name}.jsonl", labelled_rows(num_rows))
    text = yaml.safe_dump(dict(values), allow_unicode=True, sort_keys=False)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return folder
