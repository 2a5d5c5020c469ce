"""Cuts of a score, chosen on validation arrays and named; ``>=`` the cut is positive."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ark_framework import metrics
from ark_framework.errors import ConfigError, DataError
from ark_framework.statistics.ratios import ratio

POLICIES = ("target-specificity", "youden", "fixed")
SPECIFICITY = 0.9
CUT = 0.5


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A named cut: scores ``>= value`` are called positive.

    Rates and counts of films are those of the data that chose it.
    """

    policy: str
    value: float
    sensitivity: float
    specificity: float
    positives: int
    negatives: int


def choose(
    policy: str, scores: np.ndarray, targets: np.ndarray, *, at: float | None = None
) -> Threshold:
    """Apply a named policy to validation scores and targets, both ``(n,)``.

    ``at`` is the specificity that ``target-specificity`` keeps, 0.9 if absent, or the ``fixed``
    cut, 0.5 if absent.

    Raises:
        ConfigError: another policy, a specificity outside 0 to 1, or ``at`` with ``youden``.
        DataError: a class is absent and the policy needs both, or a score is not finite.
    """
    if policy not in POLICIES:
        raise ConfigError(f"no threshold policy {policy!r}; one of {', '.join(POLICIES)}")
    if policy == "target-specificity":
        specificity = SPECIFICITY if at is None else at
        return threshold_at_specificity(scores, targets, specificity=specificity)
    if policy == "fixed":
        return fixed_threshold(scores, targets, cut=CUT if at is None else at)
    if at is not None:
        raise ConfigError(f"youden chooses the cut by itself; leave out at = {at!r}")
    return youden_threshold(scores, targets)


def youden_threshold(scores: np.ndarray, targets: np.ndarray) -> Threshold:
    """Return the cut with the highest sensitivity + specificity - 1 (Youden 1950).

    Of equals the highest cut.
    """
    found = _Rates.of(scores, targets)
    best = int(np.argmax(found.sensitivity + found.specificity))
    return found.threshold("youden", best)


def threshold_at_specificity(
    scores: np.ndarray, targets: np.ndarray, *, specificity: float
) -> Threshold:
    """Return the lowest cut whose specificity is at least ``specificity``."""
    if not 0 <= specificity <= 1:
        raise ConfigError(f"specificity {specificity!r} is not within 0 to 1; give a share")
    found = _Rates.of(scores, targets)
    last = int(np.flatnonzero(found.specificity >= specificity)[-1])
    return found.threshold(f"target-specificity {specificity:g}", last)


def fixed_threshold(scores: np.ndarray, targets: np.ndarray, *, cut: float) -> Threshold:
    """Return the cut that was given, and its rates; NaN of an absent class."""
    if not math.isfinite(cut):
        raise ConfigError(f"cut {cut!r} is not finite; give a score")
    found = _Rates.of(scores, targets, cuts=np.array([cut]))
    return found.threshold(f"fixed {cut:g}", 0)


@dataclass(frozen=True, kw_only=True)
class _Rates:
    """Cuts, and the sensitivity and specificity of each; how many films of each class."""

    cuts: np.ndarray
    sensitivity: np.ndarray
    specificity: np.ndarray
    positives: int
    negatives: int

    @classmethod
    def of(
        cls, scores: np.ndarray, targets: np.ndarray, *, cuts: np.ndarray | None = None
    ) -> _Rates:
        """Take every cut that makes a difference, descending from infinity, or those given."""
        rows = metrics.known(targets)
        values, positive = scores[rows], targets[rows] == 1
        sides = [np.sort(values[side]) for side in (positive, ~positive)]
        counts = [len(side) for side in sides]
        if not np.isfinite(values).all() or (cuts is None and not all(counts)):
            raise DataError(
                f"no threshold from {counts[0]} positives of {len(positive)} validation films; "
                "both classes and finite scores are needed"
            )
        if cuts is None:
            cuts = np.append(np.inf, np.unique(values)[::-1])
        missed, spared = (ratio(np.searchsorted(side, cuts), len(side)) for side in sides)
        return cls(
            cuts=cuts,
            sensitivity=1 - missed,
            specificity=spared,
            positives=counts[0],
            negatives=counts[1],
        )

    def threshold(self, policy: str, at: int) -> Threshold:
        """Name one of the cuts."""
        return Threshold(
            policy=policy,
            value=float(self.cuts[at]),
            sensitivity=float(self.sensitivity[at]),
            specificity=float(self.specificity[at]),
            positives=self.positives,
            negatives=self.negatives,
        )
