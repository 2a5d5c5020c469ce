"""The same film or patient in two places, within a dataset and across datasets.

Films are one where they say so (``source_id``) or where their pixels do (:mod:`prints`); patients
where they say so (``source_patient``; ``patient`` is local to its dataset), or where one film is
of both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pandas as pd

from ark_framework.annotations import SPLITS, AnnotationTable
from ark_framework.store import Store
from ark_framework.text import counted
from ark_framework.twins import twins

HELD_OUT = ("val", "test")
OVERLAP = ("dataset", "split", "other_dataset", "other_split", "films", "patients")


@dataclass(frozen=True, kw_only=True)
class Audited:
    """One dataset of an audit; without ``store`` its films are known by what they declare alone.

    ``index``: the store row of each table row ``(N,)`` int64, -1 where a film is unreadable.
    """

    table: AnnotationTable
    store: Store | None = None
    index: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit found.

    Attributes:
        frame: One row per film of every dataset, in order: ``dataset``, ``row``, ``image``,
            ``split``, ``film`` and ``patient``; equal numbers are the same film, or patient.
        declared: Pairs of rows that declare the same film.
        pixels: Pairs of rows that pixels alone show to be the same film.
        unseen: Datasets whose pixels were not compared.
        narrow: Pairs of datasets too large for a search beyond :data:`prints.NARROW` bits, which
            finds a film re-encoded or resized, not one cropped or filtered.
    """

    frame: pd.DataFrame
    declared: int
    pixels: int
    unseen: tuple[str, ...]
    narrow: tuple[tuple[str, str], ...]

    def overlaps(self) -> pd.DataFrame:
        """Return the table dataset x split x dataset x split.

        Columns ``dataset``, ``split``, ``films``, ``patients`` count the first cell's rows and
        patients that are in the second, ``other_dataset``, ``other_split``, too; cells without
        overlap are left out.  A cell against itself counts rows that it holds more than once.
        """
        used = self.frame[self.frame["split"].notna()].reset_index(drop=True)
        films = _meetings(used, "film", rows=True)
        patients = _meetings(used, "patient", rows=False)
        table = pd.concat([films, patients], axis=1).fillna(0).astype("int64").reset_index()
        order = {name: place for place, name in enumerate(self.frame["dataset"].unique())}
        order |= {name: place for place, name in enumerate(SPLITS)}
        return table.sort_values(list(OVERLAP[:4]), key=lambda c: c.map(order), ignore_index=True)

    def leaks(self, trained: Mapping[str, np.ndarray]) -> Leaks:
        """Return which training rows must not be trained on.

        Args:
            trained: By dataset, the table rows that would be trained on.
        """
        held = self.frame[self.frame["split"].isin(HELD_OUT)]
        films, patients, told = {}, {}, {}
        for dataset, rows in trained.items():
            mine = self.frame[self.frame["dataset"] == dataset].iloc[rows]
            films[dataset] = rows[mine["film"].isin(held["film"]).to_numpy()]
            patients[dataset] = rows[mine["patient"].isin(held["patient"]).to_numpy()]
            for (other, split), group in held.groupby(["dataset", "split"], sort=False):
                if count := int(mine["film"].isin(group["film"]).sum()):
                    told[dataset, str(other), str(split)] = count
        return Leaks(films=films, patients=patients, told=told)


@dataclass(frozen=True, kw_only=True)
class Leaks:
    """Training rows whose film (or patient) is held out somewhere, by dataset, ``(n,)`` int64.

    ``told``: films by (training dataset, held-out dataset, split).
    """

    films: Mapping[str, np.ndarray]
    patients: Mapping[str, np.ndarray]
    told: Mapping[tuple[str, str, str], int]

    @property
    def film_count(self) -> int:
        """Training films that are held out somewhere."""
        return sum(map(len, self.films.values()))

    @property
    def patient_count(self) -> int:
        """Training films of patients that are held out somewhere."""
        return sum(map(len, self.patients.values()))

    def describe(self) -> str:
        """Return the counts in words."""
        told = []
        for (dataset, other, split), count in self.told.items():
            are = "is" if count == 1 else "are"
            films = counted(count, "training film")
            told.append(f"{films} of {dataset} {are} in the {split} split of {other}")
        return ", ".join(told)


