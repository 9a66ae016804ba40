"""Exports of prompts over real models give equal scores in a process that cannot import this library."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_prompting import PromptForSequenceClassification, SoftPromptConfig
from hf_prompting.artifacts.export import export_classifier
from hf_prompting.bases import locate_base

pytestmark = pytest.mark.slow

TEXTS = ["A warm, funny film.", "Two hours of my life that I will not get back.", "这部电影很好看"]
SCRIPT = """
import json, sys
sys.modules["hf_prompting"] = None
answers = []
for code in json.loads(sys.stdin.read()):
    names = {}
    exec(code, names)
    answers.append([list(names["class_scores"](text).values()) for text in json.loads(sys.argv[1])])
print(json.dumps(answers))
"""
# SmolLM2 adds nothing before a prompt; Gemma adds <bos> and scales its embeddings, so PEFT cannot express its prompt.
BASES = {"HuggingFaceTB/SmolLM2-135M-Instruct": ("plain", "peft", "embeds"), "google/gemma-3-270m": ("plain", "embeds")}


@pytest.mark.parametrize("base", BASES)
def test_every_export_of_a_real_prompt_scores_as_the_classifier_does(base: str, tmp_path: Path) -> None:
    located = locate_base(base)
    if not located.is_local:
        pytest.skip(f"{base} is not installed")
    model, tokenizer = PromptForSequenceClassification.from_base(
        base,
        template="{soft:8}Review: {text}\nThe movie was{mask}",
        verbalizer={"negative": ["terrible", "not good"], "positive": ["great", "很好"]},
        soft_prompt=SoftPromptConfig(init="text", init_text="Classify the sentiment of each movie review.", seed=0),
    )
    model.save_pretrained(tmp_path / "prompt")
    tokenizer.save_pretrained(tmp_path / "prompt")
    with torch.no_grad():
        expected = [model.eval()(**tokenizer(text, return_tensors="pt")).logits[0].softmax(-1) for text in TEXTS]
    del model
    codes: list[Any] = []
    for form in BASES[base]:
        fresh = PromptForSequenceClassification.from_pretrained(tmp_path / "prompt")
        export_classifier(fresh, tokenizer, tmp_path / form, form=form)
        (code,) = re.findall(r"```python\n(.*?)\n```", (tmp_path / form / "README.md").read_text("utf-8"), re.DOTALL)
        code = code.replace("PATH_OF_THIS_FOLDER", str(tmp_path / form))
        codes.append(code[: code.index("print(class")].replace('prompt["base_model"]', repr(located.path_or_id)))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(TEXTS)], input=json.dumps(codes), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for rows in json.loads(done.stdout.splitlines()[-1]):
        torch.testing.assert_close(torch.tensor(rows).softmax(-1), torch.stack(expected), atol=1e-5, rtol=1e-4)
