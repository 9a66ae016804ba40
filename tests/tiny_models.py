"""Tiny random models of the families that the library promises to support; seeded, two layers, no download."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
)

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
}
DECODER: dict[str, Any] = {**SIZES, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}


def _llama(vocab_size: int, **kwargs: Any) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **{**DECODER, "tie_word_embeddings": True, **kwargs}))


def _gemma3(vocab_size: int, **kwargs: Any) -> PreTrainedModel:
    sizes = {**DECODER, "head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
    return Gemma3ForCausalLM(Gemma3TextConfig(vocab_size=vocab_size, **{**sizes, **kwargs}))


def _gpt2(vocab_size: int, **kwargs: Any) -> PreTrainedModel:
    sizes: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, **{**sizes, **dropout, **special, **kwargs}))


def _qwen3(vocab_size: int, **kwargs: Any) -> PreTrainedModel:
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=vocab_size, **{**DECODER, "head_dim": 8, **kwargs}))


def _bert(vocab_size: int, **kwargs: Any) -> PreTrainedModel:
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertForMaskedLM(BertConfig(vocab_size=vocab_size, **{**SIZES, **dropout, **kwargs}))


def _roberta(vocab_size: int, **kwargs: Any) -> PreTrainedModel:
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    special = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    return RobertaForMaskedLM(RobertaConfig(vocab_size=vocab_size, **{**SIZES, **dropout, **special, **kwargs}))


def _modernbert(vocab_size: int, **kwargs: Any) -> PreTrainedModel:
    special = {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
    sizes = {**SIZES, **special, "local_attention": 8, "global_attn_every_n_layers": 2}
    return ModernBertForMaskedLM(ModernBertConfig(vocab_size=vocab_size, **{**sizes, **kwargs}))


def _t5(vocab_size: int, **kwargs: Any) -> PreTrainedModel:
    sizes: dict[str, Any] = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
    special = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    return T5ForConditionalGeneration(T5Config(vocab_size=vocab_size, **{**sizes, **special, **kwargs}))


def _bart(vocab_size: int, **kwargs: Any) -> PreTrainedModel:
    layers: dict[str, Any] = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "max_position_embeddings": 256}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    special = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2, "dropout": 0.0}
    model = BartForConditionalGeneration(
        BartConfig(vocab_size=vocab_size, **{**layers, **heads, **special, "scale_embedding": True, **kwargs})
    )
    model.final_logits_bias.normal_()  # zero in real checkpoints; a test must see that it is counted
    return model


FAMILIES: dict[str, Callable[..., PreTrainedModel]] = {
    "llama": _llama,
    "gemma3": _gemma3,
    "gpt2": _gpt2,
    "qwen3": _qwen3,
    "bert": _bert,
    "roberta": _roberta,
    "modernbert": _modernbert,
    "t5": _t5,
    "bart": _bart,
}
CAUSAL = ("llama", "gemma3", "gpt2", "qwen3")
MASKED = ("bert", "roberta", "modernbert")
SEQ2SEQ = ("t5", "bart")


def tiny_model(family: str, vocab_size: int = 300, seed: int = 0, **kwargs: Any) -> PreTrainedModel:
    """Return a random model of ``family`` in evaluation mode; the weights depend on the seed alone.

    The weights are spread wider than at a real start, so that changes of the input show in the output.
    """
    torch.manual_seed(seed)
    model = FAMILIES[family](vocab_size, **kwargs)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
    return model.eval()
