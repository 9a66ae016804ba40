"""Draw a small, balanced training set from a larger one."""

from __future__ import annotations

import random

from hf_prompting.data.labels import labels_of
from hf_prompting.data.rows import Rows
from hf_prompting.errors import DataError


def sample_few_shot(rows: Rows, *, column: str, num_per_label: int, seed: int) -> Rows:
    """Draw ``num_per_label`` rows of every label, in the file's order.

    The draw of one label does not depend on the other labels' rows, and the same seed draws the same rows on every
    machine.

    Args:
        rows: where to draw from.
        column: the label column.
        num_per_label: K rows of each label.
        seed: of the draw.
    Returns:
        K times the number of labels rows.
    Raises:
        DataError: a label has fewer than K rows.
    Example:
        >>> len(sample_few_shot(rows, column="label", num_per_label=16, seed=0))  # doctest: +SKIP
        32
    """
    by_label: dict[str, list[int]] = {}
    for index, label in enumerate(labels_of(rows, column)):
        by_label.setdefault(label, []).append(index)
    drawn: list[int] = []
    for label, indices in sorted(by_label.items()):
        if len(indices) < num_per_label:
            raise DataError(
                f"{rows.source} has {len(indices)} rows of label {label!r}, fewer than the {num_per_label} to draw; "
                "lower data.shots"
            )
        drawn += random.Random(f"{seed}/{label}").sample(indices, num_per_label)
    return rows.select(sorted(drawn))
