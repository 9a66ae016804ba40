"""A tuned classifier, saved and loaded through every door."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from classifier_parts import ALL_FAMILIES, PAIRS, TASK, TEXTS, WORDS, classifier, scores, scramble, template_for
from safetensors.torch import load_file
from tiny_models import tiny_model
from tiny_tokenizers import byte_level_bpe
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from hf_prompting import (
    PromptClassifierConfig,
    PromptForSequenceClassification,
    PromptTokenizer,
    SoftPromptConfig,
    Verbalizer,
)

Base = Callable[[str], str]


@pytest.mark.parametrize("pair", [False, True], ids=["single", "pair"])
@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_auto_classes_give_equal_scores_after_reloading(base_of: Base, family: str, pair: bool, tmp_path: Path) -> None:
    model, tokenizer = classifier(base_of(family), family, template=template_for(family, pair=pair))
    scramble(model)
    pairs = PAIRS if pair else None
    expected = scores(model, tokenizer, pairs=pairs)
    assert (expected.std(0) > 1e-6).all()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    tokenizer_again = AutoTokenizer.from_pretrained(tmp_path)
    assert type(again) is PromptForSequenceClassification and not again.training
    assert isinstance(tokenizer_again, PromptTokenizer)
    assert torch.equal(scores(again, tokenizer_again, pairs=pairs), expected)
    state = load_file(tmp_path / "model.safetensors")
    assert list(state) == ["soft_prompt.rows"] and state["soft_prompt.rows"].shape == (5, 32)
    others = [path for path in tmp_path.iterdir() if path.name != "tokenizer.json"]
    assert sum(path.stat().st_size for path in others) < 20_000


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_pipelines_answer_with_the_labels(base_of: Base, family: str, tmp_path: Path) -> None:
    model, tokenizer = classifier(base_of(family), family)
    scramble(model)
    expected = scores(model, tokenizer)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    classify = pipeline("text-classification", model=str(tmp_path), device="cpu")
    for row, answer in zip(expected, classify(TEXTS, top_k=None), strict=True):
        found = {one["label"]: one["score"] for one in answer}
        assert list(WORDS) == [label for label in WORDS if label in found]
        torch.testing.assert_close(torch.tensor([found[label] for label in WORDS]), row, atol=1e-4, rtol=1e-3)
    batched = [one["score"] for one in classify(TEXTS, batch_size=4)]
    torch.testing.assert_close(torch.tensor(batched), expected.amax(-1), atol=1e-4, rtol=1e-3)


def test_pipelines_take_pairs(base_of: Base, tmp_path: Path) -> None:
    model, tokenizer = classifier(base_of("bert"), "bert", template=template_for("bert", pair=True))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    classify = pipeline("text-classification", model=str(tmp_path), device="cpu")
    answer = classify([{"text": t, "text_pair": p} for t, p in zip(TEXTS, PAIRS, strict=True)])
    expected = scores(model, tokenizer, pairs=PAIRS).amax(-1)
    torch.testing.assert_close(torch.tensor([one["score"] for one in answer]), expected, atol=1e-4, rtol=1e-3)


def test_a_fresh_process_gives_the_same_scores(base_of: Base, tmp_path: Path) -> None:
    families = ("gemma3", "roberta", "t5")
    expected = {}
    for family in families:
        model, tokenizer = classifier(base_of(family), family)
        scramble(model)
        model.save_pretrained(tmp_path / family)
        tokenizer.save_pretrained(tmp_path / family)
        expected[family] = [scores(model, tokenizer, [text])[0].tolist() for text in TEXTS]
    script = (
        "import json, sys, hf_prompting\n"
        "from transformers import pipeline\n"
        "texts, *folders = json.loads(sys.argv[1])\n"
        "answers = [pipeline('text-classification', model=f, device='cpu')(texts, top_k=None) for f in folders]\n"
        "print(json.dumps(answers))\n"
    )
    argument = json.dumps([TEXTS, *(str(tmp_path / family) for family in families)])
    run = subprocess.run([sys.executable, "-c", script, argument], check=True, capture_output=True, text=True)
    for family, answers in zip(families, json.loads(run.stdout.splitlines()[-1]), strict=True):
        for row, answer in zip(expected[family], answers, strict=True):
            found = {one["label"]: one["score"] for one in answer}
            assert [found[label] for label in WORDS] == pytest.approx(row, abs=1e-6)


def test_the_configuration_keeps_the_order_of_the_classes(base_of: Base, tmp_path: Path) -> None:
    words = {"z": "great", "a": "terrible", "m": "good", "10": "bad", "b": "no", "9": "yes"}
    many = {**words, **{f"x{n}": w for n, w in enumerate(["slow", "dull", "moving", "funny", "awful", "boring"])}}
    model, tokenizer = classifier(base_of("bert"), "bert", verbalizer=Verbalizer(many))
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, PromptClassifierConfig)
    assert list(config.id2label.values()) == list(many) == list(config.label_words)
    assert config.label2id == {label: number for number, label in enumerate(many)}
    assert config.num_labels == 12
    again = PromptForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(scores(again, tokenizer), scores(model, tokenizer))


@pytest.mark.parametrize("family", ["llama", "bert", "t5", "bart"])
def test_trainable_bases_are_saved_and_loaded_whole(base_of: Base, family: str, tmp_path: Path) -> None:
    model, tokenizer = classifier(base_of(family), family, trainable_base=True)
    assert all(p.requires_grad for p in model.base.parameters())
    scramble(model)
    expected = scores(model, tokenizer)
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert again.config.trainable_base and all(p.requires_grad for p in again.base.parameters())
    assert torch.equal(scores(again, tokenizer), expected)


def test_a_frozen_base_stays_frozen_after_loading(base_of: Base, tmp_path: Path) -> None:
    model, _ = classifier(base_of("gpt2"), "gpt2")
    model.save_pretrained(tmp_path)
    for each in (model, PromptForSequenceClassification.from_pretrained(tmp_path)):
        assert [name for name, p in each.named_parameters() if p.requires_grad] == ["soft_prompt.rows"]
    assert model.num_parameters(only_trainable=True) == 5 * 32


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_the_base_can_be_loaded_in_bfloat16(base_of: Base, family: str, tmp_path: Path) -> None:
    model, tokenizer = classifier(base_of(family), family)
    model.save_pretrained(tmp_path)
    for dtype in ("bfloat16", torch.bfloat16):
        again = PromptForSequenceClassification.from_pretrained(tmp_path, dtype=dtype)
        assert next(again.base.parameters()).dtype == torch.bfloat16
        assert again.soft_prompt.rows.dtype == torch.float32
        assert scores(again, tokenizer).sum(1) == pytest.approx([1.0] * 4, abs=1e-3)


def test_another_base_can_be_given_as_an_object_or_as_a_path(base_of: Base, tmp_path: Path) -> None:
    model, tokenizer = classifier(base_of("gpt2"), "gpt2")
    expected = scores(model, tokenizer)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"base_model_name_or_path": "nobody/nowhere", "checksums": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    base = AutoModelForCausalLM.from_pretrained(base_of("gpt2"))
    for given in (base, base_of("gpt2"), Path(base_of("gpt2"))):
        again = PromptForSequenceClassification.from_pretrained(tmp_path, base_model=given)
        assert torch.equal(scores(again, tokenizer), expected)
        again = AutoModelForSequenceClassification.from_pretrained(tmp_path, base_model=again.release_base())
        assert torch.equal(scores(again, tokenizer), expected)
        again.release_base()


def test_a_base_given_as_an_object_with_a_name_leaves_no_private_path(tmp_path: Path) -> None:
    tokenizer = byte_level_bpe()
    base = tiny_model("gpt2", vocab_size=len(tokenizer))
    base.name_or_path = "someone/tiny-gpt2"
    model, compiled = classifier(base, "gpt2", tokenizer=tokenizer)
    model.save_pretrained(tmp_path)
    compiled.save_pretrained(tmp_path)
    assert model.config.base_model_name_or_path == "someone/tiny-gpt2"
    for path in tmp_path.glob("*.json"):
        assert str(tmp_path.parent) not in path.read_text() and "/root" not in path.read_text(), path.name


@pytest.mark.parametrize("reparameterization", ["mlp", "lstm", "residual_mlp"])
def test_reparameterised_rows_are_saved_plain_besides_their_network(
    base_of: Base, reparameterization: str, tmp_path: Path
) -> None:
    soft_prompt = SoftPromptConfig(seed=0, reparameterization=reparameterization)
    model, tokenizer = classifier(base_of("gpt2"), "gpt2", soft_prompt=soft_prompt)
    scramble(model)
    expected = scores(model, tokenizer)
    model.save_pretrained(tmp_path / "whole")
    again = PromptForSequenceClassification.from_pretrained(tmp_path / "whole")
    torch.testing.assert_close(scores(again, tokenizer), expected, atol=1e-5, rtol=1e-4)
    assert any(p.requires_grad for n, p in again.named_parameters() if "network" in n)
    model.drop_reparameterization()
    torch.testing.assert_close(scores(model, tokenizer), expected, atol=1e-5, rtol=1e-4)
    model.save_pretrained(tmp_path / "rows")
    assert list(load_file(tmp_path / "rows" / "model.safetensors")) == ["soft_prompt.rows"]
    again = PromptForSequenceClassification.from_pretrained(tmp_path / "rows")
    torch.testing.assert_close(scores(again, tokenizer), expected, atol=1e-5, rtol=1e-4)
    model.save_pretrained(tmp_path / "rows")  # a second time
    again.drop_reparameterization()


def test_learned_word_weights_are_saved(base_of: Base, tmp_path: Path) -> None:
    model, tokenizer = classifier(base_of("bert"), "bert", verbalizer=Verbalizer(WORDS, aggregation="weighted"))
    mean, _ = classifier(base_of("bert"), "bert", verbalizer=Verbalizer(WORDS))
    torch.testing.assert_close(scores(model, tokenizer), scores(mean, tokenizer))  # equal before training
    scramble(model)
    expected = scores(model, tokenizer)
    model.save_pretrained(tmp_path)
    assert set(load_file(tmp_path / "model.safetensors")) == {"soft_prompt.rows", "word_weights"}
    assert torch.equal(scores(PromptForSequenceClassification.from_pretrained(tmp_path), tokenizer), expected)


def test_a_template_without_soft_tokens_needs_no_table(base_of: Base, tmp_path: Path) -> None:
    model, tokenizer = classifier(base_of("gpt2"), "gpt2", template="Review: {text}\nIt was{mask}")
    assert model.soft_prompt is None and model.config.soft_prompt is None
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(scores(again, tokenizer), scores(model, tokenizer))


def test_the_loading_report_is_given_on_request(base_of: Base, tmp_path: Path) -> None:
    model, _ = classifier(base_of("bert"), "bert")
    model.save_pretrained(tmp_path)
    _, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())


def test_every_task_is_told_from_the_base(base_of: Base) -> None:
    for family in ALL_FAMILIES:
        model, _ = classifier(base_of(family), family)
        assert model.config.base_task == TASK[family]


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_what_is_left_out_of_the_file_is_what_trainer_expects_to_miss(
    base_of: Base, family: str, tmp_path: Path
) -> None:
    model, _ = classifier(base_of(family), family)
    model.save_pretrained(tmp_path)
    result = model.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False)
    assert set(result.missing_keys) == model._keys_to_ignore_on_save and not result.unexpected_keys


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_device_map_reaches_the_base(base_of: Base, family: str, tmp_path: Path) -> None:
    model, tokenizer = classifier(base_of(family), family)
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path, device_map="cpu")
    assert torch.equal(scores(again, tokenizer), scores(model, tokenizer))


def test_a_copied_classifier_shares_nothing_with_the_original(base_of: Base) -> None:
    model, tokenizer = classifier(base_of("bart"), "bart")
    expected, copied = scores(model, tokenizer), copy.deepcopy(model)
    scramble(copied)
    assert torch.equal(scores(model, tokenizer), expected)
    assert not torch.equal(scores(copied, tokenizer), expected)


def test_odd_texts_are_classified(base_of: Base, tmp_path: Path) -> None:
    odd = ["", " ", "\n", "\x00\x07\u200b", "🙂", "{text} {mask} {soft:3}", "great " * 20_000]
    for family in ("llama", "bert", "t5"):
        model, tokenizer = classifier(base_of(family), family)
        assert scores(model, tokenizer, odd, truncation=True, max_length=64).isfinite().all()
