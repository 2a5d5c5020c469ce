"""What annotation tables hold, counted: one dataset by split and label, and all of them as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from ark_framework.annotations import SPLITS, AnnotationTable
from ark_framework.audit import Audited, audit
from ark_framework.cli.console import sheet

# Nobody is older; ages beyond it are slips of a file, kept in sight in a bin of their own.
OLDEST = 120


def census(table: AnnotationTable) -> dict[str, Any]:
    """Count films, patients, sexes, views, ages and labels of every split that has films.

    Returns:
        ``{split: {"films", "patients", "sex", "view", "age", "labels"}}``; ``labels`` as
        :func:`entries` says, for each label.  ``unused`` stands for the films of no split.
    """
    split = table.frame["split"].fillna("unused").to_numpy()
    patients, targets = table.groups(), table.targets()
    found: dict[str, Any] = {}
    for name in (*SPLITS, "unused"):
        rows = np.flatnonzero(split == name)
        if not len(rows):
            continue
        found[name] = {
            "films": len(rows),
            "patients": len(np.unique(patients[rows])),
            **_people(table.frame.iloc[rows]),
            "labels": {
                label: entries(targets[rows, column])
                for column, label in enumerate(table.schema.labels[: targets.shape[1]])
            },
        }
    return found


def union(tables: Sequence[AnnotationTable]) -> dict[str, Any]:
    """Count what several datasets hold together, by split and in ``all``.

    A film or patient that says who it is (``source_id``, ``source_patient``) counts once, with the
    first sex, view and age that any dataset gives; all others are their dataset's own.

    Returns:
        ``{split: {"rows", "films", "shared_films", "patients", "shared_patients", "sex", "view",
        "age"}}``; ``shared`` are those of more than one dataset.
    """
    places = audit([Audited(table=table) for table in tables]).frame
    facts = [table.frame[["sex", "view", "age"]] for table in tables]
    rows = places.join(pd.concat(facts, ignore_index=True))
    split = rows["split"].fillna("unused")
    parts = {name: rows[split == name] for name in (*SPLITS, "unused")} | {"all": rows}
    return {name: _together(part) for name, part in parts.items() if len(part)}


def shared_patients(table: AnnotationTable) -> dict[str, int]:
    """Return how many patients two splits share, such as ``{"train and test": 3}``."""
    groups = {name: set(table.groups()[table.rows(name)].tolist()) for name in SPLITS}
    pairs = (("train", "val"), ("train", "test"), ("val", "test"))
    counts = {f"{a} and {b}": len(groups[a] & groups[b]) for a, b in pairs}
    return {pair: count for pair, count in counts.items() if count}


def entries(column: np.ndarray) -> dict[str, Any]:
    """Count one label's entries ``(n,)``.

    Returns:
        ``positive``, ``negative``, ``uncertain`` and ``missing``, and the ``prevalence``:
        positives among positives and negatives, ``None`` where there are neither.
    """
    positive, negative = int((column == 1).sum()), int((column == 0).sum())
    return {
        "positive": positive,
        "negative": negative,
        "uncertain": int((column == -1).sum()),
        "missing": int(np.isnan(column).sum()),
        "prevalence": positive / (positive + negative) if positive + negative else None,
    }


def tables(dataset: str, found: dict[str, Any]) -> list[Table]:
    """Lay a census out as tables of splits, of labels and of ages."""
    splits = _sheet("split", "films", "patients", "sex", "view", "age", title=dataset)
    for name, counts in found.items():
        splits.add_row(name, *_cells(counts, ("films", "patients")))
    labels = _sheet("label", "split", "positive", "of", "prevalence", "uncertain", "missing")
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
                *(_of(one[key], counts["films"]) for key in ("uncertain", "missing")),
            )
    return [each for each in (splits, labels, _decades(found)) if each.row_count]


def union_tables(found: dict[str, Any]) -> list[Table]:
    """Lay a union out as tables of splits and of ages."""
    columns = ("rows", "films", "shared_films", "patients", "shared_patients")
    names = (each.replace("_", " ") for each in ("split", *columns, "sex", "view", "age"))
    splits = _sheet(*names, title="all as one; a film or patient that several know counts once")
    for name, counts in found.items():
        splits.add_row(name, *_cells(counts, columns))
    return [each for each in (splits, _decades(found)) if each.row_count]


def _together(rows: pd.DataFrame) -> dict[str, Any]:
    film, patient = rows.groupby("film", sort=False), rows.groupby("patient", sort=False)
    return {
        "rows": len(rows),
        "films": film.ngroups,
        "shared_films": int((film["dataset"].nunique() > 1).sum()),
        "patients": patient.ngroups,
        "shared_patients": int((patient["dataset"].nunique() > 1).sum()),
        **_people(film[["sex", "view", "age"]].first()),
    }


def _people(frame: pd.DataFrame) -> dict[str, Any]:
    return {
        "sex": _counts(frame["sex"]),
        "view": _counts(frame["view"]),
        "age": _ages(frame["age"]),
    }


def _counts(column: pd.Series) -> dict[str, int]:
    values = column.fillna("missing").value_counts()
    return {str(value): int(count) for value, count in values.items()}


def _ages(column: pd.Series) -> dict[str, Any]:
    known = column[np.isfinite(column)]
    if known.empty:
        return {}
    decade = np.floor(known / 10).clip(-1, OLDEST // 10).astype(int)
    counts = decade.value_counts()
    return {
        "median": float(known.median()),
        "youngest": float(known.min()),
        "oldest": float(known.max()),
        "missing": len(column) - len(known),
        # All decades to 99, empty ones too, so that datasets can be laid side by side.
        "decades": {
            _decade(each): int(counts.get(each, 0))
            for each in range(min(decade.min(), 0), max(decade.max(), 9) + 1)
        },
    }


def _decade(number: int) -> str:
    if number < 0:
        return "<0"
    return f"{OLDEST}+" if number * 10 >= OLDEST else f"{number * 10}-{number * 10 + 9}"


def _decades(found: dict[str, Any]) -> Table:
    """Return films by decade of age and split; without rows where no age is known."""
    columns = {name: counts["age"]["decades"] for name, counts in found.items() if counts["age"]}
    known = {decade for counts in columns.values() for decade in counts}
    made = _sheet("age", *columns)
    for number in range(-1, OLDEST // 10 + 1):
        decade = _decade(number)
        if decade in known:
            made.add_row(decade, *(str(counts.get(decade, 0)) for counts in columns.values()))
    return made


def _cells(counts: dict[str, Any], numbers: Sequence[str]) -> list[str]:
    age = counts["age"]
    return [
        *(str(counts[name]) for name in numbers),
        *(", ".join(f"{k} {n}" for k, n in counts[of].items()) for of in ("sex", "view")),
        f"{age['median']:g} ({age['youngest']:g} to {age['oldest']:g})" if age else "",
    ]


def _of(count: int, films: int) -> str:
    return f"{count} ({count / films:.1%})" if count else "0"


def _sheet(*columns: str, title: str | None = None) -> Table:
    made = sheet(*columns, title=title)
    for column in made.columns:
        if column.header not in ("label", "split", "sex", "view", "age"):
            column.justify = "right"
    return made
