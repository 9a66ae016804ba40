"""What was measured on one set of rows, as plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from hf_prompting.evaluation.metrics import compute_metrics, confusion_matrix, expected_calibration_error
from hf_prompting.evaluation.scoring import score_rows, softmax

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Report:
    """The measurement of one classifier on one set of rows.

    Attributes:
        num_rows: N.
        metrics: a number per metric name.
        loss: mean negative log-probability of the true class.
        calibration_error: expected calibration error.
        confusion: C lists of C counts, true class first.
    """

    num_rows: int
    metrics: dict[str, float]
    loss: float
    calibration_error: float
    confusion: list[list[int]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, numbers rounded to six digits."""
        return {
            "num_rows": self.num_rows,
            **{name: round(value, 6) for name, value in self.metrics.items()},
            "loss": round(self.loss, 6),
            "calibration_error": round(self.calibration_error, 6),
            "confusion": self.confusion,
        }


def evaluate_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    *,
    metrics: Sequence[str],
    batch_size: int,
) -> Report:
    """Score tokenised rows that carry ``labels`` and measure the result.

    Args:
        model: a sequence classifier with C classes.
        tokenizer: its tokenizer.
        rows: N tokenised rows with ``length`` and ``labels``.
        metrics: names for ``compute_metrics``.
        batch_size: B rows at a time.
    Returns:
        The report.
    Raises:
        RecipeError: a metric is unknown and cannot be loaded.
    Example:
        >>> evaluate_rows(model, tokenizer, rows, metrics=["accuracy"], batch_size=32).metrics  # doctest: +SKIP
        {'accuracy': 0.78}
    """
    scores_NC = score_rows(model, tokenizer, rows, batch_size=batch_size)
    return report_scores(scores_NC, np.asarray(rows["labels"], dtype=np.int64), metrics=metrics)


def report_scores(scores_NC: NDArray[np.float64], labels: NDArray[np.int64], *, metrics: Sequence[str]) -> Report:
    """Measure class scores that were computed before. (N, C), (N,) -> report.

    Example:
        >>> report_scores(np.array([[2.0, 0.0]]), np.array([0]), metrics=["accuracy"]).metrics
        {'accuracy': 1.0}
    """
    num_rows, num_classes = scores_NC.shape
    probabilities_NC = softmax(scores_NC)
    predictions = scores_NC.argmax(axis=1).astype(np.int64)
    of_truth_N = np.maximum(probabilities_NC[np.arange(num_rows), labels], np.finfo(np.float64).tiny)
    return Report(
        num_rows=num_rows,
        metrics=compute_metrics(metrics, labels, predictions, num_classes=num_classes),
        loss=float(-np.log(of_truth_N).mean()),
        calibration_error=expected_calibration_error(probabilities_NC, labels),
        confusion=confusion_matrix(labels, predictions, num_classes=num_classes).tolist(),
    )
