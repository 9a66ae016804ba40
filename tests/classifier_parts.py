"""What the classifier tests share: a saved tiny base with a tokenizer of its kind, and a classifier over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_models import CAUSAL, FAMILIES, MASKED, SEQ2SEQ, tiny_model
from tiny_tokenizers import (
    bert_wordpiece,
    byte_level_bpe,
    gemma_bpe,
    llama_metaspace_bpe,
    qwen_bpe,
    roberta_bpe,
    t5_unigram,
)
from torch import Tensor

from hf_prompting import PromptForSequenceClassification, SoftPromptConfig, Verbalizer

TOKENIZERS = {
    "llama": llama_metaspace_bpe,
    "gemma3": gemma_bpe,
    "gpt2": byte_level_bpe,
    "qwen3": qwen_bpe,
    "bert": bert_wordpiece,
    "roberta": roberta_bpe,
    "modernbert": bert_wordpiece,
    "t5": t5_unigram,
    "bart": roberta_bpe,
}
ALL_FAMILIES = tuple(FAMILIES)
TASK = {**dict.fromkeys(CAUSAL, "causal"), **dict.fromkeys(MASKED, "masked"), **dict.fromkeys(SEQ2SEQ, "seq2seq")}
WORDS = {"negative": ["terrible", "bad and slow"], "neutral": "no", "positive": ["great", "good", "很好"]}
TEXTS = [
    "I loved every minute of it!",
    "boring",
    "The film is awful, slow and dull; 2 hours of my life. I hated it and so did nobody else.",
    "这部电影很好",
]
PAIRS = ["Nobody is eating?", "a man is eating", "maybe", "很差"]


def template_for(family: str, *, pair: bool = False) -> str:
    fields = "{text} {soft:2}And: {text_pair}" if pair else "{text}{soft:2}"
    tail = " It was {mask}." if family in (*MASKED, "t5") else " It was{mask}"
    return "{soft:3}Review: " + fields + tail


def save_base(family: str, folder: Path, *, seed: int = 0, **kwargs: Any) -> str:
    tokenizer = TOKENIZERS[family]()
    tokenizer.save_pretrained(folder)
    tiny_model(family, vocab_size=len(tokenizer), seed=seed, **kwargs).save_pretrained(folder)
    return str(folder)


def classifier(base: Any, family: str, **kwargs: Any) -> tuple[Any, Any]:
    settings: dict[str, Any] = {
        "template": template_for(family),
        "verbalizer": Verbalizer(WORDS),
        "soft_prompt": SoftPromptConfig(seed=0),
        **kwargs,
    }
    torch.manual_seed(0)
    model, tokenizer = PromptForSequenceClassification.from_base(base, **settings)
    return model.eval(), tokenizer


def encode(
    tokenizer: Any, texts: list[str] = TEXTS, pairs: list[str] | None = None, **kwargs: Any
) -> dict[str, Tensor]:
    batch = tokenizer(texts, pairs, padding=True, return_tensors="pt", **kwargs)
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


@torch.no_grad()
def scores(
    model: Any, tokenizer: Any, texts: list[str] = TEXTS, pairs: list[str] | None = None, **kwargs: Any
) -> Tensor:
    """Class probabilities (B, C)."""
    probabilities: Tensor = model(**encode(tokenizer, texts, pairs, **kwargs)).logits.float().softmax(-1)
    return probabilities


def scramble(model: Any, seed: int = 5) -> None:
    """Stand-in for training: move every trainable weight."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
