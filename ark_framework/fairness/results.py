"""What an audit found, for a page, a terminal and files alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

SCORES = (
    *("model", "dataset", "label", "attribute", "group", "measure", "value", "low", "high"),
    *("films", "patients", "positives", "negatives", "note"),
)
GAPS = (
    *("model", "dataset", "label", "attribute", "first", "second", "measure"),
    *("value", "low", "high", "p", "p_holm", "alarm", "note"),
    *("first_positives", "first_negatives", "second_positives", "second_negatives"),
)
THRESHOLDS = (
    *("model", "dataset", "label", "group", "policy", "cut", "sensitivity", "specificity"),
    *("positives", "negatives", "note"),
)
COUNTS = ("dataset", "attribute", "group", "split", "films", "patients")
FOLDS = (
    *("model", "dataset", "label", "fold", "share", "tested_on", "auroc", "train_films"),
    *("train_positives", "test_films", "test_positives", "converged"),
)
TRAINING = (
    *("model", "dataset", "label", "tested_on", "same", "cross", "difference", "low", "high"),
    *("p", "p_holm", "mann_whitney_p", "stars", "delta", "folds", "distinguished", "note"),
)
TABLES = {
    "scores": SCORES,
    "gaps": GAPS,
    "thresholds": THRESHOLDS,
    "counts": COUNTS,
    "folds": FOLDS,
    "training": TRAINING,
}
FLAGS = ("alarm", "distinguished", "converged")
TEXTS = (
    *("model", "dataset", "label", "attribute", "group", "measure", "first", "second"),
    *("policy", "split", "tested_on", "stars", "note"),
)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Long tables, NaN where nothing is claimed; any may be empty, and columns it lacks are added.

    Attributes:
        scores: A row per model, dataset, label, grouping, group and measure.
        gaps: A row per label, two groups and measure: the first group's minus the second's.
        thresholds: A row per label, and group where groups have cuts of their own.
        counts: A row per dataset, grouping, group and split.
        folds: A row per label, fold, share of women in training and tested sex.
        training: A row per label and tested sex: trained on the same sex minus on the other.
        about: By model and dataset: ``answers`` (``heads``, ``probe`` or ``file``), ``exposure``
            of the test films (``{"films": {"yes", "no", "unknown"}, "patients": {...}}``),
            ``trained_any`` (the same three counts, of films in training on one sex) and
            ``underdiagnosis`` (the label whose false positives are films with findings called
            free of them); whatever is not known may be left out.
        notes: What was missing, a line each.
        settings: What was set, by dotted name.
    """

    scores: pd.DataFrame = field(default_factory=pd.DataFrame)
    gaps: pd.DataFrame = field(default_factory=pd.DataFrame)
    thresholds: pd.DataFrame = field(default_factory=pd.DataFrame)
    counts: pd.DataFrame = field(default_factory=pd.DataFrame)
    folds: pd.DataFrame = field(default_factory=pd.DataFrame)
    training: pd.DataFrame = field(default_factory=pd.DataFrame)
    about: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, columns in TABLES.items():
            object.__setattr__(self, name, _completed(getattr(self, name), columns))


def _completed(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Add columns that are not there, and give each of them its type."""
    made = frame.assign(**{name: None for name in columns if name not in frame})
    for name in columns:
        if name in FLAGS:
            made[name] = made[name].map(lambda value: value is not None and bool(value == 1))
        elif name in TEXTS:
            made[name] = made[name].astype(object).where(made[name].notna(), "")
        else:
            made[name] = pd.to_numeric(made[name])
    return made
