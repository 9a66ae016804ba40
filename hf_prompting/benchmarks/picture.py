"""A benchmark's ratios as horizontal bars, each with the bar it should reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from hf_prompting.benchmarks.results import Measure, shown

_MET, _MISSED = "#0072b2", "#d55e00"  # told apart by colour-blind readers too


def draw_ratios(file: Path, measures: Sequence[Measure], *, title: str) -> None:
    """Draw every ratio of speeds; a vertical line marks what it should reach.

    Args:
        file: PNG to write; its folder exists.
        measures: those of another unit, or where less is better, or that were not measured, are left out.
        title: above the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = [
        measure
        for measure in measures
        if measure.unit == "times" and math.isfinite(measure.value) and (measure.bar is None or measure.bar.at_least)
    ]
    figure = Figure(figsize=(9, 1.2 + 0.5 * len(drawn)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, measure in enumerate(drawn):
        missed = measure.bar is not None and not measure.bar.is_met_by(measure.value)
        axes.barh(place, measure.value, color=_MISSED if missed else _MET, height=0.6)
        axes.text(measure.value, place, f" {shown(measure.value, measure.unit)}", va="center", fontsize=9)
        if measure.bar is not None:
            axes.plot([measure.bar.value] * 2, [place - 0.38, place + 0.38], color="black", linewidth=2)
    axes.set_yticks(range(len(drawn)), [f"{measure.name}\nagainst {measure.against}" for measure in drawn], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_xlabel("times faster (median over median); black: the bar")
    axes.set_title(title, fontsize=10)
    figure.savefig(file, dpi=120, metadata={"Software": None})
