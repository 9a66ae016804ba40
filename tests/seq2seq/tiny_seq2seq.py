"""Tiny configurations and seeded models of the encoder-decoder family, one for each preset."""

from __future__ import annotations

from typing import Any

import torch

from hf_prompting.seq2seq import Seq2SeqTransformerConfig, Seq2SeqTransformerForConditionalGeneration

SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "dropout": 0.0,
}
PRESETS = {
    "modern": Seq2SeqTransformerConfig,
    "vanilla": Seq2SeqTransformerConfig.vanilla,
    "t5": Seq2SeqTransformerConfig.t5,
}


def tiny_config(preset: str, **kwargs: Any) -> Seq2SeqTransformerConfig:
    return PRESETS[preset](**{**SIZES, **kwargs})


def tiny_model(preset: str, model_class: Any = Seq2SeqTransformerForConditionalGeneration, **kwargs: Any) -> Any:
    """Return a seeded model in evaluation mode, its weights spread so that changes of the input show."""
    torch.manual_seed(0)
    model = model_class(tiny_config(preset, **{"initializer_range": 0.2, **kwargs}))
    return model.eval()


def some_ids(num_rows: int = 2, num_tokens: int = 7, seed: int = 1) -> torch.Tensor:
    return torch.randint(3, 99, (num_rows, num_tokens), generator=torch.Generator().manual_seed(seed))
