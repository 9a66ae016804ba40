"""The family is registered with the Auto classes; its folders load in a fresh process, with and without the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_seq2seq import PRESETS, some_ids, tiny_config, tiny_model
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

import hf_prompting
from hf_prompting.errors import Seq2SeqInputError
from hf_prompting.seq2seq import (
    Seq2SeqTransformerConfig,
    Seq2SeqTransformerEncoderModel,
    Seq2SeqTransformerForConditionalGeneration,
    Seq2SeqTransformerForQuestionAnswering,
    Seq2SeqTransformerForSequenceClassification,
    Seq2SeqTransformerForTokenClassification,
    Seq2SeqTransformerModel,
)

AUTO_CLASSES = {
    AutoModel: Seq2SeqTransformerModel,
    AutoModelForSeq2SeqLM: Seq2SeqTransformerForConditionalGeneration,
    AutoModelForSequenceClassification: Seq2SeqTransformerForSequenceClassification,
    AutoModelForTokenClassification: Seq2SeqTransformerForTokenClassification,
    AutoModelForQuestionAnswering: Seq2SeqTransformerForQuestionAnswering,
}


@pytest.mark.parametrize("auto_class", AUTO_CLASSES, ids=lambda one: one.__name__)
def test_each_auto_class_makes_its_model(auto_class: Any) -> None:
    assert type(auto_class.from_config(tiny_config("modern"))) is AUTO_CLASSES[auto_class]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_configuration_survives_saving(preset: str, tmp_path: Path) -> None:
    config = tiny_config(preset, num_key_value_heads=2, num_decoder_layers=3)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is Seq2SeqTransformerConfig
    assert {**loaded.to_dict(), "_name_or_path": ""} == config.to_dict()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_model_survives_saving(preset: str, tied: bool, tmp_path: Path) -> None:
    model, ids = tiny_model(preset, tie_word_embeddings=tied), some_ids()
    model.save_pretrained(tmp_path)
    loaded, found = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    assert torch.equal(loaded(ids, labels=ids).logits, model(ids, labels=ids).logits)
    assert loaded.model.encoder.embed_tokens.weight is loaded.model.shared.weight
    assert (loaded.lm_head.weight is loaded.model.shared.weight) is tied


def test_heads_load_the_weights_of_the_generating_model(tmp_path: Path) -> None:
    model, ids = tiny_model("modern"), some_ids()
    model.save_pretrained(tmp_path)
    expected = model.model.encoder(ids).last_hidden_state
    assert torch.equal(Seq2SeqTransformerEncoderModel.from_pretrained(tmp_path)(ids).last_hidden_state, expected)
    for head in (Seq2SeqTransformerForTokenClassification, Seq2SeqTransformerForSequenceClassification):
        assert torch.equal(head.from_pretrained(tmp_path).model.encoder(ids).last_hidden_state, expected)


def test_both_sides_and_the_tied_head_are_resized_together() -> None:
    model = tiny_model("modern")
    model.resize_token_embeddings(120)
    assert model.lm_head.weight is model.model.decoder.embed_tokens.weight
    ids = torch.full((1, 3), 119)
    assert model(ids, labels=ids).logits.shape == (1, 3, 120)


GENERATE = """
import sys
{first}
import torch
from transformers import AutoModelForSeq2SeqLM, CompileConfig
model = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1], trust_remote_code={trust})
found = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=6).tolist()
compiled = {{"cache_implementation": "static", "compile_config": CompileConfig()}}  # remote code has none: as prepared
assert model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=6, **compiled).tolist() == found
print(type(model).__module__.split(".")[0], found)
"""


def generated_in_a_fresh_process(folder: Path, first: str, *, trust: bool) -> str:
    paths = os.pathsep.join([str(Path(hf_prompting.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "HF_HOME": str(folder / "cache")}
    script = GENERATE.format(first=first, trust=trust)
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_fresh_process_generates_the_same_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Seq2SeqTransformerConfig, "_auto_class", "AutoConfig")
    monkeypatch.setattr(Seq2SeqTransformerForConditionalGeneration, "_auto_class", "AutoModelForSeq2SeqLM")
    model = tiny_model("modern")
    model.save_pretrained(tmp_path)
    expected = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=6).tolist()
    imported = generated_in_a_fresh_process(tmp_path, "import hf_prompting", trust=False)
    assert imported == f"hf_prompting {expected}"
    # None in sys.modules makes every import of the package fail, as where it is not installed
    remote = generated_in_a_fresh_process(tmp_path, "sys.modules['hf_prompting'] = None", trust=True)
    assert remote == f"transformers_modules {expected}"


def test_remote_code_is_not_uploaded_before_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Seq2SeqTransformerForConditionalGeneration, "_auto_class", "AutoModelForSeq2SeqLM")
    with pytest.raises(Seq2SeqInputError, match=r"model\.push_to_hub"):
        tiny_model("modern").save_pretrained(tmp_path, push_to_hub=True)


def test_register_for_auto_class_is_the_way_to_remote_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Seq2SeqTransformerForConditionalGeneration, "_auto_class", None)
    Seq2SeqTransformerForConditionalGeneration.register_for_auto_class("AutoModelForSeq2SeqLM")
    assert Seq2SeqTransformerForConditionalGeneration._auto_class == "AutoModelForSeq2SeqLM"
