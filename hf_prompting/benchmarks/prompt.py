"""``hf-prompting bench prompt``: prompt learning here, and the way it is done elsewhere, on the same rows."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_prompting.bases.locate import locate_base
from hf_prompting.benchmarks import contenders
from hf_prompting.benchmarks.openprompt_environment import OPENPROMPT, openprompt_python
from hf_prompting.benchmarks.prompt_settings import (
    PromptBenchmark,
    SharedPromptSettings,
    TasksSettings,
    TokenisingSettings,
    TrainingSettings,
    WordsSettings,
)
from hf_prompting.benchmarks.results import Bar, Measure, agree, ratio
from hf_prompting.benchmarks.rounds import Contender, Timing, take_turns
from hf_prompting.errors import BenchmarkError

_FOLDER = Path(contenders.__file__).parent


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Settings, what the user gave besides, and how to report progress."""

    settings: PromptBenchmark
    data: Mapping[str, str]
    say: Callable[[str], None]

    def turns(self, *parts: Contender, num_rounds: int | None = None) -> dict[str, Timing]:
        """Let contenders take turns by the settings."""
        return take_turns(
            parts,
            num_rounds=num_rounds or self.settings.num_rounds,
            num_warmup=self.settings.num_warmup,
            timeout=self.settings.timeout,
            on_round=self.say,
        )

    @property
    def words(self) -> dict[str, str]:
        """Label -> word of the review rows."""
        return {"negative": self.settings.negative, "positive": self.settings.positive}

    def reviews(self, model: str, num_soft_tokens: int) -> dict[str, Any]:
        """Settings that every contender on reviews shares."""
        soft = f"{{soft:{num_soft_tokens}}}" if num_soft_tokens else ""
        return {
            "model": _local(model),
            "data": self.settings.test,
            "words": self.words,
            "template": self.settings.template.replace("{soft}", soft),
            "max_length": self.settings.max_length + num_soft_tokens,
            "num_soft_tokens": num_soft_tokens,
            "learning_rate": self.settings.learning_rate,
        }


def measure_prompts(
    settings: PromptBenchmark, *, data: Mapping[str, str] | None = None, say: Callable[[str], None] = lambda text: None
) -> Iterator[Measure]:
    """Measure everything, one line of the result after another.

    Args:
        settings: from ``read_recipe_as``.
        data: name of a ``words`` section -> the user's folder with its data.
        say: told what runs now.
    Raises:
        BenchmarkError: a contender of ours failed, contenders did not compute the same, or a name in ``data`` is not
            one of the settings.
    Example:
        >>> for measure in measure_prompts(settings): print(measure.name, measure.value)  # doctest: +SKIP
    """
    bench = Bench(settings=settings, data=data or {}, say=say)
    unknown = set(bench.data) - {section.name for section in settings.words}
    if unknown:
        raise BenchmarkError(f"--data {sorted(unknown)}: allowed are {[section.name for section in settings.words]}")
    for training in settings.training:
        yield from _training(bench, training)
    yield from _shared_prompt(bench, settings.shared_prompt)
    for words in settings.words:
        yield from _words(bench, words)
    yield from _tokenising(bench, settings.tokenising)
    yield from _tasks(bench, settings.tasks)
    yield from _imports(bench, settings.import_bar)
    if settings.openprompt_model is not None:
        yield from _openprompt(bench, settings.openprompt_model)


