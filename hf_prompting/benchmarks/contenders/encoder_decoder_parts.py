"""Parts of the encoder-decoder, each next to what it replaces, in one process and in turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_prompting.cpu_products import Linear
from hf_prompting.seq2seq.cpu_functions import dropout, rms_norm
from hf_prompting.seq2seq.decoding_layout import lay_out_for_decoding

Settings = dict[str, Any]
Step = Callable[[], object]


def parts(settings: Settings) -> Callable[[], dict[str, Any]]:
    """Return what times every pair: name -> seconds of ours and of what it replaces, the best of many turns."""
    torch.manual_seed(0)
    pairs = {**_training_pairs(settings), **_decoding_pairs(settings)}

    def one_round() -> dict[str, Any]:
        return {name: _best(pair, settings["num_turns"]) for name, pair in pairs.items()}

    return one_round


def _training_pairs(settings: Settings) -> dict[str, tuple[Step, Step]]:
    """Forward and backward pass over the states of a batch."""
    states = torch.randn(settings["batch_size"], settings["num_tokens"], settings["width"], requires_grad=True)
    weight = torch.ones(settings["width"], requires_grad=True)

    def both_ways(function: Callable[[], Tensor]) -> Step:
        return lambda: function().sum().backward()  # type: ignore[no-untyped-call]

    rate, shape = settings["dropout"], (settings["width"],)
    return {
        "dropout, forward and backward": (
            both_ways(lambda: dropout(states, rate, training=True)),
            both_ways(lambda: F.dropout(states, rate)),
        ),
        "RMSNorm, forward and backward": (
            both_ways(lambda: rms_norm(states, weight, 1e-6)),
            both_ways(lambda: F.rms_norm(states, shape, weight, 1e-6)),
        ),
    }


def _decoding_pairs(settings: Settings) -> dict[str, tuple[Step, Step]]:
    """All products of one decoding step: weights stored by columns and oneDNN, against torch's layer as it is."""
    width, inner = settings["width"], settings["inner"]
    shapes = [*[(width, width)] * 6, (width, inner), (inner, width)] * settings["layers"] + [
        (width, settings["vocabulary"])
    ]
    by_columns, by_rows = (
        nn.ModuleList(kind(*shape, bias=False) for shape in shapes).eval() for kind in (Linear, nn.Linear)
    )
    lay_out_for_decoding(by_columns)
    pairs: dict[str, tuple[Step, Step]] = {}
    for batch_size in (1, 16):
        given = {size: torch.randn(batch_size, 1, size) for size in (width, inner)}

        def products(layers: nn.ModuleList, given: dict[int, Tensor] = given) -> Step:
            return torch.no_grad()(lambda: [layer(given[layer.in_features]) for layer in layers])  # type: ignore[index]

        pairs[f"products of a decoding step, batch {batch_size}"] = (products(by_columns), products(by_rows))
    return pairs


def _best(pair: tuple[Step, Step], num_turns: int) -> dict[str, float]:
    best = [float("inf"), float("inf")]
    for _ in range(num_turns):
        for place, step in enumerate(pair):
            start = time.perf_counter()
            step()
            best[place] = min(best[place], time.perf_counter() - start)
    return {"ours": best[0], "theirs": best[1]}