def audit(
    datasets: Sequence[Audited], *, progress: Callable[[int, int], None] = lambda *_: None
) -> Audit:
    """Find films and patients that are in more than one place.

    ``progress(done, total)`` is called as stores are compared, each with itself and the others.
    """
    tables = [each.table for each in datasets]
    frame = pd.concat(map(_rows, tables), ignore_index=True)
    film = _films(tables)
    sizes = np.bincount(film)
    declared = int((sizes * (sizes - 1) // 2).sum())
    found, narrow = _pixel_twins(datasets, progress)
    new = film[found[:, 0]] != film[found[:, 1]]
    film = _united(film, film[found])
    frame["film"] = film
    # The patients of one film are one.
    patient = _patients(tables)
    if declared or len(found):
        first = pd.Series(patient).groupby(film).transform("first").to_numpy()
        differ = first != patient
        patient = _united(patient, np.stack([first[differ], patient[differ]], axis=1))
    frame["patient"] = patient
    return Audit(
        frame=frame,
        declared=declared,
        pixels=int(new.sum()),
        unseen=tuple(each.table.dataset for each in datasets if each.store is None),
        narrow=narrow,
    )


def film_keys(table: AnnotationTable) -> pd.Series:
    """Return each film's identity: the one it shares with others, else its own."""
    own = table.dataset + ":" + table.frame["image"]
    return table.frame["source_id"].where(table.frame["source_id"].notna(), own)


def patient_keys(table: AnnotationTable) -> pd.Series:
    """Return each film's patient: shared, else the dataset's, else the film's own."""
    frame, dataset = table.frame, table.dataset
    local = dataset + ":patient:" + frame["patient"].astype("object")
    known = frame["patient"].notna()
    if not known.all():
        local = local.where(known, dataset + ":film:" + frame["image"])
    return frame["source_patient"].where(frame["source_patient"].notna(), local)


def _rows(table: AnnotationTable) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "dataset": table.dataset,
            "row": np.arange(len(table)),
            "image": table.frame["image"].to_numpy(),
            "split": table.frame["split"].to_numpy(dtype=object),
        }
    )


def _films(tables: Sequence[AnnotationTable]) -> np.ndarray:
    """Number the films by what they declare ``(N,)``."""
    if any(table.frame["source_id"].notna().any() for table in tables):
        return _numbered(map(film_keys, tables))
    return np.arange(sum(map(len, tables)))  # nothing is declared: all differ


def _patients(tables: Sequence[AnnotationTable]) -> np.ndarray:
    """Number the patients by what their films declare ``(N,)``."""
    if any(table.frame["source_patient"].notna().any() for table in tables):
        return _numbered(map(patient_keys, tables))
    local = [table.groups() for table in tables]
    starts = np.cumsum([0, *(int(each.max(initial=-1)) + 1 for each in local)])
    return np.concatenate([each + start for each, start in zip(local, starts, strict=False)])


def _numbered(keys: Iterable[pd.Series]) -> np.ndarray:
    numbers: np.ndarray = pd.factorize(pd.concat(keys).astype(object))[0]
    return numbers


def _meetings(used: pd.DataFrame, what: str, *, rows: bool) -> pd.Series:
    """Count, for each two cells (dataset, split), what the first has of the second.

    Args:
        used: The frame's rows that have a split.
        what: ``film`` or ``patient``.
        rows: Count the first cell's rows rather than its distinct values.
    """
    cell = ["dataset", "split"]
    held = used[used[what].duplicated(keep=False)]  # what stands once meets nothing
    theirs = held[[*cell, what]].drop_duplicates()
    mine = held[[*cell, what]] if rows else theirs
    both = mine.merge(theirs, on=what, suffixes=("", "_other"))
    itself = (both["dataset"] == both["dataset_other"]) & (both["split"] == both["split_other"])
    if rows:  # a row meets its own cell only in another row
        itself &= ~both.duplicated([*cell, what, "dataset_other", "split_other"], keep=False)
    both = both[~itself].rename(
        columns={"dataset_other": "other_dataset", "split_other": "other_split"}
    )
    return both.groupby(list(OVERLAP[:4]), sort=False).size().rename(f"{what}s")


def _pixel_twins(
    datasets: Sequence[Audited], progress: Callable[[int, int], None]
) -> tuple[np.ndarray, tuple[tuple[str, str], ...]]:
    """Return pairs of frame rows ``(n, 2)`` whose pixels are one film's."""
    starts = np.cumsum([0, *(len(each.table) for each in datasets)])
    seen = [
        (each, start)
        for each, start in zip(datasets, starts[:-1], strict=True)
        if each.store is not None and each.index is not None
    ]
    pairs, narrow = [np.zeros((0, 2), dtype=np.int64)], []
    both = list(combinations_with_replacement(seen, 2))
    for done, ((mine, start), (other, other_start)) in enumerate(both):
        progress(done, len(both))
        assert mine.store is not None
        assert other.store is not None
        rows, wide = twins(mine.store, other.store)
        if not wide:
            narrow.append((mine.table.dataset, other.table.dataset))
        left, right = _places(mine, start)[rows[:, 0]], _places(other, other_start)[rows[:, 1]]
        pairs.append(np.stack([left, right], axis=1)[(left >= 0) & (right >= 0)])
    progress(len(both), len(both))
    return np.concatenate(pairs), tuple(narrow)


def _places(dataset: Audited, start: int) -> np.ndarray:
    """Return the frame row of each store row, -1 where the table has none of it."""
    assert dataset.store is not None
    assert dataset.index is not None
    found = np.full(len(dataset.store.images), -1, dtype=np.int64)
    readable = np.flatnonzero(dataset.index >= 0)
    found[dataset.index[readable]] = readable + start
    return found


def _united(labels: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return labels with the two of each pair made one, and all that follows from it."""
    parent = np.arange(int(labels.max(initial=-1)) + 1)

    def root(label: Any) -> Any:
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = parent[label]
        return label

    for one, two in np.unique(pairs, axis=0):
        low, high = sorted((root(one), root(two)))
        parent[high] = low
    for label in np.unique(pairs):
        parent[label] = root(label)
    united: np.ndarray = parent[labels]
    return united
