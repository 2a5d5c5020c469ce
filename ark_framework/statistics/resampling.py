"""Bootstrap intervals: patients drawn with replacement, all labels and replicates in blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

import numpy as np

from ark_framework import metrics
from ark_framework.errors import DataError
from ark_framework.statistics.results import FEW, Interval, Intervals, too_few
from ark_framework.statistics.weighted import Metric, weighted_auroc

JACKKNIFE = 200  # delete-a-block estimates for the acceleration; exact up to as many patients
ELEMENTS = 2_000_000  # weights in memory at once


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
    if scores.shape != targets.shape or scores.ndim != 2:
        raise DataError(
            f"scores {scores.shape} and targets {targets.shape} differ; "
            "give both as (films, labels)"
        )
    rows = np.arange(len(scores)) if groups is None else np.asarray(groups)
    if rows.shape != (len(scores),):
        raise DataError(
            f"groups are {rows.shape}; give one patient for each of {len(scores)} films"
        )
    _, patient = np.unique(rows, return_inverse=True)
    labels = [_Label.of(scores[:, c], targets[:, c], patient) for c in range(scores.shape[1])]
    size = int(patient.max()) + 1 if len(patient) else 0
    strata = _strata(labels, size)
    values = _evaluate(labels, metric, iter([np.ones((1, size), np.float32)]))[0]
    drawn = _evaluate(labels, metric, _draws(strata, replicates, seed, len(scores)))
    without = _evaluate(labels, metric, _deletions(strata, len(scores)))
    scorable = np.isfinite(values)
    found = tuple(
        _interval(values[c], drawn[:, c], without[:, c], _reach(label.smaller, level), label)
        for c, label in enumerate(labels)
    )
    if not scorable.any():
        macro = Interval(value=math.nan, reason="not estimable: no label has both classes")
    else:
        smallest = max(FEW, min(label.smaller for label in labels if label.scorable))
        means = [each[:, scorable].mean(axis=1) for each in (values[None], drawn, without)]
        macro = _interval(means[0][0], means[1], means[2], _reach(smallest, level), None)
    return Intervals(labels=found, macro=macro, level=level, replicates=replicates)


@dataclass(frozen=True, kw_only=True)
class _Label:
    """One label's annotated films in ascending order of score."""

    scores: np.ndarray
    positive: np.ndarray
    patient: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, targets: np.ndarray, patient: np.ndarray) -> _Label:
        rows = np.flatnonzero(metrics.known(targets))
        rows = rows[np.argsort(scores[rows], kind="stable")]
        return cls(scores=scores[rows], positive=targets[rows] == 1, patient=patient[rows])

    @property
    def scorable(self) -> bool:
        both = bool(self.positive.any()) and not bool(self.positive.all())
        return both and bool(np.isfinite(self.scores).all())

    def patients(self, *, positive: bool) -> np.ndarray:
        return np.unique(self.patient[self.positive == positive])

    @property
    def smaller(self) -> int:
        """Patients with a film of the class that fewer have."""
        return min(len(self.patients(positive=flag)) for flag in (True, False))

    def reason(self) -> str:
        if not np.isfinite(self.scores).all():
            return "not estimable: a score is not finite"
        return too_few(len(self.patients(positive=True)), len(self.patients(positive=False)))


def _strata(labels: Sequence[_Label], size: int) -> np.ndarray:
    """Return ``(G,)``: 0, or 1 + the rarest label whose smaller class the patient has."""
    strata = np.zeros(size, dtype=np.int64)
    smaller = {
        c: min((label.patients(positive=flag) for flag in (True, False)), key=len)
        for c, label in enumerate(labels)
        if label.scorable
    }
    for c in sorted(smaller, key=lambda each: len(smaller[each]), reverse=True):
        if len(smaller[c]) < FEW:
            strata[smaller[c]] = c + 1
    return strata


