"""The base model that a recipe names."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hf_prompting.bases import BaseModelSource, GgufFile, PackageFile, load_base_model, load_base_tokenizer
from hf_prompting.processes import one_first, shards_weights
from hf_prompting.recipe.schema import BaseModelSection
from hf_prompting.training.sharding import one_embedding_module


@dataclass(frozen=True, kw_only=True)
class Base:
    """The base model, loaded once for the zero-shot measurement and all seeds."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast


def base_source(section: BaseModelSection) -> BaseModelSource:
    """Return the recipe's base model as ``bases`` names it."""
    gguf = None
    if section.gguf is not None:
        parts = tuple(PackageFile(part.distribution, part.file) for part in section.gguf.parts)
        gguf = GgufFile(parts, sha256=section.gguf.sha256)
    return BaseModelSource(section.id, revision=section.revision, path=section.path, gguf=gguf)


def load_base(section: BaseModelSection) -> Base:
    """Load the base model and its tokenizer; of several processes one downloads or converts it."""
    source = base_source(section)
    with one_first():
        model = load_base_model(source, task=section.task, trust_remote_code=section.trust_remote_code)
        tokenizer = load_base_tokenizer(source, trust_remote_code=section.trust_remote_code)
    if shards_weights():
        one_embedding_module(model)
    return Base(model=model, tokenizer=tokenizer)
