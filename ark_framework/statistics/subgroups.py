"""Rates, area and calibration of one label by group, their intervals, and gaps between groups."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ark_framework.errors import ConfigError
from ark_framework.statistics.draws import Replicates, resample
from ark_framework.statistics.estimate import ROUNDING, Estimate
from ark_framework.statistics.grouped import (
    MEASURES,
    NEGATIVE,
    POSITIVE,
    RATES,
    GroupedFilms,
    GroupedSums,
)
from ark_framework.statistics.results import FEW, Difference, Interval, extreme

TESTED = ("auroc", "fnr", "fpr")  # whose gaps a difference in prevalence alone does not make
EFFECTIVE = 2.0  # patients of equal weight, below which there is no variance to speak of
NOISE = math.sqrt(2) - 1  # a calibrated group's ECE is all noise; replicates' excess is this of it


@dataclass(frozen=True, kw_only=True)
class GroupScore:
    """A group's annotated films and their patients, and an interval for each of ``MEASURES``."""

    films: int
    patients: int
    positives: int
    negatives: int
    measures: Mapping[str, Interval]


@dataclass(frozen=True, kw_only=True)
class Subgroups:
    """The ``K`` groups, and of each contrast the differences for each of ``MEASURES``."""

    groups: tuple[GroupScore, ...]
    gaps: tuple[Mapping[str, Difference], ...]


