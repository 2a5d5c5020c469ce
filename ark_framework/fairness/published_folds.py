"""The fold files of Larrazabal et al. (2020), where the user has them.

``FOLDER/{0%,100%}_female_images/Fold_{0..19}/`` holds ``train.csv``, ``dev.csv`` and the test films
of that folder's sex: ``test.csv`` (CheXpert), or ``test_females.csv`` and ``test_males.csv`` (NIH).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ark_framework.corpus import Corpus
from ark_framework.errors import DataError
from ark_framework.fairness.folds import Fold, patients

FOLDERS = {"F": "100%_female_images", "M": "0%_female_images"}
SHARES = {"F": 1.0, "M": 0.0}
FILMS = ("Path", "Image Index", "image")
RELEASE = r"^CheXpert-v1\.0[^/]*/"


def published_folds(folder: Path, corpus: Corpus) -> tuple[tuple[Fold, ...], np.ndarray | None]:
    """Read all folds of a folder; ``Fold_0`` has the number 1.

    Returns:
        The folds, and the labels in the files ``(N, C)`` float32: 1, 0, and NaN where no file has
        any; ``None`` where the files have no column named as a label of the corpus.

    Raises:
        DataError: a file or film is missing, or a patient is in two parts of a fold.
    """
    reader = _Reader(corpus)
    paths = (folder / FOLDERS["M"]).glob("Fold_*")
    numbers = sorted(int(path.name[5:]) for path in paths if path.name[5:].isdecimal())
    if not numbers:
        raise DataError(
            f"{folder}: no {FOLDERS['M']}/Fold_0; give the folder that holds "
            f"{FOLDERS['M']} and {FOLDERS['F']}"
        )
    people = patients(corpus)
    folds = tuple(_fold(reader, folder, number) for number in numbers)
    for number, fold in zip(numbers, folds, strict=True):
        if count := fold.mixed(people):
            raise DataError(
                f"{folder}: {count} patients of {corpus.name} are in two of Fold_{number}'s "
                "training, dev and test files"
            )
    return folds, reader.targets if reader.labelled else None


def _fold(reader: _Reader, folder: Path, number: int) -> Fold:
    homes = {sex: folder / name / f"Fold_{number}" for sex, name in FOLDERS.items()}
    train, val = (
        {SHARES[sex]: reader.read(home / name, sex) for sex, home in homes.items()}
        for name in ("train.csv", "dev.csv")
    )
    test = {sex: reader.read(_test_file(home, sex), sex) for sex, home in homes.items()}
    return Fold(number=number + 1, train=train, val=val, test=test)


def _test_file(home: Path, sex: str) -> Path:
    found = [
        path
        for path in sorted(home.glob("*.csv"))
        if "test" in path.stem.lower() and _sex(path.stem.lower()) in (sex, None)
    ]
    if len(found) != 1:
        name = "test_females.csv" if sex == "F" else "test_males.csv"
        raise DataError(f"{home}: {len(found)} test files; there must be one test.csv or {name}")
    return found[0]


def _sex(stem: str) -> str | None:
    return "F" if "female" in stem else "M" if "male" in stem else None


class _Reader:
    """Finds a corpus's films by their paths, and gathers the labels that the files give them."""

    def __init__(self, corpus: Corpus) -> None:
        frame = corpus.table.frame
        self.corpus, self.labelled = corpus, False
        self.targets = np.full((len(frame), len(corpus.schema.labels)), np.nan, np.float32)
        self.sex = frame["sex"].to_numpy(dtype=object)
        images = frame["image"].str.replace(RELEASE, "", regex=True)
        self.by_path, self.by_name = _lookup(images), _lookup(images.str.rpartition("/")[2])

    def read(self, path: Path, sex: str) -> np.ndarray:
        """Return the rows of a file's films ``(n,)``, ascending."""
        try:
            frame = pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {path}: {error}".split("\n")[0]) from error
        columns = [name for name in FILMS if name in frame.columns]
        if not columns:
            raise DataError(f"{path}: no column {', '.join(FILMS[:-1])} or {FILMS[-1]}")
        rows = self._rows(frame[columns[0]].astype(str), path)
        if np.mean(self.sex[rows] == ("M" if sex == "F" else "F")) > 0.5:
            raise DataError(f"{path}: most films of it are of the other sex in {self.corpus.name}")
        self._label(rows, frame, path)
        return np.unique(rows)

    def _rows(self, films: pd.Series, path: Path) -> np.ndarray:
        films = films.str.replace(RELEASE, "", regex=True)
        found = films.map(self.by_path)
        found = found.where(found.notna(), films.str.rpartition("/")[2].map(self.by_name))
        rows: np.ndarray = found.fillna(-1).to_numpy(dtype=np.int64)
        missing = (rows < 0) | (self.corpus.index[rows] < 0)
        if missing.any() or not len(rows):
            some = films[missing].iloc[0] if len(rows) else "none listed"
            raise DataError(
                f"{path}: {missing.sum()} of {len(rows)} films are not in {self.corpus.name}, or "
                f"unreadable there: {some}"
            )
        return rows

    def _label(self, rows: np.ndarray, frame: pd.DataFrame, path: Path) -> None:
        for column, label in enumerate(self.corpus.schema.labels):
            if label not in frame.columns:
                continue
            given = pd.to_numeric(frame[label], errors="coerce").to_numpy(dtype=np.float32)
            if not np.isin(given, (0, 1)).all():
                raise DataError(f"{path}: {label!r} has values other than 0 and 1")
            before = self.targets[rows, column]
            if (~np.isnan(before) & (before != given)).any():
                raise DataError(f"{path}: {label!r} differs from another file's for the same film")
            self.targets[rows, column], self.labelled = given, True


def _lookup(names: pd.Series) -> pd.Series:
    """Return row numbers by name, of names that only one row has."""
    once = ~names.duplicated(keep=False)
    return pd.Series(np.flatnonzero(once), index=names[once])
