"""Scores of many weightings of the same films at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""``(scores (n,), positive (n,) bool, weights (R, n)) -> (R,)``, NaN where undefined.

Films come in ascending order of score; a weight says how often a replicate holds the film.
"""


RowMetric = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""``(scores (n, C), targets (n, C), weights (R, n)) -> (R,)``, NaN where undefined.

Every label of these films is annotated.
"""


def weighted_accuracy(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return ``(R,)`` shares of films whose highest score is their class."""
    right = scores.argmax(axis=1) == targets.argmax(axis=1)
    # Sums of films are float32 and exact: they are whole numbers below 2**24.
    caught, total = weights @ right.astype(np.float32), weights.sum(axis=1, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(caught / total)


def weighted_auroc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return ``(R,)`` areas under the ROC curve: the Mann-Whitney statistic, ties half."""
    hits, below, inside, total = _tie_groups(scores, positive, weights)
    caught = hits.sum(axis=1)
    misses = below - (np.cumsum(hits, axis=1) - hits) + (inside - hits) / 2
    with np.errstate(invalid="ignore"):
        return np.asarray((hits * misses).sum(axis=1) / (caught * (total - caught)))


def weighted_average_precision(
    scores: np.ndarray, positive: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return ``(R,)`` average precisions: the sum of precision times the step in recall."""
    hits, below, _, total = _tie_groups(scores, positive, weights)
    caught = np.cumsum(hits[:, ::-1], axis=1)[:, ::-1]
    taken = np.maximum(total[:, None] - below, 1e-300)
    with np.errstate(invalid="ignore"):
        return np.asarray((hits * caught / taken).sum(axis=1) / hits.sum(axis=1))


def _tie_groups(
    scores: np.ndarray, positive: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return weights at the K distinct scores that a positive has.

    Returns:
        Of positives there, of all below, of all there, each ``(R, K)``; of all, ``(R,)``.
        Sums of films are float32 and exact: they are whole numbers below 2**24.
    """
    hits = np.flatnonzero(positive)
    first = np.flatnonzero(np.append(True, np.diff(scores[hits]) != 0)) if len(hits) else hits
    starts = np.searchsorted(scores, scores[hits][first], side="left")
    ends = np.searchsorted(scores, scores[hits][first], side="right")
    if not len(hits):
        empty = np.zeros((len(weights), 0))
        return empty, empty, empty, weights.sum(axis=1, dtype=np.float64)
    # Cuts only where a positive lies: most films are never visited one by one.
    cuts = np.unique(np.concatenate([[0], starts, ends[ends < len(scores)]]))
    sums = np.add.reduceat(weights, cuts, axis=1).astype(np.float64)
    at = np.searchsorted(cuts, starts)
    upto = np.cumsum(sums, axis=1)
    inside = sums[:, at]
    caught = np.add.reduceat(weights[:, hits], first, axis=1).astype(np.float64)
    return caught, upto[:, at] - inside, inside, upto[:, -1]
