"""Bootstrap intervals of what is read from whole rows: the accuracy of exclusive classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ark_framework import metrics
from ark_framework.statistics.draws import patients, resample
from ark_framework.statistics.estimate import Estimate
from ark_framework.statistics.resampling import interval, label_films, label_strata
from ark_framework.statistics.results import Interval, too_few_patients
from ark_framework.statistics.weighted import RowMetric, weighted_accuracy


def bootstrap_rows(
    scores: np.ndarray,
    targets: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    metric: RowMetric = weighted_accuracy,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the patient-clustered bootstrap interval (BCa) of a metric of whole rows.

    Draws are those of :func:`bootstrap` on the same films and seed.  A film counts where all its
    labels are annotated.  Below ``FEW`` patients with such a film, and where all films are right
    or all wrong, nothing is claimed.

    Args:
        scores: ``(n, C)``; the highest is the film's class.
        targets: ``(n, C)`` with 1, 0, NaN and -1.
        groups: ``(n,)`` patient of each film; each film its own without.
        metric: See :data:`RowMetric`.
        replicates: How many.
        seed: Of the draws.
        level: Of confidence.

    Returns:
        An interval without counts of positives and negatives, which belong to single labels.
    """
    patient = patients(scores, targets, groups)
    rows = Rows.of(scores, targets, patient)
    found = resample(
        lambda weights: rows.evaluate(metric, weights)[:, None],
        label_strata(label_films(scores, targets, patient), patient),
        replicates=replicates,
        seed=seed,
        films=len(scores),
    )
    return interval(Estimate.of(found, 0, patients=rows.patients), level, reason=rows.reason())


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The films of which every label is annotated."""

    scores: np.ndarray
    targets: np.ndarray
    patient: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, targets: np.ndarray, patient: np.ndarray) -> Rows:
        """Take them from ``(n, C)`` scores and targets and ``(n,)`` patients."""
        rows = metrics.known(targets).all(axis=1)
        return cls(scores=scores[rows], targets=targets[rows], patient=patient[rows])

    @property
    def patients(self) -> int:
        """How many have such a film."""
        return len(np.unique(self.patient))

    def evaluate(self, metric: RowMetric, weights: np.ndarray) -> np.ndarray:
        """Return the metric ``(R,)`` of ``(R, G)`` weights of patients."""
        if not np.isfinite(self.scores).all():
            return np.full(len(weights), np.nan)
        return metric(self.scores, self.targets, np.take(weights, self.patient, axis=1))

    def reason(self) -> str:
        """Why nothing is claimed, or an empty string."""
        if not np.isfinite(self.scores).all():
            return "not estimable: a score is not finite"
        return too_few_patients(self.patients)
