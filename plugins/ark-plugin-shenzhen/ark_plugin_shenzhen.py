"""The Shenzhen tuberculosis films for Ark: 662 PA films, of which 336 show tuberculosis.

Reads the folder as the NLM gives it out, where each film's name ends in its label, with the
clinical readings beside it; or the Kaggle edition, ``images/`` with ``shenzhen_metadata.csv``.
"""

from __future__ import annotations

import csv
import gzip
import os
import re
import zlib
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from ark_framework import DataError, DatasetCard, DatasetSpec, LabelSchema, hookimpl

FOLDERS = ("CXR_png", "ChinaSet_AllFiles/CXR_png", "images/images", "images")
READINGS, METADATA = "ClinicalReadings", "shenzhen_metadata.csv"
FILM = r"CHNCXR_([0-9]{4})_([01])"
# "male 45yrs", "femal 32yrs", "female24yrs", "male , 29yrs", "male 16month", "female 64days".
PERSON = re.compile(
    r"\s*(?:(?P<female>f|fem[a-z]*)|m|mal[a-z]*)(?![a-z])[ \t,.:;]*"
    r"(?:(?P<age>[0-9]+(?:\.[0-9]+)?)[ \t]*(?P<unit>[a-z]*))?",
    re.IGNORECASE,
)
PER_YEAR = {r"y[ears]*|": 1.0, r"m[onths]*": 12.0, r"w[eks]*": 52.18, r"d[ays]*": 365.25}


