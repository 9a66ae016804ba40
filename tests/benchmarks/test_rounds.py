"""Contenders in processes of their own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from hf_prompting.benchmarks.machine import describe_machine
from hf_prompting.benchmarks.picture import draw_ratios
from hf_prompting.benchmarks.results import Bar, Measure, agree, ratio, write_json, write_table
from hf_prompting.benchmarks.rounds import Contender, Timing, take_turns
from hf_prompting.errors import BenchmarkError

TOYS = Path(__file__).with_name("toy_contenders.py")


def toy(function: str, name: str | None = None, **kwargs: Any) -> Contender:
    return Contender(name=name or function, file=TOYS, function=function, **kwargs)


def test_contenders_take_turns_and_warm_up_first() -> None:
    turns: list[str] = []
    contenders = [toy("counting", name, settings={"loss": 0.5}) for name in ("ours", "theirs")]
    timings = take_turns(contenders, num_rounds=2, num_warmup=1, on_round=turns.append)
    rounds = [name for name in turns if not name.startswith("prepare")]
    assert rounds == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    for timing in timings.values():
        assert len(timing.seconds) == 2 and timing.facts == {"rounds": 3, "loss": 0.5}
        assert 0 < timing.held_bytes <= timing.peak_bytes


def test_peak_memory_is_that_of_the_rounds() -> None:
    size = 300 * 2**20
    timing = take_turns([toy("holding", settings={"bytes": size})], num_rounds=1)["holding"]
    assert 0.9 * size < timing.peak_bytes - timing.held_bytes < 1.2 * size  # Linux counts pages in batches


def test_a_failure_is_quoted_or_recorded() -> None:
    with pytest.raises(BenchmarkError, match=r"(?s)ended with code 1.*no such library.*ImportError: old_library"):
        take_turns([toy("broken")], num_rounds=1)
    timings = take_turns([toy("counting", settings={"loss": 1}), toy("broken", may_fail=True)], num_rounds=1)
    assert timings["broken"].error == "contender 'broken' ended with code 1: ImportError: old_library"  # no paths
    assert math.isnan(timings["broken"].median)
    assert timings["counting"].seconds


def test_a_contender_that_hangs_is_ended() -> None:
    with pytest.raises(BenchmarkError, match=r"took more than 0\.5 s"):
        take_turns([toy("endless")], num_rounds=1, timeout=0.5)


def test_contenders_that_computed_something_else_are_no_contenders() -> None:
    assert agree("loss", [1.0, 2.0], [1.0, 2.25], tolerance=0.5) == 0.25
    for other in ([1.0], [1.0, 2.5], [1.0, math.nan]):
        with pytest.raises(BenchmarkError, match="loss"):
            agree("loss", [1.0, 2.0], other, tolerance=0.1)


def test_a_result_is_written_whole(tmp_path: Path) -> None:
    ours, theirs = Timing(name="ours", seconds=(1.0, 3.0, 2.0)), Timing(name="theirs", error="no such library")
    met = Measure(name="step", against="b", value=ratio(ours, Timing(name="b", seconds=(8.0,))), bar=Bar(4.0))
    missed = Measure(name="memory", against="b", value=0.5, unit="share", bar=Bar(0.45, at_least=False))
    absent = Measure(name="wrapper", against="c", value=ratio(ours, theirs), timings=(ours, theirs))
    assert [measure.verdict for measure in (met, missed, absent)] == ["met", "missed", "not measured"]
    write_json(tmp_path / "a" / "b.json", machine=describe_machine(), settings={}, measures=[met, missed, absent])
    read = json.loads((tmp_path / "a" / "b.json").read_text())
    assert [measure["value"] for measure in read["measures"]] == [4.0, 0.5, None]
    assert read["measures"][2]["contenders"][1]["error"] == "no such library"
    write_table(tmp_path / "b.md", "toys", [met, missed, absent])
    lines = (tmp_path / "b.md").read_text(encoding="utf-8").splitlines()
    assert lines[4:6] == [
        "| step | b | 4.00 times | 4.00 times | met |",
        "| memory | b | 50.0 % | 45.0 % | **missed** |",
    ]
    draw_ratios(tmp_path / "b.png", [met, missed, absent], title="toys")
    assert (tmp_path / "b.png").read_bytes()[:4] == b"\x89PNG"


def test_the_machine_is_described_without_names() -> None:
    text = json.dumps(describe_machine())
    assert str(Path.home()) not in text and str(Path.cwd()) not in text