def _training(bench: Bench, section: TrainingSettings) -> Iterator[Measure]:
    shared = {
        **bench.reviews(section.model, section.num_soft_tokens),
        "batch_size": section.batch_size,
        "num_rows": 4 * section.batch_size,
        "num_steps": section.num_steps,
    }
    found = bench.turns(
        _contender("ours", "training.py", "ours", shared),
        _contender("PEFT PromptTuning", "training.py", "peft", shared),
        _contender("matrix product", "training.py", "matrix", {"seconds": 1.0}),
    )
    ours, theirs, matrix = found.values()
    losses = {timing.name: list(timing.facts["class_losses"]) for timing in (ours, theirs)}
    if section.same_order:
        agree("loss of the first step", losses["ours"][:1], losses["PEFT PromptTuning"][:1], tolerance=2e-3)
    name = f"training step, {section.num_soft_tokens} soft tokens, batch {section.batch_size}, {_short(section.model)}"
    note = "" if section.same_order else "PEFT puts its soft tokens before the first token, so losses differ"
    yield Measure(
        name=name,
        against=theirs.name,
        value=ratio(ours, theirs),
        bar=Bar(section.bar),
        timings=(ours, theirs),
        details={"class_losses": losses, "steps_per_round": section.num_steps},
        note=note,
    )
    yield Measure(
        name=f"peak memory of that step ({_gigabytes(ours)} against {_gigabytes(theirs)})",
        against=theirs.name,
        value=ours.peak_bytes / theirs.peak_bytes,
        unit="share",
        bar=None if section.memory_bar is None else Bar(section.memory_bar, at_least=False),
    )
    rate, torch_rate = matrix.facts["rate"], matrix.facts["torch_rate"]
    reached = ours.facts["operations"] / ours.median
    yield Measure(
        name="share of the matrix-product rate in that step",
        against=f"{rate / 1e9:.0f} GFLOP/s",
        value=reached / rate,
        unit="share",
        bar=None if section.rate_bar is None else Bar(section.rate_bar),
        details={"operations_per_round": ours.facts["operations"], **matrix.facts},
        note=f"{reached / 1e9:.0f} GFLOP/s; torch.mm reaches {torch_rate / 1e9:.0f}",
    )


def _shared_prompt(bench: Bench, section: SharedPromptSettings) -> Iterator[Measure]:
    shared = bench.reviews(section.model, 0)
    demonstrations, num_tokens = _demonstrations(bench.settings, shared, section.num_prompt_tokens)
    shared = {
        **shared,
        "template": demonstrations + shared["template"],
        "max_length": bench.settings.max_length + num_tokens,
        "batch_size": section.batch_size,
        "num_virtual": 20,
    }
    few = {**shared, "num_rows": section.num_rows_without, "batch_size": min(8, section.num_rows_without)}
    found = bench.turns(
        _contender("ours", "scoring.py", "ours", {**shared, "num_rows": section.num_rows}),
        _contender("transformers", "scoring.py", "transformers", few),
        _contender("PEFT", "scoring.py", "peft", few),
    )
    ours = found.pop("ours")
    for theirs in found.values():
        count = len(theirs.facts["probabilities"])
        difference = agree(
            "class probabilities behind the shared prompt",
            ours.facts["probabilities"][:count],
            theirs.facts["probabilities"],
            tolerance=2e-3,
        )
        yield Measure(
            name=f"rows behind a shared prompt of {num_tokens} tokens, {_short(section.model)}",
            against=f"{theirs.name} without sharing it",
            value=_rate(ours) / _rate(theirs),
            bar=Bar(section.bar),
            timings=(ours, theirs),
            details={"rows_per_second": [_rate(ours), _rate(theirs)], "largest_difference": difference},
            note=f"{section.num_rows} rows a round against {section.num_rows_without}, compared by rows a second",
        )