class ShenzhenOptions(BaseModel):
    """Where the films are and how the split is drawn; relative paths start at ``root``.

    Args:
        root: The folder with ``CXR_png/`` or ``images/``.
        split_files: By split, a list of films instead of the drawn split: a film a line, its name
            and perhaps its label.
        test_fraction: Share of the films that becomes the test split; there is no official one.
        split_seed: Which films.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path
    split_files: dict[Literal["train", "val", "test"], Path] = Field(default_factory=dict)
    test_fraction: float = Field(default=0.2, ge=0, lt=1)
    split_seed: int = 0


def read(options: ShenzhenOptions) -> pd.DataFrame:
    """Return one row per film; with ``split_files`` a film in none of them has no split.

    Raises:
        DataError: a folder, list or metadata file that is missing or wrong, naming the line.
    """
    root = options.root
    folder = next((folder for folder in FOLDERS if (root / folder).is_dir()), None)
    if folder is None:
        raise DataError(f"shenzhen: {root} has neither CXR_png/ nor images/")
    people = _metadata(root / METADATA) if (root / METADATA).exists() else {}
    # The readings last: the Kaggle edition has lost the units of ages.
    people |= _readings((root / folder).parent / READINGS)
    # A film that only a text names is kept, so that the store reports it.
    films = sorted({*_names(root / folder, ".png"), *people})
    _check(films, root / folder)
    split = _listed(options, films) if options.split_files else _drawn(options, films)
    unknown = (None, np.nan)
    return pd.DataFrame(
        {
            "image": [f"{folder}/{film}.png" for film in films],
            "split": [split.get(film) for film in films],
            "sex": [people.get(film, unknown)[0] for film in films],
            "age": [people.get(film, unknown)[1] for film in films],
            "view": "PA",
            "TB": [float(film[-1]) for film in films],
        }
    )


def _names(folder: Path, ending: str) -> list[str]:
    """Return the films that a folder names; what is not called CHNCXR… belongs to others."""
    with os.scandir(folder) as files:
        names = [f.name for f in files if f.name.startswith("CHNCXR") and f.name.endswith(ending)]
    for name in sorted(names):
        if not re.fullmatch(FILM + re.escape(ending), name):
            raise DataError(
                f"shenzhen: {folder / name}: the name is not CHNCXR_, four digits and _0 or _1"
            )
    return [name.removesuffix(ending) for name in names]


def _check(films: list[str], folder: Path) -> None:
    if not films:
        raise DataError(f"shenzhen: {folder} has no film CHNCXR_*.png")
    for one, two in pairwise(films):
        if one[:-1] == two[:-1]:
            raise DataError(f"shenzhen: {folder}: {one} and {two} are one film with two labels")


def _readings(folder: Path) -> dict[str, tuple[str | None, float]]:
    people = {}
    for film in _names(folder, ".txt") if folder.is_dir() else []:
        path = folder / f"{film}.txt"
        try:
            if not path.is_file():
                raise OSError("is no regular file")
            with path.open("rb") as file:
                start = file.read(200).decode("utf-8-sig", "replace")
        except OSError as error:
            raise DataError(f"shenzhen: cannot read {path}: {error}") from error
        people[film] = _person(start)
    return people


def _person(text: str) -> tuple[str | None, float]:
    """Return sex and age in years, each missing where the text does not begin with it."""
    found = PERSON.match(text)
    if found is None:
        return None, np.nan
    sex = "F" if found["female"] else "M"
    for unit, count in PER_YEAR.items():
        if found["age"] and re.fullmatch(unit, found["unit"], re.IGNORECASE):
            age = float(found["age"]) / count
            return sex, age if age <= 120 else np.nan
    return sex, np.nan


def _metadata(path: Path) -> dict[str, tuple[str | None, float]]:
    rows = [(number, _fields(line, path, number)) for number, line in _lines(path)]
    header = rows[0][1] if rows else []
    for name in ("study_id", "sex", "age"):
        if header.count(name) != 1:
            count = "two columns" if name in header else "no column"
            raise DataError(f"shenzhen: {path} has {count} {name!r}")
    people: dict[str, tuple[str | None, float]] = {}
    for number, row in rows[1:]:
        where = f"shenzhen: {path}, line {number}"
        if len(row) != len(header):
            raise DataError(f"{where}: has {len(row)} fields, the header {len(header)}")
        film = _film(row[header.index("study_id")], where)
        if film in people:
            raise DataError(f"{where}: {film} stands above already")
        people[film] = _person(f"{row[header.index('sex')]} {row[header.index('age')]}")
    return people


def _fields(line: str, path: Path, number: int) -> list[str]:
    # Line by line: a quote that is left open then spoils its own line and swallows no other.
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise DataError(f"shenzhen: {path}, line {number}: {error}") from error


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("is no regular file")
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"shenzhen: cannot read {path}, line {line}: not UTF-8 text") from error
    except (OSError, ValueError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"shenzhen: cannot read {path}: {reason}") from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _film(text: str, where: str) -> str:
    name = re.fullmatch(rf"(?:[\w-]+/)*({FILM})(?:\.png)?", text)
    if name is None:
        raise DataError(f"{where}: {text[:60]!r} is no film; a film is CHNCXR_0001_0.png")
    return name[1]


def _listed(options: ShenzhenOptions, films: list[str]) -> dict[str, str]:
    known = set(films)
    splits: dict[str, str] = {}
    for split, file in options.split_files.items():
        path = options.root / file
        lines = _lines(path)
        if not lines:
            raise DataError(f"shenzhen: the list {path} names no film")
        for number, line in lines:
            where = f"shenzhen: {path}, line {number}"
            first, *marks = line.replace(",", " ").split() or [line]
            film = _film(first, where)
            if marks and marks != [film[-1]]:
                shown = " ".join(marks)[:60]
                raise DataError(f"{where}: the label is {shown!r} and by its name {film[-1]!r}")
            if film not in known:
                raise DataError(f"{where}: {film} is not in the folder of films")
            if film in splits:
                raise DataError(f"{where}: {film} stands above already, or in another list")
            splits[film] = split
    return splits


def _drawn(options: ShenzhenOptions, films: list[str]) -> dict[str, str]:
    # A hash and not a shuffle: half of the films split as they do in the whole.
    splits = {}
    for film in films:
        digest = blake2b(f"{options.split_seed}:{film}".encode(), digest_size=8).digest()
        share = int.from_bytes(digest, "big") / 2**64
        splits[film] = "test" if share < options.test_fraction else "train"
    return splits


def fixture(folder: Path) -> ShenzhenOptions:
    """Write 60 drawn films, half of them with tuberculosis: a bright spot high on the left."""
    for name in ("CXR_png", READINGS):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(662)
    people = ("male {}yrs", "Female {}yrs", "femal {}yrs", "female{}yrs", "male , {}yrs \t")
    for number in range(60):
        label, age = number // 30, 20 + number
        pixels = rng.normal(70, 12, (64, 64))
        pixels[8:28, 8:28] += 130 * label
        film = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        # Most of the real films have a palette, and some three equal channels.
        film = film.convert("RGB" if number % 10 == 0 else "P")
        film.save(folder / "CXR_png" / f"CHNCXR_{number + 1:04d}_{label}.png")
        text = f"{people[number % 5].format(age)}\n{('normal', 'bilateral PTB')[label]}\n"
        path = folder / READINGS / f"CHNCXR_{number + 1:04d}_{label}.txt"
        path.write_text(text, encoding="utf-8")
    return ShenzhenOptions(root=folder, test_fraction=0.3)


SPEC = DatasetSpec(
    name="shenzhen",
    schema=LabelSchema(name="shenzhen-tb", kind="multilabel", labels=("TB",)),
    options=ShenzhenOptions,
    read=read,
    fixture=fixture,
    card=DatasetCard(
        title="Shenzhen Hospital chest X-ray set (tuberculosis)",
        home=(
            "https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/"
            "Shenzhen-Hospital-CXR-Set/index.html"
        ),
        licence="Made available to the research community by the NLM; cite the owners' papers.",
        access="open",
        citation=(
            "Jaeger S, Candemir S, Antani S, Wang YX, Lu PX, Thoma G. Two public chest X-ray "
            "datasets for computer-aided screening of pulmonary diseases. Quantitative Imaging in "
            "Medicine and Surgery 2014;4(6):475-477."
        ),
        rows={"all": 662},
        positives={"all": {"TB": 336}},
    ),
)


@hookimpl
def ark_datasets() -> list[DatasetSpec]:
    """Return ``shenzhen``."""
    return [SPEC]
