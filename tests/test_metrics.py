"""Scores against scikit-learn, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score

from ark_framework.events import TaskScore
from ark_framework.metrics import accuracy, auroc, average_precision, forgetting, macro, score
from ark_framework.specs import LabelSchema


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 300), st.integers(1, 40))
def test_equal_to_scikit_learn(seed: int, rows: int, levels: int) -> None:
    """With ties, missing and doubtful entries both areas are scikit-learn's to 1e-12."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (rows, 3)) / levels
    targets = rng.choice([0, 1, np.nan, -1], (rows, 3), p=[0.5, 0.3, 0.1, 0.1])
    areas, precisions = auroc(scores, targets), average_precision(scores, targets)
    for label in range(3):
        use = (targets[:, label] == 0) | (targets[:, label] == 1)
        truth, value = targets[use, label], scores[use, label]
        if len(set(truth)) < 2:
            assert np.isnan(areas[label])
        else:
            assert areas[label] == pytest.approx(roc_auc_score(truth, value), abs=1e-12)
        if not (truth == 1).any():
            assert np.isnan(precisions[label])
        else:
            expected = average_precision_score(truth, value)
            assert precisions[label] == pytest.approx(expected, abs=1e-12)


def test_accuracy_counts_annotated_rows() -> None:
    """Rows without a class do not count."""
    rng = np.random.default_rng(0)
    classes, scores = rng.integers(0, 3, 50), rng.random((50, 3))
    targets = np.eye(3)[classes]
    assert accuracy(scores, targets) == accuracy_score(classes, scores.argmax(axis=1))
    targets[10:] = np.nan
    assert accuracy(scores, targets) == accuracy_score(classes[:10], scores[:10].argmax(axis=1))
    assert np.isnan(accuracy(scores, targets * np.nan))


def test_the_mean_is_over_scorable_and_reported_labels() -> None:
    """A label with one class is left out; so is one that the schema does not report."""
    schema = LabelSchema(
        name="four", kind="multilabel", labels=("a", "b", "c", "d"), report=("a", "b", "c")
    )
    targets = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 1.0]])
    scores = np.array([[0.9, 0.1, 0.2, 0.9], [0.1, 0.2, 0.5, 0.1], [0.8, 0.3, 0.1, 0.2]])
    made = score(task="t", model="m", split="val", scores=scores, targets=targets, schema=schema)
    assert list(made.labels) == ["a", "b", "c"]
    assert made.labels["a"] == 1.0
    assert np.isnan(made.labels["b"])
    assert made.auroc == pytest.approx((1.0 + 0.5) / 2)
    assert macro(np.array([np.nan, np.nan]))[1] == 0


def test_forgetting_is_best_minus_now() -> None:
    """A new best is no loss; a task never seen before is not reported."""

    def at(task: str, value: float) -> TaskScore:
        return TaskScore(task=task, model="student", split="val", auroc=value, labels={}, images=1)

    lost = forgetting({"student": {"a": 0.8, "b": 0.6}}, [at("a", 0.7), at("b", 0.9), at("c", 0.5)])
    assert [(each.task, round(each.best - each.now, 12)) for each in lost] == [("a", 0.1), ("b", 0)]
