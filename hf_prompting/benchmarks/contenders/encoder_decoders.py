"""Encoder-decoders of one size, each with random weights: a training step, and generation.

Every feed-forward block has the same number of weights: two matrices of the inner width, or three of two thirds of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    CompileConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from hf_prompting.benchmarks.machine import matrix_rates
from hf_prompting.seq2seq import Seq2SeqTransformerConfig, Seq2SeqTransformerForConditionalGeneration

Settings = dict[str, Any]
_MULTIPLE = 64  # of a gated block's inner width, as processors like it
_FIRST_WORD = 3  # below: padding, end, start


def ours(settings: Settings, **switches: Any) -> nn.Module:
    """Build the default of this family: RMSNorm before each block, rotary positions, gated SiLU, no biases."""
    gated = _MULTIPLE * math.ceil(settings["inner"] * 2 / 3 / _MULTIPLE)
    sizes = {
        "vocab_size": settings["vocabulary"],
        "hidden_size": settings["width"],
        "num_encoder_layers": settings["layers"],
        "num_decoder_layers": settings["layers"],
        "num_attention_heads": settings["heads"],
        "dropout": settings["dropout"],
    }
    config = Seq2SeqTransformerConfig(**{"intermediate_size": gated, **sizes, **switches})
    model: nn.Module = Seq2SeqTransformerForConditionalGeneration(config)
    return model


def ours_without_gate(settings: Settings) -> nn.Module:
    """Build the same with two matrices of the full inner width in each feed-forward block."""
    return ours(settings, gated_feed_forward=False, intermediate_size=settings["inner"])


def bart(settings: Settings) -> nn.Module:
    """Build BART (Lewis et al., 2019, arXiv:1910.13461)."""
    sides = {
        f"{side}_{name}": settings[size]
        for side in ("encoder", "decoder")
        for name, size in (("layers", "layers"), ("attention_heads", "heads"), ("ffn_dim", "inner"))
    }
    config = BartConfig(
        vocab_size=settings["vocabulary"],
        d_model=settings["width"],
        max_position_embeddings=2 * settings["num_tokens"] + 2,
        dropout=settings["dropout"],
        forced_eos_token_id=None,
        **sides,
    )
    model: nn.Module = BartForConditionalGeneration(config)
    return model


def t5(settings: Settings) -> nn.Module:
    """Build T5 (Raffel et al., 2020, arXiv:1910.10683)."""
    config = T5Config(
        vocab_size=settings["vocabulary"],
        d_model=settings["width"],
        d_kv=settings["width"] // settings["heads"],
        d_ff=settings["inner"],
        num_layers=settings["layers"],
        num_heads=settings["heads"],
        dropout_rate=settings["dropout"],
        decoder_start_token_id=0,
    )
    model: nn.Module = T5ForConditionalGeneration(config)
    return model


class TorchTransformer(nn.Module):
    """``torch.nn.Transformer`` with learned positions and a tied head, as its users put it together."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        width, layers = settings["width"], settings["layers"]
        self.embedding = nn.Embedding(settings["vocabulary"], width)
        self.positions = nn.Embedding(2 * settings["num_tokens"], width)
        self.transformer = nn.Transformer(
            width,
            settings["heads"],
            layers,
            layers,
            settings["inner"],
            dropout=settings["dropout"],
            batch_first=True,
        )
        self.head = nn.Linear(width, settings["vocabulary"], bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, input_ids: Tensor, labels: Tensor) -> SimpleNamespace:
        """Teacher forcing: ids (B, S) and labels (B, T) -> ``loss``."""
        read = F.pad(labels[:, :-1], (1, 0))
        mask = nn.Transformer.generate_square_subsequent_mask(labels.shape[1])
        states = self.transformer(self._embed(input_ids), self._embed(read), tgt_mask=mask, tgt_is_causal=True)
        return SimpleNamespace(loss=F.cross_entropy(self.head(states).flatten(0, 1), labels.flatten()))

    def _embed(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.embedding(ids) + self.positions.weight[: ids.shape[1]]
        return embedded


HOLDING = "hf_prompting, scores held"
MODELS: dict[str, Callable[[Settings], nn.Module]] = {
    "hf_prompting": ours,
    "hf_prompting, no gate": ours_without_gate,
    HOLDING: ours,
    "BART": bart,
    "T5": t5,
    "torch.nn.Transformer": TorchTransformer,
}


def training(settings: Settings) -> Callable[[], dict[str, Any]]:
    """Forward, backward and fused AdamW on one batch, ``num_steps`` times a round; with ``compiled``, the model is."""
    torch.manual_seed(0)
    model = MODELS[settings["model"]](settings).train()
    if settings["compiled"]:
        model.compile(dynamic=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["learning_rate"], fused=True)
    ids, labels = _texts(settings, 0), _texts(settings, 1)
    more = {"skip_logits": False} if settings["model"] == HOLDING else {}

    def one_round() -> dict[str, Any]:
        for _ in range(settings["num_steps"]):
            optimizer.zero_grad()
            loss = model(input_ids=ids, labels=labels, **more).loss
            loss.backward()
            optimizer.step()
        return {
            "loss": loss.item(),
            "num_tokens": settings["num_steps"] * (ids.numel() + labels.numel()),
            "num_parameters": sum(weight.numel() for weight in model.parameters()),
            "operations": settings["num_steps"] * 6 * ids.numel() * _num_multiplied(model),
        }

    return one_round


def generation(settings: Settings) -> Callable[[], dict[str, Any]]:
    """Generate as many tokens as were read, without an end; with ``compiled``, a static cache and ``torch.compile``."""
    torch.manual_seed(0)
    model: Any = MODELS[settings["model"]](settings).eval()
    if hasattr(model, "lay_out_for_decoding"):
        model.lay_out_for_decoding(compiled=settings["compiled"])
    model.generation_config.eos_token_id = None
    ids = _texts(settings, 0)
    options: dict[str, Any] = {"max_new_tokens": ids.shape[1], "num_beams": settings["num_beams"], "do_sample": False}
    if settings["compiled"]:
        compiling = CompileConfig(fullgraph=False, mode="default")
        compiling._compile_all_devices = True  # transformers compiles by itself on a GPU only
        options |= {"cache_implementation": "static", "compile_config": compiling}

    def one_round() -> dict[str, Any]:
        num_tokens = 0
        for _ in range(settings["num_calls"]):
            num_tokens += model.generate(ids, attention_mask=torch.ones_like(ids), **options)[:, 1:].numel()
        return {"num_tokens": num_tokens, "num_parameters": sum(weight.numel() for weight in model.parameters())}

    return one_round


def matrix(settings: Settings) -> Callable[[], dict[str, Any]]:
    """The machine's matrix-product rates, measured between the rounds of the others."""
    return lambda: matrix_rates(seconds=settings["seconds"])


def _texts(settings: Settings, seed: int) -> Tensor:
    shape = (settings["batch_size"], settings["num_tokens"])
    return torch.randint(
        _FIRST_WORD, settings["vocabulary"], shape, generator=torch.Generator().manual_seed(seed), dtype=torch.long
    )


def _num_multiplied(model: nn.Module) -> int:
    """Weights that each token of one side is multiplied with; texts of both sides are equally long."""
    return sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
