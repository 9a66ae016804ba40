"""What a run shows: its stages as they come, and the table that ends it."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hf_prompting.artifacts.escaping import visible


def result_table(
    name: str, rows: Mapping[str, Mapping[str, float]], spread: Mapping[str, tuple[float, float]]
) -> Table:
    """Return the small table that ends a run.

    Args:
        name: of the recipe.
        rows: name of the row -> metric -> value.
        spread: metric -> (mean, standard deviation) over the seeds, if there were several.
    Example:
        >>> result_table("reviews", {"tuned": {"accuracy": 0.8}}, {}).row_count
        1
    """
    names = list(dict.fromkeys(metric for values in rows.values() for metric in values))
    table = Table(title=f"{escape(visible(name))}: test rows")
    table.add_column("")
    for metric in names:
        table.add_column(escape(metric), justify="right")
    for row, values in rows.items():
        table.add_row(row, *(f"{values[metric]:.3f}" if metric in values else "" for metric in names))
    if spread:
        cells = [f"{mean:.3f} ± {deviation:.3f}" for mean, deviation in map(spread.__getitem__, names)]
        table.add_row("mean ± standard deviation", *cells)
    return table


class Stages:
    """Name each stage of a run with the time since the start, by calling it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.start = time.monotonic()

    def __call__(self, text: str) -> None:
        """Print one stage."""
        seconds = int(time.monotonic() - self.start)
        self.console.print(f"[dim]{seconds // 60:d}:{seconds % 60:02d}[/dim] {escape(visible(text))}", highlight=False)
