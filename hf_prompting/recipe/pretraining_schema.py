"""What a recipe of ``task: pretraining`` may say: plain texts go in, a pretrained encoder-decoder comes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hf_prompting.recipe.generation_schema import ModelSection
from hf_prompting.recipe.schema import OutputSection, Section, setting


@dataclass(frozen=True, kw_only=True)
class TextsSection(Section):
    """Where the texts come from.

    Attributes:
        path: folder of data files, relative to the recipe's folder; or a ``datasets`` id.
        config: configuration of a ``datasets`` id that has several.
        train: file in that folder (.jsonl, .json, .csv, .tsv, .parquet, .txt), or split of the id.
        dev: texts whose perplexity is measured, and chooses the best moment.
        column: holds the text.
        max_train_rows: train on the first so many; ``null`` for all.
        title: what the model card calls the data.
        credit: source and licence, for the model card.
    """

    path: str = setting(path="input", not_empty=True)
    config: str | None = None
    train: str = setting("train.jsonl", not_empty=True)
    dev: str = setting("dev.jsonl", not_empty=True)
    column: str = setting("text", not_empty=True)
    max_train_rows: int | None = setting(None, at_least=1)
    title: str | None = None
    credit: str = ""


@dataclass(frozen=True, kw_only=True)
class MoreTexts(Section):
    """Further texts that the tokenizer is trained on, such as those that the model will be fine-tuned on.

    Attributes:
        path: folder of data files, relative to the recipe's folder; or a ``datasets`` id.
        file: file in that folder, or split of the id.
        columns: hold the texts.
    """

    path: str = setting(path="input", not_empty=True)
    file: str = setting(not_empty=True)
    columns: tuple[str, ...] = setting(not_empty=True)


@dataclass(frozen=True, kw_only=True)
class NewTokenizerSection(Section):
    """The tokenizer, trained on the training texts.

    Attributes:
        kind: how to cut words into pieces: Unigram (Kudo, 2018) or byte-pair encoding (Sennrich et al., 2016).
        vocab_size: tokens of all kinds at most.
        num_sentinels: ``<extra_id_0>`` and so on.
        more_texts: train it on these, too.
    """

    kind: Literal["unigram", "bpe"] = "unigram"
    vocab_size: int = setting(8000, at_least=300)
    num_sentinels: int = setting(100, at_least=1)
    more_texts: tuple[MoreTexts, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ObjectiveSection(Section):
    """The task that is made of the texts.

    Attributes:
        name: T5's span corruption, BART's denoising, or what follows a prefix.
        max_length: tokens of a block of text.
        pack: let a block hold the end of one text and the beginning of the next, so that all are full.
        arguments: options of the objective, such as ``noise_density``.
    """

    name: Literal["span_corruption", "denoising", "prefix_lm"] = "span_corruption"
    max_length: int = setting(64, at_least=4)
    pack: bool = True
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PretrainingTrainingSection(Section):
    """How the model is trained.

    Attributes:
        seed: of weights, order and noise.
        learning_rate: of AdamW, at its peak.
        max_steps: optimiser steps; ``null`` counts epochs.
        num_train_epochs: passes over the blocks, with other noise each time.
        per_device_train_batch_size: blocks of a batch.
        gradient_accumulation_steps: batches of an optimiser step.
        schedule: how the learning rate falls behind the warmup.
        warmup_steps: steps of rising learning rate; below 1, a share of all steps.
        weight_decay: of AdamW.
        mixed_precision: ``auto`` takes bfloat16 on GPUs that have it, float16 on others, nothing on the CPU.
        eval_steps: measure the dev texts every so many steps; ``null`` for every epoch.
        early_stopping_patience: stop after so many dev measurements without a better one.
        eval_batch_size: blocks of a dev batch; it changes no number.
        arguments: anything else of ``Seq2SeqTrainingArguments``.
    """

    seed: int = setting(0, at_least=0, at_most=2**32 - 1)
    learning_rate: float = setting(0.001, above=0)
    max_steps: int | None = setting(None, at_least=1)
    num_train_epochs: float = setting(10.0, above=0)
    per_device_train_batch_size: int = setting(32, at_least=1)
    gradient_accumulation_steps: int = setting(1, at_least=1)
    schedule: Literal["linear", "cosine", "exponential", "inverse_sqrt", "constant"] = "cosine"
    warmup_steps: float = setting(0.0, at_least=0)
    weight_decay: float = setting(0.0, at_least=0)
    mixed_precision: Literal["auto", "bf16", "fp16", "no"] = "auto"
    eval_steps: int | None = setting(None, at_least=1)
    early_stopping_patience: int | None = setting(None, at_least=1)
    eval_batch_size: int = setting(64, at_least=1)
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FineTuningSection(Section):
    """What shows that pre-training helped: a recipe of ``task: generation`` that starts from the new model.

    Attributes:
        recipe: that recipe; its ``model.pretrained`` becomes the folder of this one.
        smoke: use its smoke section.
    """

    recipe: str = setting(path="input", not_empty=True)
    smoke: bool = False


@dataclass(frozen=True, kw_only=True)
class PretrainingRecipe(Section):
    """A whole recipe of ``task: pretraining``. A file may also have ``smoke``, as every recipe."""

    task: Literal["pretraining"] = "pretraining"
    name: str = setting(not_empty=True)
    description: str = ""
    data: TextsSection
    tokenizer: NewTokenizerSection = NewTokenizerSection()
    model: ModelSection = dataclasses.field(default_factory=ModelSection)
    objective: ObjectiveSection = ObjectiveSection()
    training: PretrainingTrainingSection = PretrainingTrainingSection()
    fine_tuning: FineTuningSection | None = None
    output: OutputSection
