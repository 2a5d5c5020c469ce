"""The SIIM-ACR Pneumothorax films for Ark, once with a label (``siim``) and once with masks.

Reads the challenge's files as they were given out: ``train-rle.csv`` or ``stage_2_train.csv``, and
the films in their folders.  Both datasets have the same films and splits.  In ``siim-mask`` a film
on which no pneumothorax was drawn has an all-False plane: here that means that there is none.
"""

from __future__ import annotations

import csv
import gzip
import os
import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from ark_framework import DataError, DatasetCard, DatasetSpec, LabelSchema, hookimpl

STAGE_1, STAGE_2 = "train-rle.csv", "stage_2_train.csv"
FOLDERS = ("dicom-images-train", "dicom-images-test", "stage_2_images", "images")
FILM = re.compile(r"[0-9]+(?:\.[0-9]+)+")  # a DICOM UID
RUNS = re.compile(r"[0-9]{1,9}(?: [0-9]{1,9})*")
NIH = re.compile(r"([0-9]{8})_[0-9]{3}\.png")
AGE = re.compile(r"([0-9]+)([YMWD]?)")
PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}
Masks = dict[str, tuple[str, ...]]  # by film, its run-lengths; none where nothing was drawn


class SiimOptions(BaseModel):
    """Where the files are and how the split is drawn; relative paths start at ``root``.

    Args:
        root: The folder with ``train-rle.csv`` or ``stage_2_train.csv`` and the films' folders.
        nih_mapping: Which NIH film each film is: a CSV with ``siim_ImageId`` and ``nih_image``.
        headers: A CSV of the DICOM headers: ``ImageId``, ``PatientSex``, ``PatientAge``,
            ``ViewPosition``.
        test_fraction: Share of the patients that becomes the test split, where not both label
            files are there to tell the published one.
        split_seed: Which patients.
        side: Side of the square that run-lengths count in; 1024 in the official files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path
    nih_mapping: Path | None = None
    headers: Path | None = None
    test_fraction: float = Field(default=0.15, ge=0, lt=1)
    split_seed: int = 0
    side: int = Field(default=1024, ge=1, le=8192)


def read(options: SiimOptions) -> pd.DataFrame:
    """Return one row per film, with the label.

    Raises:
        DataError: a file that is missing or wrong, naming its line.
    """
    masks = _masks(options)
    return _films(options, masks).assign(Pneumothorax=[float(bool(m)) for m in masks.values()])


def read_films(options: SiimOptions) -> pd.DataFrame:
    """Return the same rows without the label; raises as :func:`read`."""
    return _films(options, _masks(options))


def read_mask(row: Any, options: SiimOptions) -> np.ndarray:
    """Return ``(1, side, side)`` bool: all that was drawn on the film, united.

    Raises:
        DataError: a film that the label file does not name.
    """
    film = Path(row.image).stem
    runs = _masks(options).get(film)
    if runs is None:
        raise DataError(f"siim: {_label_file(options)} does not name the film {film!r}")
    plane = np.zeros((options.side, options.side), dtype=bool, order="F")  # as the runs go
    for text in runs:
        plane |= decode(text, options.side)
    return plane[None]


def decode(text: str, side: int) -> np.ndarray:
    """Return run-lengths as ``(side, side)`` bool: gap, length, gap, …, down the columns."""
    runs = np.fromstring(text, dtype=np.int64, sep=" ")
    flat = np.zeros(side * side, dtype=bool)
    flat[: runs.sum()] = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(side, side).T


def _films(options: SiimOptions, masks: Masks) -> pd.DataFrame:
    films = list(masks)
    found, nih = _find(options, films), _mapping(options)
    people = _headers(options)
    # Where a film would be that is nowhere, so that the store names it.
    folder = FOLDERS[2] if (options.root / STAGE_2).exists() else FOLDERS[0]
    patients = [nih[film][:8].lstrip("0") if film in nih else None for film in films]
    split = _published(options, masks) or {
        film: _drawn(patient or film, options)
        for film, patient in zip(films, patients, strict=True)
    }
    unknown = (None, np.nan, None)
    sex, age, view = zip(*(people.get(film, unknown) for film in films), strict=True)
    return pd.DataFrame(
        {
            "image": [found.get(film, f"{folder}/{film}.dcm") for film in films],
            "split": [split[film] for film in films],
            "patient": patients,
            "sex": sex,
            "age": age,
            "view": view,
            "source_id": [f"nih:{nih[f]}" if f in nih else f"siim:{f}" for f in films],
            "source_patient": [f"nih:{patient}" if patient else None for patient in patients],
        }
    )


def _label_file(options: SiimOptions) -> Path:
    path = options.root / STAGE_2
    return path if path.exists() else options.root / STAGE_1


def _masks(options: SiimOptions) -> Masks:
    return _parsed(_label_file(options), options.side)


def _parsed(path: Path, side: int) -> Masks:
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"siim: cannot read {path}: {error.strerror}") from error
    return _parse(path, side, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _parse(path: Path, side: int, *_changed: int) -> Masks:
    """Read a label file once, and not again for each mask."""
    masks: Masks = {}
    for where, (film, field) in _rows(path, ("ImageId", "EncodedPixels")):
        _check_film(film, where)
        runs = () if field == "-1" else (_runs(field, side, f"{where}, film {film}"),)
        # A film has a line for each drawing; a line that stands there twice changes nothing.
        if film in masks and bool(masks[film]) != bool(runs):
            raise DataError(f"{where}: film {film} has a mask and also -1, none")
        masks[film] = masks.get(film, ()) + runs
    if not masks:
        raise DataError(f"siim: {path} names no film")
    return masks


def _runs(field: str, side: int, where: str) -> str:
    text = " ".join(field.split())
    if not RUNS.fullmatch(text):
        raise DataError(f"{where}: run-lengths must be whole numbers or -1, not {field[:40]!r}")
    runs = np.fromstring(text, dtype=np.int64, sep=" ")
    if len(runs) % 2:
        raise DataError(f"{where}: {len(runs)} run-lengths; they come in pairs, gap and length")
    if runs.sum() > side * side:
        raise DataError(f"{where}: run-lengths end at {runs.sum()}, past {side} x {side} pixels")
    if not runs[1::2].any():
        raise DataError(f"{where}: run-lengths without a pixel; a film without a mask has -1")
    return text


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """Give the named columns of each line of a CSV, stripped, and where it stands."""
    header: list[str] = []
    for number, line in _lines(path):
        where = f"siim: {path}, line {number}"
        # Line by line: a quote that is left open then spoils its own line and swallows no other.
        try:
            row = [field.strip() for field in next(csv.reader([line], strict=True))]
        except csv.Error as error:
            raise DataError(f"{where}: {error}") from error
        if not header:
            header = row
            _check_header(header, columns, path)
        elif len(row) != len(header):
            raise DataError(f"{where}: has {len(row)} fields, the header {len(header)}")
        else:
            yield where, [row[header.index(name)] for name in columns]
    _check_header(header, columns, path)


def _check_header(header: list[str], columns: tuple[str, ...], path: Path) -> None:
    for name in columns:
        if header.count(name) != 1:
            count = "two columns" if name in header else "no column"
            raise DataError(f"siim: {path} has {count} {name!r}")


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("is no regular file")
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"siim: cannot read {path}, line {line}: not UTF-8 text") from error
    except (OSError, ValueError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"siim: cannot read {path}: {reason}") from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _check_film(film: str, where: str) -> None:
    if not FILM.fullmatch(film) or len(film) > 64:
        raise DataError(f"{where}: {film[:70]!r} is no film; a film is a UID such as 1.2.276.0")


def _mapping(options: SiimOptions) -> dict[str, str]:
    nih: dict[str, str] = {}
    if options.nih_mapping is None:
        return nih
    for where, (film, image) in _rows(
        options.root / options.nih_mapping, ("siim_ImageId", "nih_image")
    ):
        _check_film(film, where)
        if film in nih:
            raise DataError(f"{where}: film {film} stands above already")
        if image and not NIH.fullmatch(image):
            raise DataError(f"{where}: {image[:60]!r} is no NIH film such as 00000061_012.png")
        nih[film] = image
    return {film: image for film, image in nih.items() if image}


def _headers(options: SiimOptions) -> dict[str, tuple[str | None, float, str | None]]:
    people: dict[str, tuple[str | None, float, str | None]] = {}
    if options.headers is None:
        return people
    for where, (film, sex, age, view) in _rows(
        options.root / options.headers, ("ImageId", "PatientSex", "PatientAge", "ViewPosition")
    ):
        _check_film(film, where)
        if film in people:
            raise DataError(f"{where}: film {film} stands above already")
        people[film] = (sex if sex in ("M", "F") else None, _years(age), view or None)
    return people


def _years(age: str) -> float:
    parts = AGE.fullmatch(age[:8])
    years = float(parts[1]) / PER_YEAR[parts[2]] if parts else np.nan
    return years if years <= 120 else np.nan


def _find(options: SiimOptions, films: list[str]) -> dict[str, str]:
    """Return where each film is: a DICOM before a PNG, then the first in order of name."""
    known, found = set(films), {".png": dict[str, str](), ".dcm": dict[str, str]()}
    for folder in FOLDERS:
        for parent, folders, names in os.walk(options.root / folder):
            folders.sort()
            below = Path(parent).relative_to(options.root).as_posix()
            for name in sorted(names):
                film, ending = name[:-4], name[-4:]
                if ending in found and film in known:
                    found[ending].setdefault(film, f"{below}/{name}")
    return found[".png"] | found[".dcm"]


def _published(options: SiimOptions, masks: Masks) -> dict[str, str]:
    """Return the published split, the films of stage 1 being train, or {} if it is not told."""
    path = options.root / STAGE_1
    if _label_file(options) == path or not path.exists():
        return {}
    train = _parsed(path, options.side)
    for film in train:
        if film not in masks:
            raise DataError(f"siim: {path} names the film {film}, {STAGE_2} does not")
    if len(train) == len(masks):
        return {}  # stage 2's file under stage 1's name: it tells no split
    return {film: "train" if film in train else "test" for film in masks}


def _drawn(patient: str, options: SiimOptions) -> str:
    # A hash and not a shuffle: half of the films split as they do in the whole.
    digest = blake2b(f"{options.split_seed}:{patient}".encode(), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    return "test" if share < options.test_fraction else "train"


def fixture(folder: Path) -> SiimOptions:
    """Write 60 drawn films, 45 of stage 1: a pneumothorax is a bright field left or right."""
    rng = np.random.default_rng(12047)
    stage_1, stage_2 = ["ImageId, EncodedPixels"], ["ImageId, EncodedPixels"]
    for number in range(60):
        film, part = f"1.2.276.0.7230010.{1517875000 + number}.{number}", number % 4 == 3
        mask = np.zeros((64, 64), dtype=bool)
        rows = ["-1"]
        if number % 3 == 0:
            top, left = int(rng.integers(2, 30)), int(rng.choice([4, 44]))
            halves = [np.zeros_like(mask), np.zeros_like(mask)]
            halves[0][top : top + 20, left : left + 16] = True
            halves[1][top + 12 : top + 30, left + 2 : left + 10] = True  # they overlap
            mask, rows = halves[0] | halves[1], [_encode(half) for half in halves]
        pixels = rng.normal(70, 12, (64, 64)) + 110 * mask
        # Each film has folders of its own, for a study and a series.
        path = folder / FOLDERS[part] / f"study{number}" / "series" / f"{film}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_film(path, pixels.clip(0, 255).astype(np.uint8))
        lines = [f"{film},{row}" for row in rows]
        stage_2 += lines
        stage_1 += [] if part else lines
    for name, text in ((STAGE_1, stage_1), (STAGE_2, stage_2)):
        (folder / name).write_text("\n".join(text) + "\n", encoding="utf-8")
    return SiimOptions(root=folder, side=64)


def _encode(mask: np.ndarray) -> str:
    edges = np.flatnonzero(np.diff(mask.T.ravel(), prepend=False, append=False))
    return " ".join(map(str, np.diff(edges, prepend=0)))


def _write_film(path: Path, pixels: np.ndarray) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.SOPClassUID = SecondaryCaptureImageStorage
    film.SOPInstanceUID = path.stem
    film.Modality = "CR"
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
    film.Rows, film.Columns = pixels.shape
    film.BitsAllocated = film.BitsStored = 8
    film.HighBit, film.PixelRepresentation = 7, 0
    film.PixelData = pixels.tobytes()
    film.save_as(path, enforce_file_format=True)


CARD = DatasetCard(
    title="SIIM-ACR Pneumothorax Segmentation (2019)",
    home="https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation",
    licence="Rules of the challenge, which are accepted on its page.",
    access="registered",
    citation=(
        "Filice RW, Stein A, Wu CC, et al. Crowdsourcing pneumothorax annotations using machine "
        "learning annotations on the NIH chest X-ray dataset. Journal of Digital Imaging "
        "2020;33(2):490-496."
    ),
    rows={"all": 12047},
    positives={"all": {"Pneumothorax": 2669}},
)
SPECS = [
    DatasetSpec(
        name="siim",
        schema=LabelSchema(name="siim-pneumothorax", kind="multilabel", labels=("Pneumothorax",)),
        options=SiimOptions,
        read=read,
        fixture=fixture,
        card=CARD,
    ),
    DatasetSpec(
        name="siim-mask",
        schema=LabelSchema(name="siim-pneumothorax-mask", kind="mask", labels=("Pneumothorax",)),
        options=SiimOptions,
        read=read_films,
        fixture=fixture,
        read_mask=read_mask,
        card=CARD,
    ),
]


@hookimpl
def ark_datasets() -> list[DatasetSpec]:
    """Return ``siim`` and ``siim-mask``."""
    return list(SPECS)
