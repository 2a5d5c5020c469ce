"""Cuts of a score, chosen on validation arrays and named; ``>=`` the cut is positive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ark_framework import metrics
from ark_framework.errors import ConfigError, DataError

POLICIES = ("youden", "specificity-0.90", "specificity-0.95")


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A named cut: scores ``>= value`` are called positive; rates on the data that chose it."""

    policy: str
    value: float
    sensitivity: float
    specificity: float


def choose(policy: str, scores: np.ndarray, targets: np.ndarray) -> Threshold:
    """Apply a named policy to validation scores and targets, both ``(n,)``."""
    if policy not in POLICIES:
        raise ConfigError(f"no threshold policy {policy!r}; one of {', '.join(POLICIES)}")
    if policy == "youden":
        return youden_threshold(scores, targets)
    return threshold_at_specificity(scores, targets, specificity=float(policy.split("-")[1]))


def youden_threshold(scores: np.ndarray, targets: np.ndarray) -> Threshold:
    """Return the cut with the highest sensitivity + specificity - 1 (Youden 1950).

    Of equals the highest cut.
    """
    cuts, sensitivity, specificity = _rates(scores, targets)
    best = int(np.argmax(sensitivity + specificity))
    return _threshold("youden", cuts, sensitivity, specificity, best)


def threshold_at_specificity(
    scores: np.ndarray, targets: np.ndarray, *, specificity: float
) -> Threshold:
    """Return the lowest cut whose specificity is at least ``specificity``."""
    if not 0 <= specificity <= 1:
        raise ConfigError(f"specificity {specificity!r} is not within 0 to 1; give a share")
    cuts, sensitivity, reached = _rates(scores, targets)
    last = int(np.flatnonzero(reached >= specificity)[-1])
    return _threshold(f"specificity-{specificity:.2f}", cuts, sensitivity, reached, last)


def _rates(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return cuts, descending from infinity, and the sensitivity and specificity of each."""
    rows = metrics.known(targets)
    values, positive = scores[rows], targets[rows] == 1
    if positive.all() or not positive.any() or not np.isfinite(values).all():
        raise DataError(
            f"no threshold from {positive.sum()} positives of {len(positive)} validation films; "
            "both classes and finite scores are needed"
        )
    cuts = np.append(np.inf, np.unique(values)[::-1])
    below = [np.searchsorted(np.sort(values[side]), cuts) for side in (positive, ~positive)]
    return cuts, 1 - below[0] / positive.sum(), below[1] / (~positive).sum()


def _threshold(
    policy: str, cuts: np.ndarray, sensitivity: np.ndarray, specificity: np.ndarray, at: int
) -> Threshold:
    return Threshold(
        policy=policy,
        value=float(cuts[at]),
        sensitivity=float(sensitivity[at]),
        specificity=float(specificity[at]),
    )
