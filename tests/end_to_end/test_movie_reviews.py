"""The main job on the real model: recipe, saved folder, prediction in fresh processes, and the base it insists on."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import hf_prompting
from hf_prompting.bases import locate_base
from hf_prompting.errors import BaseModelMismatchError

pytestmark = pytest.mark.slow

ROOT = Path(hf_prompting.__file__).parent.parent
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "hf_prompting", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the smoke run of the recipe saves."""
    where = tmp_path_factory.mktemp("run")
    recipe = str(ROOT / "recipes" / "movie-reviews-soft-prompt")
    done = run("run", recipe, "--smoke", "--output-dir", "out", cwd=where)
    assert done.returncode == 0, done.stderr
    assert "zero-shot" in done.stdout and "tuned, seed 0" in done.stdout
    again = run("run", recipe, "--smoke", "--output-dir", "out", cwd=where)
    assert again.returncode == 2 and "--overwrite" in again.stderr
    return where / "out"


def test_the_saved_folder_is_small_complete_and_names_no_private_path(folder: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "metrics.json", "README.md", "results.png"} <= set(
        sizes
    )
    assert sum(size for name, size in sizes.items() if name != "tokenizer.json") < 200_000
    for name in ("config.json", "metrics.json", "README.md", "tokenizer_config.json"):
        assert str(Path.home()) not in (folder / name).read_text(encoding="utf-8")
    assert json.loads((folder / "config.json").read_text())["base_model_name_or_path"] == BASE


def test_fresh_processes_agree_on_the_prediction(folder: Path) -> None:
    text = "a warm , funny film ."
    predicted = run("predict", str(folder), "--text", text, "--text", "dull", cwd=folder.parent)
    assert predicted.returncode == 0, predicted.stderr
    first, second = map(json.loads, predicted.stdout.splitlines())
    assert set(first["scores"]) == {"negative", "positive"} and sum(second["scores"].values()) == pytest.approx(1)
    code = (
        "import sys, json, hf_prompting\nfrom transformers import pipeline\n"
        "print(json.dumps(pipeline('text-classification', model=sys.argv[1])(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, str(folder), text]
    piped = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert piped.returncode == 0, piped.stderr
    answer = json.loads(piped.stdout)[0]
    assert answer["label"] == first["label"]
    assert answer["score"] == pytest.approx(max(first["scores"].values()), abs=1e-5)


def test_show_tells_template_field_and_soft_tokens_apart(folder: Path) -> None:
    shown = run("show", str(folder), "--text", "a warm , funny film .", cwd=folder.parent)
    assert shown.returncode == 0, shown.stderr
    for word in ("soft", "template", "field", "slot"):
        assert word in shown.stdout


def test_a_near_copy_of_the_base_warns_and_another_model_is_refused(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = AutoModelForCausalLM.from_pretrained(locate_base(BASE).path_or_id)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.mul_(1 + 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    base.save_pretrained(tmp_path / "near")
    transformers_logger = logging.getLogger("transformers")
    hf_logger = logging.getLogger("hf_prompting")
    for logger in (transformers_logger, hf_logger):
        logger.addHandler(caplog.handler)
    AutoModelForSequenceClassification.from_pretrained(str(folder), base_model=str(tmp_path / "near"))
    assert any("holds other weights" in record.getMessage() for record in caplog.records)
    for logger in (transformers_logger, hf_logger):
        logger.removeHandler(caplog.handler)

    other = AutoModelForCausalLM.from_config(base.config)
    with pytest.raises(BaseModelMismatchError, match="is not the model"):
        AutoModelForSequenceClassification.from_pretrained(str(folder), base_model=other)


def test_soft_tokens_train_and_merge_on_the_real_model(tmp_path: Path) -> None:
    from peft import get_peft_model

    from hf_prompting import SoftPromptConfig

    place = locate_base(BASE).path_or_id
    tokenizer = AutoTokenizer.from_pretrained(place)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(place), SoftPromptConfig(num_virtual_tokens=5, seed=0))
    soft = model.peft_config["default"].token_ids
    ids = torch.tensor([soft + tokenizer("The capital of France is")["input_ids"]])
    labels = torch.tensor([[-100] * (ids.shape[1] - 1) + tokenizer(" Rome")["input_ids"]])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(8):
        output = model(input_ids=ids, labels=torch.cat([labels[:, 1:], labels[:, -1:]], dim=1))
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(output.loss.item())
    assert losses[-1] < losses[0] / 2
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        merged = model.merge_and_unload()
        torch.testing.assert_close(merged(input_ids=ids).logits[..., : expected.shape[-1]], expected)
    generated = merged.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=tokenizer.eos_token_id)
    assert not set(generated[0, ids.shape[1] :].tolist()) & set(soft)
