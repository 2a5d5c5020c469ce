"""What a model says of validation and test films, who they are of, and what experts say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ark_framework.annotations import GROUP, AnnotationTable
from ark_framework.corpus import scored_targets
from ark_framework.errors import ConfigError, DataError
from ark_framework.exposure import NO, UNKNOWN, YES, Answer
from ark_framework.specs import LabelSchema

SCORE = "p:"  # before a label: the column of its score
VAL, TEST = "val", "test"
NORMAL = ("no finding", "no findings", "normal")  # names of the label of films without findings
FACTS = ["image", "split", "patient", "sex", "age", "view"]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """One model's on one dataset.

    Attributes:
        schema: Of the dataset.
        labels: Those that are judged.
        frame: A row per film: ``image``, ``split`` (``val`` or ``test``), ``patient``, ``sex``,
            ``age``, ``view``, any ``group:`` columns, the labels that have a score (1, 0, NaN and
            -1, blanks as the schema reads them), ``p:<label>`` and ``trained_on``.
        answers: Where the scores are from: ``heads``, ``probe`` or ``file``.
        exposure: How many of the test films, and of their patients' films, were trained on.
    """

    model: str
    dataset: str
    schema: LabelSchema
    labels: tuple[str, ...]
    frame: pd.DataFrame
    answers: str
    exposure: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def of(self, split: str) -> pd.DataFrame:
        """Return the films of a split."""
        return self.frame[self.frame["split"] == split].reset_index(drop=True)

    def normal(self, name: str | None) -> str | None:
        """Return the label of films without findings: the one named, or one so called."""
        if name is not None:
            return name
        return next((each for each in self.schema.labels if each.casefold() in NORMAL), None)


def judged(schema: LabelSchema, wanted: Sequence[str] | None, normal: str | None) -> list[str]:
    """Return the labels to judge, the one of films without findings among them.

    Raises:
        ConfigError: a name that is no label of the schema.
    """
    for name in (*(wanted or ()), *([normal] if normal else ())):
        if name not in schema.labels:
            raise ConfigError(
                f"labels: {schema.name} has no label {name!r}; it has {', '.join(schema.labels)}"
            )
    chosen = set(wanted or schema.scored)
    chosen |= {each for each in schema.labels if each == normal or each.casefold() in NORMAL}
    return [label for label in schema.labels if label in chosen]


def film_frame(
    table: AnnotationTable,
    rows: np.ndarray,
    scores: np.ndarray,
    labels: Sequence[str],
    trained_on: np.ndarray,
) -> pd.DataFrame:
    """Return the frame of :class:`Predictions`; labels of which nothing is said are left out.

    Args:
        table: Of the dataset.
        rows: ``(n,)`` of it, in ``val`` or ``test``.
        scores: ``(n, C)`` for all labels of the schema, NaN where there is none.
        labels: Those to judge.
        trained_on: ``(n,)``: ``yes``, ``no`` or ``unknown``.
    """
    schema = table.schema
    frame = table.frame.iloc[rows]
    facts = frame[[*FACTS, *(f"{GROUP}{name}" for name in table.groupings)]]
    targets = pd.DataFrame(
        scored_targets(table.targets()[rows], schema), columns=list(schema.labels)
    )
    outputs = pd.DataFrame(scores, columns=[f"{SCORE}{each}" for each in schema.labels])
    kept = [label for label in labels if outputs[f"{SCORE}{label}"].notna().any()]
    parts = [facts.reset_index(drop=True), targets[kept]]
    parts += [outputs[[f"{SCORE}{label}" for label in kept]]]
    return pd.concat([*parts, pd.Series(trained_on, name="trained_on")], axis=1)


def patients(frame: pd.DataFrame) -> np.ndarray:
    """Return each film's patient as a number ``(n,)``; a film without one is its own."""
    own = "\0" + frame["image"].astype(str)
    patient = frame["patient"].astype("object")
    return np.asarray(pd.factorize(patient.where(patient.notna(), own))[0])


def is_file(source: str) -> bool:
    """Whether a model is given by what it said: a CSV with ``p:`` columns, or a folder of them."""
    path = Path(source)
    return any(map(_has_scores, _files(path))) if path.exists() else False


def read(source: str, *, model: str, table: AnnotationTable, labels: Sequence[str]) -> Predictions:
    """Read predictions made elsewhere, or by ``ark eval`` for validation and test.

    A folder's files that begin with the dataset's name are taken, or all where none does.

    Raises:
        DataError: a file that cannot be read, a film twice, a score that is no number, or no
            test films of the dataset.
    """
    paths = _files(Path(source))
    named = [path for path in paths if path.name.startswith(f"{table.dataset}-")]
    frame = pd.concat([_scores(path) for path in named or paths], ignore_index=True)
    twice = frame["image"].duplicated()
    if twice.any():
        raise DataError(f"{source}: {frame['image'][twice].iloc[0]!r} is predicted twice")
    splits = table.frame["split"].isin([VAL, TEST]) & table.frame["image"].isin(frame["image"])
    rows = np.flatnonzero(splits.to_numpy(dtype=bool))
    if not (table.frame["split"].iloc[rows] == TEST).any():
        raise DataError(f"{source}: predicts no test film of {table.dataset}; films go by 'image'")
    found = frame.set_index("image").loc[table.frame["image"].iloc[rows]]
    scores = np.full((len(rows), len(table.schema.labels)), np.nan)
    for number, label in enumerate(table.schema.labels):
        if f"{SCORE}{label}" in found:
            scores[:, number] = _numbers(found[f"{SCORE}{label}"], source)
    trained_on = np.full(len(rows), UNKNOWN, dtype=object)
    if "trained_on" in found:
        said = found["trained_on"].to_numpy(dtype=object)
        trained_on = np.where(np.isin(said, [YES, NO]), said, UNKNOWN)
    made = film_frame(table, rows, scores, labels, trained_on)
    test = trained_on[(made["split"] == TEST).to_numpy(dtype=bool)]
    return Predictions(
        model=model,
        dataset=table.dataset,
        schema=table.schema,
        labels=tuple(label for label in labels if label in made),
        frame=made,
        answers="file",
        exposure={"films": Answer(films=test, patients=test).counts()["films"]},
    )


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(path.glob("*.csv"))
    return [path] if path.suffix.lower() == ".csv" else []


def _has_scores(path: Path) -> bool:
    try:
        columns = pd.read_csv(path, nrows=0).columns
    except (OSError, ValueError):
        return False
    return "image" in columns and any(str(name).startswith(SCORE) for name in columns)


def _scores(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, dtype={"image": str})
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a table of predictions ({error})") from error
    if "image" not in frame or not any(str(name).startswith(SCORE) for name in frame):
        raise DataError(f"{path}: no column 'image', or none that begins with 'p:'")
    wanted = [name for name in frame if str(name).startswith(SCORE)]
    return frame[["image", *wanted, *(["trained_on"] if "trained_on" in frame else [])]]


def _numbers(column: pd.Series, source: str) -> np.ndarray:
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = (numbers.isna() & column.notna()) | ~numbers.fillna(0).between(-np.inf, np.inf)
    if wrong.any() or np.isinf(numbers.to_numpy(dtype=np.float64)).any():
        where = int(np.flatnonzero(wrong.to_numpy() | np.isinf(numbers.fillna(0).to_numpy()))[0])
        raise DataError(
            f"{source}: {column.name} of {column.index[where]!r} is {column.iloc[where]!r}, "
            "not a number"
        )
    return numbers.to_numpy(dtype=np.float64)
