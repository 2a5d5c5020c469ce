"""VinDr-CXR for Ark: 18,000 PA films, read by radiologists, three to each training film.

Reads PhysioNet's label files in ``annotations/`` and the films in ``train/`` and ``test/``, DICOM
or converted.  The Kaggle edition (VinBigData) lacks four of the six labels; it is read with lists
that bring their own.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from ark_framework import DataError, DatasetCard, DatasetSpec, LabelSchema, hookimpl

# The published method's six: the owners' six diagnoses with pleural effusion in place of COPD.
GLOBAL = (
    "Pleural effusion", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "No finding",
)  # fmt: skip
ALL = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture",
    "Consolidation", "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity",
    "Lung cavity", "Lung cyst", "Mediastinal shift", "Nodule/Mass", "Pleural effusion",
    "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture", "Other lesion",
    "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "No finding",
)  # fmt: skip
LABELS = {"global-6": GLOBAL, "all-28": ALL}
# The official test file has the singular, the training file the plural.
RENAMED = {"Other disease": "Other diseases"}
TRAIN, TEST = "annotations/image_labels_train.csv", "annotations/image_labels_test.csv"
KAGGLE = "train.csv"
READERS, NEEDED = 3, {"any": 1, "majority": 2, "consensus": 3}
# Where a film lies more than once, the first of these is taken: folder, then ending.
FOLDERS = ("train", "train_jpeg", "test", "test_jpeg")
ENDINGS = (".dicom", ".dcm", ".png", ".jpg", ".jpeg")
FILM = r"[0-9a-f]{32}"


class VinDrOptions(BaseModel):
    """Where the files are and what counts as a label; relative paths start at ``root``.

    Args:
        root: The folder with ``annotations/`` and the films' folders.
        labels: The published method's six labels, or all 28 of the label files.
        readers: How many of a training film's three readers make a label 1: ``any`` (as
            published), ``majority`` or ``consensus`` (all three).  Test labels are a consensus.
        split_files: By split, a list of films instead of the official split: a film a line, its
            id and, where the line goes on, its labels, which are then used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path
    labels: Literal["global-6", "all-28"] = "global-6"
    readers: Literal["any", "majority", "consensus"] = "any"
    split_files: dict[Literal["train", "val", "test"], Path] = Field(default_factory=dict)


def schema(options: VinDrOptions) -> LabelSchema:
    """Return the schema of the six labels or of all 28."""
    labels = LABELS[options.labels]
    return LabelSchema(name=f"vindr-{len(labels)}", kind="multilabel", labels=labels)


def read(options: VinDrOptions) -> pd.DataFrame:
    """Return one row per film; with ``split_files`` a film in none of them has no split.

    Raises:
        DataError: a label file, list or film folder that is missing or wrong, naming the line.
    """
    known = _official(options)
    table = _listed(options, known) if options.split_files else known
    part = known["split"].reindex(table.index).fillna(table["split"]).replace("val", "train")
    found = _films(options.root)
    paths = zip(table.index, part, strict=True)
    table.insert(0, "image", [found.get(film, f"{kind}/{film}.dicom") for film, kind in paths])
    # The owners state that all are PA; sex and age are only in the films' headers.
    table.insert(2, "view", "PA")
    return table.reset_index(drop=True)


def _official(options: VinDrOptions) -> pd.DataFrame:
    """Return ``split`` and the labels by film; without official files what Kaggle's name."""
    labels, train, test = LABELS[options.labels], options.root / TRAIN, options.root / TEST
    if not train.exists() and not test.exists():
        return _unlabeled(options)
    table = pd.concat(
        [_train(train, labels, NEEDED[options.readers]), _test(test, labels)],
        keys=["train", "test"],
        names=["split", "image_id"],
    ).reset_index("split")
    both = table.index.duplicated()
    if both.any():
        raise DataError(f"vindr: film {table.index[both][0]} is in {train} and in {test}")
    return table


def _unlabeled(options: VinDrOptions) -> pd.DataFrame:
    path = options.root / KAGGLE
    if not options.split_files and path.exists():
        raise DataError(
            f"vindr: {path} is the Kaggle edition, which lacks global labels; give split_files "
            f"whose lists have labels, or PhysioNet's {TRAIN} and {TEST}"
        )
    if not options.split_files:
        raise DataError(f"vindr: no {TRAIN} in {options.root}; is the root the right folder?")
    films = _csv(path, ("image_id",))["image_id"].unique() if path.exists() else np.array([])
    labels = list(LABELS[options.labels])
    blank = pd.DataFrame(np.nan, index=pd.Index(films, dtype=object), columns=labels)
    blank.insert(0, "split", "train")
    return blank


