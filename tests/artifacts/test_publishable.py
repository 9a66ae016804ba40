"""A folder is checked before any of it is sent: whole, and with nothing private in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from classifier_parts import TOKENIZERS, classifier
from peft import PromptTuningConfig
from safetensors.torch import save_file
from tiny_models import tiny_model

from hf_prompting.artifacts.publishable import check_nothing_private, check_whole, publishable_files
from hf_prompting.artifacts.push import prepare
from hf_prompting.errors import ArtifactError, HfPromptingError

FAKE_TOKEN = "hf_" + "a1B2" * 9


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "prompt"
    tokenizer = TOKENIZERS["gpt2"]()
    base = tiny_model("gpt2", vocab_size=len(tokenizer))
    base.name_or_path = "org/base"
    model, compiled = classifier(base, "gpt2", tokenizer=tokenizer)
    model.save_pretrained(folder)
    compiled.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "prompt"))


def edit(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def on_purpose(folder: Path) -> None:
    """Declare every change of the folder intended, so that its sums are not compared."""
    for name in ("config.json", "tokenizer_config.json"):
        edit(folder / name, checksums=None)


def test_what_was_changed_after_saving_is_not_sent(folder: Path) -> None:
    save_file({"soft_prompt.rows": torch.zeros(5, 32)}, folder / "model.safetensors")
    with pytest.raises(ArtifactError, match="not as it was saved"):
        check_whole(folder)
    on_purpose(folder)
    check_whole(folder)


def test_a_whole_folder_passes(folder: Path) -> None:
    check_whole(folder)
    check_nothing_private(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("keep", [None, 0, 40])
def test_a_missing_or_cut_file_is_named(folder: Path, name: str, keep: int | None) -> None:
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if keep is not None:
        (folder / name).write_bytes(content[:keep])
    with pytest.raises(HfPromptingError, match=r"config\.json|model\.safetensors|tokenizer"):
        check_whole(folder)


def test_files_of_different_prompts_are_not_sent_together(folder: Path, tmp_path: Path) -> None:
    save_file({"soft_prompt.rows": torch.zeros(4, 32)}, folder / "model.safetensors")
    on_purpose(folder)
    with pytest.raises(ArtifactError, match=r"shape \[4, 32\].*\[5, 32\]"):
        check_whole(folder)


def test_the_tokenizer_of_another_template_is_not_sent(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", prompt_template_source="{text} so{mask}")
    on_purpose(folder)
    with pytest.raises(ArtifactError, match="holds the template"):
        check_whole(folder)


def test_values_that_are_not_finite_are_not_sent(folder: Path) -> None:
    save_file({"soft_prompt.rows": torch.full((5, 32), torch.nan)}, folder / "model.safetensors")
    on_purpose(folder)
    with pytest.raises(ArtifactError, match="not finite"):
        check_whole(folder)


def test_another_model_is_not_sent(folder: Path) -> None:
    edit(folder / "config.json", model_type="llama")
    with pytest.raises(ArtifactError, match="'llama'"):
        check_whole(folder)
    with pytest.raises(ArtifactError, match="no such folder"):
        check_whole(folder / "nothing")


def test_only_own_files_are_sent(folder: Path) -> None:
    for name in ("training_args.bin", "notes.txt", ".env", "pytorch_model.bin", "results.png"):
        (folder / name).write_bytes(b"")
    (folder / "checkpoint-2").mkdir()
    names = {file.name for file in publishable_files(folder)}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "results.png"}


@pytest.mark.parametrize("file", ["config.json", "metrics.json", "README.md", "tokenizer_config.json"])
def test_private_paths_and_tokens_are_found_in_every_text(
    folder: Path, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "a-token-of-another-form")
    for secret, said in (
        (str(tmp_path), "path"),
        (str(Path.home() / "data" / "mine"), "path"),
        (FAKE_TOKEN, "Hub token"),
        ("a-token-of-another-form", "Hub token"),
    ):
        path = folder / file
        before = path.read_bytes() if path.exists() else b"{}"
        if file.endswith(".json"):
            path.write_text(json.dumps({**json.loads(before), "x": {"y": [f"see {secret}."]}}), encoding="utf-8")
        else:
            path.write_text(f"see `{secret}`", encoding="utf-8")
        with pytest.raises(ArtifactError, match=f"{file}.*holds .*{said}") as caught:
            check_nothing_private(folder)
        assert said == "path" or secret not in str(caught.value)
        path.write_bytes(before)


def test_slashes_that_are_no_path_of_this_machine_pass(folder: Path) -> None:
    edit(folder / "config.json", label_words={"and/or": ["/", "http://x.org/a/b", "//", "/no/such/place"]})
    check_nothing_private(folder)


def test_an_adapter_of_peft_is_sent_with_the_id_of_its_base(tmp_path: Path) -> None:
    adapter, copy = tmp_path / "adapter", tmp_path / "copy"
    copy.mkdir()
    PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=2, base_model_name_or_path=str(tmp_path)
    ).save_pretrained(adapter)
    with pytest.raises(ArtifactError, match=r"adapter_model\.safetensors"):
        check_whole(adapter)
    save_file({"prompt_embeddings": torch.zeros(2, 4)}, adapter / "adapter_model.safetensors")
    check_whole(adapter)
    with pytest.raises(ArtifactError, match="--base-model"):
        prepare(adapter, copy, repo_id="me/x")
    prepare(adapter, copy, repo_id="me/x", base_model="org/base")
    assert (
        json.loads((copy / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"] == "org/base"
    )


def test_a_card_that_a_run_wrote_keeps_its_words_and_gets_the_id(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text("pipeline(model='PATH_OR_ID_OF_THIS_FOLDER') 自己", encoding="utf-8")
    copy = tmp_path / "copy"
    copy.mkdir()
    prepare(folder, copy, repo_id="me/x")
    assert (copy / "README.md").read_text(encoding="utf-8") == "pipeline(model='me/x') 自己"
