"""Models compared over seeds and folds: t tests, Holm's correction, the difference to the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ark_framework.errors import ConfigError, DataError
from ark_framework.statistics.results import Difference

BEST = "best"
SECOND = "second"
TIED = "not distinguished from the best"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One model beside the best: ``difference`` is the best minus it, ``p`` is Holm's."""

    name: str
    mean: float
    sd: float
    seeds: int
    difference: Difference
    p: float
    marks: tuple[str, ...]


def two_sample_t(a: np.ndarray, b: np.ndarray, *, level: float = 0.95) -> Difference:
    """Compare two arms' ``(k,)`` scores over seeds: Student's t, equal variances assumed."""
    return _t(a, b, level, equal_variances=True)


def welch(a: np.ndarray, b: np.ndarray, *, level: float = 0.95) -> Difference:
    """Compare two arms' ``(k,)`` scores over seeds without assuming equal variances."""
    return _t(a, b, level, equal_variances=False)


def paired_t(a: np.ndarray, b: np.ndarray, *, level: float = 0.95) -> Difference:
    """Compare two arms' ``(k,)`` scores of the same seeds, in order: Student's paired t."""
    if np.shape(a) != np.shape(b) or np.ndim(a) != 1:
        raise DataError(f"scores {np.shape(a)} and {np.shape(b)} are no pairs; give both as (k,)")
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return _one_t(differences, level, shares=1 / max(len(differences), 1))


def corrected_t(differences: np.ndarray, test_share: float, *, level: float = 0.95) -> Difference:
    """Test ``(k,)`` differences over folds that share training films (Nadeau and Bengio 2003).

    Resamples of the same films are not independent: their mean varies by
    ``variance * (1 / k + n_test / n_train)``, here with ``n_test / n_train = test_share /
    (1 - test_share)``.  ``k - 1`` degrees of freedom, as published.

    Args:
        differences: Of two models on the same folds, all repeats together.
        test_share: Films that each test holds, of all: 0.2 in five folds.  Validation films count
            as training, for the choice between models learns from them.
        level: Of confidence.
    """
    if not 0 < test_share < 1:
        raise ConfigError(f"test share {test_share!r} is not between 0 and 1; give 0.2 for 5 folds")
    found = np.asarray(differences, dtype=np.float64)
    if found.ndim != 1:
        raise DataError(f"differences are {found.shape}; give one for each fold, as (k,)")
    shares = 1 / max(len(found), 1) + test_share / (1 - test_share)
    return _one_t(found, level, shares=shares)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return adjusted p-values ``(k,)`` (Holm 1979); NaN is no test and stays NaN."""
    p = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1.0)
    return adjusted


def difference_to_best(
    scores: Mapping[str, np.ndarray],
    *,
    level: float = 0.95,
    test: Callable[..., Difference] = welch,
) -> tuple[Standing, ...]:
    """Compare every model's ``(k,)`` scores over seeds with those of the highest mean.

    A model is distinguished only where Holm's p is below ``1 - level``; one that could not be
    tested is not.  The best was chosen on these very scores, so p-values are a guide.

    Returns:
        Highest mean first, with the marks a table shows.
    """
    means = {name: float(np.mean(each)) for name, each in scores.items()}
    if not means or not all(map(math.isfinite, means.values())):
        raise DataError(f"means are {means!r}; give every model at least one finite score")
    order = sorted(means, key=lambda name: -means[name])
    best = order[0]
    rest = order[1:]
    differences = {name: test(scores[best], scores[name], level=level) for name in rest}
    differences[best] = Difference(value=0.0, reason="the best itself")
    adjusted = dict(zip(rest, holm([differences[name].p for name in rest]).tolist(), strict=True))
    runner_up = next((means[name] for name in rest if means[name] < means[best]), math.nan)
    found = []
    for name in order:
        each, p = np.asarray(scores[name]), adjusted.get(name, math.nan)
        place = {means[best]: BEST, runner_up: SECOND}.get(means[name])
        tied = name != best and not p < 1 - level
        found.append(
            Standing(
                name=name,
                mean=means[name],
                sd=float(each.std(ddof=1)) if len(each) > 1 else math.nan,
                seeds=len(each),
                difference=differences[name],
                p=p,
                marks=(*([place] if place else []), *([TIED] if tied else [])),
            )
        )
    return tuple(found)


def _t(a: np.ndarray, b: np.ndarray, level: float, *, equal_variances: bool) -> Difference:
    from scipy.stats import ttest_ind

    value = float(np.mean(a) - np.mean(b))
    if min(len(a), len(b)) < 2:
        return Difference(value=value, reason="not estimable: one seed has no variance")
    if not np.ptp(a) and not np.ptp(b):
        return Difference(value=value, reason="not estimable: the seeds do not differ")
    result = ttest_ind(a, b, equal_var=equal_variances)
    low, high = result.confidence_interval(level)
    return Difference(value=value, low=float(low), high=float(high), p=float(result.pvalue))


def _one_t(differences: np.ndarray, level: float, *, shares: float) -> Difference:
    """Test that the mean is 0, given the variance of the mean in variances of one difference."""
    from scipy.stats import t

    count = len(differences)
    value = float(differences.mean()) if count else math.nan
    if count and not math.isfinite(value):
        return Difference(value=value, reason="not estimable: a difference is not finite")
    if count < 2:
        return Difference(value=value, reason="not estimable: fewer than two pairs")
    if np.ptp(differences) < 1e-12:
        return Difference(value=value, reason="not estimable: the differences do not differ")
    error = math.sqrt(float(differences.var(ddof=1)) * shares)
    reach = float(t.ppf((1 + level) / 2, count - 1)) * error
    p = float(2 * t.sf(abs(value) / error, count - 1))
    return Difference(value=value, low=value - reach, high=value + reach, p=p)
