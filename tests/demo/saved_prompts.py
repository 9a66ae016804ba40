"""Saved prompts over a tiny base, untrained: what the page's tests open."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from tiny_recipes import write_base

from hf_prompting.classifier import PromptForSequenceClassification

# Each would run a script, or be evaluated, if anything on the page took it for more than text.
HOSTILE = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"
EVALUATED = "${document.title='broken'} {{7*7}}"
TEMPLATE = "{soft:3}Review: {text}\nThe movie was{mask}"
WORDS: Mapping[str, list[str]] = {"negative": ["terrible", "bad"], "positive": ["great", "good"]}


def save_prompt(
    folder: Path, *, template: str = TEMPLATE, words: Mapping[str, list[str]] = WORDS, name: str = "", about: str = ""
) -> Path:
    """Save a seeded prompt over a base in ``folder/base``; ``name`` and ``about`` are what a recipe says."""
    base = folder / "base"
    if not base.exists():
        write_base(base)
    torch.manual_seed(0)
    model, tokenizer = PromptForSequenceClassification.from_base(str(base), template=template, verbalizer=dict(words))
    with torch.no_grad():
        if model.soft_prompt is not None:
            model.soft_prompt.rows.normal_()
    saved = folder / "saved"
    model.save_pretrained(saved)
    tokenizer.save_pretrained(saved)
    recipe = {"recipe": {"name": name, "description": about}}
    (saved / "metrics.json").write_text(json.dumps(recipe), encoding="utf-8")
    return saved
