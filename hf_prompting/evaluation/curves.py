"""One picture of several trainings: losses on the left, dev scores of generated texts on the right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hf_prompting.evaluation.plots import usable_fonts

COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2")
SCORES = {"eval_bleu": "BLEU", "eval_chrf": "chrF"}


def draw_curves(path: Path, curves: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Draw the learning curves of a run's models over the optimiser steps. The same numbers give the same bytes.

    Args:
        path: PNG file to write.
        curves: name of a model -> entries of its ``trainer.state.log_history``: ``loss``, ``eval_loss`` and, where dev
            rows were generated, ``eval_bleu`` and ``eval_chrf``.
    Example:
        >>> draw_curves(Path("p.png"), {"ours": [{"step": 1, "loss": 2.0, "eval_loss": 2.1}]})  # doctest: +SKIP
    """
    shown = [name for name in SCORES if any(name in entry for curve in curves.values() for entry in curve)]
    names = list(curves) if usable_fonts(list(curves)) else [f"model {number}" for number in range(1, len(curves) + 1)]
    with matplotlib.rc_context({"text.parse_math": False, "axes.unicode_minus": False}):
        figure = Figure(figsize=(10 if shown else 6.5, 4.2), dpi=110, layout="constrained")
        panels = figure.subplots(1, 2 if shown else 1, squeeze=False)[0]
        _draw(panels[0], curves, names, {"loss": "training", "eval_loss": "dev"}, title="Loss")
        if shown:
            _draw(panels[1], curves, names, {name: SCORES[name] for name in shown}, title="Generated dev rows")
        figure.savefig(path, format="png", metadata={"Software": None})


def _draw(
    axes: Any,
    curves: Mapping[str, Sequence[Mapping[str, float]]],
    names: Sequence[str],
    keys: Mapping[str, str],
    *,
    title: str,
) -> None:
    """Draw each key of each model: the last key strong, those before it faint, a colour for every model."""
    last = list(keys)[-1]
    for number, (name, curve) in enumerate(zip(names, curves.values(), strict=True)):
        for key, label in keys.items():
            points = [(entry["step"], entry[key]) for entry in curve if key in entry and "step" in entry]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    color=COLOURS[number % len(COLOURS)],
                    alpha=1.0 if key == last else 0.35,
                    marker="o" if len(points) <= 40 else "",
                    markersize=3,
                    label=f"{name}: {label}",
                )
    axes.set_title(title)
    axes.set_xlabel("optimiser step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", fontsize=8)
