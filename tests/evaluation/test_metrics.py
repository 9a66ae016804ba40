"""Metrics, worked out by hand and compared with scikit-learn."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from hf_prompting.errors import RecipeError
from hf_prompting.evaluation import compute_metrics, confusion_matrix, report_scores, softmax
from hf_prompting.evaluation.metrics import expected_calibration_error

LABELS = np.array([0, 0, 0, 1])
PREDICTIONS = np.array([0, 0, 1, 1])


def test_the_offline_metrics_by_hand() -> None:
    found = compute_metrics(["accuracy", "f1", "precision", "recall", "matthews"], LABELS, PREDICTIONS, num_classes=2)
    assert found["accuracy"] == 3 / 4
    assert found["precision"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["recall"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert found["matthews"] == pytest.approx((2 * 1 - 1 * 0) / math.sqrt(2 * 2 * 3 * 1))


def test_a_class_that_occurs_nowhere_counts_as_zero_in_an_average() -> None:
    assert compute_metrics(["f1"], LABELS, LABELS, num_classes=4)["f1"] == 0.5


def test_an_unreachable_or_foreign_metric_is_one_clear_error() -> None:
    with pytest.raises(RecipeError, match=r"metric 'acuracy' is not one of .*Did you mean 'accuracy'"):
        compute_metrics(["acuracy"], LABELS, PREDICTIONS, num_classes=2)
    for name in ("owner/metric", "./local", "../x"):
        with pytest.raises(RecipeError, match="metrics of other owners are not run"):
            compute_metrics([name], LABELS, PREDICTIONS, num_classes=2)


def test_a_metric_script_in_the_working_directory_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "mine.py").write_text("raise SystemExit('executed')", encoding="utf-8")
    monkeypatch.chdir(folder.parent)
    with pytest.raises(RecipeError, match="'mine' is not one of"):
        compute_metrics(["mine"], LABELS, PREDICTIONS, num_classes=2)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_the_confusion_matrix_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    labels, predictions = (np.array(column) for column in zip(*pairs, strict=True))
    expected = sklearn_confusion_matrix(labels, predictions, labels=range(4))
    assert (confusion_matrix(labels, predictions, num_classes=4) == expected).all()


def test_the_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.35, 0.65], [0.35, 0.65]])
    labels = np.array([0, 1, 1, 1])
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.5 * (0.95 - 0.5) + 0.5 * (1 - 0.65))


def test_a_report_by_hand() -> None:
    scores = np.log(np.array([[0.75, 0.25], [0.5, 0.5], [0.2, 0.8]]))
    report = report_scores(scores, np.array([0, 0, 0]), metrics=["accuracy"])
    assert report.metrics == {"accuracy": pytest.approx(2 / 3)}
    assert report.loss == pytest.approx(-(math.log(0.75) + math.log(0.5) + math.log(0.2)) / 3)
    assert report.confusion == [[2, 1], [0, 0]]
    assert report.to_dict()["num_rows"] == 3


def test_softmax_keeps_very_large_scores_finite() -> None:
    assert softmax(np.array([[1e5, 0.0]])).tolist() == [[1.0, 0.0]]
