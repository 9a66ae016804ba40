"""Exports of a saved classifier for programs that do not have this library: merged weights, a stock PEFT adapter, or
the prompt's embeddings.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PromptTuningConfig, TaskType
from safetensors.torch import save_file
from torch import Tensor

from hf_prompting.artifacts.export_card import export_card
from hf_prompting.artifacts.folder import atomic_folder, refuse_existing
from hf_prompting.artifacts.prompt_record import (
    RECORD_NAME,
    plain_tokenizer,
    prompt_layout,
    prompt_record,
    tokenizer_without_soft_tokens,
)
from hf_prompting.classifier import PromptForSequenceClassification
from hf_prompting.errors import ArtifactError, did_you_mean
from hf_prompting.soft_prompts.export import merge_rows
from hf_prompting.templates.layout import PartKind

EMBEDDINGS_NAME = "prompt_embeddings.safetensors"
PEFT_TASKS = {"causal": TaskType.CAUSAL_LM, "seq2seq": TaskType.SEQ_2_SEQ_LM}


@dataclass(frozen=True)
class Exported:
    """A classifier with its tokenizer, on its way into ``folder``."""

    model: PromptForSequenceClassification
    tokenizer: Any
    folder: Path


def check_export(target: Path, form: str) -> None:
    """Make sure that an export can be written, before a model is loaded for it.

    Raises:
        ArtifactError: the form is unknown, or the target exists or cannot be made.
    """
    if form not in FORMS:
        raise ArtifactError(f"--to {form!r} is unknown; allowed: {', '.join(FORMS)}.{did_you_mean(form, FORMS)}")
    refuse_existing(target, overwrite=False)


def export_classifier(model: PromptForSequenceClassification, tokenizer: Any, target: Path, *, form: str) -> None:
    """Export a classifier; the base of a "plain" one is changed in place, so the classifier is used up.

    Args:
        model: the classifier.
        tokenizer: the tokenizer with its template.
        target: new folder to write; an existing one is never replaced.
        form: a key of ``FORMS``: "plain", "peft" or "embeds".
    Raises:
        ArtifactError: the form is unknown, cannot express this prompt, or the folder cannot be written.
    Example:
        >>> export_classifier(model, tokenizer, Path("merged"), form="plain")  # doctest: +SKIP
    """
    check_export(target, form)
    with atomic_folder(target) as folder:
        record = prompt_record(model, tokenizer)
        FORMS[form](Exported(model, tokenizer, folder))
        (folder / RECORD_NAME).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(export_card(form, record), encoding="utf-8")


def export_plain(exported: Exported) -> None:
    """Write the base model with the soft tokens as rows of its embedding, and a tokenizer that inserts the prompt."""
    model, base = exported.model, exported.model.base
    rows_PH = None if model.soft_prompt is None else model.soft_prompt.materialize().detach()
    model.release_base()
    if rows_PH is not None:
        merge_rows(base, rows_PH, model.config.soft_prompt["token_ids"])
    base.save_pretrained(exported.folder)
    plain_tokenizer(exported.tokenizer).save_pretrained(exported.folder)


def export_peft(exported: Exported) -> None:
    """Write PEFT's own prompt tuning, where the soft tokens are what it can express: all of them, first of all.

    Raises:
        ArtifactError: they stand elsewhere, or the base model is of a kind without prompt tuning in PEFT.
    """
    model = exported.model
    task = PEFT_TASKS.get(model.config.base_task)
    if problem := _why_not_peft(exported):
        raise ArtifactError(f"this prompt cannot be a prompt-tuning adapter of PEFT: {problem}; use --to plain")
    rows_PH = _scaled_rows(model)
    config = PromptTuningConfig(
        task_type=task,
        num_virtual_tokens=rows_PH.shape[0],
        token_dim=rows_PH.shape[1],
        num_transformer_submodules=1,
        base_model_name_or_path=model.config.base_model_name_or_path,
        revision=model.config.base_model_revision,
        inference_mode=True,
    )
    config.save_pretrained(exported.folder)
    save_file({"prompt_embeddings": rows_PH}, exported.folder / "adapter_model.safetensors", {"format": "pt"})
    tokenizer_without_soft_tokens(exported.tokenizer, with_template=True).save_pretrained(exported.folder)


def export_embeds(exported: Exported) -> None:
    """Write the embeddings of everything that the template puts around the texts, as the first layer reads them.

    A model that scales its embeddings (Gemma by the root of H) is given these already scaled; ``inputs_embeds`` of
    transformers, and the prompt embeddings of servers, are not scaled again.
    """
    model = exported.model
    _refuse_trained_base(model)
    tensors: dict[str, Tensor] = {}
    for index, part in enumerate(prompt_layout(exported.tokenizer)):
        if part.kind is not PartKind.FIELD:
            tensors[f"part.{index}"] = _embedded(model, part.ids)
    metadata = {
        "format": "pt",
        "base_model": str(model.config.base_model_name_or_path),
        "base_model_revision": str(model.config.base_model_revision or ""),
        "template": str(model.config.template),
        "embeddings_are_scaled": "true",
    }
    save_file(tensors, exported.folder / EMBEDDINGS_NAME, metadata)
    tokenizer_without_soft_tokens(exported.tokenizer, with_template=False).save_pretrained(exported.folder)


FORMS: dict[str, Callable[[Exported], None]] = {"plain": export_plain, "peft": export_peft, "embeds": export_embeds}


def _why_not_peft(exported: Exported) -> str | None:
    kinds = [part.kind for part in prompt_layout(exported.tokenizer)]
    if exported.model.config.trainable_base:
        return "the base model was tuned as well"
    if exported.model.config.base_task not in PEFT_TASKS:
        return "PEFT has no prompt tuning for masked language models"
    if PartKind.SOFT not in kinds:
        return "the template has no soft tokens"
    if kinds[0] is not PartKind.SOFT:
        first = "a special token of the base model" if kinds[0] is PartKind.SPECIAL else "text of the template"
        return f"PEFT puts its soft tokens before everything else, but here {first} stands first"
    if PartKind.SOFT in kinds[1:]:
        return "PEFT knows one run of soft tokens, but this template has several"
    return None


def _refuse_trained_base(model: PromptForSequenceClassification) -> None:
    if model.config.trainable_base:
        raise ArtifactError("the base model was tuned as well, so its embeddings alone are not enough; use --to plain")


def _scaled_rows(model: PromptForSequenceClassification) -> Tensor:
    return _embedded(model, model.config.soft_prompt["token_ids"])


@torch.no_grad()
def _embedded(model: PromptForSequenceClassification, ids: Any) -> Tensor:
    """(N,) ids -> (N, H) embeddings, soft tokens and the model's own scale included."""
    embedding = model.base.get_encoder() if model.config.base_task == "seq2seq" else model.base
    rows: Tensor = embedding.get_input_embeddings()(torch.tensor([list(ids)], device=model.device))[0]
    return rows.detach().cpu().contiguous()
