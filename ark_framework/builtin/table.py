"""Any folder of images with a CSV, for people who will not write a plugin."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ark_framework import DataError, DatasetCard, DatasetSpec, LabelSchema, did_you_mean, hookimpl

BLANK = ("", "nan", "NaN")
# What other programs separate columns by.
SPACED = re.compile(r"[;\t|]")
MASKS = ("PNG", "JPEG", "TIFF", "BMP", "GIF")
# No name has these: a terminal would obey them, or they turn the direction of writing.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# The annotation table's own columns, and which of them options name a CSV column for.
COLUMNS = ("image", "split", "patient", "sex", "age", "view", "source_id", "source_patient")

SEX = {
    "m": "M",
    "male": "M",
    "f": "F",
    "female": "F",
    "u": None,
    "o": None,
    "unknown": None,
    "other": None,
}
SPLIT = {"valid": "val", "validation": "val", "training": "train", "testing": "test"}


class TableOptions(BaseModel):
    """What each column of the CSV means; columns are found by name.

    Args:
        root: Folder of the images.
        csv: The CSV, relative to ``root`` or absolute; may be gzipped.
        kind: ``multilabel`` (1, 0, blank, -1 = uncertain), ``multiclass`` or ``mask``.
        labels: Label columns, in order; with ``label_column`` the class names.
        label_column: For ``multiclass``: the column that holds each image's class name.
        masks: For ``mask``: by label, the path of its mask below ``root`` with ``{stem}`` for the
            image's name without folder and ending, such as ``masks/{stem}.png``; above 127 is in.
        image: Column with the image's path below ``root``, or with what ``files`` makes one of.
        files: Where an image lies below ``root``, with ``{image}`` for what its column says, such
            as ``films/{image}.png``.
        patient: Column with the patient; without it each image is its own patient.
        split: Column with train, val or test; without it all is train, but for ``test_fraction``.
        test_fraction: Share of the patients whose images are drawn as test where there is no
            ``split``.
        sex: Column with M/F or male/female.
        age: Column with the age in years.
        view: Column with the view, such as PA.
        groups: Columns with what else films are told apart by, such as the scanner.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path
    csv: Path = Path("labels.csv")
    kind: Literal["multilabel", "multiclass", "mask"] = "multilabel"
    labels: tuple[str, ...] = ()
    label_column: str | None = None
    masks: dict[str, str] = Field(default_factory=dict)
    image: str = "image"
    files: str = "{image}"
    patient: str | None = None
    split: str | None = None
    test_fraction: float = Field(default=0.0, ge=0, lt=1)
    sex: str | None = None
    age: str | None = None
    view: str | None = None
    groups: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> TableOptions:
        if (self.kind == "mask") != bool(self.masks) or bool(self.labels) == bool(self.masks):
            raise ValueError("give masks with kind mask, and labels with any other kind")
        if self.label_column and self.kind != "multiclass":
            raise ValueError("label_column goes with kind multiclass only")
        if "{image}" not in self.files:
            raise ValueError("files needs {image} in it, for what the image's column says")
        if self.split and self.test_fraction:
            raise ValueError("test_fraction draws a test split where there is no split column")
        taken = sorted(set(self.labels) & set(COLUMNS))
        if taken:
            raise ValueError(f"a label cannot be called {taken[0]!r}, a column of the core's own")
        named = (*self.labels, *self.masks, *self.groups)
        if odd := [name for name in named if not name.strip() or CONTROL.search(name)]:
            raise ValueError(f"a label or group cannot be called {odd[0]!r}: give text on one line")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("a label is named twice")
        return self


def schema(options: TableOptions) -> LabelSchema:
    """Return the schema that the options describe."""
    return LabelSchema(
        name="table", kind=options.kind, labels=options.labels or tuple(options.masks)
    )


def read(options: TableOptions) -> pd.DataFrame:
    """Return one row per line of the CSV.

    Raises:
        DataError: no CSV, a column that it lacks, an unknown class, or a missing mask file.
    """
    path = options.root / options.csv
    roles = {name: getattr(options, name) for name in ("image", *COLUMNS[1:6])}
    roles = {name: column for name, column in roles.items() if column is not None}
    classes = [options.label_column] if options.label_column is not None else []
    wanted = [] if options.kind == "mask" or classes else list(options.labels)
    roles |= {f"group:{column}": column for column in options.groups}
    frame = _csv(path, [*roles.values(), *wanted, *classes])
    table = frame[list(roles.values())].set_axis(list(roles), axis=1)
    if options.files != "{image}":
        table["image"] = table["image"].map(
            lambda image: options.files.replace("{image}", image), na_action="ignore"
        )
    table["split"] = table["split"].replace(SPLIT) if options.split else _drawn(table, options)
    if options.sex:
        lower = table["sex"].str.strip().str.lower()
        # What is no sex that we know stays, for the core to refuse with its row.
        table["sex"] = lower.map(SEX).where(lower.isin(list(SEX)), table["sex"])
    if classes:
        return table.join(_one_hot(frame[classes[0]], options, path))
    if options.kind == "mask":
        _check_masks(table["image"], options)
    return table.join(frame[wanted].apply(_numbers))


