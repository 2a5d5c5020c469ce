"""The Montgomery County films for Ark: 138 PA films, each with a mask of either lung.

Reads the folder as the NLM gives it out: ``CXR_png/``, the masks in ``ManualMask/leftMask/`` and
``ManualMask/rightMask/`` under the films' names, and the clinical readings.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from ark_framework import DataError, DatasetCard, DatasetSpec, LabelSchema, hookimpl

PIXEL_MM = 0.0875  # of the scanner (Jaeger et al. 2014)
MASKS = {"left_lung": "ManualMask/leftMask", "right_lung": "ManualMask/rightMask"}
FILMS, READINGS = "CXR_png", "ClinicalReadings"
PARENTS = ("", "MontgomerySet", "NLM-MontgomeryCXRSet/MontgomerySet")
FILM = r"MCUCXR_[0-9]{4}_[01]"
# "Patient's Sex: F" and "Patient's Age: 027Y", a line each, before the reading itself.
SEX = re.compile(r"^\s*Patient'?s Sex\s*:[ \t]*([^\n]*)", re.IGNORECASE | re.MULTILINE)
AGE = re.compile(r"^\s*Patient'?s Age\s*:[ \t]*([^\n]*)", re.IGNORECASE | re.MULTILINE)
PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}


class MontgomeryOptions(BaseModel):
    """Where the films are and how the split is drawn; relative paths start at ``root``.

    Args:
        root: The folder with ``CXR_png/``, or the one that holds its ``MontgomerySet/``.
        split_files: By split, a list of films instead of the drawn split: a film a line.
        test_fraction: Share of the films that becomes the test split; there is no official one.
        split_seed: Which films.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path
    split_files: dict[Literal["train", "val", "test"], Path] = Field(default_factory=dict)
    test_fraction: float = Field(default=0.2, ge=0, lt=1)
    split_seed: int = 0


def read(options: MontgomeryOptions) -> pd.DataFrame:
    """Return one row per film; with ``split_files`` a film in none of them has no split.

    Raises:
        DataError: a folder or list that is missing or wrong, naming the line.
    """
    parent = next((name for name in PARENTS if (options.root / name / FILMS).is_dir()), None)
    if parent is None:
        raise DataError(f"montgomery: neither {FILMS}/ nor MontgomerySet/ is in {options.root}")
    base = options.root / parent
    people = _readings(base / READINGS)
    # A film that only a reading names is kept, so that the store reports it.
    films = sorted({*_names(base / FILMS, ".png"), *people})
    _check(films, base / FILMS)
    split = _listed(options, films) if options.split_files else _drawn(options, films)
    unknown = (None, np.nan)
    return pd.DataFrame(
        {
            "image": [(Path(parent) / FILMS / f"{film}.png").as_posix() for film in films],
            "split": [split.get(film) for film in films],
            "sex": [people.get(film, unknown)[0] for film in films],
            "age": [people.get(film, unknown)[1] for film in films],
            "view": "PA",
        }
    )


def read_mask(row: Any, options: MontgomeryOptions) -> np.ndarray:
    """Return left and right lung ``(2, H, W)`` bool, in the masks' own size.

    Raises:
        DataError: a mask that is missing, broken, or of another size than the other.
    """
    film = options.root / row.image
    planes: list[np.ndarray] = []
    for folder in MASKS.values():
        path = film.parent.parent / folder / film.name
        try:
            if path.exists() and not path.is_file():
                raise OSError("is no regular file")
            with Image.open(path, formats=("PNG",)) as file:
                # Some are 0/1 and some 0/255: what is not black is lung.
                planes.append(np.asarray(file.convert("L")) > 0)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"montgomery: cannot read the mask {path}: {_short(error)}") from error
        if planes[-1].shape != planes[0].shape:
            raise DataError(f"montgomery: the mask {path} has another size than the left lung's")
    if _size(film) != planes[0].shape:
        raise DataError(f"montgomery: the masks of {film} have another size than the film")
    return np.stack(planes)


def extent(row: Any, options: MontgomeryOptions) -> tuple[float, float]:
    """Return a film's height and width in mm."""
    height, width = _size(options.root / row.image)
    return height * PIXEL_MM, width * PIXEL_MM


