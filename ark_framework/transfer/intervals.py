"""Scores with their intervals, a row per label and metric: the table behind every claim."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ark_framework.specs import LabelSchema
from ark_framework.statistics import (
    Interval,
    bootstrap,
    bootstrap_rows,
    delong,
    weighted_average_precision,
)

MEAN = "mean"
BOOTSTRAP, DELONG = "bootstrap by patient", "DeLong"


def interval_table(
    scores: np.ndarray,
    targets: np.ndarray,
    schema: LabelSchema,
    *,
    groups: np.ndarray,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Return a row for each label that the schema scores and each metric, and for the means.

    AUROC's intervals are DeLong's where every patient has one film, else the bootstrap's by
    patient; average precision's and the mean's are always the bootstrap's.

    Args:
        scores: ``(n, C)``.
        targets: ``(n, C)`` with 1, 0, NaN and -1.
        schema: Of the ``C`` labels.
        groups: ``(n,)`` patient of each film.
        replicates: Of the bootstrap.
        level: Of confidence.
        seed: Of the bootstrap.

    Returns:
        Columns ``label``, ``metric`` (``auroc``, ``average_precision``, ``accuracy``), ``value``,
        ``low``, ``high``, ``positives``, ``negatives``, ``method`` and ``note``, which says why
        there is no interval.
    """
    columns = [schema.labels.index(label) for label in schema.scored]
    scores, targets = scores[:, columns], targets[:, columns]
    drawn: dict[str, Any] = {"groups": groups, "replicates": replicates}
    drawn |= {"level": level, "seed": seed}
    areas = bootstrap(scores, targets, **drawn)
    precisions = bootstrap(scores, targets, metric=weighted_average_precision, **drawn)
    single = len(np.unique(groups)) == len(groups)
    rows = []
    for c, label in enumerate(schema.scored):
        area = delong(scores[:, c], targets[:, c], level=level) if single else areas.labels[c]
        rows.append(_row(label, "auroc", area, DELONG if single else BOOTSTRAP))
        rows.append(_row(label, "average_precision", precisions.labels[c]))
    rows.append(_row(MEAN, "auroc", areas.macro))
    rows.append(_row(MEAN, "average_precision", precisions.macro))
    if schema.kind == "multiclass":
        rows.append(_row(MEAN, "accuracy", bootstrap_rows(scores, targets, **drawn)))
    return pd.DataFrame(rows)


def _row(label: str, metric: str, found: Interval, method: str = BOOTSTRAP) -> dict[str, object]:
    return {
        "label": label,
        "metric": metric,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "positives": found.positives or None,
        "negatives": found.negatives or None,
        "method": method,
        "note": found.reason,
    }
