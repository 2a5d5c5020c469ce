"""What statistics return, and what is too little to claim anything from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ark_framework import metrics

FEW = (
    10  # positives or negatives (patients, where films are grouped) below which nothing is claimed
)


@dataclass(frozen=True, kw_only=True)
class LabelScore:
    """One label's areas and the counts behind them; NaN where a class is absent."""

    auroc: float
    average_precision: float
    positives: int
    negatives: int


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value and its confidence interval; bounds are NaN where ``reason`` says why."""

    value: float
    low: float = math.nan
    high: float = math.nan
    positives: int = 0
    negatives: int = 0
    variance: float = math.nan
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """One interval per label and that of their mean, from the same replicates."""

    labels: tuple[Interval, ...]
    macro: Interval
    level: float
    replicates: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """``a - b``, its interval and its two-sided p; NaN where ``reason`` says why."""

    value: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Differences:
    """One difference per label and that of their mean, from the same replicates."""

    labels: tuple[Difference, ...]
    macro: Difference
    level: float
    replicates: int


def label_scores(scores: np.ndarray, targets: np.ndarray) -> tuple[LabelScore, ...]:
    """Return AUROC, average precision and counts of each of ``(n, C)``'s labels."""
    areas = metrics.auroc(scores, targets)
    precisions = metrics.average_precision(scores, targets)
    positives, negatives = (targets == 1).sum(axis=0), (targets == 0).sum(axis=0)
    return tuple(
        LabelScore(
            auroc=float(area),
            average_precision=float(precision),
            positives=int(p),
            negatives=int(q),
        )
        for area, precision, p, q in zip(areas, precisions, positives, negatives, strict=True)
    )


def too_few(positives: int, negatives: int, *, of: str = "") -> str:
    """Return why an interval cannot be had from these counts of films, or an empty string.

    ``of`` says whose they are where not films'.
    """
    for count, name in ((positives, "positives"), (negatives, "negatives")):
        if count < FEW:
            return f"not estimable: {count} {of}{name}, at least {FEW} are needed"
    return ""


def too_few_patients(count: float) -> str:
    """Return why an interval over whole rows cannot be had, or an empty string."""
    return f"not estimable: {count:.0f} patients, at least {FEW} are needed" if count < FEW else ""


def extreme(*values: float) -> str:
    """Return why nothing is claimed at the end of a metric's range, or an empty string."""
    found = [value for value in values if value in (0.0, 1.0)]
    return f"not estimable: the value is {found[0]:g}" if found else ""