def _train(path: Path, labels: tuple[str, ...], needed: int) -> pd.DataFrame:
    frame = _csv(path, ("image_id", "rad_id", *labels))
    film, reader = frame["image_id"], frame["rad_id"]
    twice = frame.duplicated(["image_id", "rad_id"])
    _refuse(twice, path, lambda n: f"reader {reader[n][:40]!r} has read film {film[n]} above")
    rows = film.map(film.value_counts())
    _refuse(
        rows != READERS,
        path,
        lambda n: f"film {film[n]} has {rows[n]} readers, not {READERS}; is the file whole?",
    )
    votes = _marks(frame, labels, path).groupby(film, sort=False).sum()
    return (votes >= needed).astype("float64")


def _test(path: Path, labels: tuple[str, ...]) -> pd.DataFrame:
    frame = _csv(path, ("image_id", *labels))
    film = frame["image_id"]
    _refuse(film.duplicated(), path, lambda n: f"film {film[n]} stands above already")
    return _marks(frame, labels, path).set_axis(film)


def _marks(frame: pd.DataFrame, labels: tuple[str, ...], path: Path) -> pd.DataFrame:
    cells = frame[list(labels)]
    ones = cells.isin(["1", "1.0"])
    wrong = ~(ones | cells.isin(["0", "0.0"]))

    def why(line: int) -> str:
        label = next(name for name in labels if wrong[name][line])
        return f"{label!r} is {cells[label][line][:40]!r}, not 0 or 1"

    _refuse(wrong.any(axis=1), path, why)
    return ones.astype("float64")


def _refuse(wrong: pd.Series, path: Path, why: Callable[[int], str]) -> None:
    if wrong.any():
        line = int(wrong.index[wrong][0])
        raise DataError(f"vindr: {path}, line {line}: {why(line)}")


