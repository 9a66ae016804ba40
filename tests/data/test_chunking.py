"""Long texts in blocks: nothing lost, nothing twice, never too long."""

from __future__ import annotations

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import ALL_TOKENIZERS, bert_wordpiece, byte_level_bpe, t5_unigram

from hf_prompting.data import Rows, chunk_texts, following_pairs
from hf_prompting.errors import DataError

WORDS = st.sampled_from(["the", "movie", "was", "great", "电影", "很好", "。"])
documents = st.lists(st.lists(WORDS, max_size=30).map(" ".join), min_size=1, max_size=5).filter(any)


def rows_of(texts: list[str]) -> Rows:
    return Rows(Dataset.from_dict({"text": texts}), "train.txt")


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
@settings(max_examples=10, deadline=None)
@given(texts=documents, max_length=st.integers(3, 12))
def test_blocks_of_a_document_are_its_tokens(name: str, texts: list[str], max_length: int) -> None:
    tokenizer = ALL_TOKENIZERS[name]()
    whole = [tokenizer(text)["input_ids"] for text in texts]
    num_special = len(tokenizer("")["input_ids"])
    blocks = chunk_texts(rows_of(texts), "text", tokenizer=tokenizer, max_length=max_length)
    assert all(len(ids) <= max_length for ids in blocks["input_ids"])
    for number, ids in enumerate(whole):
        own = [block["input_ids"] for block in blocks if block["document"] == number]
        assert sum(len(block) - num_special for block in own) == len(ids) - num_special
        assert all(len(block) == max_length for block in own[:-1])
        if len(own) == 1:
            assert own == [ids]


def test_packed_documents_fill_every_block_but_the_last() -> None:
    tokenizer = t5_unigram()
    texts = ["the movie was great", "", "the film is awful"]
    eos = tokenizer.eos_token_id
    first, _, last = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    blocks = chunk_texts(rows_of(texts), "text", tokenizer=tokenizer, max_length=4, pack=True)["input_ids"][:]
    assert all(len(block) == 4 for block in blocks[:-1])
    assert all(block[-1] == eos for block in blocks)
    assert [token for block in blocks for token in block[:-1]] == [*first, eos, *last]


def test_pairs_stay_within_a_document() -> None:
    texts = ["the movie was great and", "the film"]
    blocks = chunk_texts(rows_of(texts), "text", tokenizer=bert_wordpiece(), max_length=4)
    pairs = following_pairs(blocks)
    assert pairs["document"][:] == [0, 0]
    assert pairs["input_ids"][1] == pairs["next_input_ids"][0]
    with pytest.raises(DataError, match="no document has two blocks"):
        following_pairs(blocks.select([0]))


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(DataError, match="take 2; allowed: at least 3"):
        chunk_texts(rows_of(["a"]), "text", tokenizer=bert_wordpiece(), max_length=2)
    with pytest.raises(DataError, match="holds no text"):
        chunk_texts(rows_of(["", ""]), "text", tokenizer=bert_wordpiece(), max_length=8)
    with pytest.raises(DataError, match=r"no column 'txt'.*Did you mean 'text'"):
        chunk_texts(rows_of(["a"]), "txt", tokenizer=bert_wordpiece(), max_length=8)
    tokenizer = byte_level_bpe()
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="neither eos_token nor sep_token"):
        chunk_texts(rows_of(["a", "b"]), "text", tokenizer=tokenizer, max_length=8, pack=True)
