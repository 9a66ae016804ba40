"""Where text and tensors meet: label words, soft-token starts and settings as ``from_base`` works them out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from classifier_parts import ALL_FAMILIES, TASK, TOKENIZERS, classifier, encode, scores, template_for
from tiny_models import MASKED, tiny_model
from transformers import AutoModelForSequenceClassification

from hf_prompting import BaseModelSource, PromptTemplate, SoftPromptConfig, Verbalizer
from hf_prompting.errors import BaseModelError

Base = Callable[[str], str]
VERBALIZER = Verbalizer({"negative": ["terrible", "bad"], "positive": ["great", "good"]})


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_tokens_and_scores_stand_where_the_running_text_has_them(base_of: Base, family: str) -> None:
    tokenizer = TOKENIZERS[family]()
    model, compiled = classifier(base_of(family), family, verbalizer=VERBALIZER)
    words = [word for of_class in model.config.label_word_ids for word in of_class]
    assert [tokenizer.decode(word).strip() for word in words] == ["terrible", "bad", "great", "good"]
    ids = compiled("boring").input_ids
    assert [token for token in ids if token in model.config.soft_prompt["token_ids"]] == list(compiled.soft_token_ids)
    if family in MASKED:
        assert ids.count(tokenizer.mask_token_id) == model.config.num_masks == max(map(len, words))
    if TASK[family] == "causal" and family != "llama":  # its pieces reach across words, where soft tokens now stand
        text = template_for(family).replace("{soft:3}", "").replace("{soft:2}", "").replace("{text}", "boring")
        whole = tokenizer(text.replace("{mask}", " great")).input_ids
        assert [*[t for t in ids if t not in compiled.soft_token_ids], *words[2]] == whole


@pytest.mark.parametrize("template", ["{text} {mask}", "{text}{mask}", "{text} It was {mask}", "{text} It was{mask}"])
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "qwen3"])
def test_a_word_behind_a_field_is_a_word_of_running_text(base_of: Base, family: str, template: str) -> None:
    model, _ = classifier(base_of(family), family, template=template, verbalizer=VERBALIZER)
    tokenizer = TOKENIZERS[family]()
    expected = tokenizer("It was great", add_special_tokens=False).input_ids
    was = tokenizer("It was", add_special_tokens=False).input_ids
    assert model.config.label_word_ids[1][0] == expected[len(was) :]


def test_a_word_behind_a_chat_token_has_no_space(base_of: Base) -> None:
    template = "<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n{mask}"
    model, _ = classifier(base_of("qwen3"), "qwen3", template=template, verbalizer=VERBALIZER)
    tokenizer = TOKENIZERS["qwen3"]()
    assert model.config.label_word_ids[1][0] == tokenizer("great", add_special_tokens=False).input_ids


@pytest.mark.parametrize(
    ("soft_prompt", "texts"),
    [
        (SoftPromptConfig(init="text", init_text=" It was good", seed=0), [" It was good"]),
        (SoftPromptConfig(init="label_words", seed=0), None),
    ],
    ids=["text", "label words"],
)
def test_soft_tokens_start_from_a_text_or_from_the_label_words(
    base_of: Base, soft_prompt: SoftPromptConfig, texts: list[str] | None
) -> None:
    model, _ = classifier(base_of("gpt2"), "gpt2", soft_prompt=soft_prompt, verbalizer=VERBALIZER)
    weight = model.base.get_input_embeddings().weight
    if texts:
        ids = TOKENIZERS["gpt2"]()(texts[0]).input_ids
        starts = [[token] for token in (ids * 5)[:5]]
    else:
        starts = [list(word) for of_class in model.config.label_word_ids for word in of_class]
    for row, ids in zip(model.soft_prompt.rows, starts, strict=False):
        torch.testing.assert_close(row, weight[ids].mean(0))


def test_a_run_of_its_own_text_goes_before_the_initialisation(base_of: Base) -> None:
    template = PromptTemplate.parse("{soft:2: It was}{text}{soft:1}{mask}")
    model, _ = classifier(base_of("gpt2"), "gpt2", template=template)
    ids = TOKENIZERS["gpt2"]()(" It was").input_ids[:2]
    assert torch.equal(model.soft_prompt.rows[:2], model.base.get_input_embeddings().weight[ids])


def test_the_seed_gives_the_same_start(base_of: Base) -> None:
    rows = [
        classifier(base_of("gpt2"), "gpt2", soft_prompt=SoftPromptConfig(init="random", seed=seed))[0].soft_prompt.rows
        for seed in (1, 1, 2)
    ]
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])


def test_the_identity_of_a_source_is_its_id_not_its_path(base_of: Base) -> None:
    source = BaseModelSource("someone/tiny", revision="abc", path=base_of("gpt2"))
    model, _ = classifier(source, "gpt2")
    assert (model.config.base_model_name_or_path, model.config.base_model_revision) == ("someone/tiny", "abc")


def test_a_folder_is_recorded_by_name_and_found_again_from_another_directory(
    base_of: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_PROMPTING_CACHE", str(tmp_path / "cache"))
    folder = Path(base_of("gpt2"))
    monkeypatch.chdir(folder.parent)
    model, tokenizer = classifier(folder.name, "gpt2")
    model.save_pretrained(tmp_path / "out")
    tokenizer.save_pretrained(tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained("out")
    assert (again.config.base_model_name_or_path, again.config.base_model_is_folder) == (folder.name, True)
    assert torch.equal(scores(again, tokenizer), scores(model, tokenizer))
    again.save_pretrained(tmp_path / "again")
    for file in [*(tmp_path / "out").iterdir(), *(tmp_path / "again").iterdir()]:
        assert str(folder.parent).encode() not in file.read_bytes(), file


def test_a_folder_that_another_machine_does_not_know_has_to_be_given(
    base_of: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(base_of("gpt2"))
    classifier(str(folder), "gpt2")[0].save_pretrained(tmp_path / "out")
    monkeypatch.setenv("HF_PROMPTING_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(BaseModelError, match=f"folder named '{folder.name}'.*base_model="):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", base_model=str(folder))
    (tmp_path / folder.name).symlink_to(folder)
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")  # prompt and base moved together


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_the_decoder_answers_behind_its_start(base_of: Base, family: str) -> None:
    model, compiled = classifier(base_of(family), family)
    start = model.base.config.decoder_start_token_id
    sentinel = [compiled.convert_tokens_to_ids("<extra_id_0>")] if family == "t5" else []
    assert model.config.decoder_prefix_ids == [start, *sentinel]


def test_a_forced_first_token_stands_before_the_answer() -> None:
    tokenizer = TOKENIZERS["bart"]()
    base = tiny_model("bart", vocab_size=len(tokenizer))
    base.generation_config.forced_bos_token_id = 0
    model, _ = classifier(base, "bart", tokenizer=tokenizer)
    assert model.config.decoder_prefix_ids == [2, 0]


@torch.no_grad()
def test_the_untuned_classifier_ranks_words_as_the_model_itself_does(base_of: Base) -> None:
    """Zero-shot parity with plain transformers: last position, softmax over the words' logits."""
    verbalizer = Verbalizer({"a": "great", "b": "bad"})
    model, compiled = classifier(base_of("gpt2"), "gpt2", template="Review: {text} It was{mask}", verbalizer=verbalizer)
    inputs = encode(compiled, ["boring and slow"])
    great, bad = (words[0] for words in model.config.label_word_ids)
    assert len(great) == len(bad) == 1
    logits = model.base(**inputs).logits[:, -1, [great[0], bad[0]]]
    torch.testing.assert_close(model(**inputs).logits.softmax(-1), logits.softmax(-1), atol=1e-5, rtol=1e-5)
