"""One label's films in groups: what each patient adds to sums, and what sums amount to.

Shapes: ``n`` films, ``G`` patients, ``K`` groups, ``S`` sums, ``R`` replicates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ark_framework import metrics
from ark_framework.errors import DataError
from ark_framework.statistics.ratios import ratio
from ark_framework.statistics.weighted import weighted_auroc

MEASURES = ("auroc", "fnr", "fpr", "ppv", "ece", "bias")
RATES = ("fnr", "fpr", "ppv")
BINS = 10
MISSED, POSITIVE, FALSE, NEGATIVE, APART = range(5)  # the sums; from APART on one for each bin


@dataclass(frozen=True, kw_only=True)
class GroupedFilms:
    """One label's films, and which groups they belong to.

    Attributes:
        scores: ``(n,)``.
        called: ``(n,)`` bool, which films are called positive; ``None`` where there is no cut.
        targets: ``(n,)`` with 1, 0, NaN and -1.
        patient: ``(n,)`` int, from 0.
        members: ``(n, K)`` bool; a film may belong to several groups, or to none.
        probabilities: Whether scores are; nothing else has a calibration.

    Raises:
        DataError: shapes that do not belong together, an annotated film without a finite score,
            or probabilities outside 0 to 1.
    """

    scores: np.ndarray
    called: np.ndarray | None
    targets: np.ndarray
    patient: np.ndarray
    members: np.ndarray
    probabilities: bool = True

    def __post_init__(self) -> None:
        called = self.targets if self.called is None else self.called
        arrays = (self.scores, called, self.targets, self.patient, self.members[:, :0].sum(axis=1))
        if {each.shape for each in arrays} != {(len(self.scores),)}:
            raise DataError(
                f"scores {self.scores.shape}, calls {called.shape}, targets {self.targets.shape}, "
                f"patients {self.patient.shape} and members {self.members.shape} are not of the "
                "same films; give an entry for each"
            )
        scores = self.scores[self.known]
        if not np.isfinite(scores).all():
            raise DataError("a score of an annotated film is not finite; make its target NaN")
        if self.probabilities and ((scores < 0) | (scores > 1)).any():
            raise DataError(
                "a probability is not within 0 to 1; say that scores are something else"
            )

    @property
    def known(self) -> np.ndarray:
        """Which films ``(n,)`` are annotated and certain."""
        return metrics.known(self.targets)


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A group's films in ascending order of score, in runs within which the order is no matter.

    Attributes:
        scores: ``(runs,)``, one of each run's.
        positive: ``(runs,)`` bool, of all its films.
        films: Sparse ``(runs, G)``, how many are each patient's.
    """

    scores: np.ndarray
    positive: np.ndarray
    films: Any

    @classmethod
    def of(cls, films: GroupedFilms, rows: np.ndarray, size: int) -> Ranked:
        """Take some films, in ascending order of score."""
        from scipy.sparse import csr_array

        scores, positive = films.scores[rows], films.targets[rows] == 1
        _, first, run = np.unique(_runs(scores, positive), return_index=True, return_inverse=True)
        ones = np.ones(len(rows), dtype=np.float32)
        held = csr_array((ones, (run, films.patient[rows])), shape=(len(first), size))
        return cls(scores=scores[first], positive=positive[first], films=held)

    def auroc(self, weights: np.ndarray) -> np.ndarray:
        """Return ``(R,)`` areas of ``(G, R)`` weights of patients."""
        films = np.ascontiguousarray((self.films @ weights).T)
        return weighted_auroc(self.scores, self.positive, films)


