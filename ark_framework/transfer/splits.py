"""Which rows of a dataset train, validate and test: its own splits, or folds by patient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ark_framework.audit import patient_keys
from ark_framework.corpus import Corpus
from ark_framework.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class Split:
    """Row numbers of a corpus, each ``(n,)`` int64 ascending; no patient is in two of them."""

    name: str
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def official(corpus: Corpus, *, limit: int | None = None) -> Split:
    """Return the dataset's own splits; the core made ``val`` where it has none.

    Raises:
        DataError: there is nothing to train on, or nothing to test on.
    """
    train, val, test = (corpus.rows(name, limit=limit) for name in ("train", "val", "test"))
    for rows, name in ((train, "training"), (test, "test")):
        if not len(rows):
            raise DataError(f"{corpus.name}: no {name} films of its own; give --folds K")
    return Split(name="official", train=train, val=val, test=test)


def folds(corpus: Corpus, count: int, *, repeats: int = 1, seed: int = 0) -> Iterator[Split]:
    """Yield ``repeats`` times ``count`` folds by patient over all readable rows in any split.

    In each, one part is the test set, the next one the validation set, the others train.  Parts
    hold nearly equal numbers of patients; a patient known under another dataset's name is one.

    Raises:
        ConfigError: fewer than three folds, or than patients.
    """
    rows = np.flatnonzero((corpus.index >= 0) & corpus.table.frame["split"].notna().to_numpy())
    _, patient = np.unique(patient_keys(corpus.table).to_numpy()[rows], return_inverse=True)
    people = int(patient.max(initial=-1)) + 1
    if not 3 <= count <= people:
        raise ConfigError(f"--folds {count}: from 3 to {people}, the patients of {corpus.name}")
    for repeat in range(repeats):
        drawn = np.random.default_rng([seed, repeat]).permutation(people)
        part = (np.argsort(drawn) % count)[patient]
        for fold in range(count):
            val = (fold + 1) % count
            yield Split(
                name=f"fold {repeat + 1}.{fold + 1}",
                train=rows[(part != fold) & (part != val)],
                val=rows[part == val],
                test=rows[part == fold],
            )
