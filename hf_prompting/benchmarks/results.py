"""What a benchmark found: measures with their bars, as JSON, as a table and as a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from hf_prompting.benchmarks.rounds import Timing
from hf_prompting.errors import BenchmarkError


@dataclass(frozen=True)
class Bar:
    """A number that a measure should reach; ``at_least`` says from which side."""

    value: float
    at_least: bool = True

    def is_met_by(self, value: float) -> bool:
        """Tell whether a value reaches the bar.

        Example:
            >>> Bar(4.0).is_met_by(4.5), Bar(0.45, at_least=False).is_met_by(0.5)
            (True, False)
        """
        return value >= self.value if self.at_least else value <= self.value


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One line of the result: a number, what it is compared with, and the timings behind it.

    Attributes:
        name: what was measured.
        against: whom or what the number compares with.
        value: the number; NaN where it could not be measured.
        unit: "times", "share" (0 to 1), "rows/s", "s".
        bar: what it should reach; None where there is no bar.
        timings: of all contenders.
        details: further plain values, for the JSON.
        note: why a value is missing, or anything else a reader has to know.
    """

    name: str
    against: str
    value: float
    unit: str = "times"
    bar: Bar | None = None
    timings: Sequence[Timing] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, or what else there is to say."""
        if math.isnan(self.value):
            return "not measured"
        return "" if self.bar is None else "met" if self.bar.is_met_by(self.value) else "missed"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the JSON; NaN becomes null."""
        return {
            "name": self.name,
            "against": self.against,
            "value": _number(self.value),
            "unit": self.unit,
            "bar": None if self.bar is None else {"value": self.bar.value, "at_least": self.bar.at_least},
            "verdict": self.verdict,
            "note": self.note,
            "contenders": [
                {
                    "name": timing.name,
                    "median_seconds": _number(timing.median),
                    "spread": _number(timing.spread),
                    "seconds": [_number(value) for value in timing.seconds],
                    "held_bytes": timing.held_bytes,
                    "peak_bytes": timing.peak_bytes,
                    "error": timing.error,
                }
                for timing in self.timings
            ],
            "details": dict(self.details),
        }


def ratio(ours: Timing, theirs: Timing) -> float:
    """How many times faster ours is, median over median.

    Example:
        >>> ratio(Timing(name="a", seconds=(1.0, 2.0, 9.0)), Timing(name="b", seconds=(4.0,)))
        2.0
    """
    return theirs.median / ours.median


def agree(what: str, ours: Sequence[float], theirs: Sequence[float], *, tolerance: float) -> float:
    """Make sure that two contenders computed the same.

    Returns:
        the largest difference.
    Raises:
        BenchmarkError: if it is above the tolerance: then a ratio of their times means nothing.
    Example:
        >>> agree("loss", [0.5], [0.5], tolerance=1e-4)
        0.0
    """
    if len(ours) != len(theirs):
        raise BenchmarkError(f"{what}: {len(ours)} values against {len(theirs)}; the contenders did different work")
    differences = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    worst = max(differences, default=0.0)
    if not all(difference <= tolerance for difference in differences):  # a NaN is no agreement either
        raise BenchmarkError(
            f"{what}: the contenders differ by {worst:.2g}, more than {tolerance:g}, so they did not compute the same"
        )
    return worst


def write_json(file: Path, *, machine: Mapping[str, Any], settings: Mapping[str, Any], measures: list[Measure]) -> None:
    """Write everything that was found.

    Raises:
        BenchmarkError: the file cannot be written.
    """
    content = {
        "machine": dict(machine),
        "settings": dict(settings),
        "measures": [measure.to_dict() for measure in measures],
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise BenchmarkError(f"{file} cannot be written: {error.strerror or error}; choose --output-dir") from error


def result_table(title: str, measures: Sequence[Measure]) -> Table:
    """Return the table that ends a benchmark."""
    table = Table(title=escape(title))
    for column, justify in (
        ("measure", "left"),
        ("against", "left"),
        ("value", "right"),
        ("bar", "right"),
        ("", "left"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for measure in measures:
        bar = "" if measure.bar is None else shown(measure.bar.value, measure.unit)
        verdict = ": ".join(filter(None, (measure.verdict, measure.note)))
        value = "" if math.isnan(measure.value) else shown(measure.value, measure.unit)
        table.add_row(escape(measure.name), escape(measure.against), value, bar, escape(verdict))
    return table


def write_table(file: Path, title: str, measures: Sequence[Measure]) -> None:
    """Write the result as a Markdown table, for a page to link to."""
    lines = [f"# {title}", "", "| measure | against | measured | bar | |", "|---|---|---|---|---|"]
    for measure in measures:
        bar = "" if measure.bar is None else shown(measure.bar.value, measure.unit)
        verdict = f"**{measure.verdict}**" if measure.verdict == "missed" else measure.verdict
        value = "" if math.isnan(measure.value) else shown(measure.value, measure.unit)
        note = " ".join(measure.note.split()).replace("|", "/")
        cells = (measure.name, measure.against, value, bar, f"{verdict}{'; ' if verdict and note else ''}{note}")
        lines.append(f"| {' | '.join(cells)} |")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def shown(value: float, unit: str) -> str:
    """Word a number with its unit.

    Example:
        >>> shown(4.25, "times"), shown(0.45, "share"), shown(12000, "rows/s")
        ('4.25 times', '45.0 %', '12000 rows/s')
    """
    if unit == "share":
        return f"{100 * value:.1f} %"
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.2f} {unit}"


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