@dataclass(frozen=True, kw_only=True)
class GroupedSums:
    """What patients add to sums, and how many of them each measure rests on.

    Attributes:
        sums: ``(G, K, S)``: films missed, positive, falsely called and negative, then in each bin
            the probabilities less the positives.
        patients: ``(K,)`` of each of ``MEASURES``.
        effective: Likewise: as many as with equal numbers of films would say as much.
        ranked: The films of each group that has an area.
    """

    films: GroupedFilms
    sums: np.ndarray
    patients: Mapping[str, np.ndarray]
    effective: Mapping[str, np.ndarray]
    ranked: Mapping[int, Ranked]

    @classmethod
    def of(cls, films: GroupedFilms, *, least: int) -> GroupedSums:
        """Add up; an area is for groups with ``least`` patients of either class."""
        parts, size = _parts(films), int(films.patient.max(initial=-1)) + 1
        sums = np.zeros((size, films.members.shape[1], parts.shape[1]))
        order = np.argsort(films.scores, kind="stable")
        rows = [order[(films.known & member)[order]] for member in films.members.T]
        for k, of in enumerate(rows):
            for s in range(parts.shape[1]):
                sums[:, k, s] = np.bincount(films.patient[of], parts[of, s], minlength=size)
        patients = _patients(sums)
        scored = np.flatnonzero(patients["auroc"] >= least)
        ranked = {int(k): Ranked.of(films, rows[k], size) for k in scored}
        effective = _effective(sums)
        return cls(films=films, sums=sums, patients=patients, effective=effective, ranked=ranked)

    def evaluate(self, weights: np.ndarray) -> np.ndarray:
        """Return ``(R, K * 6)`` measures of ``(R, G)`` weights of patients."""
        size, groups, sums = self.sums.shape
        totals = weights @ self.sums.reshape(size, -1)
        found = _measures(totals.reshape(len(weights), groups, sums))
        turned = np.ascontiguousarray(weights.T)
        for k, ranked in self.ranked.items():
            found[:, k, 0] = ranked.auroc(turned)
        return found.reshape(len(weights), -1)

    def rate(self, measure: str, groups: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return what patients have above and below the line of a rate, each ``(G, k)``."""
        missed, positive, false, negative = np.moveaxis(self.sums[:, groups, :APART], 2, 0)
        hits = positive - missed
        above = {"fnr": missed, "fpr": false, "ppv": hits}
        return above[measure], {"fnr": positive, "fpr": negative, "ppv": hits + false}[measure]


def _parts(films: GroupedFilms) -> np.ndarray:
    """Return what each film adds, ``(n, S)``."""
    positive, negative = films.targets == 1, films.targets == 0
    called = np.zeros(len(positive), dtype=bool) if films.called is None else films.called
    parts = np.zeros((len(positive), APART + BINS))
    parts[:, :APART] = np.stack([positive & ~called, positive, negative & called, negative], axis=1)
    if films.probabilities:
        rows = np.flatnonzero(films.known)
        # Bins are open below and closed above, as those of Guo et al. (2017).
        bins = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], films.scores[rows])
        parts[rows, APART + bins] = films.scores[rows] - films.targets[rows]
    return parts


def _runs(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Return the number ``(n,)`` of each film's run; scores ascend.

    Films of one class with none of the other between them count alike in an area, and so do films
    of one class and score.
    """
    tie = np.cumsum(np.append(True, scores[1:] != scores[:-1])) - 1
    share = np.bincount(tie, positive) / np.bincount(tie)
    mixed = (share > 0) & (share < 1)
    starts = np.append(True, (share[1:] != share[:-1]) | mixed[1:])
    return np.asarray(2 * np.cumsum(starts)[tie] + positive)


def _patients(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Return how many patients ``(K,)`` have films that each measure rests on."""
    counts = {each: (films > 0).sum(axis=0) for each, films in _rests(sums).items()}
    return {"auroc": np.minimum(counts["fnr"], counts["fpr"]), **counts}


def _effective(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Return how many patients ``(K,)`` with as many films each would say as much of a variance.

    ``(sum b^2)^2 / sum b^4`` of each one's films ``b``, by Satterthwaite (1946) for films of a
    patient that all agree: 45 patients of whom four have two films in three count as about four.
    """
    counts = {
        each: (films**2).sum(axis=0) ** 2 / np.maximum((films**4).sum(axis=0), 1)
        for each, films in _rests(sums).items()
    }
    return {"auroc": np.minimum(counts["fnr"], counts["fpr"]), **counts}


def _rests(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Return each patient's films ``(G, K)`` that a measure rests on."""
    missed, positive, false, negative = np.moveaxis(sums[..., :APART], 2, 0)
    return {
        "fnr": positive,
        "fpr": negative,
        "ppv": positive - missed + false,
        "ece": positive + negative,
        "bias": positive + negative,
    }


def _measures(sums: np.ndarray) -> np.ndarray:
    """Return ``(..., K, 6)`` measures of ``(..., K, S)`` sums; areas are left NaN."""
    missed, positive, false, negative = np.moveaxis(sums[..., :APART], -1, 0)
    apart, films, hits = sums[..., APART:], positive + negative, positive - missed
    found = [
        np.full(films.shape, np.nan),
        ratio(missed, positive),
        ratio(false, negative),
        ratio(hits, hits + false),
        ratio(np.abs(apart).sum(axis=-1), films),
        ratio(apart.sum(axis=-1), films),
    ]
    return np.stack(found, axis=-1)