def _words(bench: Bench, section: WordsSettings) -> Iterator[Measure]:
    folder = bench.data.get(section.name, section.data)
    name = f"label words of several tokens, {section.name}"
    against = "one forward a word, as lm-evaluation-harness"
    if folder is None:
        yield Measure(
            name=name,
            against=against,
            value=math.nan,
            bar=Bar(section.bar),
            note=f"its data may not be shipped; give --data {section.name}=FOLDER",
        )
        return
    words = _label_words(Path(folder), section.num_classes)
    shared = {
        "model": _local(section.model),
        "data": str(Path(folder) / "test.jsonl"),
        "words": words,
        "template": section.template,
        "max_length": section.max_length,
        "num_rows": section.num_rows,
        "batch_size": section.num_rows,
        "sequences_at_once": section.sequences_at_once,
    }
    ours, theirs = bench.turns(
        _contender("ours", "scoring.py", "ours", shared),
        _contender("one forward a word", "scoring.py", "word_by_word", shared),
    ).values()
    difference = agree("class probabilities", *(t.facts["probabilities"] for t in (ours, theirs)), tolerance=2e-3)
    yield Measure(
        name=f"{name}: {len(words)} classes, {_short(section.model)}",
        against=against,
        value=ratio(ours, theirs),
        bar=Bar(section.bar),
        timings=(ours, theirs),
        details={"largest_difference": difference, "num_rows": section.num_rows},
    )


def _tokenising(bench: Bench, section: TokenisingSettings) -> Iterator[Measure]:
    shared = {**bench.reviews(section.model, 0), "num_rows": 2**31, "num_texts": section.num_texts}
    ours, theirs = bench.turns(
        _contender("ours", "tokenising.py", "ours", shared),
        _contender("strings, then the tokenizer", "tokenising.py", "strings", shared),
    ).values()
    same = ours.facts["ids"] == theirs.facts["ids"]
    yield Measure(
        name=f"template and tokenisation, {_rate(ours):.0f} rows/s",
        against=theirs.name,
        value=ratio(ours, theirs),
        bar=Bar(section.bar),
        timings=(ours, theirs),
        note="the same ids" if same else "some ids differ where field and template join",
    )


def _tasks(bench: Bench, section: TasksSettings) -> Iterator[Measure]:
    settings = {
        **bench.reviews(section.model, section.num_soft_tokens),
        "num_rows": section.num_rows,
        "num_tasks": section.num_tasks,
        "num_turns": section.num_turns,
    }
    contender = _contender("rows of many tasks and of one, in turn", "tasks.py", "alternating", settings)
    (timing,) = bench.turns(contender, num_rounds=1).values()
    many, one = (statistics.median(timing.facts[name]) for name in ("many", "one"))
    yield Measure(
        name=f"{section.num_rows} rows of {timing.facts['num_used']} of {section.num_tasks} loaded tasks, time",
        against="the same rows all of one task",
        value=many / one,
        bar=Bar(section.bar, at_least=False),
        details={"seconds": {name: timing.facts[name] for name in ("many", "one")}},
        note=f"{many:.2f} s against {one:.2f} s, {section.num_turns} turns in one process",
    )


def _imports(bench: Bench, bar: float) -> Iterator[Measure]:
    with_ours, without = bench.turns(
        _contender("with hf_prompting", "imports.py", "fresh", {"modules": ["transformers", "peft", "hf_prompting"]}),
        _contender("transformers, peft", "imports.py", "fresh", {"modules": ["transformers", "peft"]}),
        num_rounds=bench.settings.num_import_rounds,
    ).values()
    yield Measure(
        name="what importing hf_prompting adds",
        against="import transformers, peft",
        value=with_ours.median - without.median,
        unit="s",
        bar=Bar(bar, at_least=False),
        timings=(with_ours, without),
    )


