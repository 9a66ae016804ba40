from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from tiny_gguf import tiny_llama, write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_prompting.bases import compare_bases, fingerprint_base
from hf_prompting.bases.convert import convert_gguf
from hf_prompting.errors import BaseModelError

TEXTS = [
    "The movie was great",
    "in 2024   2 and\t12 3.5",
    "评论：这部电影很差\n\n情感",
    "<|im_start|>user\nhi<|im_end|>",
]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, gguf_bytes: bytes) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    file = tmp_path_factory.mktemp("source") / "model.gguf"
    file.write_bytes(gguf_bytes)
    convert_gguf(file, folder)
    return folder


def test_the_converted_model_computes_what_the_original_computes(converted: Path) -> None:
    original, _ = tiny_llama()
    model = AutoModelForCausalLM.from_pretrained(converted)
    ids = torch.randint(0, original.config.vocab_size, (2, 17), generator=torch.Generator().manual_seed(0))
    assert model.dtype == torch.float32
    assert torch.allclose(model(ids).logits, original(ids).logits, atol=1e-5)
    assert compare_bases(fingerprint_base(original), fingerprint_base(model)) == "same"


def test_tied_weights_stay_tied_and_are_stored_once(converted: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(converted)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    num_values = sum(parameter.numel() for parameter in model.parameters())
    assert (converted / "model.safetensors").stat().st_size < 4 * num_values + 10_000


def test_nothing_in_the_folder_tells_of_gguf_or_of_this_machine(converted: Path) -> None:
    config = json.loads((converted / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["architectures"] == ["LlamaForCausalLM"]
    for file in converted.glob("*.json"):
        assert str(converted.parent.parent) not in file.read_text()


@pytest.mark.parametrize("text", TEXTS)
def test_the_converted_tokenizer_cuts_text_as_the_original_does(converted: Path, text: str) -> None:
    _, original = tiny_llama()
    tokenizer = AutoTokenizer.from_pretrained(converted)
    assert tokenizer.is_fast
    assert tokenizer(text).input_ids == original(text).input_ids
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_the_converted_tokenizer_keeps_special_tokens_and_the_model_s_length(converted: Path) -> None:
    _, original = tiny_llama()
    tokenizer = AutoTokenizer.from_pretrained(converted)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(tokenizer, name) == getattr(original, name)
    assert tokenizer.model_max_length == 256
    assert len(tokenizer) == len(original)


def test_a_file_in_8_bits_is_a_variant_of_the_original(tmp_path: Path) -> None:
    original, tokenizer = tiny_llama()
    file, folder = tmp_path / "model.gguf", tmp_path / "converted"
    write_gguf(file, original, tokenizer, in_8_bits=True)
    folder.mkdir()
    model = convert_gguf(file, folder)
    assert compare_bases(fingerprint_base(original), fingerprint_base(model)) == "variant"
    reloaded = AutoModelForCausalLM.from_pretrained(folder)
    assert compare_bases(fingerprint_base(model), fingerprint_base(reloaded)) == "same"


def test_a_missing_gguf_package_is_told_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(BaseModelError, match=r'pip install "hf_prompting\[gguf\]"'):
        convert_gguf(tmp_path / "model.gguf", tmp_path)


def test_a_file_that_is_no_gguf_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"not a gguf file" * 100)
    with pytest.raises(BaseModelError, match=r"cannot read the GGUF file model\.gguf"):
        convert_gguf(file, tmp_path)
