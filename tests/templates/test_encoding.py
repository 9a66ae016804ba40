"""Batches are tokenised without offsets; whatever can be read from them is what transformers' own way gives."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from accelerate.utils.operations import recursively_apply
from datasets import Dataset
from tiny_tokenizers import ALL_TOKENIZERS, bert_wordpiece, qwen_bpe
from transformers import BatchEncoding, TokenizersBackend

from hf_prompting.errors import TemplateError, TemplateLengthError
from hf_prompting.templates import PromptTemplate, PromptTokenizer, SlotKind, compile_template
from hf_prompting.templates.encoding import PromptEncoding

TEXTS = (
    "The movie was great and the actors were good. " * 3,
    "这部电影很好，演员非常好。",
    "👩‍👩‍👧 good 👍🏽 好!",
    "",
    " \n\n a",
    "<|im_end|> </s> [SEP] <|soft_0|> <mask> <think> 1999",
)
PAIRS = (*TEXTS[1:], TEXTS[0])
SOURCES = {
    "{soft:3}Review: {text} \nThe movie was{mask}": (TEXTS,),
    "{soft:2}Premise: {a}\nHypothesis: {b}\nAnswer:{mask}": (TEXTS, PAIRS),
    "{a:fixed} means {soft:1} {b}?{mask}": (("good", "很好", "👍", "", " a", "bad"), TEXTS),
    "{a}, {b}; {c} {soft:1}?{mask}": (TEXTS,),
    "{a} means {soft:1} {b:fixed}?{mask}": (TEXTS, ("good", "很好", "👍", "", " a", "bad")),
}


def compiled(source: str, base: TokenizersBackend) -> PromptTokenizer:
    return compile_template(PromptTemplate.parse(source), base, slot=SlotKind.CAUSAL).tokenizer


def transformers_way(tokenizer: PromptTokenizer, *texts: object, **kwargs: object) -> dict[str, list[object]]:
    """Offsets asked for from the start."""
    encoded = tokenizer(*texts, **kwargs, return_offsets_mapping=True)
    assert type(encoded) is BatchEncoding
    return {name: column for name, column in encoded.items() if name != "offset_mapping"}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", ALL_TOKENIZERS)
def test_a_batch_without_offsets_has_the_ids_of_one_with_them_at_every_budget(name: str, source: str):
    tokenizer = compiled(source, ALL_TOKENIZERS[name]())
    columns = [list(column) for column in SOURCES[source]]
    whole = tokenizer(*columns)
    assert isinstance(whole, PromptEncoding)
    assert dict(whole) == transformers_way(tokenizer, *columns)
    assert dict(whole) == {key: [tokenizer(*row)[key] for row in zip(*columns, strict=True)] for key in whole}
    for side in ("left", "right"):
        tokenizer.truncation_side = tokenizer.padding_side = side
        for max_length in range(tokenizer.num_template_tokens, max(map(len, whole["input_ids"])) + 3, 3):
            limits = {"truncation": True, "max_length": max_length, "padding": max_length % 2 == 0}
            try:
                expected = transformers_way(tokenizer, *columns, **limits)
            except TemplateLengthError as error:
                with pytest.raises(TemplateLengthError) as caught:
                    tokenizer(*columns, **limits)
                assert str(caught.value) == str(error)
            else:
                assert dict(tokenizer(*columns, **limits)) == expected


@pytest.mark.parametrize(
    "kwargs",
    [
        {"add_special_tokens": False},
        {"split_special_tokens": False},
        {"return_attention_mask": False},
        {"return_token_type_ids": True, "padding": "max_length", "max_length": 99, "padding_side": "left"},
        {"padding": True, "pad_to_multiple_of": 8},
        {"truncation": "only_first", "max_length": 20},
        {"return_tensors": "np", "padding": True},
        {"return_tensors": "pt", "padding": True},
    ],
    ids=str,
)
def test_every_option_does_what_it_does_in_transformers(kwargs: dict[str, object]):
    tokenizer = compiled("Review: {text} It was{mask}", bert_wordpiece())
    found = tokenizer(list(TEXTS), **kwargs)
    assert isinstance(found, PromptEncoding)
    expected = transformers_way(tokenizer, list(TEXTS), **kwargs)
    assert list(found) == list(expected)
    for name, column in expected.items():
        assert type(found[name]) is type(column)
        assert all(map(torch.equal, map(torch.as_tensor, found[name]), map(torch.as_tensor, column)))


@pytest.mark.parametrize("source", SOURCES)
def test_characters_are_found_when_asked_for(source: str):
    tokenizer, columns = compiled(source, qwen_bpe()), [list(column) for column in SOURCES[source]]
    limits = {"truncation": True, "max_length": 40, "padding": True}
    found, expected = tokenizer(*columns, **limits), tokenizer(*columns, **limits, return_offsets_mapping=True)
    for column in columns:
        column.clear()  # the caller's list is the caller's
    assert found.is_fast and found.n_sequences == expected.n_sequences
    assert [encoding.offsets for encoding in found.encodings] == expected["offset_mapping"]
    assert found[0].offsets == found[0:2][0].offsets == expected["offset_mapping"][0]
    for row in range(len(TEXTS)):
        assert found.tokens(row) == expected.tokens(row)
        assert found.word_ids(row) == expected.word_ids(row)
        assert found.sequence_ids(row) == expected.sequence_ids(row)
    assert found.char_to_token(0, 1) == expected.char_to_token(0, 1) is not None


def test_copies_and_pickles_know_the_characters_too():
    encoded = compiled("Review: {text} It was{mask}", qwen_bpe())(list(TEXTS))
    for other in (copy.copy(encoded), copy.deepcopy(encoded), pickle.loads(pickle.dumps(encoded))):
        assert dict(other) == dict(encoded)
        assert [prompt.offsets for prompt in other.encodings] == [prompt.offsets for prompt in encoded.encodings]


def test_a_tokenizer_that_was_changed_in_between_cannot_tell_the_characters():
    tokenizer = compiled("Review: {text} It was{mask}", qwen_bpe())
    tokenizer.truncation_side = "right"
    encoded = tokenizer(list(TEXTS), truncation=True, max_length=10)
    tokenizer.truncation_side = "left"
    with pytest.raises(TemplateError, match="the tokenizer was changed after it made these ids"):
        encoded.char_to_token(0, 1)


def test_batches_move_to_a_device_and_through_datasets():
    tokenizer = compiled("Review: {text} It was{mask}", qwen_bpe())
    batch = tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    assert batch.to("meta")["input_ids"].device.type == "meta"
    batch = tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    rebuilt = recursively_apply(torch.neg, {"batch": batch})["batch"]  # as for gathering: type(batch)({...})
    assert torch.equal(-rebuilt["input_ids"], batch["input_ids"]) and not rebuilt.is_fast
    table = Dataset.from_dict({"text": list(TEXTS)}).map(lambda rows: tokenizer(rows["text"]), batched=True)
    assert table["input_ids"][:] == tokenizer(list(TEXTS))["input_ids"]
