"""Lay a template, a verbalizer and a soft prompt over a base model: where the text side meets the tensor side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from hf_prompting.bases import (
    BaseModelSource,
    base_task_of,
    fingerprint_base,
    load_base_model,
    load_base_tokenizer,
    remember_folder,
)
from hf_prompting.classifier.configuration_prompt import PromptClassifierConfig
from hf_prompting.errors import BaseModelError, LabelWordError, SoftPromptError
from hf_prompting.soft_prompts import SoftPromptConfig
from hf_prompting.soft_prompts.initialization import initial_rows, repeat_to_length
from hf_prompting.soft_prompts.layer import SoftTokenTable
from hf_prompting.templates import AnswerSlot, CompiledTemplate, PromptTemplate, SlotKind, Text, compile_template
from hf_prompting.verbalizers import LabelWordIds, Verbalizer, tokenize_label_words


@dataclass(frozen=True)
class AssembledPrompt:
    """The parts of a classifier, made for each other."""

    config: PromptClassifierConfig
    base: Any
    soft_prompt: SoftTokenTable | None
    tokenizer: Any


def assemble(
    base: str | Path | BaseModelSource | PreTrainedModel,
    *,
    template: PromptTemplate | str,
    verbalizer: Verbalizer | Mapping[str, Sequence[str] | str],
    soft_prompt: SoftPromptConfig | None = None,
    tokenizer: Any = None,
    task: str | None = None,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    trainable_base: bool = False,
    **kwargs: Any,
) -> AssembledPrompt:
    """Fit the parts of a classifier to each other; ``PromptForSequenceClassification.from_base`` documents them."""
    template = PromptTemplate.parse(template) if isinstance(template, str) else template
    verbalizer = verbalizer if isinstance(verbalizer, Verbalizer) else Verbalizer(verbalizer)
    identity, revision = _identity(base, kwargs.get("revision"))
    folder = _folder(identity)
    if not isinstance(base, PreTrainedModel):
        source = str(base) if isinstance(base, Path) else base
        tokenizer = (
            load_base_tokenizer(
                source, **_only(kwargs, "revision", "token", "cache_dir", "local_files_only", "trust_remote_code")
            )
            if tokenizer is None
            else tokenizer
        )
        base = load_base_model(source, task=task, **kwargs)
    if tokenizer is None:
        if not identity:
            raise BaseModelError("a model object without a name needs its tokenizer: from_base(model, tokenizer=...)")
        tokenizer = load_base_tokenizer(identity)
    task = task or base_task_of(base.config)

    word_ids = tokenize_label_words(verbalizer, tokenizer, context=_context(template, task, tokenizer))
    num_masks = max(len(pieces) for words in word_ids for pieces in words) if task == "masked" else 1
    compiled = compile_template(template, tokenizer, slot=_slot_kind(task, tokenizer), num_slot_tokens=num_masks)
    table, settings = _soft_prompt(soft_prompt or SoftPromptConfig(), compiled, base, tokenizer, word_ids)
    if class_weights is not None and len(class_weights) != len(verbalizer.labels):
        raise LabelWordError(
            f"{len(class_weights)} class_weights for the {len(verbalizer.labels)} labels {list(verbalizer.labels)}"
        )
    weight = base.get_input_embeddings().weight
    fingerprint = fingerprint_base(base)
    if folder is not None:
        remember_folder(folder, fingerprint)
    config = PromptClassifierConfig(
        base_model_name_or_path=folder.name if folder else identity,
        base_model_is_folder=folder is not None,
        base_model_revision=None if folder else getattr(base.config, "_commit_hash", None) or revision,
        base_model_fingerprint=fingerprint.to_dict(),
        base_task=task,
        hidden_size=weight.shape[1],
        vocab_size=weight.shape[0],
        template=str(template),
        label_words={label: list(verbalizer.words[label]) for label in verbalizer.labels},
        label_word_ids=[[list(pieces) for pieces in words] for words in word_ids],
        aggregation=verbalizer.aggregation,
        soft_prompt=settings,
        pad_token_id=compiled.tokenizer.pad_token_id,
        bos_token_id=compiled.tokenizer.bos_token_id,
        eos_token_id=compiled.tokenizer.eos_token_id,
        mask_token_id=compiled.slot_token_id if task == "masked" else None,
        num_masks=num_masks if task == "masked" else 0,
        decoder_prefix_ids=_decoder_prefix(base, compiled) if task == "seq2seq" else None,
        class_weights=None if class_weights is None else [float(value) for value in class_weights],
        label_smoothing=label_smoothing,
        trainable_base=trainable_base,
        id2label=dict(enumerate(verbalizer.labels)),
        label2id={label: number for number, label in enumerate(verbalizer.labels)},
    )
    return AssembledPrompt(config, base, table, compiled.tokenizer)


def _identity(base: Any, revision: str | None) -> tuple[str, str | None]:
    if isinstance(base, BaseModelSource):
        return base.id, revision or base.revision
    return str(getattr(base, "name_or_path", base)), revision


def _folder(identity: str) -> Path | None:
    """Return the folder that an identity is the path of, or None for a Hub id."""
    path = Path(identity).expanduser()
    return path.resolve() if identity and (path / "config.json").is_file() else None


def _only(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _context(template: PromptTemplate, task: str, tokenizer: Any) -> str:
    """Return the text directly before the slot; a decoder's answer starts anew."""
    if task == "seq2seq":
        return ""
    slot = next(place for place, segment in enumerate(template.segments) if isinstance(segment, AnswerSlot))
    if slot == 0:
        return ""
    before = template.segments[slot - 1]
    text = before.text if isinstance(before, Text) else ""
    if not text.strip(" "):
        return f"a{text}"  # a field or soft token stands there: a word of running text
    for special in tokenizer.all_special_tokens:
        text = text.rpartition(special)[2]
    return text


