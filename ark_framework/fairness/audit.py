"""Cuts from validation, rates by subgroup on the test films, gaps, and which of them alarm."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ark_framework import metrics
from ark_framework.errors import DataError
from ark_framework.fairness.groupings import ALL, OTHERS, Grouping, groupings
from ark_framework.fairness.predictions import SCORE, TEST, VAL, Predictions, patients
from ark_framework.fairness.results import GAPS
from ark_framework.fairness.settings import FairnessConfig
from ark_framework.statistics import (
    TESTED,
    Difference,
    GroupedFilms,
    GroupScore,
    Interval,
    Subgroups,
    Threshold,
    choose,
    holm,
    subgroups,
)

DERIVED = "no finding (derived)"
ALARM = 0.05
MIX = "described, not tested: it depends on the mix of findings"
Contrast = tuple[tuple[int, int], dict[str, str]]
"""Two columns that are compared, and what tables call them."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What came out, as long tables; see ``docs/explanation/fairness.md`` for their columns.

    Attributes:
        scores: A row per label, group and measure.
        gaps: A row per label, two groups and measure.
        thresholds: A row per label, and group where groups have cuts of their own.
        counts: A row per grouping, group and split.
        underdiagnosis: The label whose false positives are films with findings called free of
            them; empty where it can neither be had nor derived.
        notes: What could not be done, a line each.
    """

    scores: pd.DataFrame
    gaps: pd.DataFrame
    thresholds: pd.DataFrame
    counts: pd.DataFrame
    underdiagnosis: str
    notes: tuple[str, ...]


def audit(films: Predictions, config: FairnessConfig) -> Audit:
    """Audit one model on one dataset.

    Raises:
        ConfigError: a grouping that there is not.
        DataError: no test films.
    """
    found, notes = groupings(films.of(TEST), config.by, ages=config.ages)
    auditor = _Auditor(films=films, config=config, groupings=found, notes=notes)
    return auditor.run()


@dataclass(kw_only=True)
class _Called:
    """One label of the test films: scores, what is called and what is true, each ``(n,)``."""

    label: str
    scores: np.ndarray
    called: np.ndarray | None
    targets: np.ndarray
    margin: np.ndarray | None = None  # scores above the cut are positive
    probabilities: bool = True


@dataclass(kw_only=True)
class _Auditor:
    films: Predictions
    config: FairnessConfig
    groupings: list[Grouping]
    notes: list[str]
    thresholds: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.val, self.test = self.films.of(VAL), self.films.of(TEST)
        if not len(self.test):
            raise DataError(f"{self.films.dataset}: no test films to audit {self.films.model} on")
        self.about = {"model": self.films.model, "dataset": self.films.dataset}

    def run(self) -> Audit:
        labels = [self._called(label) for label in self.films.labels]
        normal = self.films.normal(self.config.normal)
        if normal is None and (derived := self._derived(labels)):
            labels.append(derived)
            normal = DERIVED
        columns, contrasts, names = self._columns()
        scores: list[dict[str, Any]] = []
        gaps: list[dict[str, Any]] = []
        people = patients(self.test)
        for each in labels:
            result = subgroups(
                GroupedFilms(
                    scores=each.scores,
                    called=each.called,
                    targets=each.targets,
                    patient=people,
                    members=columns,
                    probabilities=each.probabilities,
                ),
                [pair for pair, _ in contrasts],
                least=self.config.least,
                replicates=self.config.replicates,
                seed=self.config.seed,
            )
            scores += self._score_rows(each.label, result, names)
            gaps += self._gap_rows(each.label, result, contrasts)
        return Audit(
            scores=pd.DataFrame(scores),
            gaps=corrected(pd.DataFrame(gaps, columns=list(GAPS))),
            thresholds=pd.DataFrame(self.thresholds),
            counts=self._counts(),
            underdiagnosis=normal or "",
            notes=tuple(self.notes),
        )

    def _columns(
        self,
    ) -> tuple[np.ndarray, list[Contrast], list[tuple[str, str]]]:
        """Return groups as columns, pairs of them to compare, and which columns are groups.

        A column that only serves to compare has the group's name ``others``.
        """
        columns = [np.ones(len(self.test), dtype=bool)]
        names = [(ALL, ALL)]
        contrasts = []
        for grouping in self.groupings:
            members = grouping.members()
            first = len(columns)
            columns += list(members.T)
            names += [(grouping.name, group) for group in grouping.groups]
            if len(grouping.groups) == 2:
                contrasts.append(((first, first + 1), _pair(grouping.name, *grouping.groups)))
                continue
            for number, group in enumerate(grouping.groups):
                contrasts.append(
                    ((first + number, len(columns)), _pair(grouping.name, group, OTHERS))
                )
                columns.append(members.any(axis=1) & ~members[:, number])
                names.append((grouping.name, OTHERS))
        return np.stack(columns, axis=1), contrasts, names

    def _called(self, label: str) -> _Called:
        scores = self.test[SCORE + label].to_numpy(dtype=np.float64)
        targets = self.test[label].to_numpy(dtype=np.float64)
        targets = np.where(np.isfinite(scores), targets, np.nan)
        cut = self._cuts(label)
        called = None if cut is None else np.isfinite(scores) & (scores >= cut)
        margin = None if cut is None else scores - cut
        return _Called(label=label, scores=scores, called=called, targets=targets, margin=margin)

    def _cuts(self, label: str) -> np.ndarray | None:
        """Return each test film's cut ``(n,)``, chosen on validation films; ``None`` without."""
        whole = self._choose(label, np.ones(len(self.val), dtype=bool), ALL)
        if whole is None:
            return None
        cuts = np.full(len(self.test), whole.value)
        by = self.config.cuts.by
        if by is not None:
            for group, val, test in self._own(by):
                own = self._choose(label, val, group)
                if own is not None:
                    cuts[test] = own.value
        return cuts

    def _own(self, by: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Yield groups that have cuts of their own, and their films in both splits."""
        both = pd.concat([self.val, self.test], ignore_index=True)
        for grouping in groupings(both, [by], ages=self.config.ages)[0]:
            for number, group in enumerate(grouping.groups):
                member = grouping.of == number
                yield group, member[: len(self.val)], member[len(self.val) :]

    def _choose(self, label: str, rows: np.ndarray, group: str) -> Threshold | None:
        scores = self.val[SCORE + label].to_numpy(dtype=np.float64)[rows]
        targets = self.val[label].to_numpy(dtype=np.float64)[rows]
        told: dict[str, Any] = {**self.about, "label": label, "group": group}
        told["policy"] = self.config.cuts.policy
        known = metrics.known(targets) & np.isfinite(scores)
        told |= {"positives": int((targets[known] == 1).sum())}
        told |= {"negatives": int((targets[known] == 0).sum())}
        try:
            made = choose(told["policy"], scores[known], targets[known], at=self.config.cuts.at)
        except DataError as error:
            self.thresholds.append({**told, "note": str(error)})
            return None
        told |= {"cut": made.value, "sensitivity": made.sensitivity}
        self.thresholds.append({**told, "specificity": made.specificity, "note": ""})
        return made

    def _derived(self, labels: Sequence[_Called]) -> _Called | None:
        """Return what is not labelled: a film without findings, called so where no label is.

        A film is one where every label is 0, and none where any is 1; others do not say.
        """
        useful = [each for each in labels if each.margin is not None]
        if self.films.schema.kind != "multilabel" or len(useful) < 2:
            return None
        self.notes.append(
            f"{self.films.dataset} has no label for films without findings; it is derived: none "
            f"of {len(useful)} judged labels"
        )
        targets = np.stack([each.targets for each in useful], axis=1)
        found, clear = (targets == 1).any(axis=1), (targets == 0).all(axis=1)
        score = -np.stack([np.nan_to_num(m, nan=-1, neginf=-1) for m in map(_margin, useful)]).max(
            axis=0
        )
        return _Called(
            label=DERIVED,
            scores=score,
            called=score > 0,
            targets=np.where(found, 0.0, np.where(clear, 1.0, np.nan)),
            probabilities=False,
        )

    def _score_rows(
        self, label: str, found: Subgroups, names: Sequence[tuple[str, str]]
    ) -> Iterator[dict[str, Any]]:
        for (attribute, group), score in zip(names, found.groups, strict=True):
            if group == OTHERS:
                continue
            told = {**self.about, "label": label, "attribute": attribute, "group": group}
            for measure, value in score.measures.items():
                yield {**told, "measure": measure, **_interval(value), **_sizes(score)}

    def _gap_rows(
        self, label: str, found: Subgroups, contrasts: Sequence[Contrast]
    ) -> Iterator[dict[str, Any]]:
        for (pair, contrast), gap in zip(contrasts, found.gaps, strict=True):
            for measure, value in gap.items():
                note, p = value.reason, value.p
                if label == DERIVED and measure in TESTED:
                    note, p = note or MIX, math.nan
                told: dict[str, Any] = {**self.about, "label": label, **contrast}
                told |= {"measure": measure, **_difference(value)}
                for side, group in zip(("first", "second"), pair, strict=True):
                    of = found.groups[group]
                    told[f"{side}_positives"] = of.positives
                    told[f"{side}_negatives"] = of.negatives
                yield {**told, "p": p, "note": note}

    def _counts(self) -> pd.DataFrame:
        rows = []
        both = pd.concat([self.val, self.test], ignore_index=True)
        people = patients(both)
        found = groupings(both, self.config.by, ages=self.config.ages)[0]
        for name, each in [(ALL, np.full(len(both), ALL)), *((g.name, g.names()) for g in found)]:
            for (group, split), films in pd.DataFrame(
                {"group": each, "split": both["split"], "patient": people}
            ).groupby(["group", "split"], sort=False):
                told = {"attribute": name, "group": group, "split": split}
                told |= {"films": len(films), "patients": films["patient"].nunique()}
                rows.append({"dataset": self.films.dataset, **told})
        return pd.DataFrame(rows)


def corrected(gaps: pd.DataFrame) -> pd.DataFrame:
    """Add Holm's p, over all tests of a model, dataset and grouping, and what alarms."""
    gaps = gaps.assign(p_holm=np.nan)  # what is not tested keeps it
    for _, family in gaps.groupby(["model", "dataset", "attribute"], sort=False):
        gaps.loc[family.index, "p_holm"] = holm(family["p"].to_numpy(dtype=np.float64))
    return gaps.assign(alarm=gaps["p_holm"] < ALARM)


def _margin(label: _Called) -> np.ndarray:
    assert label.margin is not None
    return label.margin


def _pair(attribute: str, first: str, second: str) -> dict[str, str]:
    return {"attribute": attribute, "first": first, "second": second}


def _sizes(score: GroupScore) -> dict[str, int]:
    names = ("films", "patients", "positives", "negatives")
    return {name: getattr(score, name) for name in names}


def _interval(found: Interval) -> dict[str, Any]:
    return {"value": found.value, "low": found.low, "high": found.high, "note": found.reason}


def _difference(found: Difference) -> dict[str, Any]:
    return {"value": found.value, "low": found.low, "high": found.high}
