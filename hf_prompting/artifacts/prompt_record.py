"""What a program without this library has to know of a prompt: its layout, its label words, and how they are scored."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer
from transformers import TokenizersBackend

from hf_prompting.classifier import PromptForSequenceClassification
from hf_prompting.templates.layout import Part, PartKind, install_parts, installed_parts
from hf_prompting.templates.template import SOURCE_KEY
from hf_prompting.templates.tokenizer import PIPELINE_KEY

RECORD_NAME = "prompt.json"


def prompt_layout(tokenizer: Any) -> tuple[Part, ...]:
    """Return the parts of a compiled prompt in order, with one part for each text that the tokenizer takes.

    Example:
        >>> [part.kind.value for part in prompt_layout(tokenizer)]  # doctest: +SKIP
        ['soft', 'template', 'field', 'template']
    """
    parts = installed_parts(tokenizer.backend_tokenizer)
    num_texts = len(tokenizer.prompt_template.text_groups)
    fields = [index for index, part in enumerate(parts) if part.kind is PartKind.FIELD]
    surplus = set(fields[num_texts:])  # a second text has a place right behind an only one
    return tuple(part for index, part in enumerate(parts) if index not in surplus)


def plain_tokenizer(tokenizer: Any) -> TokenizersBackend:
    """Return the same tokenizer, template included, as a class of transformers: it loads without this library.

    Example:
        >>> plain_tokenizer(tokenizer).save_pretrained("out")  # doctest: +SKIP
    """
    return _of_transformers(tokenizer, Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()))


def tokenizer_without_soft_tokens(tokenizer: Any, *, with_template: bool) -> TokenizersBackend:
    """Return a tokenizer that knows no soft tokens, for a base model whose embedding has no rows for them.

    Args:
        tokenizer: a compiled one.
        with_template: whether it inserts the rest of the template, or tokenises texts alone.
    """
    parts = [part for part in prompt_layout(tokenizer) if part.kind is not PartKind.SOFT]
    backend = _without_tokens(tokenizer.backend_tokenizer, tokenizer.soft_token_ids)
    if with_template:
        install_parts(backend, parts)
    return _of_transformers(tokenizer, backend)


def prompt_record(model: PromptForSequenceClassification, tokenizer: Any) -> dict[str, Any]:
    """Return what ``prompt.json`` holds: plain values, enough to score label words without this library.

    Example:
        >>> prompt_record(model, tokenizer)["task"]  # doctest: +SKIP
        'causal'
    """
    config = model.config
    words = config.label_words or {}
    weights = None if model.word_weights is None else model.word_weights.detach().tolist()
    return {
        "task": config.base_task,
        "base_model": config.base_model_name_or_path,
        "base_model_revision": config.base_model_revision,
        "template": config.template,
        "layout": [
            {"kind": part.kind.value} if part.kind is PartKind.FIELD else {"kind": part.kind.value, "ids": [*part.ids]}
            for part in prompt_layout(tokenizer)
        ],
        "labels": [
            {"label": label, "words": list(words.get(label, ())), "ids": pieces}
            for label, pieces in zip(config.id2label.values(), config.label_word_ids or (), strict=True)
        ],
        "aggregation": config.aggregation,
        "word_weights": weights,
        "vocab_size": config.vocab_size,
        "mask_token_id": config.mask_token_id,
        "decoder_prefix_ids": config.decoder_prefix_ids,
    }


def _without_tokens(backend: Tokenizer, token_ids: tuple[int, ...]) -> Tokenizer:
    """Return a copy without some added tokens and without post-processor; tokenizers itself can only add."""
    state = json.loads(backend.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] not in token_ids]
    state["post_processor"] = None
    return Tokenizer.from_str(json.dumps(state))


def _of_transformers(tokenizer: Any, backend: Tokenizer) -> TokenizersBackend:
    # The name and template of this library's class stay behind; everything else is what transformers itself reads.
    dropped = (SOURCE_KEY, PIPELINE_KEY, "tokenizer_class", "name_or_path", "tokenizer_file", "auto_map", "backend")
    kept = {name: value for name, value in tokenizer.init_kwargs.items() if name not in dropped}
    return TokenizersBackend(tokenizer_object=backend, **kept)
