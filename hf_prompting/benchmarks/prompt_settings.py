"""What ``hf-prompting bench prompt`` measures: the sections of recipes/benchmarks/prompt.yaml."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from hf_prompting.recipe.schema import Limits, Section

_INPUT = {"limits": Limits(path="input", not_empty=True)}


def _path() -> Any:
    return dataclasses.field(metadata=_INPUT)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """A step of prompt tuning.

    Attributes:
        model: id or folder of the base.
        num_soft_tokens: P, in front of the review.
        batch_size: rows of a step.
        num_steps: steps of a round.
        bar: how many times faster than PEFT it should be.
        memory_bar: the share of PEFT's peak memory that it should not exceed.
        rate_bar: the share of the matrix-product rate that it should reach.
        same_order: whether PEFT's prompt has the same order of tokens, so that losses can be compared: not where a
            beginning-of-text token comes first, which PEFT puts behind its soft tokens.
    """

    model: str
    num_soft_tokens: int
    batch_size: int
    num_steps: int
    bar: float
    memory_bar: float | None = None
    rate_bar: float | None = None
    same_order: bool = True


@dataclass(frozen=True, kw_only=True)
class SharedPromptSettings:
    """Rows behind one long beginning.

    Attributes:
        model: id or folder of the base.
        num_prompt_tokens: at least so many tokens of demonstrations.
        num_rows: rows of a round; their beginning is computed anew in each.
        num_rows_without: rows of a round for those who read the beginning again for each row.
        batch_size: rows at a time.
        bar: how many times more rows a second it should score.
    """

    model: str
    num_prompt_tokens: int
    num_rows: int
    num_rows_without: int
    batch_size: int
    bar: float


@dataclass(frozen=True, kw_only=True)
class WordsSettings:
    """Label words of several tokens.

    Attributes:
        name: of the line in the result, and of ``--data NAME=FOLDER``.
        model: id or folder of the base.
        data: folder with labels.json and test.jsonl; null where only the user can give it.
        template: with one field, ``{text}``.
        num_classes: the first classes of labels.json; null for all.
        num_rows: rows of a round.
        max_length: tokens of a row at most.
        sequences_at_once: batch size of the one who reads each word on its own.
        bar: how many times faster it should be.
    """

    name: str
    model: str
    template: str
    num_rows: int
    bar: float
    data: str | None = dataclasses.field(default=None, metadata=_INPUT)
    num_classes: int | None = None
    max_length: int = 128
    sequences_at_once: int = 16


@dataclass(frozen=True, kw_only=True)
class TokenisingSettings:
    """Template and tokenisation: rows a round, for us and for OpenPrompt's wrapper, and what is to be reached."""

    model: str
    num_texts: int
    num_texts_openprompt: int
    bar: float
    openprompt_bar: float


@dataclass(frozen=True, kw_only=True)
class TasksSettings:
    """A batch of rows of many tasks: of how many loaded ones, and how much slower it may be than one task's.

    Attributes:
        num_turns: of both, in one process; the memory of two processes alone makes a difference of many per cent.
    """

    model: str
    num_tasks: int
    num_rows: int
    num_soft_tokens: int
    num_turns: int
    bar: float


@dataclass(frozen=True, kw_only=True)
class PromptBenchmark(Section):
    """All of it.

    Attributes:
        num_rounds: counted rounds of every contender.
        num_warmup: rounds before them that are not counted.
        timeout: seconds that preparing, or one round, may take.
        train: rows for demonstrations, .jsonl with text and label.
        test: rows to train on and to score; only speed is measured on them.
        template: with ``{soft}`` where soft tokens go, ``{text}`` and ``{mask}``.
        words: label -> label word.
        max_length: tokens of a row at most.
        learning_rate: of AdamW, for everybody.
        openprompt_model: base that OpenPrompt's transformers can read; null to leave OpenPrompt out.
        import_bar: seconds that importing this library may add.
        num_import_rounds: counted rounds of that; imports are short and their time scatters.
    """

    num_rounds: int
    num_warmup: int
    timeout: float
    train: str = _path()
    test: str = _path()
    template: str
    negative: str
    positive: str
    max_length: int
    learning_rate: float
    training: tuple[TrainingSettings, ...]
    shared_prompt: SharedPromptSettings
    words: tuple[WordsSettings, ...]
    tokenising: TokenisingSettings
    tasks: TasksSettings
    import_bar: float
    num_import_rounds: int
    openprompt_model: str | None = None
