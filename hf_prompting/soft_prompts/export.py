"""Copy soft prompts into plain embedding rows, for programs that know neither PEFT nor this library."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def merge_rows(model: Any, rows_PH: Tensor, token_ids: Sequence[int]) -> None:
    """Write the rows into the input embedding of a transformers model, in place, enlarging it where needed.

    With tied embeddings the soft rows would also become output rows and win the logits, so all tied weights are given
    copies of their own; the output head keeps its old rows (zeros for new ids). ``generation_config.suppress_tokens``
    keeps ``generate`` from producing a soft token; both survive ``save_pretrained``.

    Args:
        model: model with plain (unwrapped) embeddings.
        rows_PH: (P, H), before any embedding scale.
        token_ids: P ids.
    Example:
        >>> merge_rows(model, rows, token_ids)  # doctest: +SKIP
    """
    num_before = model.get_input_embeddings().weight.shape[0]
    num_after = max(num_before, max(token_ids) + 1)
    if num_after > num_before:
        model.resize_token_embeddings(num_after, mean_resizing=False)
    weight, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    modules = model.named_modules(remove_duplicate=False)
    paths = [path for path, module in modules if isinstance(module, nn.Embedding) and module.weight is weight]
    if head is not None and head.weight is weight:
        _untie(model)
    if head is not None and num_after > num_before:
        head.weight[num_before:] = 0
        if getattr(head, "bias", None) is not None:
            head.bias[num_before:] = 0
    for path in paths:
        embedding = model.get_submodule(path)
        embedding.weight[list(token_ids)] = rows_PH.to(embedding.weight)
    generation_config = getattr(model, "generation_config", None)
    if head is not None and generation_config is not None:
        generation_config.suppress_tokens = sorted({*(generation_config.suppress_tokens or []), *token_ids})


def _untie(model: Any) -> None:
    """Copy every tied parameter: a configuration without tying restores none of the ties (BART's three embeddings)."""
    for target, source in model.get_expanded_tied_weights_keys(all_submodels=True).items():
        path, _, name = target.rpartition(".")
        module = model.get_submodule(path)
        if module is model.get_submodule(source.rpartition(".")[0]):  # one module under several names
            model.set_submodule(path, copy.deepcopy(module))
        else:
            shared = getattr(module, name)
            setattr(module, name, nn.Parameter(shared.detach().clone(), requires_grad=shared.requires_grad))
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False
