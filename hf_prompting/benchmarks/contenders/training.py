"""One step of prompt tuning: this library, PEFT as its users do it, and the machine's own limit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from peft import PromptTuningConfig, get_peft_model
from torch import Tensor

from hf_prompting.benchmarks.contenders.given import Settings, batches, classifier, real_ids, right_padded
from hf_prompting.benchmarks.machine import matrix_rates


def ours(settings: Settings) -> Callable[[], dict[str, Any]]:
    """Packed rows, label-word rows of the head only; a plain loop, as in ``Trainer``, without its logging."""
    model, tokenizer = classifier(settings)
    model.train()
    given = batches(settings, tokenizer, list(settings["words"]))
    losses: list[float] = []

    def loss(batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        ids, mask, classes = batch
        found: Tensor = model(input_ids=ids, attention_mask=mask, labels=classes).loss
        losses.append(found.item())
        return found

    step = _steps(model, given, settings, loss)
    limit = sum(_operations(model.base, ids, mask, tokenizer) for ids, mask, _ in given) / len(given)
    return lambda: {**step(), "class_losses": losses[: len(given)], "operations": limit * settings["num_steps"]}


def peft(settings: Settings) -> Callable[[], dict[str, Any]]:
    """PromptTuning with the label word as the only token that has a label, logits over the whole vocabulary."""
    own, tokenizer = classifier(settings)
    given = batches(settings, tokenizer, list(settings["words"]))
    assert own.soft_prompt is not None and own.config.label_word_ids is not None
    start, soft_ids = own.soft_prompt.rows.detach().clone(), tuple(own.config.soft_prompt["token_ids"])
    words = torch.tensor([word_ids[0][0] for word_ids in own.config.label_word_ids])
    base = own.release_base()
    scale = float(getattr(base.get_input_embeddings(), "embed_scale", 1.0))
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=settings["num_soft_tokens"])
    model = get_peft_model(base, config).train()
    with torch.no_grad():  # PEFT hands its rows to the layers as they are, where the base would scale them
        model.prompt_encoder["default"].embedding.weight.copy_(start * scale)
    losses: list[float] = []

    def with_word(batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        prompts = real_ids(batch[0], batch[1], without=soft_ids)
        rows = [[*prompt, int(words[c])] for prompt, c in zip(prompts, batch[2].tolist(), strict=True)]
        ids, mask = right_padded(rows, tokenizer.pad_token_id)
        labels = torch.full_like(ids, -100)
        last = mask.sum(1) - 1
        labels.scatter_(1, last[:, None], words[batch[2]][:, None])
        return ids, mask, labels

    prepared = [(*with_word(batch), batch[2]) for batch in given]

    def loss(batch: tuple[Tensor, ...]) -> Tensor:
        ids, mask, labels, classes = batch
        output = model(input_ids=ids, attention_mask=mask, labels=labels)
        slots = settings["num_soft_tokens"] + mask.sum(1) - 2
        scores = output.logits[torch.arange(len(ids)), slots][:, words].detach().float()
        losses.append(F.cross_entropy(scores, classes).item())  # the same number as ours, from its own logits
        found: Tensor = output.loss
        return found

    step = _steps(model, prepared, settings, loss)
    return lambda: {**step(), "class_losses": losses[: len(given)]}


def matrix(settings: Settings) -> Callable[[], dict[str, Any]]:
    """The machine's matrix-product rates, measured between the rounds of the others."""
    return lambda: matrix_rates(seconds=settings["seconds"])


def _steps(model: Any, given: list[Any], settings: Settings, loss: Callable[[Any], Tensor]) -> Callable[[], Any]:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings["learning_rate"])
    endless = itertools.cycle(given)

    def some_steps() -> dict[str, Any]:
        for _ in range(settings["num_steps"]):
            loss(next(endless)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
        return {"num_weights": sum(weight.numel() for weight in weights)}

    return some_steps


def _operations(base: Any, ids: Tensor, mask: Tensor, tokenizer: Any) -> float:
    """Count a step's operations in the base's layers: forward, and backward to the inputs, not to frozen weights.

    Only what has to be done is counted: tokens without padding, the shared beginning once, attention to what a token
    may see. Normalisation, activations, the embedding and the head's two rows are left out.
    """
    config = base.config.get_text_config()
    embedding = base.get_input_embeddings().weight
    in_layers = sum(w.numel() for w in base.parameters() if w.ndim == 2 and w.shape != embedding.shape)
    rows = real_ids(ids, mask)
    shared = next((i for i, column in enumerate(zip(*rows, strict=False)) if len(set(column)) > 1), len(rows[0]))
    own = [len(row) - shared for row in rows]
    pairs = shared * shared / 2 + sum(n * shared + n * n / 2 for n in own)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 4 * config.num_hidden_layers * config.num_attention_heads * head_dim * pairs
    return float(4 * in_layers * (shared + sum(own)) + 3 * attention)
