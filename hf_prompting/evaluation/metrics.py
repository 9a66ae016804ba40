"""Numbers that say how good predictions are; the usual ones need no download."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

from hf_prompting.errors import RecipeError, did_you_mean

Ints = NDArray[np.int64]
Metric = Callable[[Ints, Ints, int], float]


def _macro(score: Callable[..., Any]) -> Metric:
    def macro_average(labels: Ints, predictions: Ints, num_classes: int) -> float:
        classes = list(range(num_classes))
        return float(score(labels, predictions, labels=classes, average="macro", zero_division=0))

    return macro_average


METRICS: dict[str, Metric] = {
    "accuracy": lambda labels, predictions, _: float(sklearn_metrics.accuracy_score(labels, predictions)),
    "f1": _macro(sklearn_metrics.f1_score),
    "precision": _macro(sklearn_metrics.precision_score),
    "recall": _macro(sklearn_metrics.recall_score),
    "matthews": lambda labels, predictions, _: float(sklearn_metrics.matthews_corrcoef(labels, predictions)),
}


def compute_metrics(names: Sequence[str], labels: Ints, predictions: Ints, *, num_classes: int) -> dict[str, float]:
    """Compute the named metrics.

    ``accuracy``, ``f1``, ``precision``, ``recall`` (each averaged over the classes with equal weight) and ``matthews``
    come from scikit-learn, offline. Any other plain name is loaded with ``evaluate`` from the Hub, and only from
    Hugging Face's own collection ``evaluate-metric``, because a metric there is code that runs here.

    Args:
        names: metric names.
        labels: (N,) true classes.
        predictions: (N,) predicted classes.
        num_classes: C; a class that occurs nowhere still counts in an average over classes.
    Returns:
        One number per name; a metric of ``evaluate`` may add several.
    Raises:
        RecipeError: a name is neither here nor loadable.
    Example:
        >>> compute_metrics(["accuracy"], np.array([0, 1]), np.array([0, 0]), num_classes=2)
        {'accuracy': 0.5}
    """
    found: dict[str, float] = {}
    for name in names:
        if name in METRICS:
            found[name] = METRICS[name](labels, predictions, num_classes)
        else:
            found.update(_from_evaluate(name, labels, predictions))
    return found


def confusion_matrix(labels: Ints, predictions: Ints, *, num_classes: int) -> Ints:
    """Count rows of every true class (first axis) by predicted class (second axis). -> (C, C)

    Example:
        >>> confusion_matrix(np.array([0, 1]), np.array([0, 0]), num_classes=2).tolist()
        [[1, 0], [1, 0]]
    """
    counts: Ints = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(counts, (labels, predictions), 1)
    return counts


def expected_calibration_error(probabilities_NC: NDArray[np.float64], labels: Ints, *, num_bins: int = 10) -> float:
    """Mean distance between confidence and accuracy over equally wide bins of confidence.

    Guo et al. (2017, arXiv:1706.04599), equation 3: 0 means that 80 % sure is right in 80 % of the cases.

    Args:
        probabilities_NC: (N, C) probabilities of every class.
        labels: (N,) true classes.
        num_bins: M bins over the interval from 0 to 1.
    Returns:
        A number from 0 to 1.
    Example:
        >>> expected_calibration_error(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]))
        0.5
    """
    confidence_N = probabilities_NC.max(axis=1)
    is_right_N = probabilities_NC.argmax(axis=1) == labels
    bins_N = np.minimum((confidence_N * num_bins).astype(np.int64), num_bins - 1)
    error = 0.0
    for number in range(num_bins):
        members_N = bins_N == number
        if members_N.any():
            error += members_N.mean() * abs(confidence_N[members_N].mean() - is_right_N[members_N].mean())
    return float(error)


def _from_evaluate(name: str, labels: Ints, predictions: Ints) -> dict[str, float]:
    known = f"metric {name!r} is not one of {list(METRICS)}"
    if not name.isidentifier():
        raise RecipeError(f"{known} nor a plain name such as 'brier_score'; metrics of other owners are not run")
    import evaluate  # asks the Hub: only for a metric that is not in the table

    try:
        metric = evaluate.load(f"evaluate-metric/{name}")
        result = metric.compute(references=labels.tolist(), predictions=predictions.tolist())
    except Exception as error:  # a metric is code from the Hub: a network error, or any error of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise RecipeError(
            f"{known} and `evaluate` could not provide it: {reason}.{did_you_mean(name, METRICS)}"
        ) from error
    return {key: float(value) for key, value in (result or {}).items() if np.ndim(value) == 0}
