"""What a recipe of ``task: generation`` may say: a text goes in, another comes out.

Read by the same reader as ``schema.py``, with the same lines in messages, ``--set`` and ``--smoke``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hf_prompting.recipe.schema import OutputSection, Section, setting


@dataclass(frozen=True, kw_only=True)
class PairsSection(Section):
    """Where the pairs of source and target come from.

    Attributes:
        path: folder of data files, relative to the recipe's folder; or a ``datasets`` id.
        config: configuration of a ``datasets`` id that has several.
        train: file in that folder (.jsonl, .json, .csv, .tsv, .parquet), or split of the id.
        dev: pairs that choose the best moment and seed; ``null`` to train without.
        test: pairs that are generated and measured at the end, all of them.
        source: column of the text that goes in.
        target: column of the text that shall come out.
        prefix: put before every source, also in ``predict``, such as ``summarize: ``.
        max_train_rows: train on the first so many; ``null`` for all.
        title: what the model card calls the data.
        credit: source and licence, for the model card.
    """

    path: str = setting(path="input", not_empty=True)
    config: str | None = None
    train: str = setting("train.jsonl", not_empty=True)
    dev: str | None = setting("dev.jsonl", not_empty=True)
    test: str = setting("test.jsonl", not_empty=True)
    source: str = setting("source", not_empty=True)
    target: str = setting("target", not_empty=True)
    prefix: str = ""
    max_train_rows: int | None = setting(None, at_least=1)
    title: str | None = None
    credit: str = ""


@dataclass(frozen=True, kw_only=True)
class TokenizerSection(Section):
    """The tokenizer of a model that is trained from nothing.

    Attributes:
        path: folder of a tokenizer; ``null`` trains one on both columns of the training rows.
        kind: how to cut words into pieces: Unigram (Kudo, 2018) or byte-pair encoding (Sennrich et al., 2016).
        vocab_size: pieces at most.
    """

    path: str | None = setting(None, path="input", not_empty=True)
    kind: Literal["unigram", "bpe"] = "unigram"
    vocab_size: int = setting(8000, at_least=300)


@dataclass(frozen=True, kw_only=True)
class ModelSection(Section):
    """The encoder-decoder: a pretrained one, or the sizes of a new one.

    Attributes:
        pretrained: folder or Hub id of any encoder-decoder; ``null`` starts from random weights.
        preset: switches of ``Seq2SeqTransformerConfig``: its modern default, the original of 2017, or T5's.
        hidden_size: width of the states.
        intermediate_size: inner width of the feed-forward blocks; ``null`` takes 8/3 of the width for the modern
            preset, whose blocks have three matrices, and 4 times it for the others, with two.
        num_layers: layers of the encoder, and of the decoder.
        num_attention_heads: query heads.
        dropout: of embeddings and of each block's output.
        arguments: any other field of ``Seq2SeqTransformerConfig``.
    """

    pretrained: str | None = setting(None, path="input", not_empty=True)
    preset: Literal["modern", "vanilla", "t5"] = "modern"
    hidden_size: int = setting(256, at_least=2)
    intermediate_size: int | None = setting(None, at_least=1)
    num_layers: int = setting(4, at_least=1)
    num_attention_heads: int = setting(4, at_least=1)
    dropout: float = setting(0.1, at_least=0, below=1)
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SourcePromptSection(Section):
    """Soft tokens that are tuned while the pretrained model stays as it is.

    Attributes:
        source: soft tokens at every source.
        place: whether they stand before or behind it; behind it, the text stays at the positions where a model with
            learned or sinusoidal positions saw texts in its training.
        target: soft tokens before every target, behind the decoder's start.
        init: start from vocabulary rows or noise.
    """

    source: int = setting(20, at_least=0)
    place: Literal["before", "behind"] = "before"
    target: int = setting(0, at_least=0)
    init: Literal["vocabulary", "random"] = "vocabulary"


@dataclass(frozen=True, kw_only=True)
class GenerationTrainingSection(Section):
    """How the model, or its soft prompt, is trained.

    Attributes:
        seeds: one model is trained for each; the one with the best dev score is saved.
        max_source_length: tokens of a source; longer ones are cut.
        max_target_length: tokens of a target; longer ones are cut in training, never in measuring.
        learning_rate: of AdamW, at its peak.
        max_steps: optimiser steps; ``null`` counts epochs.
        num_train_epochs: passes over the training rows.
        per_device_train_batch_size: rows of a batch.
        gradient_accumulation_steps: batches of an optimiser step.
        schedule: how the learning rate falls behind the warmup.
        warmup_steps: steps of rising learning rate; below 1, a share of all steps.
        weight_decay: of AdamW.
        label_smoothing: share of the target spread over the vocabulary (Szegedy et al., 2016).
        bucket_by_length: rows of similar length share a batch; ``false`` draws batches blindly.
        mixed_precision: ``auto`` takes bfloat16 on GPUs that have it, float16 on others, nothing on the CPU.
        eval_steps: measure the dev rows every so many steps; ``null`` for every epoch.
        best_by: which dev number chooses the best moment and seed; bleu and chrf generate the dev rows each time.
        early_stopping_patience: stop after so many dev measurements without a better one.
        arguments: anything else of ``Seq2SeqTrainingArguments``.
    """

    seeds: tuple[int, ...] = setting((0,), not_empty=True, at_least=0, at_most=2**32 - 1)
    max_source_length: int = setting(64, at_least=2)
    max_target_length: int = setting(64, at_least=2)
    learning_rate: float = setting(0.001, above=0)
    max_steps: int | None = setting(None, at_least=1)
    num_train_epochs: float = setting(10.0, above=0)
    per_device_train_batch_size: int = setting(32, at_least=1)
    gradient_accumulation_steps: int = setting(1, at_least=1)
    schedule: Literal["linear", "cosine", "exponential", "inverse_sqrt", "constant"] = "inverse_sqrt"
    warmup_steps: float = setting(0.0, at_least=0)
    weight_decay: float = setting(0.0, at_least=0)
    label_smoothing: float = setting(0.1, at_least=0, below=1)
    bucket_by_length: bool = True
    mixed_precision: Literal["auto", "bf16", "fp16", "no"] = "auto"
    eval_steps: int | None = setting(None, at_least=1)
    best_by: Literal["loss", "bleu", "chrf"] = "loss"
    early_stopping_patience: int | None = setting(None, at_least=1)
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GenerationEvaluationSection(Section):
    """How texts are generated, and how the test rows are measured.

    Attributes:
        metrics: corpus BLEU and chrF of sacrebleu; ROUGE-L of rouge-score (an extra package).
        bleu_tokenizer: how sacrebleu cuts words: ``zh`` for Chinese, ``13a`` for English and its like.
        num_beams: beams of the test rows; the dev rows are generated greedily.
        max_new_tokens: of a generated text.
        batch_size: rows of a batch, also for the dev rows.
        max_test_rows: measure only the first so many; ``null`` for all.
        num_samples: test rows that the model card and ``metrics.json`` show.
    """

    metrics: tuple[Literal["bleu", "chrf", "rouge_l"], ...] = setting(("bleu", "chrf"), not_empty=True)
    bleu_tokenizer: Literal["13a", "zh", "char", "intl"] = "13a"
    num_beams: int = setting(4, at_least=1)
    max_new_tokens: int = setting(64, at_least=1)
    batch_size: int = setting(64, at_least=1)
    max_test_rows: int | None = setting(None, at_least=1)
    num_samples: int = setting(8, at_least=0)


@dataclass(frozen=True, kw_only=True)
class PeerSection(Section):
    """A model that is trained and measured beside the recipe's own, in the same way.

    Attributes:
        learning_rate: where another one suits it better.
    """

    learning_rate: float | None = setting(None, above=0)


@dataclass(frozen=True, kw_only=True)
class BartSection(PeerSection):
    """A BART beside the recipe's own model, of the same sizes.

    Attributes:
        attention_dropout: of attention's weights.
        activation_dropout: inside the feed-forward blocks.
    """

    attention_dropout: float = setting(0.0, at_least=0, below=1)
    activation_dropout: float = setting(0.0, at_least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class CompareSection(Section):
    """The peers of a run; ``{}`` for a peer takes everything from the recipe.

    Attributes:
        bart: ``BartForConditionalGeneration`` of the same sizes, from random weights, with the same tokenizer.
        random_weights: the pretrained model's own architecture, from random weights.
        full_fine_tuning: the pretrained model with all weights trained, where the recipe tunes a soft prompt.
    """

    bart: BartSection | None = None
    random_weights: PeerSection | None = None
    full_fine_tuning: PeerSection | None = None


@dataclass(frozen=True, kw_only=True)
class GenerationRecipe(Section):
    """A whole recipe of ``task: generation``. A file may also have ``smoke``, as every recipe."""

    task: Literal["generation"] = "generation"
    name: str = setting(not_empty=True)
    description: str = ""
    data: PairsSection
    tokenizer: TokenizerSection | None = None
    model: ModelSection = ModelSection()
    soft_prompt: SourcePromptSection | None = None
    training: GenerationTrainingSection = GenerationTrainingSection()
    evaluation: GenerationEvaluationSection = GenerationEvaluationSection()
    compare: CompareSection = CompareSection()
    output: OutputSection