def subgroups(
    films: GroupedFilms,
    contrasts: Sequence[tuple[int, int]],
    *,
    least: int = FEW,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Subgroups:
    """Return what each group's films show, and the gaps of pairs of groups: first minus second.

    FNR is missed of positive films, FPR falsely called of negative, PPV positive of called; ECE is
    the expected calibration error over ten bins of equal width (Guo et al. 2017); bias the mean
    probability less the share of positives.  A measure is scored where at least ``least`` patients
    have films that it rests on: positive, negative, both, called, or annotated.

    Whole patients are drawn with replacement, once for all groups.  The draws depend on nothing but
    the number of patients, ``replicates`` and ``seed``: labels of the same films share them.

    - Values have BCa intervals (Efron 1987), with two exceptions.  A rate of 0 or 1 has no spread:
      its interval is that of Clopper and Pearson (1934) with patients as units, as though each had
      one film, which errs on the wide side.  ECE cannot be negative, so noise raises it: its
      interval is Student's, the lower end lowered by what noise may have added, no further than 0.
    - Gaps have interval and p from one Student's t, with the standard error of the replicates'
      differences and a degree less than the smaller number of patients.  That number, here and
      above, is the effective one of ``GroupedSums``: few patients with most of the films leave a
      variance more uncertain than their number says.  Few patients' rates and areas may be near 0
      or 1 by luck and then vary too little: a rate's variance is at least that of :func:`_added`,
      an area's is raised by :func:`_stretch`.
    - Only gaps of ``TESTED`` have a p: PPV and calibration move with prevalence, and ECE is the
      more raised by noise the smaller the group.
    - An area of 0 or 1 has no interval, and no gap; nor has what rests on fewer than two effective
      patients.

    Raises:
        ConfigError: ``least`` below 2.
    """
    if least < 2:
        raise ConfigError(f"least is {least}; a variance needs at least 2 patients")
    sums = GroupedSums.of(films, least=least)
    found = resample(
        sums.evaluate,
        np.zeros(len(sums.sums), dtype=np.int64),
        replicates=replicates,
        seed=seed,
        films=len(films.scores),
    )
    reader = _Reader(sums=sums, found=found, least=least, level=level)
    return Subgroups(
        groups=tuple(reader.group(k) for k in range(films.members.shape[1])),
        gaps=tuple({each: reader.gap(*pair, each) for each in MEASURES} for pair in contrasts),
    )


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """What replicates say of groups."""

    sums: GroupedSums
    found: Replicates
    least: int
    level: float

    def group(self, k: int) -> GroupScore:
        """Return a group's counts and measures."""
        positives, negatives = self.sums.sums[:, k, [POSITIVE, NEGATIVE]].sum(axis=0).astype(int)
        told = partial(Interval, positives=int(positives), negatives=int(negatives))
        return GroupScore(
            films=int(positives + negatives),
            patients=int(self.sums.patients["bias"][k]),
            positives=int(positives),
            negatives=int(negatives),
            measures={each: self._interval(told, k, each) for each in MEASURES},
        )

    def gap(self, first: int, second: int, measure: str) -> Difference:
        """Return how much higher the first group's measure is."""
        if reason := self._unscored(first, measure) or self._unscored(second, measure):
            return Difference(value=math.nan, reason=reason)
        ends = [self._number(k, measure) for k in (first, second)]
        number = self._difference(first, second, measure)
        least, reason = 0.0, number.reason
        if measure in RATES:
            least = _added(*self.sums.rate(measure, [first, second]))
        elif measure == "auroc":
            reason = extreme(*(each.value for each in ends)) or reason
        reason = reason or _alone(number)
        low, high, p = (math.nan,) * 3 if reason else number.student(self.level, least=least)
        if not reason and math.isnan(p):
            reason = "not estimable: the difference has no variance"
        if measure == "ece":
            low, high = low - _noise(ends[0]), high + _noise(ends[1])
        if measure != "bias":  # differences of shares and areas go no further
            low, high = max(low, -1.0), min(high, 1.0)
        p = p if measure in TESTED else math.nan
        return Difference(value=number.value, low=low, high=high, p=p, reason=reason)

    def _interval(self, told: partial[Interval], k: int, measure: str) -> Interval:
        if reason := self._unscored(k, measure):
            return told(value=math.nan, reason=reason)
        number = self._number(k, measure)
        if reason := _alone(number):
            return told(value=number.value, reason=reason)
        if measure in RATES and number.value in (0.0, 1.0):
            low, high = _clopper_pearson(number.value, number.patients, self.level)
            return told(value=number.value, low=low, high=high)
        reason = (extreme(number.value) if measure == "auroc" else "") or number.reason
        if not reason and np.ptp(number.drawn) < ROUNDING:
            reason = "not estimable: the value has no variance"
        if reason:
            return told(value=number.value, reason=reason)
        if measure == "ece":
            low, high, _ = number.student(self.level)
            low, high = max(low - _noise(number), 0.0), min(high, 1.0)
        else:
            low, high = number.bca(self.level)
        return told(value=number.value, low=low, high=high, variance=number.variance)

    def _unscored(self, k: int, measure: str) -> str:
        """Return why a group's measure is not scored, or an empty string."""
        if self.sums.films.called is None and measure in RATES:
            return "not scored: no cut could be chosen"
        if not self.sums.films.probabilities and measure in ("ece", "bias"):
            return "not scored: the scores are no probabilities"
        names = {"fnr": "positives", "fpr": "negatives", "ppv": "called films"}
        for each in ("fnr", "fpr") if measure == "auroc" else (measure,):
            count, name = int(self.sums.patients[each][k]), names.get(each, "annotated films")
            if count < self.least:
                return f"not scored: {count} patients with {name}, at least {self.least} are needed"
        return ""

    def _number(self, k: int, measure: str) -> Estimate:
        patients = float(self.sums.effective[measure][k])
        return Estimate.of(self.found, _column(k, measure), patients=patients)

    def _difference(self, first: int, second: int, measure: str) -> Estimate:
        columns = [_column(k, measure) for k in (first, second)]
        values, drawn = self.found.value[columns], self.found.drawn[:, columns]
        patients = self.sums.effective[measure][[first, second]]
        if measure == "auroc" and ((values > 0) & (values < 1)).all():
            drawn = values + (drawn - values) * _stretch(values, patients)
        apart = drawn[:, 0] - drawn[:, 1]
        return Estimate(
            value=float(values[0] - values[1]),
            drawn=apart[np.isfinite(apart)],
            without=apart[:0],
            asked=len(apart),
            patients=float(patients.min()),
        )


def _alone(number: Estimate) -> str:
    """Return why nothing is claimed where one patient has most of the films, or nothing."""
    if number.patients >= EFFECTIVE:
        return ""
    return "not estimable: most of the films are of one patient"


def _column(k: int, measure: str) -> int:
    return k * len(MEASURES) + MEASURES.index(measure)


def _clopper_pearson(value: float, patients: float, level: float) -> tuple[float, float]:
    """Return the exact interval of no successes, or nothing but successes, of patients."""
    reach = 1 - ((1 - level) / 2) ** (1 / patients)
    return (0.0, reach) if value == 0 else (1 - reach, 1.0)


def _noise(number: Estimate) -> float:
    """Return how much of an ECE may be noise: all of it where a group is calibrated."""
    return max(float(number.drawn.mean()) - number.value, 0.0) / NOISE


def _stretch(areas: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Return by how much to stretch ``(2,)`` areas' replicates about the areas.

    The variance goes as ``A (1 - A)``, which is taken where two more patients of the smaller class
    would put the area, one ranked above all and one below, after Agresti and Caffo (2000).
    """
    shrunk = (areas * patients + 1) / (patients + 2)
    return np.asarray(np.sqrt(shrunk * (1 - shrunk) / (areas * (1 - areas))))


def _added(above: np.ndarray, below: np.ndarray) -> float:
    """Return the variance of a difference of two ratios of patients' sums, each ``(G, 2)``.

    Each group gets two more patients of its average size, one with all of it above the line and one
    with nothing, as Agresti and Caffo (2000) add to each sample.  With one film a patient the
    variance is theirs, of each group ``p (1 - p) / (m + 2)`` with ``p = (a + 1) / (m + 2)``, and
    does not vanish where ``a`` is 0 or ``m``.  With several it is the ratio estimator's, from
    residuals of whole patients (Cochran 1977, section 6.3); who is in both groups has both.
    """
    size = below.sum(axis=0) / (below > 0).sum(axis=0)
    total = below.sum(axis=0) + 2 * size
    share = (above.sum(axis=0) + size) / total
    residuals = (above - share * below) / total
    added = ((size / total) ** 2 * (share**2 + (1 - share) ** 2)).sum()
    return float(((residuals[:, 0] - residuals[:, 1]) ** 2).sum() + added)