def _csv(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Return columns by name as text, indexed by line number.

    Split by hand: these files never quote, pandas would repair what is broken, and 45,000 lines
    take 0.2 s.
    """
    lines = _lines(path)
    header = [RENAMED.get(name, name) for name in lines[0].split(",")]
    for name in columns:
        if header.count(name) != 1:
            count = "two columns" if name in header else "no column"
            raise DataError(f"vindr: {path} has {count} {name!r}")
    rows = {n: line.split(",") for n, line in enumerate(lines[1:], 2) if line.strip()}
    for number, row in rows.items():
        if len(row) != len(header):
            raise DataError(
                f"vindr: {path}, line {number}: has {len(row)} fields, the header {len(header)}"
            )
    places = [header.index(name) for name in columns]
    values = [[row[place] for place in places] for row in rows.values()]
    if not values:
        raise DataError(f"vindr: {path} names no film")
    frame = pd.DataFrame(values, index=list(rows), columns=list(columns), dtype=object)
    film = frame["image_id"]
    good = film.str.fullmatch(FILM).astype(bool)
    _refuse(~good, path, lambda n: f"{film[n][:60]!r} is no film's id")
    return frame


def _lines(path: Path) -> list[str]:
    try:
        if path.exists() and not path.is_file():
            raise OSError("is no regular file")
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"vindr: cannot read {path}, line {line}: not UTF-8 text") from error
    except (OSError, ValueError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"vindr: cannot read {path}: {reason}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _listed(options: VinDrOptions, known: pd.DataFrame) -> pd.DataFrame:
    """Return ``known`` with the lists' splits and labels, and the films that only they name."""
    labels = list(LABELS[options.labels])
    # Kaggle's file names only the training films, so test films cannot be looked up in it.
    checked = set(known["split"]) | ({"val"} if len(known) else set())
    rows: dict[str, list[Any]] = {}
    for split, file in options.split_files.items():
        path, before = options.root / file, len(rows)
        for number, line in enumerate(_lines(path), 1):
            if not line.strip():
                continue
            where = f"vindr: {path}, line {number}"
            film, marks = _entry(line, options, where)
            if film in rows:
                raise DataError(f"{where}: film {film} stands above already, or in another list")
            if split in checked and film not in known.index:
                raise DataError(f"{where}: film {film} is not in the dataset's label file")
            rows[film] = [where, split, *marks]
        if len(rows) == before:
            raise DataError(f"vindr: the list {path} names no film")
    listed = pd.DataFrame.from_dict(rows, orient="index", columns=["where", "split", *labels])
    table = listed.reindex(known.index.union(listed.index, sort=False))
    table[labels] = table[labels].astype("float64").fillna(known[labels])
    blank = table["where"].notna() & table[labels].isna().any(axis=1)
    if blank.any():
        raise DataError(f"{table.loc[blank, 'where'].iloc[0]}: no labels here and none elsewhere")
    return table.drop(columns="where")


def _entry(line: str, options: VinDrOptions, where: str) -> tuple[str, list[float]]:
    """Return the film and its labels, NaN where the line has none."""
    first, *marks = line.split()
    count = len(LABELS[options.labels])
    name = re.fullmatch(rf"(?:[\w-]+/)*({FILM})(?:\.\w+)?", first)
    if name is None:
        raise DataError(f"{where}: {first[:60]!r} is no film's id, with or without a folder")
    if not marks:
        return name[1], [np.nan] * count
    if len(marks) != count or not {*marks} <= {"0", "1"}:
        shown = " ".join(marks)[:60]
        raise DataError(f"{where}: {shown!r} is not {count} labels, each 0 or 1")
    if options.readers != "any":
        raise DataError(
            f"{where}: a list with labels leaves no choice of readers; for readers: "
            f"{options.readers} give lists of ids only"
        )
    return name[1], [float(mark) for mark in marks]


def _films(root: Path) -> dict[str, str]:
    folders = [folder for folder in FOLDERS if (root / folder).is_dir()]
    if not folders:
        raise DataError(f"vindr: {root} has no folder of films: {', '.join(FOLDERS)}")
    found: dict[str, str] = {}
    for folder in folders:
        with os.scandir(root / folder) as files:
            names = [file.name for file in files]
        for ending in ENDINGS:
            for name in names:
                if name.endswith(ending):
                    found.setdefault(name.removesuffix(ending), f"{folder}/{name}")
    return found


def fixture(folder: Path) -> VinDrOptions:
    """Write 72 drawn films, 48 of them read by three: each of five labels is a bright spot.

    A film without a spot is No finding; on two thirds of the training films not all readers agree.
    """
    rng = np.random.default_rng(18000)
    local = [label for label in ALL if label not in GLOBAL]
    train: list[list[str]] = [[], [], []]
    test = []
    for number in range(72):
        kind, seen = number % 6, number - number // 6
        marked = {GLOBAL[kind]}
        if kind < 5:
            marked |= {local[2 * seen % 22], local[(2 * seen + 1) % 22]}
            marked |= {GLOBAL[(kind + 1) % 5]} if number % 4 == 0 else set()
        film, part = f"{number:032x}", "train" if number < 48 else "test"
        pixels = rng.normal(900, 150, (64, 64))
        for place, label in enumerate(GLOBAL[:5]):
            top, left = 32 * (place // 3) + 6, 21 * (place % 3) + 2
            pixels[top : top + 18, left : left + 18] += 1900 * (label in marked)
        _write_film(folder / part / f"{film}.dicom", pixels.clip(0, 4095), inverted=number % 5 == 0)
        cells = ",".join(str(int(label in marked)) for label in ALL)
        if part == "test":
            test.append(f"{film},{cells}")
            continue
        # Of the three, the first marks all; and the rows of a film do not stand together.
        for reader, rows in enumerate(train):
            row = cells if reader < 3 - number // 6 % 3 else ",".join("0" * len(ALL))
            rows.append(f"{film},R{(number + 5 * reader) % 17 + 1},{row}")
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    header = ",".join(ALL)
    singular = header.replace("Other diseases", "Other disease")
    for file, lines in (
        (TRAIN, [f"image_id,rad_id,{header}", *train[0], *train[1], *train[2]]),
        (TEST, [f"image_id,{singular}", *test]),
    ):
        (folder / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return VinDrOptions(root=folder)


def _write_film(path: Path, pixels: np.ndarray, *, inverted: bool) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.SOPClassUID = SecondaryCaptureImageStorage
    film.SOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    film.SamplesPerPixel = 1
    film.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    film.Rows, film.Columns = pixels.shape
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
    film.PixelData = (4095 - pixels if inverted else pixels).astype("<u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    film.save_as(path, enforce_file_format=True)


SPEC = DatasetSpec(
    name="vindr",
    schema=schema,
    options=VinDrOptions,
    read=read,
    fixture=fixture,
    card=DatasetCard(
        title="VinDr-CXR 1.0.0",
        home="https://physionet.org/content/vindr-cxr/1.0.0/",
        licence=(
            "PhysioNet's credentialed license and data use agreement: not to be shared; scientific "
            "research and education only."
        ),
        access="credentialed",
        citation=(
            "Nguyen HQ, Lam K, Le LT, et al. VinDr-CXR: An open dataset of chest X-rays with "
            "radiologist's annotations. Scientific Data 2022;9:429. PhysioNet, "
            "doi:10.13026/3akn-b287."
        ),
        rows={"train": 15000, "test": 3000},
        # Of the test split only: what the training labels are is for `readers` to say.
        positives={"test": dict(zip(GLOBAL, (111, 80, 246, 164, 657, 2051), strict=True))},
    ),
)


@hookimpl
def ark_datasets() -> list[DatasetSpec]:
    """Return ``vindr``."""
    return [SPEC]
