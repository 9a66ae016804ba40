"""Shipped code loads a classifier where this library is not installed, by trust_remote_code=True alone."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from classifier_parts import TEXTS, classifier, save_base, scores, scramble
from hub_prompts import loaded, pushed
from hub_worker import Worker
from loopback_hub import LoopbackHub

from hf_prompting import PromptForSequenceClassification
from hf_prompting.classifier.remote_code import write_remote_code
from hf_prompting.errors import HubError

WITHOUT_LIBRARY = """
import json, sys
sys.modules["hf_prompting"] = None  # every import of it fails, as where it is not installed
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
name, texts, again = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
def scores(name):
    model = AutoModelForSequenceClassification.from_pretrained(name, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model).__module__
    batch = AutoTokenizer.from_pretrained(name, trust_remote_code=True)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model, model(**{key: batch[key] for key in ("input_ids", "attention_mask")}).logits.softmax(-1)
model, first = scores(name)
best = pipeline("text-classification", model=name, trust_remote_code=True)(texts)
assert [one["label"] for one in best] == [model.config.id2label[int(n)] for n in first.argmax(-1)]
if again:  # what remote code saves holds its own code again
    model.save_pretrained(again)
    AutoTokenizer.from_pretrained(name, trust_remote_code=True).save_pretrained(again)
    assert torch.equal(scores(again)[1], first)
print(json.dumps(first.tolist()))
"""


def without_library(name: str, environment: dict[str, str], again: str = "") -> torch.Tensor:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBRARY, name, json.dumps(TEXTS), again],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return torch.tensor(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_a_folder_saved_with_code_loads_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PromptForSequenceClassification, "_auto_class", None)
    PromptForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
    model, tokenizer = classifier(save_base("gpt2", tmp_path / "base"), "gpt2")
    scramble(model)
    model.save_pretrained(tmp_path / "prompt")
    tokenizer.save_pretrained(tmp_path / "prompt")
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    found = without_library(str(tmp_path / "prompt"), environment, str(tmp_path / "again"))
    torch.testing.assert_close(found, scores(model, tokenizer), atol=1e-6, rtol=1e-5)
    with pytest.raises(HubError, match=r"model\.push_to_hub"):
        model.save_pretrained(tmp_path / "prompt", push_to_hub=True)


@pytest.mark.slow
def test_a_repository_pushed_with_code_loads_both_ways(
    worker: Worker, hub: LoopbackHub, prompt: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    pushed(worker, prompt[0], tmp_path, "--with-code")
    for found in (
        torch.tensor(loaded(worker, tmp_path / "reader").answer),
        without_library("alice/prompt", hub.environment(tmp_path / "stranger")),
    ):
        torch.testing.assert_close(found, prompt[1], atol=1e-6, rtol=1e-5)
    pushed(worker, prompt[0], tmp_path)  # code that was shipped once does not stay behind
    assert not [name for name in hub.files("alice/prompt") if name.endswith(".py")]


def test_shipped_code_names_no_module_that_is_not_shipped(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    names = {path.stem for path in write_remote_code(tmp_path)}
    assert "hf_prompting_classifier_modeling_prompt" in names
    for path in tmp_path.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0 or node.module in names
                assert node.level or not (node.module or "").startswith("hf_prompting"), (path, node.lineno)
