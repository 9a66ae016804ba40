"""``hf-prompting bench seq2seq``: this family against BART, T5 and ``torch.nn.Transformer`` of the same size."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_prompting.benchmarks import contenders
from hf_prompting.benchmarks.results import Bar, Measure, ratio
from hf_prompting.benchmarks.rounds import Contender, Timing, take_turns

SIZES: dict[str, Any] = {
    "width": 256,
    "layers": 4,
    "heads": 4,
    "inner": 1024,
    "vocabulary": 8000,
    "num_tokens": 64,
    "dropout": 0.1,
    "learning_rate": 1e-4,
}
SMOKE_SIZES: dict[str, Any] = {**SIZES, "width": 32, "layers": 1, "inner": 64, "vocabulary": 99, "num_tokens": 8}
OURS, OURS_WITHOUT_GATE, HOLDING = "hf_prompting", "hf_prompting, no gate", "hf_prompting, scores held"
TRAINED = ("BART", "T5", "torch.nn.Transformer")
GENERATING = ("BART", "T5")
# Name of a generation -> how many texts at once, beams, calls a round, and whether it is measured compiled too.
GENERATIONS: dict[str, dict[str, Any]] = {
    "greedy, batch 1": {"batch_size": 1, "num_beams": 1, "num_calls": 4, "compile": True},
    "greedy, batch 16": {"batch_size": 16, "num_beams": 1, "num_calls": 4, "compile": True},
    "beam 4, batch 1": {"batch_size": 1, "num_beams": 4, "num_calls": 2, "compile": True},
}
_FILE = Path(contenders.__file__).with_name("encoder_decoders.py")
_TRAINING_BAR, _EAGER_BAR, _COMPILED_BAR = Bar(1.25), Bar(1.5), Bar(2.5)


def measure_seq2seq(*, smoke: bool, say: Callable[[str], None] = lambda text: None) -> Iterator[Measure]:
    """Measure everything, one line of the result after another; in less than 10 minutes on two cores.

    Args:
        smoke: tiny sizes, one round, nothing compiled: shows that it works, and no number to quote.
        say: told what runs now.
    Raises:
        BenchmarkError: a contender failed that needs no compiler.
    Example:
        >>> for measure in measure_seq2seq(smoke=True): print(measure.name, measure.value)  # doctest: +SKIP
    """
    settings = settings_of(smoke=smoke)
    rounds = Rounds(settings["num_rounds"], settings["num_warmup"], say)
    training = {**settings, "batch_size": 16, "compiled": False}
    yield from _training(training, rounds)
    if not smoke:
        yield from _compiled_training({**training, "compiled": True}, rounds)
    yield from _parts(training, rounds)
    for name, how in settings["generations"].items():
        eager = yield from _eager({**settings, **how, "compiled": False}, name, rounds)
        if how["compile"]:
            yield from _compiled({**settings, **how, "compiled": True}, name, rounds, eager)


def settings_of(*, smoke: bool) -> dict[str, Any]:
    """Return what is measured, in plain values.

    Example:
        >>> settings_of(smoke=False)["width"]
        256
    """
    if not smoke:
        return {**SIZES, "num_rounds": 9, "num_warmup": 1, "num_steps": 3, "num_turns": 60, "generations": GENERATIONS}
    first = next(iter(GENERATIONS))
    generations = {first: {**GENERATIONS[first], "compile": False}}
    return {**SMOKE_SIZES, "num_rounds": 1, "num_warmup": 0, "num_steps": 1, "num_turns": 2, "generations": generations}


@dataclass(frozen=True)
class Rounds:
    """How many rounds, and how to report progress."""

    num_rounds: int
    num_warmup: int
    say: Callable[[str], None]

    def turns(self, what: str, contenders: Sequence[Contender]) -> dict[str, Timing]:
        """Let contenders take turns."""
        return take_turns(
            contenders,
            num_rounds=self.num_rounds,
            num_warmup=self.num_warmup,
            on_round=lambda name: self.say(f"{what}: {name}"),
        )


def _training(settings: Mapping[str, Any], rounds: Rounds) -> Iterator[Measure]:
    rivals = [_contender(name, "training", settings) for name in (OURS, OURS_WITHOUT_GATE, HOLDING, *TRAINED)]
    limit = Contender(name="matrix product", file=_FILE, function="matrix", settings={"seconds": 0.5})
    found = rounds.turns("training step", [*rivals, limit])
    rates = found.pop(limit.name).facts
    rate = rates["rate"]
    timings = list(found.values())
    fastest = _fastest(found, TRAINED)
    yield _faster("training step", found[OURS], fastest, timings, _TRAINING_BAR)
    yield _faster("training step, feed-forward without gate", found[OURS_WITHOUT_GATE], fastest, (), None)
    yield _faster("training step, scores of the vocabulary not held", found[OURS], found[HOLDING], (), None)
    lightest = min((found[name] for name in TRAINED), key=lambda timing: timing.peak_bytes)
    yield Measure(
        name="training step, peak memory of the process",
        against=f"{lightest.name}, {lightest.peak_bytes / 1e6:.0f} MB",
        value=found[OURS].peak_bytes / lightest.peak_bytes,
        unit="share",
        bar=Bar(1.0, at_least=False),
        details={name: timing.peak_bytes for name, timing in found.items()},
        note=f"{found[OURS].peak_bytes / 1e6:.0f} MB; {found[HOLDING].peak_bytes / 1e6:.0f} MB with scores held",
    )
    shares = {timing.name: timing.facts["operations"] / timing.median / rate for timing in timings}
    yield Measure(
        name="training step, share of the matrix-product rate",
        against=f"{rate / 1e9:.0f} GFLOP/s",
        value=shares[OURS],
        unit="share",
        details={"shares": shares, **rates, "operations": found[OURS].facts["operations"]},
        note=f"products with weights only; {fastest.name}: {100 * shares[fastest.name]:.0f} %; "
        f"torch.mm reaches {rates['torch_rate'] / 1e9:.0f} GFLOP/s",
    )


def _compiled_training(settings: Mapping[str, Any], rounds: Rounds) -> Iterator[Measure]:
    """Without a compiler on the machine the contenders fail, and there is nothing to say."""
    rivals = [_contender(name, "training", settings, may_fail=True) for name in (OURS, *TRAINED)]
    found = rounds.turns("training step, compiled", rivals)
    if all(found[name].seconds for name in (OURS, *TRAINED)):
        timings = list(found.values())
        yield _faster("training step, compiled against compiled", found[OURS], _fastest(found, TRAINED), timings, None)


def _parts(settings: Mapping[str, Any], rounds: Rounds) -> Iterator[Measure]:
    contender = Contender(
        name="parts", file=_FILE.with_name("encoder_decoder_parts.py"), function="parts", settings=settings
    )
    for name, seconds in rounds.turns("parts", [contender])["parts"].facts.items():
        yield Measure(
            name=f"part: {name}",
            against=f"torch, {1e3 * seconds['theirs']:.2f} ms",
            value=seconds["theirs"] / seconds["ours"],
            details=seconds,
            note=f"{1e3 * seconds['ours']:.2f} ms",
        )


def _eager(settings: Mapping[str, Any], name: str, rounds: Rounds) -> Generator[Measure, None, Timing]:
    """Yield the measure and return the fastest rival's timing."""
    found = rounds.turns(name, [_contender(who, "generation", settings) for who in (OURS, *GENERATING)])
    fastest = _fastest(found, GENERATING)
    yield _faster(f"{name}, eager", found[OURS], fastest, list(found.values()), _EAGER_BAR)
    return fastest


