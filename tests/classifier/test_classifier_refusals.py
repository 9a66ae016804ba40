"""What does not fit is refused with one clear error, and a base is given back whole."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from classifier_parts import (
    ALL_FAMILIES,
    TEXTS,
    TOKENIZERS,
    WORDS,
    classifier,
    encode,
    save_base,
    scores,
)
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BertModel

from hf_prompting import PromptClassifierConfig, PromptForSequenceClassification, SoftPromptConfig, Verbalizer
from hf_prompting.errors import (
    ArtifactError,
    BaseModelError,
    BaseModelMismatchError,
    HfPromptingError,
    InputTextError,
    LabelWordError,
    SoftPromptError,
    TemplateError,
    TemplateLengthError,
)

Base = Callable[[str], str]


@pytest.fixture(scope="module")
def saved(base_of: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2_classifier")
    model, tokenizer = classifier(base_of("gpt2"), "gpt2")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def changed(saved: Path, folder: Path, *, weights: dict[str, Any] | None = None, **config: Any) -> Path:
    """A copy of the saved classifier with some values changed; None takes a weight away."""
    folder.mkdir(exist_ok=True)
    state = {**load_file(saved / "model.safetensors"), **(weights or {})}
    save_file({name: value for name, value in state.items() if value is not None}, folder / "model.safetensors")
    values = json.loads((saved / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "checksums": None, **config}))
    return folder


ROWS = "soft_prompt.rows"
DAMAGED: dict[str, tuple[dict[str, Any], type[HfPromptingError], str]] = {
    "newer version": ({"format_version": 2}, ArtifactError, "format version 2.*up to 1.*pip install --upgrade"),
    "missing key": ({"weights": {ROWS: None}}, ArtifactError, r"lacks \['soft_prompt.rows'\]"),
    "extra key": ({"weights": {"more": torch.zeros(1)}}, ArtifactError, r"holds the unknown \['more'\]"),
    "not finite": ({"weights": {ROWS: torch.full((5, 32), torch.nan)}}, ArtifactError, "not finite.*soft_prompt.rows"),
    "wrong width": ({"weights": {ROWS: torch.zeros(5, 31)}}, SoftPromptError, r"\(5, 31\).*\(5, 32\)"),
    "wrong number": ({"weights": {ROWS: torch.zeros(4, 32)}}, SoftPromptError, r"\(4, 32\).*\(5, 32\)"),
    "smoothing": ({"label_smoothing": 1.5}, ArtifactError, "label_smoothing=1.5"),
    "other vocabulary": ({"vocab_size": 5000}, BaseModelMismatchError, "5000 x 32 embeddings"),
    "other width": ({"hidden_size": 64}, BaseModelMismatchError, "x 64 embeddings"),
    "unknown task": ({"base_task": "casual"}, ArtifactError, "Did you mean 'causal'"),
    "unknown aggregation": ({"aggregation": "median"}, ArtifactError, "median.*mean, max"),
    "no words": ({"label_word_ids": None}, ArtifactError, "label_word_ids"),
    "no ids": ({"soft_prompt": {"init": "random"}}, ArtifactError, "token_ids"),
    "word out of vocabulary": ({"label_word_ids": [[[5]], [[6]], [[99999]]]}, ArtifactError, "99999"),
    "too few words": ({"label_word_ids": [[[5]], [[6]]]}, ArtifactError, "some of the 3 labels"),
    "class weights": ({"class_weights": [1.0, 2.0]}, ArtifactError, "for 3 labels"),
}


@pytest.mark.parametrize("change, error, message", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_folder_is_one_clear_error(
    saved: Path, tmp_path: Path, change: dict[str, Any], error: type[HfPromptingError], message: str
) -> None:
    folder = changed(saved, tmp_path / "a", **change)
    with pytest.raises(error, match=message):
        AutoModelForSequenceClassification.from_pretrained(folder)


@pytest.mark.parametrize("keep", [0, 7, 60, 400])
def test_a_truncated_file_is_an_artifact_error(saved: Path, tmp_path: Path, keep: int) -> None:
    folder = changed(saved, tmp_path / "a")
    (folder / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes()[:keep])
    with pytest.raises(ArtifactError, match=r"cannot read model.safetensors.*truncated"):
        PromptForSequenceClassification.from_pretrained(folder)


def test_a_missing_file_is_an_artifact_error(saved: Path, tmp_path: Path) -> None:
    folder = changed(saved, tmp_path / "a")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"model.safetensors"):
        PromptForSequenceClassification.from_pretrained(folder)


@pytest.mark.parametrize("kwargs", [{"seed": 1}, {"seed": 0, "n_layer": 3}, {"seed": 0, "n_head": 2}])
def test_another_model_is_refused(saved: Path, tmp_path: Path, kwargs: dict[str, Any]) -> None:
    other = save_base("gpt2", tmp_path / "other", **kwargs)
    for given in (other, AutoModelForCausalLM.from_pretrained(other)):
        with pytest.raises(BaseModelMismatchError, match="not the model that this prompt was tuned on"):
            PromptForSequenceClassification.from_pretrained(saved, base_model=given)


def test_another_vocabulary_or_width_is_refused(saved: Path) -> None:
    for kwargs in ({"vocab_size": 299}, {"vocab_size": len(TOKENIZERS["gpt2"]()), "n_embd": 64}):
        with pytest.raises(BaseModelMismatchError, match="embeddings"):
            PromptForSequenceClassification.from_pretrained(saved, base_model=tiny_model("gpt2", **kwargs))


def test_a_near_copy_only_warns(saved: Path, base_of: Base, caplog: pytest.LogCaptureFixture) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_of("gpt2"))
    with torch.no_grad():
        for parameter in model.parameters():
            step = parameter.abs().amax() / 16
            parameter.copy_((parameter / step).round() * step)
    root = logging.getLogger("transformers")
    root.addHandler(caplog.handler)
    hub = logging.getLogger("hf_prompting")
    hub.addHandler(caplog.handler)
    try:
        PromptForSequenceClassification.from_pretrained(saved, base_model=model)
    finally:
        root.removeHandler(caplog.handler)
        hub.removeHandler(caplog.handler)
    assert "expect slightly different scores" in caplog.text


def test_the_same_weights_do_not_warn(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("hf_prompting")
    logger.addHandler(caplog.handler)
    try:
        PromptForSequenceClassification.from_pretrained(saved)
        PromptForSequenceClassification.from_pretrained(saved, dtype="bfloat16")
    finally:
        logger.removeHandler(caplog.handler)
    assert not caplog.text


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_a_base_carries_one_soft_prompt_and_is_given_back_whole(base_of: Base, family: str) -> None:
    tokenizer = TOKENIZERS[family]()
    base = tiny_model(family, vocab_size=len(tokenizer))
    modules = dict(base.named_modules(remove_duplicate=False))
    model, _ = classifier(base, family, tokenizer=tokenizer)
    with pytest.raises(SoftPromptError, match=r"already carries a soft prompt.*release_base"):
        classifier(base, family, tokenizer=tokenizer)
    assert model.release_base() is base
    found = dict(base.named_modules(remove_duplicate=False))
    assert found.keys() == modules.keys() and all(found[name] is module for name, module in modules.items())
    first = scores(*classifier(base, family, tokenizer=tokenizer))
    assert torch.equal(first, scores(*classifier(base_of(family), family)))


def test_a_base_wrapped_by_peft_is_refused() -> None:
    tokenizer = TOKENIZERS["gpt2"]()
    base = get_peft_model(tiny_model("gpt2", vocab_size=len(tokenizer)), SoftPromptConfig(num_virtual_tokens=2))
    with pytest.raises(SoftPromptError, match="already carries a soft prompt"):
        classifier(base.base_model.model, "gpt2", tokenizer=tokenizer)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "roberta", "bart"])
def test_prompts_longer_than_the_base_reads_are_an_error(family: str) -> None:
    tokenizer = TOKENIZERS[family]()
    size = {"n_positions": 40} if family == "gpt2" else {"max_position_embeddings": 40}
    base = tiny_model(family, vocab_size=len(tokenizer), **size)
    model, compiled = classifier(base, family, tokenizer=tokenizer)
    longest = (
        40 - (2 if family == "roberta" else 0) - (model.scorer.max_extra_tokens if family in ("llama", "gpt2") else 0)
    )
    text = ["great movie " * 60]
    fits = scores(model, compiled, text, truncation=True, max_length=longest)
    assert fits.isfinite().all()
    with pytest.raises(TemplateLengthError, match=r"are longer than the .* that the base model reads"):
        scores(model, compiled, text, truncation=True, max_length=longest + 1)


def test_relative_positions_read_any_length(base_of: Base) -> None:
    model, tokenizer = classifier(base_of("t5"), "t5")
    assert model.max_tokens == math.inf
    assert scores(model, tokenizer, ["great movie " * 300]).isfinite().all()


WRONG: dict[str, tuple[dict[str, Any], type[HfPromptingError], str]] = {
    "count": ({"soft_prompt": SoftPromptConfig(num_virtual_tokens=3)}, SoftPromptError, "template holds 5 soft tokens"),
    "ids": (
        {"soft_prompt": SoftPromptConfig(token_ids=[1, 2, 3, 4, 5])},
        SoftPromptError,
        "token_ids cannot be chosen",
    ),
    "class weights": ({"class_weights": [1.0]}, LabelWordError, "1 class_weights for the 3 labels"),
    "smoothing": ({"label_smoothing": -0.1}, ArtifactError, "label_smoothing=-0.1"),
    "task": ({"task": "casual"}, BaseModelError, "Did you mean 'causal'"),
    "text behind the slot": ({"template": "{text} It was{mask}."}, TemplateError, "causal model"),
    "lost word": ({"verbalizer": Verbalizer({"a": "great", "b": " great"})}, LabelWordError, "great"),
}


@pytest.mark.parametrize("kwargs, error, message", WRONG.values(), ids=WRONG)
def test_parts_that_do_not_fit_are_one_clear_error(
    base_of: Base, kwargs: dict[str, Any], error: type[HfPromptingError], message: str
) -> None:
    with pytest.raises(error, match=message):
        classifier(base_of("gpt2"), "gpt2", **kwargs)


def test_a_model_without_a_name_needs_its_tokenizer() -> None:
    base = tiny_model("gpt2")
    base.name_or_path = ""
    with pytest.raises(BaseModelError, match="needs its tokenizer"):
        classifier(base, "gpt2")


def test_a_model_without_a_head_is_refused() -> None:
    tokenizer = TOKENIZERS["bert"]()
    headless = BertModel(tiny_model("bert", vocab_size=len(tokenizer)).config)
    with pytest.raises(BaseModelError, match="no language-model head"):
        model, compiled = classifier(headless, "bert", tokenizer=tokenizer, task="masked")
        model(**encode(compiled))


def test_a_failed_assembly_leaves_the_base_unwrapped() -> None:
    tokenizer = TOKENIZERS["gpt2"]()
    base = tiny_model("gpt2", vocab_size=len(tokenizer))
    with pytest.raises(LabelWordError):
        classifier(base, "gpt2", tokenizer=tokenizer, class_weights=[1.0])
    assert scores(*classifier(base, "gpt2", tokenizer=tokenizer)).shape == (len(TEXTS), len(WORDS))


def test_a_config_of_defaults_can_be_made_and_saved(tmp_path: Path) -> None:
    PromptClassifierConfig().save_pretrained(tmp_path)
    assert PromptClassifierConfig.from_pretrained(tmp_path).format_version == 1


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_prompts_of_the_bases_own_tokenizer_are_refused(family: str) -> None:
    tokenizer = TOKENIZERS[family]()
    model, _ = classifier(tiny_model(family, vocab_size=len(tokenizer)), family, tokenizer=tokenizer)
    with pytest.raises(InputTextError, match="soft tokens"):
        model(**tokenizer("great fun", return_tensors="pt", return_token_type_ids=False))