def _slot_kind(task: str, tokenizer: Any) -> SlotKind:
    if task == "seq2seq":
        has_sentinel = tokenizer.convert_tokens_to_ids("<extra_id_0>") not in (None, tokenizer.unk_token_id)
        return SlotKind.SENTINEL if has_sentinel else SlotKind.DECODER_START
    return SlotKind.MASK if task == "masked" else SlotKind.CAUSAL


def _decoder_prefix(base: Any, compiled: CompiledTemplate) -> list[int]:
    generation = base.generation_config
    start = generation.decoder_start_token_id
    start = getattr(base.config, "decoder_start_token_id", None) if start is None else start
    if start is None:
        raise BaseModelError(f"{type(base).__name__} names no decoder_start_token_id; set it in its generation_config")
    after = compiled.slot_token_id if compiled.slot is SlotKind.SENTINEL else generation.forced_bos_token_id
    return [start] if after is None else [start, after]


def _soft_prompt(
    config: SoftPromptConfig, compiled: CompiledTemplate, base: Any, tokenizer: Any, word_ids: LabelWordIds
) -> tuple[SoftTokenTable | None, dict[str, Any] | None]:
    num_tokens = len(compiled.soft_token_ids)
    if config.num_virtual_tokens not in (None, num_tokens):
        raise SoftPromptError(
            f"num_virtual_tokens={config.num_virtual_tokens}, but the template holds {num_tokens} soft tokens; leave "
            "num_virtual_tokens out: the template counts them"
        )
    if config.token_ids not in (None, list(compiled.soft_token_ids)):
        raise SoftPromptError("token_ids cannot be chosen together with a template: its tokenizer assigns them")
    if not num_tokens:
        return None, None
    rows = initial_rows(
        base.get_input_embeddings().weight,
        num_tokens,
        init=config.init,
        init_token_ids=_starts(config, compiled, tokenizer, word_ids),
        seed=config.seed,
    )
    settings = {
        "token_ids": list(compiled.soft_token_ids),
        "init": config.init,
        "init_text": config.init_text,
        "reparameterization": config.reparameterization,
        "reparameterization_hidden_size": config.reparameterization_hidden_size,
    }
    table = SoftTokenTable(
        rows,
        compiled.soft_token_ids,
        reparameterization=config.reparameterization,
        hidden_size=config.reparameterization_hidden_size,
    )
    return table, settings


def _starts(
    config: SoftPromptConfig, compiled: CompiledTemplate, tokenizer: Any, word_ids: LabelWordIds
) -> list[list[int]]:
    """Return the ids each soft token starts from; a run's own text goes before ``init``."""
    num_tokens = len(compiled.soft_token_ids)
    starts = config.init_token_ids
    if starts is None and config.init == "text":
        assert config.init_text is not None
        starts = repeat_to_length(_ids(tokenizer, config.init_text), num_tokens)
    if starts is None and config.init == "label_words":
        words = [list(pieces) for of_label in word_ids for pieces in of_label]
        starts = [*words[:num_tokens], *([[]] * (num_tokens - len(words)))]
    starts = list(starts or [[]] * num_tokens)
    position = 0
    for run in compiled.soft_runs:
        if run.initial_text is not None:
            starts[position : position + len(run.token_ids)] = repeat_to_length(
                _ids(tokenizer, run.initial_text), len(run.token_ids)
            )
        position += len(run.token_ids)
    return starts


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids
