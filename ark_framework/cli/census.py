"""What a dataset's annotation table holds, counted: per split, per label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from ark_framework.annotations import SPLITS, AnnotationTable


def census(table: AnnotationTable) -> dict[str, Any]:
    """Count films, patients, sexes, views and labels of every split that has films.

    Returns:
        ``{split: {"films", "patients", "sex", "view", "age", "labels"}}``; ``labels`` gives for
        each label its ``positive``, ``negative``, ``uncertain`` and ``missing`` entries and its
        ``prevalence``, positives among positives and negatives, ``None`` where there are neither.
        ``unused`` stands for the films of no split.
    """
    split = table.frame["split"].fillna("unused").to_numpy()
    patients, targets = table.groups(), table.targets()
    found: dict[str, Any] = {}
    for name in (*SPLITS, "unused"):
        rows = np.flatnonzero(split == name)
        if not len(rows):
            continue
        frame = table.frame.iloc[rows]
        found[name] = {
            "films": len(rows),
            "patients": len(np.unique(patients[rows])),
            "sex": _counts(frame["sex"]),
            "view": _counts(frame["view"]),
            "age": _ages(frame["age"]),
            "labels": {
                label: _entries(targets[rows, column])
                for column, label in enumerate(table.schema.labels[: targets.shape[1]])
            },
        }
    return found


def shared_patients(table: AnnotationTable) -> dict[str, int]:
    """Return how many patients two splits share, such as ``{"train and test": 3}``."""
    groups = {name: set(table.groups()[table.rows(name)].tolist()) for name in SPLITS}
    pairs = (("train", "val"), ("train", "test"), ("val", "test"))
    counts = {f"{a} and {b}": len(groups[a] & groups[b]) for a, b in pairs}
    return {pair: count for pair, count in counts.items() if count}


def tables(dataset: str, found: dict[str, Any]) -> list[Table]:
    """Lay a census out as one table of splits and one of labels."""
    splits = Table("split", "films", "patients", "sex", "view", "age", title=dataset)
    for name, counts in found.items():
        age = counts["age"]
        splits.add_row(
            name,
            str(counts["films"]),
            str(counts["patients"]),
            *(", ".join(f"{key} {n}" for key, n in counts[of].items()) for of in ("sex", "view")),
            f"{age['median']:g} ({age['youngest']:g} to {age['oldest']:g})" if age else "",
        )
    labels = Table("label", "split", "positive", "of", "prevalence", "uncertain", "missing")
    for label in next(iter(found.values()))["labels"]:
        for name, counts in found.items():
            one = counts["labels"][label]
            share = one["prevalence"]
            labels.add_row(
                label if name == next(iter(found)) else "",
                name,
                str(one["positive"]),
                str(one["positive"] + one["negative"]),
                "" if share is None else f"{share:.1%}",
                str(one["uncertain"]),
                str(one["missing"]),
            )
    return [splits, labels] if labels.row_count else [splits]


def _counts(column: pd.Series) -> dict[str, int]:
    values = column.fillna("missing").value_counts()
    return {str(value): int(count) for value, count in values.items()}


def _ages(column: pd.Series) -> dict[str, float]:
    known = column.dropna()
    if known.empty:
        return {}
    return {
        "median": float(known.median()),
        "youngest": float(known.min()),
        "oldest": float(known.max()),
        "missing": int(column.isna().sum()),
    }


def _entries(column: np.ndarray) -> dict[str, Any]:
    positive, negative = int((column == 1).sum()), int((column == 0).sum())
    return {
        "positive": positive,
        "negative": negative,
        "uncertain": int((column == -1).sum()),
        "missing": int(np.isnan(column).sum()),
        "prevalence": positive / (positive + negative) if positive + negative else None,
    }
