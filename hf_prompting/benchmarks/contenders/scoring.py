"""Scores of label words without training: behind a long shared prompt, and for words of several tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft import PromptTuningConfig, get_peft_model
from torch import Tensor

from hf_prompting.benchmarks.contenders.given import Settings, batches, classifier, real_ids, right_padded


def ours(settings: Settings) -> Callable[[], dict[str, Any]]:
    """Every round forgets what is kept, so the shared beginning is computed once in each."""
    model, tokenizer = classifier(settings)
    model.eval()
    given = batches(settings, tokenizer, list(settings["words"]))

    @torch.inference_mode()
    def one_round() -> dict[str, Any]:
        model.scorer.prefix.forget()
        scores = torch.cat([model(input_ids=ids, attention_mask=mask).logits for ids, mask, _ in given])
        return _facts(scores, given)

    return one_round


def transformers(settings: Settings) -> Callable[[], dict[str, Any]]:
    """Every row read whole, sorted by length, padded, with logits at the last position only."""
    own, tokenizer = classifier(settings)
    given = batches(settings, tokenizer, list(settings["words"]))
    words, base = _first_pieces(own), own.release_base()

    @torch.inference_mode()
    def one_round() -> dict[str, Any]:
        found = []
        for ids, mask, _ in given:
            sequences = [row[::-1] for row in real_ids(ids, mask)]
            ids, mask = (tensor.flip(1) for tensor in right_padded(sequences, tokenizer.pad_token_id))
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            output = base(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1, use_cache=False)
            found.append(output.logits[:, -1, words])
        return _facts(torch.cat(found), given)

    return one_round


def peft(settings: Settings) -> Callable[[], dict[str, Any]]:
    """The first tokens of the shared prompt as PEFT's virtual tokens, the rest as text."""
    own, tokenizer = classifier(settings)
    given = batches(settings, tokenizer, list(settings["words"]))
    words, base = _first_pieces(own), own.release_base()
    count = settings["num_virtual"]
    start = base.get_input_embeddings()(torch.tensor(real_ids(*given[0][:2])[0][:count])).detach()
    model = get_peft_model(base, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=count)).eval()
    with torch.no_grad():
        model.prompt_encoder["default"].embedding.weight.copy_(start)

    @torch.inference_mode()
    def one_round() -> dict[str, Any]:
        found = []
        for ids, mask, _ in given:
            ids, mask = right_padded([row[count:] for row in real_ids(ids, mask)], tokenizer.pad_token_id)
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            found.append(logits[torch.arange(len(ids)), count + mask.sum(1) - 1][:, words])
        return _facts(torch.cat(found), given)

    return one_round


def word_by_word(settings: Settings) -> Callable[[], dict[str, Any]]:
    """One sequence for each row and word, and log-probabilities of its whole text, as lm-evaluation-harness does."""
    own, tokenizer = classifier(settings)
    given = batches(settings, tokenizer, list(settings["words"]))
    assert own.config.label_word_ids is not None
    words, base = [of_class[0] for of_class in own.config.label_word_ids], own.release_base()
    size = settings["sequences_at_once"]

    @torch.inference_mode()
    def one_round() -> dict[str, Any]:
        prompts = [row for ids, mask, _ in given for row in real_ids(ids, mask)]
        pairs = [(prompt, word) for prompt in prompts for word in words]
        scores: list[Tensor] = []
        for begin in range(0, len(pairs), size):
            part = pairs[begin : begin + size]
            ids, mask = right_padded([[*prompt, *word][:-1] for prompt, word in part], tokenizer.pad_token_id)
            log_probabilities = base(input_ids=ids, attention_mask=mask, use_cache=False).logits.log_softmax(-1)
            for row, (prompt, word) in enumerate(part):
                places = torch.arange(len(prompt) - 1, len(prompt) + len(word) - 1)
                scores.append(log_probabilities[row, places, torch.tensor(word)].sum())
        return _facts(torch.stack(scores).view(len(prompts), len(words)), given)

    return one_round


def _first_pieces(own: Any) -> Tensor:
    return torch.tensor([of_class[0][0] for of_class in own.config.label_word_ids])


def _facts(scores_NC: Tensor, given: list[tuple[Tensor, Tensor, Tensor]]) -> dict[str, Any]:
    classes = torch.cat([of_batch for _, _, of_batch in given])
    return {
        "probabilities": [round(value, 6) for value in scores_NC.float().softmax(-1).flatten().tolist()],
        "accuracy": float((scores_NC.argmax(-1) == classes).float().mean()),
        "num_rows": len(classes),
    }