def _compiled(settings: Mapping[str, Any], name: str, rounds: Rounds, eager: Timing) -> Iterator[Measure]:
    """Without a compiler on the machine the contenders fail, and the measures say so.

    The fastest eager rival takes turns again, so that both ratios are of the same minutes.
    """
    again = replace(_contender(eager.name, "generation", {**settings, "compiled": False}), name=f"{eager.name}, eager")
    rivals = [_contender(who, "generation", settings, may_fail=True) for who in (OURS, *GENERATING)]
    found = rounds.turns(f"{name}, compiled", [*rivals, again])
    ours, timings = found[OURS], list(found.values())
    against_eager = _faster(f"{name}, compiled against eager", ours, found[again.name], timings, _COMPILED_BAR)
    yield replace(against_eager, note=f"{against_eager.note}; static cache")
    if any(found[who].seconds for who in GENERATING):
        yield _faster(f"{name}, compiled against compiled", ours, _fastest(found, GENERATING), (), _COMPILED_BAR)


def _contender(name: str, function: str, settings: Mapping[str, Any], *, may_fail: bool = False) -> Contender:
    return Contender(name=name, file=_FILE, function=function, settings={**settings, "model": name}, may_fail=may_fail)


def _fastest(found: Mapping[str, Timing], names: Sequence[str]) -> Timing:
    return min((found[name] for name in names if found[name].seconds), key=lambda timing: timing.median)


def _faster(name: str, ours: Timing, theirs: Timing, timings: Sequence[Timing], bar: Bar | None) -> Measure:
    """One ratio; tokens/s and sizes of everybody stand in the details."""
    details = {
        timing.name: {"tokens_per_second": round(_rate(timing), 1), "num_parameters": timing.facts["num_parameters"]}
        for timing in timings
        if timing.seconds
    }
    return Measure(
        name=name,
        against=f"{theirs.name}, {_rate(theirs):.0f} tokens/s",
        value=ratio(ours, theirs),
        bar=bar,
        timings=timings,
        details=details,
        note=f"{_rate(ours):.0f} tokens/s" if ours.seconds else str(ours.error).partition("\n")[0],
    )


def _rate(timing: Timing) -> float:
    tokens: int = timing.facts["num_tokens"]
    return tokens / timing.median
