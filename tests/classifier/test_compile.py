"""torch.compile: over the whole classifier it changes nothing, and the base's layers may be compiled by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from classifier_parts import TEXTS, classifier, save_base
from torch import Tensor, nn


def logits_and_gradient(called: Any, model: Any, tokenizer: Any) -> tuple[Tensor, Tensor]:
    model.zero_grad()
    encoded = tokenizer(TEXTS, padding=True, return_tensors="pt")
    output = called(
        input_ids=encoded["input_ids"],
        attention_mask=encoded["attention_mask"],
        labels=torch.zeros(len(TEXTS), dtype=torch.long),
    )
    output.loss.backward()
    return output.logits.detach(), model.soft_prompt.rows.grad.clone()


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_a_compiled_classifier_computes_what_it_did(family: str, tmp_path: Path) -> None:
    model, tokenizer = classifier(save_base(family, tmp_path), family)
    expected = logits_and_gradient(model, model, tokenizer)
    found = logits_and_gradient(torch.compile(model, backend="eager"), model, tokenizer)
    assert all(map(torch.equal, found, expected))


def test_layers_of_the_base_run_compiled(tmp_path: Path) -> None:
    model, tokenizer = classifier(save_base("llama", tmp_path), "llama")
    expected = logits_and_gradient(model, model, tokenizer)
    graphs: list[Any] = []

    def backend(graph: Any, inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    layers: nn.ModuleList = model.base.model.layers
    for layer in layers:
        layer.compile(backend=backend, dynamic=True)
    found = logits_and_gradient(model, model, tokenizer)
    assert graphs
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
