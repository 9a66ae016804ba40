"""What the Hub tests do again and again: save a prompt, push it, load it in a process of its own, read an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from classifier_parts import TEXTS, classifier, scores, scramble
from hub_worker import Ran, Worker
from loopback_hub import TOKEN

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
