"""A tokenizer of one's own: nothing unknown, every text back exactly, the same in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import get_peft_model
from tiny_tokenizers import SENTENCES
from transformers import PreTrainedTokenizerFast

from hf_prompting.data import load_rows
from hf_prompting.data.tokenizer_training import TRAINERS, train_tokenizer
from hf_prompting.errors import TokenizerTrainingError
from hf_prompting.seq2seq import Seq2SeqTransformerConfig, Seq2SeqTransformerForConditionalGeneration
from hf_prompting.soft_prompts import SoftPromptConfig
from hf_prompting.templates import PromptTemplate, SlotKind, compile_template

KINDS = list(TRAINERS)
SIZES = {"unigram": 580, "bpe": 700}  # about as many as the few sentences hold
CORPUS = SENTENCES * 4
TEXTS = [*SENTENCES, "🌹 <extra_id_3> rare ﬁ", " a  b\n"]
ELSEWHERE = """
import json, sys
from transformers import AutoTokenizer
from hf_prompting.data.tokenizer_training import train_tokenizer
given = json.loads(sys.argv[1])
loaded = {kind: AutoTokenizer.from_pretrained(folder) for kind, folder in given["folders"].items()}
trained = {kind: train_tokenizer(given["corpus"], kind=kind, vocab_size=size, num_soft_tokens=3)
           for kind, size in given["sizes"].items()}
