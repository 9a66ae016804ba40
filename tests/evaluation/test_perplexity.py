"""Perplexity: by hand, equal to the model's own loss, and the same for every batch size."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_tokenizers import bert_wordpiece, byte_level_bpe, t5_unigram
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from hf_prompting.errors import DataError
from hf_prompting.evaluation import Perplexity, perplexity
from hf_prompting.seq2seq import Seq2SeqTransformerConfig, Seq2SeqTransformerForConditionalGeneration
from hf_prompting.training.objectives import build_objective, with_noise_keys


def tiny_seq2seq(vocab_size: int) -> Any:
    config = Seq2SeqTransformerConfig(
        vocab_size=vocab_size, hidden_size=16, intermediate_size=32, num_encoder_layers=1, num_decoder_layers=1,
        num_attention_heads=2, initializer_range=0.3,
    )  # fmt: skip
    return Seq2SeqTransformerForConditionalGeneration(config)


def tiny_gpt2(vocab_size: int) -> Any:
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, n_embd=16, n_layer=1, n_head=2, initializer_range=0.3))


def tiny_bert(vocab_size: int) -> Any:
    return BertForMaskedLM(
        BertConfig(
            vocab_size=vocab_size, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            initializer_range=0.3,
        )
    )  # fmt: skip


def padded_byte_level() -> Any:
    tokenizer = byte_level_bpe()
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


CASES = {
    "span_corruption": (t5_unigram, tiny_seq2seq),
    "causal_lm": (padded_byte_level, tiny_gpt2),
    "masked_lm": (bert_wordpiece, tiny_bert),
}


@pytest.mark.parametrize("name", CASES)
def test_batch_size_and_order_do_not_change_it(name: str) -> None:
    make_tokenizer, make_model = CASES[name]
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    model = make_model(len(tokenizer)).train()
    objective = build_objective(name, tokenizer)
    rows = with_noise_keys({"input_ids": list(range(20, 22 + 3 * i))} for i in range(1, 12))
    whole = perplexity(model, DataLoader(rows, batch_size=11, collate_fn=objective))
    assert model.training
    for size in (1, 2, 5):
        part = perplexity(model, DataLoader(rows[::-1], batch_size=size, collate_fn=objective))
        assert part.num_tokens == whole.num_tokens
        assert part.value == pytest.approx(whole.value, rel=1e-5)
    model.eval()
    own_loss = model(**objective(rows)).loss.item()
    assert whole.mean_nll == pytest.approx(own_loss, rel=1e-5)
    assert whole.value == pytest.approx(math.exp(own_loss), rel=1e-5)


def test_it_weighs_by_tokens_and_not_by_batches() -> None:
    class Fixed(torch.nn.Module):
        config = Seq2SeqTransformerConfig()
        device = torch.device("cpu")

        def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> Any:
            return type("Output", (), {"logits": logits})

    even, sure = torch.zeros(1, 3, 4), torch.tensor([[[100.0, 0, 0, 0]]])
    batches = [
        {"logits": even, "labels": torch.tensor([[0, 1, 2]])},
        {"logits": sure, "labels": torch.tensor([[0]])},
        {"logits": sure, "labels": torch.tensor([[-100]])},
    ]
    result = perplexity(Fixed(), batches)  # type: ignore[arg-type]
    assert result == Perplexity(mean_nll=pytest.approx(0.75 * math.log(4)), num_tokens=4)
    assert result.value == pytest.approx(4**0.75)


def test_no_labels_is_an_error_and_a_hopeless_model_is_infinite() -> None:
    with pytest.raises(DataError, match="no label counts"):
        perplexity(tiny_seq2seq(9), [])
    assert Perplexity(mean_nll=1000.0, num_tokens=1).value == math.inf
