"""Two models on the same films: differences from the same draws of patients."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from ark_framework.errors import DataError
from ark_framework.statistics.draws import patients, resample
from ark_framework.statistics.estimate import Estimate
from ark_framework.statistics.resampling import (
    NO_LABEL,
    evaluate,
    label_films,
    label_strata,
    smallest,
)
from ark_framework.statistics.results import Difference, Differences, extreme
from ark_framework.statistics.rows import Rows
from ark_framework.statistics.weighted import (
    Metric,
    RowMetric,
    weighted_accuracy,
    weighted_auroc,
)


def bootstrap_paired(
    a: np.ndarray,
    b: np.ndarray,
    targets: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    metric: Metric = weighted_auroc,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Differences:
    """Compare two models label by label and in the mean: the metric of ``a`` minus that of ``b``.

    Both are scored on the draws of :func:`bootstrap`, so that what films have in common cancels.
    The interval is the difference ± Student's t times the standard error of the replicates, and
    the p-value (two-sided) comes of the same t, so that they never disagree and no number of
    replicates bounds p from below.  BCa held simulated differences a little less often, at the
    same width (``docs/explanation/statistics.md``).  Nothing is claimed for a label where an
    interval of either model would not be.

    Args:
        a: ``(n, C)`` scores of one model.
        b: ``(n, C)`` scores of the other.
        targets: ``(n, C)`` with 1, 0, NaN and -1.
        groups: ``(n,)`` patient of each film; each film its own without.
        metric: See :data:`Metric`.
        replicates: How many.
        seed: Of the draws.
        level: Of confidence.

    Returns:
        The mean is over labels that have both classes and finite scores of both models.
    """
    patient = _patients(a, b, targets, groups)
    first, second = (label_films(each, targets, patient) for each in (a, b))
    both = [one if other.scorable else other for one, other in zip(first, second, strict=True)]
    found = resample(
        partial(evaluate, [*first, *second], metric),
        label_strata(both, patient),
        replicates=replicates,
        seed=seed,
        films=len(targets),
        jackknife=False,
    )
    count = len(both)
    apart = found.map(lambda each: each[..., :count] - each[..., count:])
    ends = found.value.reshape(2, count)
    scorable = np.isfinite(apart.value)
    macro = Difference(value=math.nan, reason=NO_LABEL)
    if scorable.any():
        mean = apart.map(lambda each: each[..., scorable].mean(axis=-1, keepdims=True))
        number = Estimate.of(mean, 0, patients=smallest(both))
        macro = _difference(number, level, extreme(*ends[:, scorable].mean(axis=1)))
    return Differences(
        labels=tuple(
            _difference(
                Estimate.of(apart, c, patients=label.smaller),
                level,
                label.reason() or extreme(*ends[:, c]),
            )
            for c, label in enumerate(both)
        ),
        macro=macro,
        level=level,
        replicates=replicates,
    )


def bootstrap_rows_paired(
    a: np.ndarray,
    b: np.ndarray,
    targets: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    metric: RowMetric = weighted_accuracy,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Compare two models by a metric of whole rows: accuracy of ``a`` minus that of ``b``.

    As :func:`bootstrap_rows` and :func:`bootstrap_paired`, of which it has the arguments.
    """
    patient = _patients(a, b, targets, groups)
    models = [Rows.of(each, targets, patient) for each in (a, b)]
    first, second = (label_films(each, targets, patient) for each in (a, b))
    both = [one if other.scorable else other for one, other in zip(first, second, strict=True)]
    found = resample(
        lambda weights: np.stack([each.evaluate(metric, weights) for each in models], axis=1),
        label_strata(both, patient),
        replicates=replicates,
        seed=seed,
        films=len(targets),
        jackknife=False,
    )
    apart = found.map(lambda each: each[..., :1] - each[..., 1:])
    reason = next(filter(None, (each.reason() for each in models)), "") or extreme(*found.value)
    return _difference(Estimate.of(apart, 0, patients=models[0].patients), level, reason)


def _patients(
    a: np.ndarray, b: np.ndarray, targets: np.ndarray, groups: np.ndarray | None
) -> np.ndarray:
    if a.shape != b.shape:
        raise DataError(
            f"scores {a.shape} and {b.shape} differ; give both models' as (films, labels)"
        )
    return patients(a, targets, groups)


def _difference(number: Estimate, level: float, reason: str) -> Difference:
    reason = reason or number.reason
    low, high, p = (math.nan,) * 3 if reason else number.student(level)
    if not reason and math.isnan(p):
        reason = "not estimable: the difference has no variance"
    return Difference(value=number.value, low=low, high=high, p=p, reason=reason)
