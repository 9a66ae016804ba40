"""Label words as token ids, where the model meets them: every tokenizer, every kind of place before the slot."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
from tiny_tokenizers import ALL_TOKENIZERS, bert_wordpiece, byte_level_bpe, qwen_bpe, t5_unigram

from hf_prompting import Verbalizer
from hf_prompting.errors import LabelWordError
from hf_prompting.verbalizers import tokenize_label_words
from hf_prompting.verbalizers.label_words import needs_leading_space

ENGLISH = Verbalizer({"negative": ["terrible", "bad"], "positive": ["great", "good"]})
CHINESE = Verbalizer({"negative": ["负面", "很差"], "positive": ["正面", "很好"]})
BYTE_LEVEL = ("byte_level_bpe", "smollm_bpe", "qwen_bpe", "roberta_bpe")


def pieces(tokenizer: Any, verbalizer: Verbalizer, context: str) -> list[tuple[int, ...]]:
    return list(chain(*tokenize_label_words(verbalizer, tokenizer, context=context)))


def words_of(verbalizer: Verbalizer) -> list[str]:
    return list(chain(*(verbalizer.words[label] for label in verbalizer.labels)))


def plain(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
@pytest.mark.parametrize(
    ("verbalizer", "context", "text"),
    [
        (ENGLISH, "The movie was", "The movie was {}"),
        (ENGLISH, "The movie was ", "The movie was {}"),
        (ENGLISH, "Sentiment:", "Sentiment: {}"),
        (ENGLISH, "Sentiment: ", "Sentiment: {}"),
        (ENGLISH, "The movie was great\n", "The movie was great\n{}"),
        (CHINESE, "情感：", "情感：{}"),
        (CHINESE, "情感: ", "情感: {}"),
        (CHINESE, "很", "很{}"),
    ],
    ids=["was", "was_", "colon", "colon_", "newline", "zh colon", "zh space", "zh word"],
)
def test_prompt_and_word_are_the_tokens_of_the_running_text(
    name: str, verbalizer: Verbalizer, context: str, text: str
) -> None:
    tokenizer = ALL_TOKENIZERS[name]()
    before = plain(tokenizer, context.rstrip(" "))
    for word, ids in zip(words_of(verbalizer), pieces(tokenizer, verbalizer, context), strict=True):
        whole = plain(tokenizer, text.format(word))
        if whole[: len(before)] == before:
            assert [*before, *ids] == whole
        else:  # the tokenizer joins prompt and word, which no model would meet as prompt and answer
            assert tokenizer.decode(ids).strip().replace(" ", "") == word


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
@pytest.mark.parametrize("context", ["", "\n", "The movie was", "<|im_start|>assistant\n", "(", "“"])
def test_words_read_back_as_themselves_and_none_is_another(name: str, context: str) -> None:
    tokenizer = ALL_TOKENIZERS[name]()
    for verbalizer in (ENGLISH, CHINESE):
        found = pieces(tokenizer, verbalizer, context)
        assert len(set(found)) == 4
        for word, ids in zip(words_of(verbalizer), found, strict=True):
            assert tokenizer.decode(ids).replace(" ", "") == word


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
def test_a_word_that_the_tokenizer_would_join_to_the_prompt_gets_no_space(name: str) -> None:
    tokenizer = ALL_TOKENIZERS[name]()
    if name != "t5_unigram":  # its Metaspace marks every start of a word, also here
        for ids in pieces(tokenizer, CHINESE, "情感："):
            assert tokenizer.convert_ids_to_tokens(ids)[0] != "▁"


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_the_leading_space_belongs_to_the_word(name: str) -> None:
    tokenizer = ALL_TOKENIZERS[name]()
    for context in ("It was", "It was ", "It was:"):
        assert pieces(tokenizer, ENGLISH, context)[2] == tuple(plain(tokenizer, " great"))
    for context in ("", "It was\n"):
        assert pieces(tokenizer, ENGLISH, context)[2] == tuple(plain(tokenizer, "great"))
    never = Verbalizer(ENGLISH.words, leading_space=False)
    always = Verbalizer(ENGLISH.words, leading_space=True)
    assert pieces(tokenizer, never, "It was")[2] == tuple(plain(tokenizer, "great"))
    assert pieces(tokenizer, always, "情感：")[2] == tuple(plain(tokenizer, " great"))


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_a_word_may_bring_its_own_space(name: str) -> None:
    tokenizer = ALL_TOKENIZERS[name]()
    own = Verbalizer({"negative": " bad", "positive": " great"})
    assert pieces(tokenizer, own, "It was")[1] == tuple(plain(tokenizer, " great"))
    assert pieces(tokenizer, own, "\n")[1] == tuple(plain(tokenizer, " great"))


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_two_spellings_that_become_the_same_tokens_are_an_error(name: str) -> None:
    same = Verbalizer({"negative": "great", "positive": " great"})
    with pytest.raises(LabelWordError, match=r"becomes the same tokens .* as 'great' of label 'negative'"):
        tokenize_label_words(same, ALL_TOKENIZERS[name](), context="It was")


def test_case_is_lost_by_an_uncased_tokenizer() -> None:
    with pytest.raises(LabelWordError, match="becomes the same tokens"):
        tokenize_label_words(Verbalizer({"a": "Great", "b": "great"}), bert_wordpiece(), context="It was")


@pytest.mark.parametrize("make", [bert_wordpiece, t5_unigram])
def test_a_word_outside_the_vocabulary_is_an_error(make: Any) -> None:
    with pytest.raises(LabelWordError, match=r"'Ω' of label 'b' is lost by the tokenizer"):
        tokenize_label_words(Verbalizer({"a": "good", "b": "Ω"}), make(), context="It was")


def test_a_word_that_the_normalizer_swallows_is_an_error() -> None:
    with pytest.raises(LabelWordError, match="is lost by the tokenizer"):
        tokenize_label_words(Verbalizer({"a": "good", "b": "\u0301\u200d"}), bert_wordpiece(), context="It was")


def test_special_tokens_in_a_word_are_plain_text() -> None:
    tokenizer = qwen_bpe()
    words = Verbalizer({"a": "good", "b": "<|im_end|>"})
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") not in pieces(tokenizer, words, "It was")[1]


@pytest.mark.parametrize("name", ["byte_level_bpe", "qwen_bpe", "bert_wordpiece"])
def test_words_of_several_tokens_keep_all_of_them(name: str) -> None:
    tokenizer = ALL_TOKENIZERS[name]()
    long = Verbalizer({"a": "not good at all", "b": "非常好"})
    assert all(len(ids) > 1 for ids in pieces(tokenizer, long, "It was"))


def test_unspaced_scripts_and_openings_take_no_space() -> None:
    cases = {
        ("great", "It was"): True,
        ("great", "Sentiment:"): True,
        ("great", "(great)"): True,
        ("great", ""): False,
        ("great", "It was "): False,
        ("great", "It was\n"): False,
        ("great", "("): False,
        ("great", "情感："): False,
        ("great", "情感"): False,
        ("正面", "It was"): False,
        ("正面", "情感："): False,
        ("すごい", "それは"): False,
        ("ดี", "มัน"): False,
        ("좋아요", "그것은"): True,
        ("!", "It was"): False,
        ("10", "It was"): True,
    }
    assert {case: needs_leading_space(*case) for case in cases} == cases


def test_a_model_without_an_unknown_token_spells_everything_in_bytes() -> None:
    found = pieces(byte_level_bpe(), Verbalizer({"a": "good", "b": "Ω🙂"}), "It was")
    assert len(found[1]) > 3
