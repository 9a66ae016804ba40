"""Exports give equal scores in a process that cannot import this library."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from classifier_parts import (
    ALL_FAMILIES,
    PAIRS,
    TEXTS,
    TOKENIZERS,
    classifier,
    save_base,
    scores,
    scramble,
    template_for,
)
from safetensors import safe_open
from tiny_models import DECODER
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM
from typer.testing import CliRunner

from hf_prompting import PromptForSequenceClassification, Verbalizer
from hf_prompting.artifacts.export import export_classifier
from hf_prompting.cli import app
from hf_prompting.errors import ArtifactError

WITHOUT_LIBRARY = """
import json, sys, warnings
warnings.simplefilter("ignore")
sys.modules["hf_prompting"] = None  # every import of it fails, as where it is not installed
answers = []
for code, rows in json.loads(sys.stdin.read()):
    names = {}
    exec(code, names)
    answers.append([list(names["class_scores"](*row).values()) for row in rows])
print(json.dumps(answers))
"""
PREFIX = "{soft:3}Review: {text} It was{mask}"


def code_of(folder: Path, base: Path) -> str:
    """The python of the export's own README, for this folder and base, without the call that ends it."""
    (code,) = re.findall(r"```python\n(.*?)\n```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    code = code.replace("PATH_OF_THIS_FOLDER", str(folder)).replace('prompt["base_model"]', repr(str(base)))
    return str(code[: code.index("print(class_scores(")])


def without_library(tasks: list[tuple[str, list[list[str]]]]) -> list[torch.Tensor]:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBRARY], input=json.dumps(tasks), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [torch.tensor(rows).softmax(-1) for rows in json.loads(done.stdout.splitlines()[-1])]


def export_folder(source: Path, target: Path, *, form: str) -> None:
    model = PromptForSequenceClassification.from_pretrained(source)
    export_classifier(model, AutoTokenizer.from_pretrained(source), target, form=form)


def save_qwen2(folder: Path) -> str:
    tokenizer = TOKENIZERS["qwen3"]()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), **DECODER, initializer_range=0.12)).save_pretrained(folder)
    return str(folder)


def saved(family: str, folder: Path, **settings: Any) -> tuple[Any, Any, Path]:
    base = Path(save_qwen2(folder / "base") if family == "qwen2" else save_base(family, folder / "base"))
    model, tokenizer = classifier(str(base), family, **settings)
    scramble(model)
    model.save_pretrained(folder / "prompt")
    tokenizer.save_pretrained(folder / "prompt")
    return model, tokenizer, base


CASES: dict[str, tuple[str, str, str]] = {
    **{f"{family} {form}": (family, form, "") for family in ALL_FAMILIES for form in ("plain", "embeds")},
    "gpt2 peft": ("gpt2", "peft", PREFIX),
    "qwen3 peft": ("qwen3", "peft", PREFIX),
    "t5 peft": ("t5", "peft", "{soft:3}Review: {text} It was {mask}"),
    "qwen2 plain": ("qwen2", "plain", PREFIX),  # AutoTokenizer rebuilds its tokenizers, and drops the template
}


