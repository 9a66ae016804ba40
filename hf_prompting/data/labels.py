"""From a label column to class numbers, in the verbalizer's order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets import ClassLabel

from hf_prompting.data.rows import Rows
from hf_prompting.errors import DataError, did_you_mean


def label_text(value: object) -> str:
    """Return a label as the text that a verbalizer would name it by.

    Whole numbers and booleans appear in data files where recipes write text: ``1``, ``1.0`` and ``"1"`` are the label
    ``1``; JSON's ``true`` is the label ``true``.

    Example:
        >>> label_text(1.0), label_text(True), label_text("good")
        ('1', 'true', 'good')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def labels_of(rows: Rows, column: str) -> list[str]:
    """Return the label of every row as text; ``ClassLabel`` numbers become their names.

    Raises:
        DataError: the column is missing, or a row has no single label.
    """
    rows.require_texts([column])
    values: list[Any] = list(rows.values(column))
    feature = rows.table.features[column]
    if isinstance(feature, ClassLabel):
        return [label_text(feature.int2str(value) if value >= 0 else value) for value in values]
    return [label_text(value) for value in values]


def encode_labels(rows: Rows, column: str, label2id: Mapping[str, int]) -> list[int]:
    """Number the label of every row.

    Args:
        rows: the rows.
        column: the column that holds the label.
        label2id: the verbalizer's labels and their numbers.
    Returns:
        N integers below the number of classes.
    Raises:
        DataError: a label is not in the verbalizer; the message gives file, line and the nearest label.
    Example:
        >>> encode_labels(rows, "label", {"negative": 0, "positive": 1})  # doctest: +SKIP
        [0, 1, 1]
    """
    numbers = []
    for index, label in enumerate(labels_of(rows, column)):
        if label not in label2id:
            raise DataError(
                f"{rows.place(index)}: label {label!r} is not in the verbalizer; its labels are {list(label2id)}."
                f"{did_you_mean(label, label2id)}"
            )
        numbers.append(label2id[label])
    return numbers
