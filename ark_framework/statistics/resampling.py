"""Bootstrap intervals: patients drawn with replacement, all labels and replicates in blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ark_framework import metrics
from ark_framework.statistics.draws import patients, resample, strata
from ark_framework.statistics.estimate import Estimate
from ark_framework.statistics.results import FEW, Interval, Intervals, extreme, too_few
from ark_framework.statistics.weighted import Metric, weighted_auroc

NO_LABEL = "not estimable: no label has both classes"


def bootstrap(
    scores: np.ndarray,
    targets: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    metric: Metric = weighted_auroc,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Intervals:
    """Return patient-clustered, stratified bootstrap intervals (BCa; Efron 1987).

    Whole patients are drawn with replacement, once for all labels, so that the mean keeps the
    correlation between labels.  Patients with a film of a label's smaller class are drawn within
    a stratum of their own where they are fewer than ``FEW``, the rarest label first.  With more
    the chance of losing them all is below exp(-10), and a fixed mix would make intervals too
    short.  Replicates that lose a class nevertheless are left out; below 90 % nothing is claimed.

    Args:
        scores: ``(n, C)``.
        targets: ``(n, C)`` with 1, 0, NaN and -1.
        groups: ``(n,)`` patient of each film; each film its own without.
        metric: See :data:`Metric`.
        replicates: How many.
        seed: Of the draws.
        level: Of confidence.

    Returns:
        The mean is over labels with both classes; those below ``FEW`` are in it, although what
        they add to its variance is understated.
    """
    patient = patients(scores, targets, groups)
    labels = label_films(scores, targets, patient)
    found = resample(
        partial(evaluate, labels, metric),
        label_strata(labels, patient),
        replicates=replicates,
        seed=seed,
        films=len(scores),
    )
    numbers = [Estimate.of(found, c, patients=label.smaller) for c, label in enumerate(labels)]
    scorable = np.isfinite(found.value)
    macro = Interval(value=math.nan, reason=NO_LABEL)
    if scorable.any():
        mean = found.map(lambda each: each[..., scorable].mean(axis=-1, keepdims=True))
        macro = interval(Estimate.of(mean, 0, patients=smallest(labels)), level)
    return Intervals(
        labels=tuple(
            interval(number, level, reason=label.reason(), positive=label.positive)
            for number, label in zip(numbers, labels, strict=True)
        ),
        macro=macro,
        level=level,
        replicates=replicates,
    )


@dataclass(frozen=True, kw_only=True)
class Label:
    """One label's annotated films in ascending order of score."""

    scores: np.ndarray
    positive: np.ndarray
    patient: np.ndarray

    @property
    def scorable(self) -> bool:
        """Whether both classes are there and every score is finite."""
        both = bool(self.positive.any()) and not bool(self.positive.all())
        return both and bool(np.isfinite(self.scores).all())

    def patients(self, *, positive: bool) -> np.ndarray:
        """Return who has a film of a class."""
        return np.unique(self.patient[self.positive == positive])

    @property
    def rare(self) -> np.ndarray:
        """Patients with a film of the class that fewer have."""
        return min((self.patients(positive=flag) for flag in (True, False)), key=len)

    @property
    def smaller(self) -> int:
        """How many they are."""
        return len(self.rare)

    def reason(self) -> str:
        """Why nothing is claimed, or an empty string."""
        if not np.isfinite(self.scores).all():
            return "not estimable: a score is not finite"
        counts = [len(self.patients(positive=flag)) for flag in (True, False)]
        several = len(np.unique(self.patient)) < len(self.patient)
        return too_few(*counts, of="patients with " if several else "")


def label_films(scores: np.ndarray, targets: np.ndarray, patient: np.ndarray) -> list[Label]:
    """Return the ``C`` labels of ``(n, C)`` scores and targets."""
    found = []
    for c in range(scores.shape[1]):
        rows = np.flatnonzero(metrics.known(targets[:, c]))
        rows = rows[np.argsort(scores[rows, c], kind="stable")]
        found.append(
            Label(scores=scores[rows, c], positive=targets[rows, c] == 1, patient=patient[rows])
        )
    return found


def label_strata(labels: Sequence[Label], patient: np.ndarray) -> np.ndarray:
    """Return each patient's stratum ``(G,)``, from the labels that can be scored."""
    size = int(patient.max(initial=-1)) + 1
    return strata([label.rare for label in labels if label.scorable], size)


def smallest(labels: Sequence[Label]) -> int:
    """Return the patients that the variance of the labels' mean rests on: at least ``FEW``."""
    return max(FEW, min(label.smaller for label in labels if label.scorable))


def evaluate(labels: Sequence[Label], metric: Metric, weights: np.ndarray) -> np.ndarray:
    """Return the metric ``(R, C)`` of ``(R, G)`` weights of patients."""
    found = np.full((len(weights), len(labels)), np.nan)
    for c, label in enumerate(labels):
        if label.scorable:
            films = np.take(weights, label.patient, axis=1)
            found[:, c] = metric(label.scores, label.positive, films)
    return found


def interval(
    number: Estimate, level: float, *, reason: str = "", positive: np.ndarray | None = None
) -> Interval:
    """Return a number's interval with the counts of ``(n,)`` bool, unless there is a reason."""
    positives = 0 if positive is None else int(positive.sum())
    negatives = 0 if positive is None else len(positive) - positives
    known = partial(Interval, value=number.value, positives=positives, negatives=negatives)
    reason = reason or extreme(number.value) or number.reason
    if reason:
        return known(reason=reason)
    low, high = number.bca(level)
    return known(low=low, high=high, variance=number.variance)