def _size(path: Path) -> tuple[int, int]:
    """Return a film's height and width in pixels, which are not read."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("is no regular file")
        with Image.open(path, formats=("PNG",)) as film:
            return film.height, film.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"montgomery: cannot read the film {path}: {_short(error)}") from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _names(folder: Path, ending: str) -> list[str]:
    """Return the films that a folder names; what is not called MCUCXR… belongs to others."""
    with os.scandir(folder) as files:
        names = [f.name for f in files if f.name.startswith("MCUCXR") and f.name.endswith(ending)]
    for name in sorted(names):
        if not re.fullmatch(FILM + re.escape(ending), name):
            raise DataError(
                f"montgomery: {folder / name}: the name is not MCUCXR_, four digits and _0 or _1"
            )
    return [name.removesuffix(ending) for name in names]


def _check(films: list[str], folder: Path) -> None:
    if not films:
        raise DataError(f"montgomery: {folder} has no film MCUCXR_*.png")
    for one, two in pairwise(films):
        if one[:-1] == two[:-1]:
            raise DataError(f"montgomery: {folder}: {one} and {two} are one film under two names")


def _readings(folder: Path) -> dict[str, tuple[str | None, float]]:
    people = {}
    for film in _names(folder, ".txt") if folder.is_dir() else []:
        path = folder / f"{film}.txt"
        try:
            if not path.is_file():
                raise OSError("is no regular file")
            # Other bytes than UTF-8 can only stand in the reading, which is not used.
            text = path.read_bytes()[:10_000].decode("utf-8-sig", "replace")
        except OSError as error:
            raise DataError(f"montgomery: cannot read {path}: {_short(error)}") from error
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        people[film] = _sex(_one(SEX, text, path)), _years(_one(AGE, text, path))
    return people


def _one(pattern: re.Pattern[str], text: str, path: Path) -> str:
    found = [(match.start(1), match[1].strip()) for match in pattern.finditer(text)]
    for place, value in found:
        if value != found[0][1]:
            line = text.count("\n", 0, place) + 1
            raise DataError(
                f"montgomery: {path}, line {line}: {value[:20]!r} here and {found[0][1][:20]!r} "
                "above"
            )
    return found[0][1] if found else ""


def _sex(text: str) -> str | None:
    return text.upper() if text.upper() in ("M", "F") else None


def _years(text: str) -> float:
    parts = re.fullmatch(r"([0-9]{1,4})([YMWD]?)", text.upper())
    years = float(parts[1]) / PER_YEAR[parts[2]] if parts else np.nan
    return years if years <= 120 else np.nan


def _listed(options: MontgomeryOptions, films: list[str]) -> dict[str, str]:
    known = set(films)
    splits: dict[str, str] = {}
    for split, file in options.split_files.items():
        path = options.root / file
        lines = _lines(path)
        if not lines:
            raise DataError(f"montgomery: the list {path} names no film")
        for number, line in lines:
            where = f"montgomery: {path}, line {number}"
            # Whatever follows the name belongs to others.
            first = re.split(r"[\s,]", line.strip(), maxsplit=1)[0]
            name = re.fullmatch(rf"(?:[\w-]+/)*({FILM})(?:\.png)?", first)
            if name is None:
                shown = line.strip()[:60]
                raise DataError(f"{where}: {shown!r} is no film; a film is MCUCXR_0001_0.png")
            if name[1] not in known:
                raise DataError(f"{where}: {name[1]} is not in the folder of films")
            if name[1] in splits:
                raise DataError(f"{where}: {name[1]} stands above already, or in another list")
            splits[name[1]] = split
    return splits


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("is no regular file")
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"montgomery: cannot read {path}, line {line}: not UTF-8 text") from error
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise DataError(f"montgomery: cannot read {path}: {_short(error)}") from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _drawn(options: MontgomeryOptions, films: list[str]) -> dict[str, str]:
    # A hash and not a shuffle: half of the films split as they do in the whole.
    splits = {}
    for film in films:
        digest = blake2b(f"{options.split_seed}:{film}".encode(), digest_size=8).digest()
        share = int.from_bytes(digest, "big") / 2**64
        splits[film] = "test" if share < options.test_fraction else "train"
    return splits


def fixture(folder: Path) -> MontgomeryOptions:
    """Write 48 drawn films 72 wide and 64 high, the lungs dark; every other mask is 1-bit."""
    for name in (FILMS, READINGS, *MASKS.values()):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(138)
    y, x = np.mgrid[:64, :72]
    for number in range(48):
        film = f"MCUCXR_{number + 1:04d}_{int(number >= 28)}"
        pixels = rng.normal(170, 12, y.shape)
        middle = rng.integers(28, 36)
        # The patient's left is on the right of the picture.
        for place, center in zip(MASKS.values(), (53, 19), strict=True):
            lung = ((y - middle) / 22) ** 2 + ((x - center - rng.integers(-2, 3)) / 11) ** 2 < 1
            pixels[lung] -= 110
            mask = Image.fromarray(lung if number % 2 else lung.astype(np.uint8) * 255)
            mask.save(folder / place / f"{film}.png")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / FILMS / f"{film}.png")
        text = f"Patient's Sex: {'MF'[number % 2]} \nPatient's Age: {20 + number:03d}Y\nnormal\n"
        (folder / READINGS / f"{film}.txt").write_text(text, encoding="utf-8")
    return MontgomeryOptions(root=folder, test_fraction=0.3)


SPEC = DatasetSpec(
    name="montgomery",
    schema=LabelSchema(name="montgomery-lungs", kind="mask", labels=tuple(MASKS)),
    options=MontgomeryOptions,
    read=read,
    read_mask=read_mask,
    extent=extent,
    fixture=fixture,
    card=DatasetCard(
        title="Montgomery County chest X-ray set (tuberculosis, lung masks)",
        home=(
            "https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/"
            "Montgomery-County-CXR-Set/MontgomerySet/index.html"
        ),
        licence=(
            "The set's own note: do not share it outside of your research group but forward "
            "requests to the NLM; name the NLM as the source; cite two papers."
        ),
        access="open",
        citation=(
            "Candemir S, Jaeger S, Musco J, et al. Lung segmentation in chest radiographs using "
            "anatomical atlases with nonrigid registration. IEEE Trans Med Imaging 2014;33:577-90; "
            "Jaeger S, Karargyris A, Candemir S, et al. Automatic tuberculosis screening using "
            "chest radiographs. IEEE Trans Med Imaging 2014;33:233-45."
        ),
        rows={"all": 138},
    ),
)


@hookimpl
def ark_datasets() -> list[DatasetSpec]:
    """Return ``montgomery``."""
    return [SPEC]
