"""The annotation table: one row per image, checked once, then trusted.

Columns of a valid table, in this order:

========================  =======================================================================
``image``                 path below the dataset's root, posix, unique, never leaving the root
``split``                 ``train``, ``val``, ``test`` or missing (= not used)
``patient``               string, local to the dataset, or missing (= its own patient)
``sex``                   ``M``, ``F`` or missing
``age``                   years, float, NaN = missing
``view``                  ``PA``, ``AP``, ``LATERAL``, … or missing
``source_id``             identity shared with another dataset, such as ``nih:00000061_012.png``
``source_patient``        likewise for the patient, such as ``nih:61``
``group:NAME``            any number: what else films are told apart by, such as ``group:scanner``
one per label             float: 1, 0, NaN = not annotated, -1 = uncertain (multilabel only)
========================  =======================================================================

The index of the table that a plugin returns may be the numbers of lines, named after their file:
an error then names file and line.

Of a mask dataset a label column may be left out, and then is 1 throughout: 1 where the structure is
drawn, 0 where it is known to be absent, NaN where nobody drew it, so that its mask says nothing.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from ark_framework.errors import DataError
from ark_framework.specs import LabelSchema

SPLITS = ("train", "val", "test")
TEXT_COLUMNS = ("image", "split", "patient", "sex", "view", "source_id", "source_patient")
COLUMNS = ("image", "split", "patient", "sex", "age", "view", "source_id", "source_patient")
GROUP = "group:"
# Of a path: what a terminal would obey, and bytes that are no text, which no list can hold.
CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class AnnotationTable:
    """A validated table: ``frame`` has exactly :data:`COLUMNS`, groups and the schema's labels."""

    dataset: str
    schema: LabelSchema
    frame: pd.DataFrame

    def __len__(self) -> int:
        return len(self.frame)

    def rows(self, split: str) -> np.ndarray:
        """Return the row numbers of one split, ``(n,)`` int64, in table order."""
        return np.flatnonzero(self._splits == SPLITS.index(split))

    @cached_property
    def _splits(self) -> np.ndarray:
        """The number of each row's split, -1 where it has none ``(N,)``: strings are slow."""
        return pd.Categorical(self.frame["split"], categories=SPLITS).codes

    @property
    def structures(self) -> int:
        """How many structures a film's mask has; 0 where the dataset has no masks."""
        return len(self.schema.labels) if self.schema.kind == "mask" else 0

    @property
    def films(self) -> list[str]:
        """The images that are packed: all, but of masks those in a split, others having none."""
        kept = self.frame["split"].notna() if self.structures else slice(None)
        images: list[str] = self.frame.loc[kept, "image"].tolist()
        return images

    @property
    def groupings(self) -> list[str]:
        """The names of its ``group:`` columns, without the prefix."""
        names = self.frame.columns
        return [str(name).removeprefix(GROUP) for name in names if str(name).startswith(GROUP)]

    def drawn(self) -> np.ndarray:
        """Return which labels are annotated, ``(N, K)`` bool: for masks, drawn or known absent."""
        return self.frame[list(self.schema.labels)].notna().to_numpy(dtype=bool)

    def targets(self) -> np.ndarray:
        """Return the raw labels, ``(N, C)`` float32 with NaN and -1; ``(N, 0)`` for masks."""
        if self.schema.kind == "mask":
            return np.zeros((len(self.frame), 0), dtype=np.float32)
        return self.frame[list(self.schema.labels)].to_numpy(dtype=np.float32)

    def groups(self) -> np.ndarray:
        """Return each row's patient as an integer code ``(N,)``; a row without one is its own."""
        patient = self.frame["patient"]
        if patient.notna().all():
            return pd.factorize(patient)[0]
        own = pd.Series("\0" + self.frame["image"].astype(str), index=patient.index)
        return pd.factorize(patient.where(patient.notna(), own))[0]


def validate(frame: pd.DataFrame, *, dataset: str, schema: LabelSchema) -> AnnotationTable:
    """Check a plugin's table and bring it into canonical form.

    Raises:
        DataError: naming the dataset, the row and the value, on one line.
    """
    if not isinstance(frame, pd.DataFrame):
        raise DataError(
            f"{dataset}: read() returned {type(frame).__name__}, not a pandas DataFrame"
        )
    needed = () if schema.kind == "mask" else schema.labels
    missing = [name for name in ("image", "split", *needed) if name not in frame.columns]
    if missing:
        raise DataError(
            f"{dataset}: the table has no column {missing[0]!r}; it has "
            f"{', '.join(map(repr, list(frame.columns)[:24]))}"
        )
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"{dataset}: the table has two columns {twice!r}")
    clean = pd.DataFrame({name: _column(frame, name) for name in (*COLUMNS, *_groups(frame))})
    clean["age"] = _ages(frame, dataset)
    for label in schema.labels:
        given = label in frame.columns
        clean[label] = _numbers(frame[label], dataset, label, frame["image"]) if given else 1.0
    _check_images(clean["image"], dataset)
    for name, allowed in (("split", SPLITS), ("sex", ("M", "F"))):
        if name not in frame.columns:
            continue
        wrong = clean[name].notna() & ~clean[name].isin(allowed)
        _refuse(clean, wrong, name, dataset, f"must be one of {', '.join(allowed)} or missing")
    _check_labels(clean, schema, dataset)
    if clean.empty:
        raise DataError(f"{dataset}: the table has no rows; is the root the right folder?")
    return AnnotationTable(dataset=dataset, schema=schema, frame=clean.reset_index(drop=True))