def _openprompt(bench: Bench, model: str) -> Iterator[Measure]:
    tokenising = bench.settings.tokenising
    training = next((section for section in bench.settings.training if section.model == model), None)
    shared = {**bench.reviews(model, 0), "text": bench.settings.template.replace("{soft}", "").replace("{mask}", "")}
    wrapper = f"OpenPrompt's wrapper ({OPENPROMPT})"
    try:
        bench.say("OpenPrompt: make its environment")
        python = openprompt_python()
    except BenchmarkError as error:
        yield Measure(name="template and tokenisation", against=wrapper, value=math.nan, note=str(error))
        return
    file = "openprompt_side.py"
    few = {**shared, "num_texts": tokenising.num_texts_openprompt, "batch_size": 32}
    ours, theirs = bench.turns(
        _contender("ours", "tokenising.py", "ours", {**shared, "num_rows": 2**31, "num_texts": tokenising.num_texts}),
        _contender(wrapper, file, "wrapper", few, python=python, may_fail=True),
    ).values()
    yield Measure(
        name=f"template and tokenisation, {_rate(ours):.0f} rows/s",
        against=wrapper,
        value=math.nan if theirs.error else _rate(ours) / _rate(theirs),
        bar=Bar(tokenising.openprompt_bar),
        timings=(ours, theirs),
        details={"versions": _versions(theirs)},
        note=theirs.error or f"{tokenising.num_texts} rows against {tokenising.num_texts_openprompt}, by rows a second",
    )
    if training is None:
        return
    step = {
        **bench.reviews(model, training.num_soft_tokens),
        "text": shared["text"],
        "batch_size": training.batch_size,
        "num_rows": 4 * training.batch_size,
        "num_steps": training.num_steps,
    }
    ours, theirs = bench.turns(
        _contender("ours", "training.py", "ours", step),
        _contender("OpenPrompt SoftTemplate", file, "training", step, python=python, may_fail=True),
    ).values()
    yield Measure(
        name=f"training step, {training.num_soft_tokens} soft tokens, batch {training.batch_size}, {_short(model)}",
        against="OpenPrompt SoftTemplate",
        value=math.nan if theirs.error else ratio(ours, theirs),
        timings=(ours, theirs),
        details={"versions": _versions(theirs), "class_losses": _losses(ours, theirs)},
        note=theirs.error or f"under transformers {theirs.facts['transformers']}",
    )


def _contender(name: str, file: str, function: str, settings: Mapping[str, Any], **kwargs: Any) -> Contender:
    return Contender(name=name, file=_FOLDER / file, function=function, settings=settings, **kwargs)


def _versions(timing: Timing) -> dict[str, Any]:
    return {name: timing.facts[name] for name in ("openprompt", "transformers", "torch") if name in timing.facts}


def _losses(*timings: Timing) -> dict[str, list[float]]:
    return {timing.name: list(timing.facts.get("class_losses", ())) for timing in timings}


def _rate(timing: Timing) -> float:
    """Rows a second."""
    return float(timing.facts["num_rows"]) / statistics.median(timing.seconds)


def _gigabytes(timing: Timing) -> str:
    return f"{timing.peak_bytes / 1e9:.2f} GB"


def _local(model: str) -> str:
    """Find a base once, so that contenders, some of which know no GGUF, load the same folder."""
    return locate_base(model).path_or_id


def _short(model: str) -> str:
    return model.rstrip("/").rpartition("/")[2]


def _label_words(folder: Path, num_classes: int | None) -> dict[str, str]:
    try:
        words: dict[str, str] = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{folder / 'labels.json'} cannot be read: {error}") from error
    return dict(list(words.items())[:num_classes])


def _demonstrations(settings: PromptBenchmark, shared: Mapping[str, Any], num_tokens: int) -> tuple[str, int]:
    """Return labelled reviews as template text, of at least so many tokens, and how many they are."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared["model"])
    text, count = "", 0
    for line in Path(settings.train).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        word = shared["words"][row["label"]]
        text += f"Review: {row['text']}\nSentiment: {word}\n\n"
        count = len(tokenizer(text).input_ids)
        if count >= num_tokens:
            break
    return text.replace("{", "{{").replace("}", "}}"), count


def settings_without_paths(settings: PromptBenchmark) -> dict[str, Any]:
    """Plain values for the JSON: folders by their last name, so that no path of this machine is published."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(child) for key, child in value.items()}
        if isinstance(value, list | tuple):
            return [plain(child) for child in value]
        return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

    result: dict[str, Any] = plain(dataclasses.asdict(settings))
    return result