print(json.dumps({kind: {
    "ids": loaded[kind](given["texts"])["input_ids"],
    "special": loaded[kind].all_special_ids,
    "size": len(loaded[kind]),
    "trained": trained[kind].backend_tokenizer.to_str(),
} for kind in given["sizes"]}))
"""


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    return train_tokenizer(CORPUS, kind=kind, vocab_size=SIZES[kind], num_soft_tokens=3)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a fresh process finds in saved folders, and what it trains itself."""
    folder = tmp_path_factory.mktemp("tokenizers")
    for kind in KINDS:
        tokenizer_of(kind).save_pretrained(folder / kind)
    folders = {kind: str(folder / kind) for kind in KINDS}
    given = json.dumps({"folders": folders, "corpus": CORPUS, "sizes": SIZES, "texts": TEXTS})
    done = subprocess.run([sys.executable, "-c", ELSEWHERE, given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_every_text_comes_back_exactly_and_nothing_is_unknown(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    ids = tokenizer(text, split_special_tokens=True)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "text",
    [
        "<0x41> <0xE5> 0x41",
        " two  spaces\tand\r\n\nlines ",
        "▁Ġ 🌹👩‍👩‍👧 Zürich é é",
        "ﬁ ㈱ 　全角Ａ１ 体育 財經",
        "</s> <extra_id_0> <pad> <|soft_0|>",
        "",
        "\0\ufeff\u2028",
    ],
)
def test_hard_texts_come_back_exactly(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    ids = tokenizer(text, split_special_tokens=True, add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("kind", KINDS)
def test_a_rare_character_becomes_its_bytes(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    assert tokenizer.tokenize("🌹") == ["<0xF0>", "<0x9F>", "<0x8C>", "<0xB9>"]


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_stand_in_their_places(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    assert len(tokenizer) == tokenizer.vocab_size == SIZES[kind]
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 4, 103, 104, 359]) == [
        "<pad>",
        "</s>",
        "<unk>",
        "<mask>",
        "<extra_id_0>",
        "<extra_id_99>",
        "<0x00>",
        "<0xFF>",
    ]
    assert tokenizer.convert_ids_to_tokens([SIZES[kind] - 3, SIZES[kind] - 1]) == ["<|soft_0|>", "<|soft_2|>"]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert tokenizer.mask_token_id == 3 and tokenizer.bos_token_id is None
    for token in ("<extra_id_7>", "<mask>", "<|soft_1|>"):
        (token_id,) = tokenizer(token, add_special_tokens=False)["input_ids"]
        assert token_id == tokenizer.convert_tokens_to_ids(token)
        assert token_id in tokenizer.all_special_ids


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_is_ended_and_begun_only_if_wished(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    good = tokenizer(" good", add_special_tokens=False)["input_ids"]
    assert tokenizer(" good")["input_ids"] == [*good, 1]
    assert tokenizer(" good", " good")["input_ids"] == [*good, 1, *good, 1]
    begun = train_tokenizer(CORPUS, kind=kind, vocab_size=SIZES[kind], add_bos=True)  # type: ignore[arg-type]
    assert begun.bos_token_id == 4
    assert begun(" good")["input_ids"][0] == 4


@pytest.mark.parametrize("kind", KINDS)
def test_chinese_and_english_words_become_pieces(kind: str) -> None:
    tokenizer = train_tokenizer(CORPUS, kind=kind, vocab_size=800, allow_fewer=True)  # type: ignore[arg-type]
    tokens = tokenizer.tokenize("这部电影很好。The movie was great")
    assert "".join(tokens) == "这部电影很好。The movie was great"
    assert len(tokens) < 13
    assert sum(len(token) > 1 for token in tokens) > 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_saved_folder_gives_equal_ids_in_a_fresh_process(kind: str, elsewhere: dict[str, Any]) -> None:
    tokenizer = tokenizer_of(kind)
    assert elsewhere[kind]["ids"] == tokenizer(TEXTS)["input_ids"]
    assert elsewhere[kind]["special"] == tokenizer.all_special_ids
    assert elsewhere[kind]["size"] == SIZES[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_equal_texts_give_an_equal_tokenizer_in_every_process(kind: str, elsewhere: dict[str, Any]) -> None:
    assert elsewhere[kind]["trained"] == tokenizer_of(kind).backend_tokenizer.to_str()


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_that_do_not_fit_the_texts_are_refused(kind: str) -> None:
    with pytest.raises(TokenizerTrainingError, match=r"vocab_size is 400, too small.* need \d+; give at least that"):
        train_tokenizer(CORPUS, kind=kind, vocab_size=400)  # type: ignore[arg-type]
    with pytest.raises(TokenizerTrainingError, match=r"is 90000, too large: these texts hold only \d+") as error:
        train_tokenizer(CORPUS, kind=kind, vocab_size=90000)  # type: ignore[arg-type]
    largest = int(str(error.value).split("give at most ")[1].split(",")[0])
    assert len(train_tokenizer(CORPUS, kind=kind, vocab_size=largest)) == largest  # type: ignore[arg-type]
    assert len(train_tokenizer(CORPUS, kind=kind, vocab_size=90000, allow_fewer=True)) == largest  # type: ignore[arg-type]


def test_nothing_to_train_on_and_wrong_options_are_refused() -> None:
    for texts in ([], ["", "\0"]):
        with pytest.raises(TokenizerTrainingError, match="no text"):
            train_tokenizer(texts)
    with pytest.raises(TokenizerTrainingError, match="allowed: unigram, bpe"):
        train_tokenizer(CORPUS, kind="wordpiece")  # type: ignore[arg-type]
    with pytest.raises(TokenizerTrainingError, match="character_coverage is 0; allowed"):
        train_tokenizer(CORPUS, character_coverage=0)
    with pytest.raises(TokenizerTrainingError, match="-1 tokens such as <extra_id_0>"):
        train_tokenizer(CORPUS, num_sentinels=-1)


def test_characters_below_the_coverage_get_no_piece() -> None:
    texts = ["体育" * 500 + "鑫"]
    covering = train_tokenizer(texts, vocab_size=480, character_coverage=1, allow_fewer=True)
    sparing = train_tokenizer(texts, vocab_size=480, character_coverage=0.99, allow_fewer=True)
    assert "鑫" in covering.get_vocab()
    assert "鑫" not in sparing.get_vocab()
    assert sparing.decode(sparing("体育鑫")["input_ids"], skip_special_tokens=True) == "体育鑫"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "source", ["Review: {text} It was{mask}.", "评论：{text}。情感{mask}。", "{text}\nIt was{mask}"]
)
def test_a_template_gives_the_ids_of_the_text_written_out(kind: str, source: str) -> None:
    tokenizer = tokenizer_of(kind)
    compiled = compile_template(PromptTemplate.parse(source), tokenizer, slot=SlotKind.SENTINEL).tokenizer
    for text in ("great movie", "这部电影很好", "a 🌹"):
        whole = source.replace("{text}", text).replace("{mask}", "<extra_id_0>")
        assert compiled(text)["input_ids"] == tokenizer(whole)["input_ids"]


def test_reserved_soft_tokens_are_tuned_in_a_model_of_the_vocabularys_size() -> None:
    tokenizer = tokenizer_of("bpe")
    config = Seq2SeqTransformerConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_encoder_layers=1,
        num_decoder_layers=1,
        num_attention_heads=2,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    soft = tokenizer.convert_tokens_to_ids(["<|soft_0|>", "<|soft_1|>", "<|soft_2|>"])
    model = get_peft_model(
        Seq2SeqTransformerForConditionalGeneration(config),
        SoftPromptConfig(token_ids=soft, task_type="SEQ_2_SEQ_LM"),
    )
    batch = tokenizer(["<|soft_0|><|soft_1|><|soft_2|>good", "<|soft_0|><|soft_1|><|soft_2|>很好"], padding=True)
    inputs = {name: torch.tensor(value) for name, value in batch.items()}
    labels = torch.tensor(tokenizer(["很", "g"])["input_ids"])
    model(**inputs, labels=labels).loss.backward()
    assert all(weight.grad is not None for weight in model.parameters() if weight.requires_grad)
    ids = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert not set(soft) & set(ids.flatten().tolist())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_everyday_sentence_that_was_not_seen_has_an_unknown_word(kind: str) -> None:
    folder = Path(__file__).parents[2] / "recipes" / "translation-en-zh-scratch" / "data"
    seen, unseen = (
        [text for column in ("en", "zh") for text in load_rows(folder, name).table[column]]
        for name in ("train.jsonl", "test.jsonl")
    )
    tokenizer = train_tokenizer(seen, kind=kind)  # type: ignore[arg-type]
    ids = tokenizer(unseen)["input_ids"]
    assert len(tokenizer) == 8000
    assert not any(tokenizer.unk_token_id in row for row in ids)
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == unseen