def _drawn(table: pd.DataFrame, options: TableOptions) -> list[str]:
    # A hash of the patient and not a shuffle: a part of the films splits as it does in the whole.
    whose = table["patient"].fillna(table["image"]) if options.patient else table["image"]
    shares = (
        int.from_bytes(blake2b(str(each).encode(), digest_size=8).digest(), "big") / 2**64
        for each in whose
    )
    return ["test" if share < options.test_fraction else "train" for share in shares]


def _csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return columns as text, indexed by the lines on which their rows end."""
    names = list(dict.fromkeys(columns))
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    rows: dict[int, list[str]] = {}
    try:
        header = next(reader, [])
        places = [_place(name, header, path) for name in names]
        for row in filter(None, reader):
            if len(row) < len(header) or any(row[len(header) :]):
                raise csv.Error(f"{len(row)} fields, the header has {len(header)}")
            rows[reader.line_num] = [row[place] for place in places]
    except csv.Error as error:
        raise DataError(f"table: {path}, line {reader.line_num}: {error}") from error
    index = pd.Index(rows, name=str(path), dtype="int64")
    frame = pd.DataFrame(list(rows.values()), index=index, columns=names, dtype="str")
    # Only a blank or NaN is missing: "None" may be the name of a class.
    return frame.mask(frame.isin(BLANK))


def _place(name: str, header: list[str], path: Path) -> int:
    if header.count(name) > 1:
        raise DataError(f"table: {path} has {header.count(name)} columns {name!r}")
    if name in header:
        return header.index(name)
    known = [text[:60] for text in header[:24]]
    other = len(header) == 1 and SPACED.search(header[0])
    marks = "; columns are separated by commas" if other else ""
    raise DataError(
        f"table: {path} has no column {name!r}{did_you_mean(name, header[:999])}; it has "
        f"{', '.join(map(repr, known)) or 'none'}{marks}"
    )


def _text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"table: {path} is no file")
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"table: {path}, line {line}: is not UTF-8 text; save it as such"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"table: cannot read {path}: {reason}") from error


def _numbers(column: pd.Series) -> pd.Series:
    # What is no number stays, for the core to refuse with its row and image.
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers.astype("object").where(numbers.notna(), column)


def _one_hot(column: pd.Series, options: TableOptions, path: Path) -> pd.DataFrame:
    wrong = column.notna() & ~column.isin(options.labels)
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        line, shown = column.index[row], str(column.iloc[row])[:80]
        raise DataError(
            f"table: {path}, line {line}: class {shown!r} is not one of the labels "
            f"{', '.join(options.labels)}{did_you_mean(shown, options.labels)}"
        )
    hot = {label: (column == label).astype("float64") for label in options.labels}
    return pd.DataFrame(hot).where(column.notna())


def _mask_path(image: str, pattern: str, options: TableOptions) -> Path:
    path = options.root / pattern.replace("{stem}", Path(image).stem)
    if not path.resolve().is_relative_to(options.root.resolve()):
        raise DataError(f"table: {path}: leads out of the root; every mask must lie below it")
    return path


def _check_masks(images: pd.Series, options: TableOptions) -> None:
    for image in images.dropna():
        for label, pattern in options.masks.items():
            path = _mask_path(image, pattern, options)
            if not path.is_file():
                raise DataError(f"table: {image} has no mask of {label!r}: no file {path}")


def read_mask(row: Any, options: TableOptions) -> np.ndarray:
    """Return the masks ``(K, H, W)`` bool of one row, native size, in the order of ``masks``.

    Raises:
        DataError: a mask that cannot be decoded, or that has another size than the first.
    """
    planes: list[np.ndarray] = []
    for pattern in options.masks.values():
        path = _mask_path(row.image, pattern, options)
        try:
            # Named, because Pillow would also open formats that start other programs.
            with Image.open(path, formats=MASKS) as file:
                planes.append(np.asarray(file.convert("L")) > 127)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"table: cannot read the mask {path}: {error}") from error
        if planes[-1].shape != planes[0].shape:
            raise DataError(
                f"table: the mask {path} has another size than the first of {row.image}"
            )
    return np.stack(planes)


def fixture(folder: Path) -> TableOptions:
    """Write 48 drawn images of 24 patients with two labels: a bright spot left, or right."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(48)
    lines = ["file,person,part,gender,years,left,right"]
    for number in range(48):
        left, right = number % 2, number // 2 % 2
        pixels = rng.normal(70, 12, (64, 64))
        pixels[20:44, 6:26] += 130 * left
        pixels[20:44, 38:58] += 130 * right
        name = f"film{number:02d}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
        # Patients have films 2i and 2i + 1, or a label would tell who it is.
        person, part = number // 2, "test" if number >= 32 else "train"
        shown = "" if number == 5 else left
        lines.append(f"{name},p{person},{part},{'MF'[person % 2]},{40 + person},{shown},{right}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return TableOptions(
        root=folder, labels=("left", "right"), image="file", patient="person", split="part",
        sex="gender", age="years",
    )  # fmt: skip


SPEC = DatasetSpec(
    name="table",
    schema=schema,
    options=TableOptions,
    read=read,
    fixture=fixture,
    read_mask=read_mask,
    card=DatasetCard(
        title="Any folder of images with a CSV",
        home="your own files",
        licence="Yours to know: the terms of your own images hold.",
        # Whose films these are is unknown here, so they never enter anything made for sharing.
        access="credentialed",
        citation="theirs, where they have one",
    ),
)


@hookimpl
def ark_datasets() -> list[DatasetSpec]:
    """Return ``table``."""
    return [SPEC]
