"""How one model did on one dataset, under one protocol: scores label by label, and the counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ark_framework import metrics
from ark_framework.specs import LabelSchema
from ark_framework.statistics import label_scores


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One result.

    Attributes:
        protocol: ``eval``, ``probe``, ``few-shot``, ``knn`` or ``finetune``.
        setting: What else it depends on: seed, split, fraction, shots, draw.
        films: In the test set.
        labels: By label: ``auroc``, ``average_precision``, ``positives``, ``negatives``.
        auroc: Mean over the labels that the schema scores and that have both classes.
        accuracy: Of exclusive classes; NaN for others.
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
    scored: tuple[str, ...] = ()
    trained_on: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    predictions: str = ""

    @property
    def score(self) -> float:
        """The number for a table: accuracy where classes exclude each other, else mean AUROC."""
        return self.accuracy if math.isfinite(self.accuracy) else self.auroc

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
        numbers = {name: _number(values[name]) for name in ("auroc", "accuracy")}
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


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _number(value: float | None) -> float:
    return math.nan if value is None else value
