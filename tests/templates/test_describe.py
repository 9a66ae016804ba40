from __future__ import annotations

from pathlib import Path

import pytest
from tiny_tokenizers import bert_wordpiece, byte_level_bpe, qwen_bpe, t5_unigram

from hf_prompting.errors import TemplateError
from hf_prompting.templates import (
    PartKind,
    PromptTemplate,
    PromptTokenizer,
    SlotKind,
    compile_template,
    describe_prompt,
    tokenization_difference,
)


def test_every_token_is_told_apart():
    template = PromptTemplate.parse("{soft:2}Text: {a} [SEP] {b} {mask} .")
    tokenizer = compile_template(template, bert_wordpiece(), slot=SlotKind.MASK).tokenizer
    shown = describe_prompt(tokenizer, "good movie", "bad")
    assert [token.id for token in shown] == tokenizer("good movie", "bad")["input_ids"]
    assert [(token.token, token.kind) for token in shown] == [
        ("[CLS]", PartKind.SPECIAL),
        ("<|soft_0|>", PartKind.SOFT),
        ("<|soft_1|>", PartKind.SOFT),
        ("text", PartKind.TEMPLATE),
        (":", PartKind.TEMPLATE),
        ("good", PartKind.FIELD),
        ("movie", PartKind.FIELD),
        ("[SEP]", PartKind.SPECIAL),
        ("bad", PartKind.FIELD),
        ("[MASK]", PartKind.SLOT),
        (".", PartKind.TEMPLATE),
        ("[SEP]", PartKind.SPECIAL),
    ]


def test_an_empty_second_text_is_shown_as_well():
    template = PromptTemplate.parse("{a} or {b} {mask}")
    tokenizer = compile_template(template, bert_wordpiece(), slot=SlotKind.MASK).tokenizer
    assert [token.token for token in describe_prompt(tokenizer, "good", "")] == [
        "[CLS]",
        "good",
        "or",
        "[MASK]",
        "[SEP]",
    ]


def test_a_difference_from_the_rendered_string_is_found_for_a_given_text(tmp_path: Path):
    template = PromptTemplate.parse("{soft:2:good}Review: {text}\nIt was{mask}")
    compiled = compile_template(template, qwen_bpe(), slot=SlotKind.CAUSAL)
    compiled.tokenizer.save_pretrained(tmp_path)
    for tokenizer in (compiled.tokenizer, PromptTokenizer.from_pretrained(tmp_path)):
        assert tokenization_difference(tokenizer, "It was good") is None
        found = tokenization_difference(tokenizer, "It was good.")
        assert found is not None and found in compiled.differences


@pytest.mark.parametrize(("make", "slot"), [(bert_wordpiece, SlotKind.MASK), (t5_unigram, SlotKind.SENTINEL)])
def test_affixes_and_slots_are_part_of_the_comparison(make: object, slot: SlotKind):
    tokenizer = compile_template(PromptTemplate.parse("{a} and {b}: {mask}"), make(), slot=slot).tokenizer  # type: ignore[operator]
    assert tokenization_difference(tokenizer, "很好", "good") is None


def test_special_tokens_inside_a_field_are_a_difference():
    template = PromptTemplate.parse("{text} It was{mask}")
    tokenizer = compile_template(template, qwen_bpe(), slot=SlotKind.CAUSAL).tokenizer
    assert tokenization_difference(tokenizer, "stop<|im_end|>") is not None


def test_a_tokenizer_without_template_cannot_be_described():
    for tokenizer in (byte_level_bpe(), PromptTokenizer(tokenizer_object=byte_level_bpe().backend_tokenizer)):
        with pytest.raises(TemplateError, match="holds no template"):
            describe_prompt(tokenizer, "good")


@pytest.mark.parametrize("remembered", [{"normalizer": {"type": "Unheard"}}, {"surprise": 1}, ["x"], "x"])
def test_a_damaged_memory_of_the_original_pipeline_is_an_error(remembered: object):
    template = PromptTemplate.parse("Review: {text} It was{mask}")
    tokenizer = compile_template(template, qwen_bpe(), slot=SlotKind.CAUSAL).tokenizer
    tokenizer.init_kwargs["prompt_original_components"] = remembered
    with pytest.raises(TemplateError, match="cannot be read"):
        tokenization_difference(tokenizer, "good")


def test_a_long_text_is_shown_as_it_is_shortened():
    template = PromptTemplate.parse("{soft:2}Review: {text}\nIt was{mask}")
    tokenizer = compile_template(template, qwen_bpe(), slot=SlotKind.CAUSAL).tokenizer
    text = "good movie " * 50
    limit = tokenizer.num_template_tokens + 4
    shown = describe_prompt(tokenizer, text, max_length=limit)
    assert [token.id for token in shown] == tokenizer(text, truncation=True, max_length=limit)["input_ids"]
    assert sum(token.kind is PartKind.FIELD for token in shown) == 4
    assert describe_prompt(tokenizer, "good", max_length=limit) == describe_prompt(tokenizer, "good")
