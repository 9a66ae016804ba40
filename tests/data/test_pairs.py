"""Pairs of texts become ids, and rows become padded batches."""

from __future__ import annotations

import torch
from tiny_generation import pairs

from hf_prompting.data.pairs import PairCollator, tokenize_pairs
from hf_prompting.data.tokenizer_training import train_tokenizer
from hf_prompting.seq2seq.configuration_seq2seq import Seq2SeqTransformerConfig
from hf_prompting.seq2seq.modeling_seq2seq import shift_right

ROWS = [{"input_ids": [5, 6, 1], "labels": [7, 1]}, {"input_ids": [5, 1], "labels": [8, 9, 1]}]


def test_a_batch_is_padded_on_the_right_and_the_decoder_reads_labels_one_later() -> None:
    batch = PairCollator(pad_token_id=0, decoder_start_token_id=2)(ROWS)
    assert batch["input_ids"].tolist() == [[5, 6, 1], [5, 1, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[7, 1, -100], [8, 9, 1]]
    assert batch["decoder_input_ids"].tolist() == [[2, 7, 0], [2, 8, 9]]


def test_the_decoder_input_is_what_the_models_make_of_the_labels() -> None:
    config = Seq2SeqTransformerConfig(pad_token_id=0, decoder_start_token_id=2)
    batch = PairCollator(pad_token_id=0, decoder_start_token_id=2)(ROWS)
    counts = batch["labels"] != -100
    assert torch.equal(batch["decoder_input_ids"][counts], shift_right(batch["labels"], config)[counts])


def test_soft_tokens_stand_before_the_target_and_are_not_predicted() -> None:
    batch = PairCollator(pad_token_id=0, decoder_start_token_id=2, decoder_prefix=(20, 21))(ROWS)
    assert batch["decoder_input_ids"].tolist() == [[2, 20, 21, 7, 0], [2, 20, 21, 8, 9]]
    assert batch["labels"].tolist() == [[-100, -100, 7, 1, -100], [-100, -100, 8, 9, 1]]


def test_long_texts_are_cut_and_still_end() -> None:
    rows = pairs(6)
    tokenizer = train_tokenizer([text for row in rows for text in row.values()], vocab_size=600, allow_fewer=True)
    table = tokenize_pairs(
        [row["en"] for row in rows],
        [row["zh"] for row in rows],
        tokenizer=tokenizer,
        max_source_length=5,
        max_target_length=4,
    )
    for row in table:
        assert len(row["input_ids"]) <= 5 and len(row["labels"]) <= 4
        assert row["input_ids"][-1] == row["labels"][-1] == tokenizer.eos_token_id
        assert row["lengths"] == [len(row["input_ids"]), len(row["labels"])]