def _blocks(count: int, films: int) -> Iterator[int]:
    step = max(1, ELEMENTS // max(films, 1))
    for start in range(0, count, step):
        yield min(step, count - start)


def _draws(strata: np.ndarray, count: int, seed: int, films: int) -> Iterator[np.ndarray]:
    """Yield ``(block, G)`` times that each patient was drawn; the blocking changes nothing."""
    rng, size = np.random.default_rng(seed), len(strata)
    order = np.argsort(strata, kind="stable")
    _, which, sizes = np.unique(strata[order], return_inverse=True, return_counts=True)
    low = (np.cumsum(sizes) - sizes)[which]
    for block in _blocks(count, films):
        picks = low + (rng.random((block, size)) * sizes[which]).astype(np.int64)
        picks += np.arange(block)[:, None] * size
        times = np.bincount(picks.ravel(), minlength=block * size).reshape(block, size)
        weights = np.empty((block, size), dtype=np.float32)
        weights[:, order] = times
        yield weights


def _deletions(strata: np.ndarray, films: int) -> Iterator[np.ndarray]:
    """Yield ``(block, G)`` weights that leave out one block of patients each."""
    size = len(strata)
    count = min(size, JACKKNIFE)
    member = np.empty(size, dtype=np.int64)
    member[np.argsort(strata, kind="stable")] = np.arange(size) % max(count, 1)
    done = 0
    for block in _blocks(count, films):
        yield (member != np.arange(done, done + block)[:, None]).astype(np.float32)
        done += block


def _evaluate(labels: Sequence[_Label], metric: Metric, blocks: Iterator[np.ndarray]) -> np.ndarray:
    """Return the metric of each replicate and label, ``(R, C)``."""
    parts = [np.empty((0, len(labels)))]
    for weights in blocks:
        part = np.full((len(weights), len(labels)), np.nan)
        for c, label in enumerate(labels):
            if label.scorable:
                films = np.take(weights, label.patient, axis=1)
                part[:, c] = metric(label.scores, label.positive, films)
        parts.append(part)
    return np.concatenate(parts)


def _interval(
    value: float, drawn: np.ndarray, without: np.ndarray, reach: float, label: _Label | None
) -> Interval:
    usable, without = drawn[np.isfinite(drawn)], without[np.isfinite(without)]
    positives = int(label.positive.sum()) if label else 0
    negatives = len(label.positive) - positives if label else 0
    reason = label.reason() if label else ""
    if not reason and value in (0.0, 1.0):
        reason = f"not estimable: the value is {value:g}"
    if not reason and len(usable) < 0.9 * len(drawn):
        reason = f"not estimable: {len(usable)} of {len(drawn)} replicates are defined"
    known = partial(Interval, value=float(value), positives=positives, negatives=negatives)
    if reason:
        return known(reason=reason)
    low, high = np.quantile(usable, _bca(value, usable, without, reach))
    return known(low=float(low), high=float(high), variance=float(usable.var(ddof=1)))


def _reach(count: int, level: float) -> float:
    """Return how many standard errors to reach, for ``count`` patients in the smaller class.

    Resampling understates the variance by ``(count - 1) / count`` and ignores that it is
    estimated; both are made good as Hesterberg (2015), section 5.3, does by expanding.
    """
    from scipy.stats import t

    if count < 2:
        return math.inf
    return float(t.ppf((1 + level) / 2, count - 1) * math.sqrt(count / (count - 1)))


def _bca(value: float, drawn: np.ndarray, without: np.ndarray, reach: float) -> np.ndarray:
    """Return the two quantiles to read: bias-corrected and accelerated (Efron 1987)."""
    normal, count = NormalDist(), len(drawn)
    share = ((drawn < value).sum() + (drawn == value).sum() / 2) / count
    bias = normal.inv_cdf(float(np.clip(share, 1 / (count + 1), count / (count + 1))))
    away = without.mean() - without
    spread = float((away**2).sum()) ** 1.5
    bend = float((away**3).sum()) / (6 * spread) if spread else 0.0
    found = []
    for sign in (-1, 1):
        z = bias + sign * reach
        found.append(normal.cdf(bias + z / max(1 - bend * z, 1e-3)))
    return np.array(found)