def takes_pairs(family: str, template: str) -> bool:
    return not template and family in ALL_FAMILIES[1::2]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Case -> scores found without this library, and those of the classifier; one process for all cases."""
    tasks, expected = [], []
    for case, (family, form, template) in CASES.items():
        folder = tmp_path_factory.mktemp(case.replace(" ", "_"))
        is_pair = takes_pairs(family, template)
        settings = {"template": template or template_for(family, pair=is_pair)}
        model, tokenizer, base = saved(family, folder, **settings)
        expected.append(scores(model, tokenizer, pairs=PAIRS if is_pair else None))
        export_folder(folder / "prompt", folder / "out", form=form)
        tasks.append((code_of(folder / "out", base), [[text, PAIRS[n]][: 1 + is_pair] for n, text in enumerate(TEXTS)]))
    return dict(zip(CASES, zip(without_library(tasks), expected, strict=True), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_an_export_gives_equal_scores_without_this_library(
    scored: dict[str, tuple[torch.Tensor, torch.Tensor]], case: str
) -> None:
    found, expected = scored[case]
    assert (expected.std(0) > 1e-6).all()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


NO_ADAPTER = {
    "bert": ("{soft:3}{text} It was {mask}.", "masked language models"),
    "llama": (PREFIX, "special token of the base model stands first"),
    "gpt2": ("Review: {text} {soft:3}It was{mask}", "text of the template stands first"),
    "qwen3": ("{soft:3}Review: {text}{soft:2}It was{mask}", "several"),
    "gemma3": ("Review: {text} It was{mask}", "no soft tokens"),
}


@pytest.mark.parametrize("family", NO_ADAPTER)
def test_what_peft_cannot_express_is_explained(family: str, tmp_path: Path) -> None:
    template, said = NO_ADAPTER[family]
    saved(family, tmp_path, template=template)
    with pytest.raises(ArtifactError, match=f"{said}; use --to plain"):
        export_folder(tmp_path / "prompt", tmp_path / "out", form="peft")
    assert not (tmp_path / "out").exists()


def test_an_adapter_is_of_a_stock_method(tmp_path: Path) -> None:
    saved("gpt2", tmp_path, template=PREFIX)
    export_folder(tmp_path / "prompt", tmp_path / "out", form="peft")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["peft_type"], config["num_virtual_tokens"]) == ("PROMPT_TUNING", 3)


def test_scaled_embeddings_are_exported_scaled_and_say_so(tmp_path: Path) -> None:
    """Gemma multiplies its embeddings by the root of H; PEFT, servers and inputs_embeds do not."""
    model, _, _ = saved("gemma3", tmp_path, template=PREFIX)
    export_folder(tmp_path / "prompt", tmp_path / "out", form="embeds")
    layout = json.loads((tmp_path / "out" / "prompt.json").read_text(encoding="utf-8"))["layout"]
    assert [part["kind"] for part in layout] == ["special", "soft", "template", "field", "template"]
    with safe_open(tmp_path / "out" / "prompt_embeddings.safetensors", framework="pt") as file:
        assert file.metadata()["embeddings_are_scaled"] == "true"
        torch.testing.assert_close(file.get_tensor("part.1"), model.soft_prompt.rows.detach() * 32**0.5)


def test_soft_tokens_are_never_generated_by_a_merged_model(tmp_path: Path) -> None:
    _, tokenizer, _ = saved("gpt2", tmp_path, template=PREFIX)
    export_folder(tmp_path / "prompt", tmp_path / "out", form="plain")
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text(encoding="utf-8"))
    assert generation["suppress_tokens"] == list(tokenizer.soft_token_ids)
    content = json.loads((tmp_path / "out" / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["id"]: token["content"] for token in content["added_tokens"]}
    assert [added[token_id] for token_id in tokenizer.soft_token_ids] == ["<|soft_0|>", "<|soft_1|>", "<|soft_2|>"]


def test_no_private_path_is_in_an_export(tmp_path: Path) -> None:
    saved("gpt2", tmp_path, template=PREFIX)
    for form in ("plain", "peft", "embeds"):
        export_folder(tmp_path / "prompt", tmp_path / form, form=form)
        for file in (tmp_path / form).iterdir():
            assert str(tmp_path).encode() not in file.read_bytes(), file


def test_the_command_exports_and_names_what_is_allowed(tmp_path: Path) -> None:
    saved("gpt2", tmp_path, template=PREFIX, verbalizer=Verbalizer({"a": "great", "b": "bad"}))
    call = ["export", str(tmp_path / "prompt"), "--output-dir", str(tmp_path / "out"), "--to"]
    result = CliRunner().invoke(app, [*call, "plein"])
    assert result.exit_code == 2 and "Did you mean 'plain'" in result.stderr
    result = CliRunner().invoke(app, [*call, "plain"])
    assert result.exit_code == 0 and f"Exported to {tmp_path / 'out'}" in result.stdout
    result = CliRunner().invoke(app, [*call, "plain"])
    assert result.exit_code == 2 and "not empty" in result.stderr
    result = CliRunner().invoke(app, ["export", "./no-such", "--to", "plain", "--output-dir", str(tmp_path / "new")])
    assert result.exit_code == 2 and "no such folder" in result.stderr
