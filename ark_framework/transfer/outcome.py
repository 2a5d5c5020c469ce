"""How one model did on one dataset, under one protocol: scores label by label, and the counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ark_framework import metrics
from ark_framework.overlap import FilmScores, by_structure
from ark_framework.specs import LabelSchema
from ark_framework.statistics import label_scores


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One result.

    Attributes:
        protocol: ``eval``, ``probe``, ``few-shot``, ``knn``, ``finetune`` or ``segment``.
        setting: What else it depends on: seed, split, fraction, shots, draw, training films.
        films: In the test set.
        labels: By label: ``auroc``, ``average_precision``, ``positives``, ``negatives``; by
            structure what :func:`ark_framework.overlap.by_structure` gives.
        auroc: Mean over the labels that the schema scores and that have both classes.
        accuracy: Of exclusive classes; NaN for others.
        dice: Of masks: the mean over structures of the mean over films; NaN for labels.
        scored: The labels that the mean is of, where they have both classes.
        trained_on: How many of the test films, and of their patients' films, the model was
            trained on: ``yes``, ``no``, ``unknown``.
        predictions: The file below ``predictions/`` with every test film's; empty for none.
    """

    model: str
    dataset: str
    protocol: str
    setting: Mapping[str, Any] = field(default_factory=dict)
    films: int
    labels: Mapping[str, Mapping[str, float]]
    auroc: float
    accuracy: float = math.nan
    dice: float = math.nan
    scored: tuple[str, ...] = ()
    trained_on: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    predictions: str = ""

    @property
    def score(self) -> float:
        """The number for a table: Dice of masks, accuracy of exclusive classes, or mean AUROC."""
        found = (value for value in (self.dice, self.accuracy) if math.isfinite(value))
        return next(found, self.auroc)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data; NaN as ``None``."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Outcome:
        """Read what :meth:`to_json` gave."""
        labels = {
            label: {name: _number(each) for name, each in scores.items()}
            for label, scores in values["labels"].items()
        }
        numbers = {name: _number(values.get(name)) for name in ("auroc", "accuracy", "dice")}
        scored = tuple(values["scored"])
        return cls(**{**values, **numbers, "labels": labels, "scored": scored})


def outcome(
    scores: np.ndarray,
    targets: np.ndarray,
    schema: LabelSchema,
    *,
    model: str,
    dataset: str,
    protocol: str,
    setting: Mapping[str, Any],
    trained_on: Mapping[str, Mapping[str, int]] | None = None,
    predictions: str = "",
) -> Outcome:
    """Score predictions ``(n, C)`` against targets ``(n, C)`` with 1, 0, NaN and -1."""
    found = {
        label: asdict(each)
        for label, each in zip(schema.labels, label_scores(scores, targets), strict=True)
    }
    mean, _ = metrics.macro(np.array([found[label]["auroc"] for label in schema.scored]))
    exclusive = schema.kind == "multiclass"
    return Outcome(
        model=model,
        dataset=dataset,
        protocol=protocol,
        setting=dict(setting),
        films=len(targets),
        labels=found,
        auroc=mean,
        accuracy=metrics.accuracy(scores, targets) if exclusive else math.nan,
        scored=schema.scored,
        trained_on=trained_on or {},
        predictions=predictions,
    )


def segmented(
    scores: FilmScores,
    labels: Sequence[str],
    *,
    model: str,
    dataset: str,
    setting: Mapping[str, Any],
    trained_on: Mapping[str, Mapping[str, int]] | None = None,
    predictions: str = "",
    intervals: pd.DataFrame | None = None,
) -> Outcome:
    """Gather the scores of masks of test films, structure by structure.

    ``intervals`` is their :func:`~ark_framework.overlap.structure_table`, from which Dice's ends
    are taken.
    """
    found = by_structure(scores, labels)
    if intervals is not None:
        ends = intervals[intervals["metric"] == "dice"].set_index("structure")
        for label in labels:
            found[label] |= {f"dice_{end}": float(ends[end][label]) for end in ("low", "high")}
    scored = tuple(label for label, each in found.items() if math.isfinite(each["dice"]))
    return Outcome(
        model=model,
        dataset=dataset,
        protocol="segment",
        setting=dict(setting),
        films=len(scores.dice),
        labels=found,
        auroc=math.nan,
        dice=float(np.mean([found[label]["dice"] for label in scored])) if scored else math.nan,
        scored=scored,
        trained_on=trained_on or {},
        predictions=predictions,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _number(value: float | None) -> float:
    return math.nan if value is None else value