def with_validation(
    table: AnnotationTable, *, fraction: float, seed: int
) -> tuple[AnnotationTable, int]:
    """Move whole patients from train to val where a dataset has no validation split.

    Args:
        table: The table; returned as it is when it has validation rows already.
        fraction: Share of training *patients* to move, 0..1.
        seed: Own seed of this draw, so that it does not move with the run's seed.

    Returns:
        The table and the number of rows moved.
    """
    train = table.rows("train")
    if len(table.rows("val")) or not len(train) or fraction <= 0:
        return table, 0
    groups = table.groups()[train]
    patients = np.flatnonzero(np.bincount(groups))  # numbers are lookups; hashes miss the cache
    count = min(max(1, round(fraction * len(patients))), len(patients) - 1)
    if count < 1:
        return table, 0
    chosen = np.random.default_rng(seed).permutation(patients)[:count]
    held = np.zeros(int(groups.max()) + 1, dtype=bool)
    held[chosen] = True
    moved = train[held[groups]]
    frame = table.frame.copy()
    frame.loc[moved, "split"] = "val"
    return AnnotationTable(dataset=table.dataset, schema=table.schema, frame=frame), len(moved)


def _groups(frame: pd.DataFrame) -> list[str]:
    return [name for name in frame.columns if isinstance(name, str) and name.startswith(GROUP)]


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    if name not in frame.columns:
        return pd.Series(None, index=frame.index, dtype="object")
    column = frame[name].astype("object")
    known = column.notna()
    if pd.api.types.infer_dtype(column, skipna=True) not in ("string", "empty"):
        column = column.where(~known, column.astype(str))
    return column if known.all() else column.where(known, None)


def _ages(frame: pd.DataFrame, dataset: str) -> pd.Series:
    if "age" not in frame.columns:
        return pd.Series(np.nan, index=frame.index, dtype="float64")
    years = pd.to_numeric(frame["age"], errors="coerce").astype("float64")
    _refuse(frame, years.isna() & frame["age"].notna(), "age", dataset, "is no number of years")
    return years


def _numbers(column: pd.Series, dataset: str, label: str, images: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    wrong = numbers.isna() & column.notna()
    if wrong.any():
        row = int(np.flatnonzero(wrong.to_numpy())[0])
        raise DataError(
            f"{dataset}: label {label!r} of {_place(column, row)} (image "
            f"{_shown(images.iloc[row])}) is {_shown(column.iloc[row])}, not a number"
        )
    return numbers


def _check_images(images: pd.Series, dataset: str) -> None:
    frame = images.to_frame()
    try:  # one look at all: a tenth of the time of each's
        text = "\n" + "\n".join(images.tolist())
    except TypeError:  # one is missing
        text = "\n"
    if "\n\n" in text or text.endswith("\n"):
        _refuse(frame, images.isna() | (images == ""), "image", dataset, "must not be empty")
    if _suspicious(text, len(images)):
        unsafe = images.str.startswith("/") | images.str.contains("\\", regex=False)
        unsafe |= images.str.match(r"^[A-Za-z]:") | images.str.contains(r"(?:^|/)\.\.(?:/|$)")
        unsafe |= images.str.contains(CONTROL)
        _refuse(frame, unsafe, "image", dataset, "must be a posix path below the dataset's root")
    twice = images.duplicated()
    if not twice.any() and any(mark in text for mark in ("//", "/./", "\n./")):  # said in two ways
        twice = images.map(posixpath.normpath).duplicated()
    _refuse(frame, twice, "image", dataset, "stands in the table twice")


def _suspicious(text: str, count: int) -> bool:
    """Whether any of so many paths, each after a line end, may be unsafe."""
    plain = text.replace("\n", "")
    odd = text.count("\n") != count or not (plain.isprintable() or CONTROL.search(plain) is None)
    return odd or any(mark in text for mark in ("\n/", "\\", ":", ".."))


def _check_labels(frame: pd.DataFrame, schema: LabelSchema, dataset: str) -> None:
    values = frame[list(schema.labels)].to_numpy()
    allowed = np.isnan(values) | (values == 0) | (values == 1)
    if schema.kind == "multilabel":
        allowed |= values == -1
    if not allowed.all():
        row, column = np.argwhere(~allowed)[0]
        where = f"{_place(frame, row)} (image {_shown(frame['image'].iloc[row])})"
        raise DataError(
            f"{dataset}: label {schema.labels[column]!r} of {where} is {values[row, column]:g}; "
            f"a {schema.kind} label is "
            + ("1, 0, -1 or missing" if schema.kind == "multilabel" else "1, 0 or missing")
        )
    if schema.kind == "multiclass":
        blank = np.isnan(values)
        wrong = ~(blank.all(axis=1) | (~blank.any(axis=1) & (np.nansum(values, axis=1) == 1)))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise DataError(
                f"{dataset}: {_place(frame, row)} (image {_shown(frame['image'].iloc[row])}) must "
                f"have exactly one class of {', '.join(schema.labels)} set to 1, or none annotated"
            )


def _refuse(frame: pd.DataFrame, wrong: pd.Series, name: str, dataset: str, why: str) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong.to_numpy())[0])
        value = _shown(frame[name].iloc[row])
        raise DataError(f"{dataset}: {name} of {_place(frame, row)}, {value}, {why}")


def _place(frame: pd.DataFrame | pd.Series, row: int) -> str:
    """Say where a row stands: in a file, where the index has its name, or else in the table."""
    name = frame.index.name
    return f"row {row}" if name is None else f"{name}, line {frame.index[row]}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:80]}… ({len(text)} characters)"
