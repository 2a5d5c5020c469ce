"""Bootstrap of ratios of sums over films, and so of means: patients drawn with replacement."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ark_framework.errors import DataError
from ark_framework.statistics.draws import Replicates, patients, resample
from ark_framework.statistics.estimate import Estimate
from ark_framework.statistics.results import Difference, extreme, too_few_patients


@dataclass(frozen=True, kw_only=True)
class Ratios:
    """``C`` ratios of sums over films; each patient's part of the sums, ``(G, C)``."""

    above: np.ndarray
    below: np.ndarray

    @classmethod
    def of(cls, above: np.ndarray, below: np.ndarray, patient: np.ndarray) -> Ratios:
        """Sum ``(n, C)`` over the films of each of ``(n,)`` patients, numbered from 0."""
        sums = np.zeros((2, int(patient.max(initial=-1)) + 1, above.shape[1]))
        for total, each in zip(sums, (above, below), strict=True):
            np.add.at(total, patient, each)
        return cls(above=sums[0], below=sums[1])

    def resample(self, *, replicates: int, seed: int, jackknife: bool = True) -> Replicates:
        """Evaluate all of them on the same draws of patients; NaN where below the line is 0."""
        size = len(self.above)
        return resample(
            lambda weights: ratio(weights @ self.above, weights @ self.below),
            np.zeros(size, dtype=np.int64),
            replicates=replicates,
            seed=seed,
            films=size,
            jackknife=jackknife,
        )

    def patients(self, columns: np.ndarray) -> int:
        """Return how many have a part in a ratio; of several, the fewest."""
        return int((self.below[:, columns] > 0).sum(axis=0).min(initial=len(self.below)))


def bootstrap_means_paired(
    a: np.ndarray,
    b: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Compare two models by films' own scores: the mean of ``a`` minus that of ``b``.

    The mean is over the films that have a score, then over columns.  The interval is that of
    :func:`bootstrap_paired`.  Nothing is claimed of fewer patients than ``FEW``.

    Args:
        a: ``(n, K)`` scores of one model, NaN where there is none.
        b: ``(n, K)`` of the other, of the same films and columns.
        groups: ``(n,)`` patient of each film; each film its own without.
        replicates: How many.
        seed: Of the draws.
        level: Of confidence.

    Raises:
        DataError: the shapes differ, or what has a score.
    """
    if a.shape != b.shape or (np.isnan(a) != np.isnan(b)).any():
        raise DataError("two models' scores are not of the same films; score both on the same")
    both = np.concatenate([a, b], axis=1)
    ratios = Ratios.of(np.nan_to_num(both), np.isfinite(both), patients(both, both, groups))
    found = ratios.resample(replicates=replicates, seed=seed, jackknife=False)
    known = np.flatnonzero(np.isfinite(found.value[: a.shape[1]]))
    ends = found.value.reshape(2, -1)[:, known].mean(axis=1) if len(known) else ()
    gaps = found.map(lambda each: each[..., : a.shape[1]] - each[..., a.shape[1] :])
    apart = column_mean(gaps, known)
    number = Estimate.of(apart, 0, patients=ratios.patients(known))
    reason = too_few_patients(number.patients) or number.reason
    reason = reason or extreme(*ends)
    low, high, p = (math.nan,) * 3 if reason else number.student(level)
    if not reason and math.isnan(p):
        reason = "not estimable: the difference has no variance"
    return Difference(value=number.value, low=low, high=high, p=p, reason=reason)


def column_mean(found: Replicates, columns: np.ndarray) -> Replicates:
    """Return the mean of some of the ``K`` numbers as the only one; NaN of none."""
    return found.map(
        lambda each: ratio(each[..., columns].sum(axis=-1, keepdims=True), len(columns))
    )


def ratio(above: np.ndarray, below: np.ndarray | int) -> np.ndarray:
    """Divide; 0 by 0 is NaN."""
    with np.errstate(invalid="ignore"):
        return np.asarray(above / np.asarray(below))
