"""Causal and prefix language modelling, by hand and undone."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import gemma_bpe, t5_unigram

from hf_prompting.training.objectives import CausalLM, PrefixLM

T5, GEMMA = t5_unigram(), gemma_bpe()
EOS = T5.eos_token_id
ORDINARY = sorted(set(range(len(T5))) - set(T5.all_special_ids))
texts = st.lists(st.lists(st.sampled_from(ORDINARY), min_size=1, max_size=20), min_size=1, max_size=6)


def test_causal_labels_are_the_inputs_and_padding_is_ignored() -> None:
    batch = CausalLM(tokenizer=GEMMA)([{"input_ids": [300, 301]}, {"input_ids": [GEMMA.bos_token_id, 302]}])
    bos, pad = GEMMA.bos_token_id, GEMMA.pad_token_id
    assert batch["input_ids"].tolist() == [[bos, 300, 301], [bos, 302, pad]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[bos, 300, 301], [bos, 302, -100]]


@settings(deadline=None)
@given(texts, st.integers(0, 99))
def test_prefix_and_rest_are_the_text(rows: list[list[int]], seed: int) -> None:
    batch = PrefixLM(tokenizer=T5, seed=seed)([{"input_ids": row} for row in rows])
    for number, row in enumerate(rows):
        prefix = batch["input_ids"][number][batch["attention_mask"][number].bool()].tolist()
        rest = [token for token in batch["labels"][number].tolist() if token != -100]
        assert prefix[-1] == rest[-1] == EOS
        assert prefix[:-1] + rest[:-1] == row
        assert len(prefix) > 1
        assert len(rest) > 1 or len(row) == 1


@settings(deadline=None)
@given(texts, st.integers(0, 99))
def test_in_one_sequence_only_the_rest_has_labels(rows: list[list[int]], seed: int) -> None:
    features = [{"input_ids": row} for row in rows]
    two = PrefixLM(tokenizer=T5, seed=seed)(features)
    one = PrefixLM(tokenizer=T5, seed=seed, decoder_only=True)(features)
    for number, row in enumerate(rows):
        rest = [token for token in two["labels"][number].tolist() if token != -100]
        labels = one["labels"][number].tolist()[: len(row) + 1]
        assert one["input_ids"][number].tolist()[: len(row) + 1] == [*row, EOS]
        assert labels == [-100] * (len(row) + 1 - len(rest)) + rest


def test_every_length_of_the_prefix_is_as_likely() -> None:
    batch = PrefixLM(tokenizer=T5)([{"input_ids": ORDINARY[:5]}] * 4000)
    lengths = Counter((batch["attention_mask"].sum(dim=1) - 1).tolist())
    assert set(lengths) == {1, 2, 3, 4}
    assert min(lengths.values()) > 900


def test_the_beginning_token_belongs_to_the_prefix() -> None:
    batch = PrefixLM(tokenizer=GEMMA, decoder_only=True)([{"input_ids": [300, 301]}])
    assert batch["input_ids"].tolist() == [[GEMMA.bos_token_id, 300, 301, GEMMA.eos_token_id]]
    assert batch["labels"].tolist() == [[-100, -100, 301, GEMMA.eos_token_id]]
