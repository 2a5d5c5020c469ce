"""The JSRT films for Ark: 247 films, with the SCR masks of lungs, heart and clavicles.

Reads the raw ``.IMG`` films of the JSRT, or films converted to PNG, and the masks that the SCR
database gives out for them in ``scratch/fold1/masks/`` and ``scratch/fold2/masks/``.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from hashlib import blake2b
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from ark_framework import DataError, DatasetCard, DatasetSpec, LabelSchema, hookimpl

STRUCTURES = ("left_lung", "right_lung", "heart", "left_clavicle", "right_clavicle")
COUNTS = {"JPCLN": 154, "JPCNN": 93}
FILM = re.compile(r"(JPC[LN]N[0-9]{3})(\.IMG|\.IMG\.png|\.png)", re.IGNORECASE)
MASK = re.compile(r"(JPC[LN]N[0-9]{3})(?:\.IMG)?(\.gif|\.png)", re.IGNORECASE)
LISTED = re.compile(r"(?:[\w-]+/)*(JPC[LN]N[0-9]{3})(?:\.IMG)?(?:\.png|\.gif)?", re.IGNORECASE)
CLINICAL = ("clndat_en.txt", "cnndat_en.txt")
# JPCLN: name, subtlety, size, age, sex, x, y, …; JPCNN: name, age, sex, ….
SEX_FIELD = {"JPCLN": 4, "JPCNN": 2}
DEEPEST = 4095  # 12 bits
SIDE_MM = 2048 * 0.175  # of every film: pixels of 0.175 mm (Shiraishi et al. 2000)
FOLDS = {"fold1": "train", "fold2": "test"}
BROKEN = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


class JsrtOptions(BaseModel):
    """Where the files are and how the films are split; relative paths start at ``root``.

    Args:
        root: The folder below which films, masks and clinical files lie.
        split: ``seeded``: a share of the films is drawn as test; ``scr``: trained on the SCR's
            ``fold1`` and tested on its ``fold2``, by where a film's masks lie.
        split_files: By split, a list of films instead: a film a line.
        test_fraction: Share of the films that ``seeded`` makes the test split.
        split_seed: Which films.
        side: Height and width of the raw films; only the miniature has another.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path
    split: Literal["seeded", "scr"] = "seeded"
    split_files: dict[Literal["train", "val", "test"], Path] = Field(default_factory=dict)
    test_fraction: float = Field(default=0.2, ge=0, lt=1)
    split_seed: int = 0
    side: int = Field(default=2048, gt=0)


def read(options: JsrtOptions) -> pd.DataFrame:
    """Return one row per film; a film without any mask, or in no list, has no split.

    Raises:
        DataError: no films or no masks, two of one film, or a wrong list or clinical file.
    """
    files = _files(options.root)
    films, masks = _films(options.root, files), _masks(options.root, files)
    if not films or not masks:
        raise DataError(
            f"jsrt: no {'mask' if films else 'film'} below {options.root}; films are called "
            "JPCLN001.IMG, and masks lie in masks/heart/, masks/left lung/, …"
        )
    splits = _listed(options, films, masks) if options.split_files else _split(options, masks)
    people = _people(options.root, files)
    names, unknown = sorted(films), (None, np.nan)
    return pd.DataFrame(
        {
            "image": [films[name] for name in names],
            "split": [splits.get(name) for name in names],
            "sex": [people.get(name, unknown)[0] for name in names],
            "age": [people.get(name, unknown)[1] for name in names],
            "view": "PA",
        }
    )


def read_image(row: Any, options: JsrtOptions) -> np.ndarray:
    """Return a film ``(H, W)``; a raw one is inverted, so that bone is bright.

    Raises:
        DataError: a film that is missing or broken, or a raw one of another length or depth.
    """
    path, side = options.root / row.image, options.side
    try:
        if path.exists() and not path.is_file():
            raise OSError("is no regular file")
        if path.suffix.lower() == ".png":
            with Image.open(path, formats=("PNG", "GIF")) as file:
                deep = file.mode.startswith("I")
                return np.asarray(file).astype(np.uint16) if deep else np.asarray(file.convert("L"))
        raw = path.read_bytes()
    except BROKEN as error:
        raise DataError(f"jsrt: cannot read {path}: {_short(error)}") from error
    if len(raw) != 2 * side * side:
        raise DataError(
            f"jsrt: {path} has {len(raw)} bytes; a raw film {side} x {side} has {2 * side * side}"
        )
    pixels = np.frombuffer(raw, dtype=">u2").reshape(side, side)
    if pixels.max() > DEEPEST:
        raise DataError(f"jsrt: {path} goes up to {pixels.max()}, which is no big-endian 12 bits")
    return (DEEPEST - pixels).astype(np.uint16)


def read_mask(row: Any, options: JsrtOptions) -> np.ndarray:
    """Return the five structures ``(5, H, W)`` bool, in the masks' own size; they may overlap.

    Raises:
        DataError: a mask that is missing, broken, or of another size than the first.
    """
    film = PurePath(row.image).name[:8].upper()
    found = _masks(options.root, _files(options.root, film)).get(film, {})
    planes: list[np.ndarray] = []
    for structure in STRUCTURES:
        if structure not in found:
            raise DataError(f"jsrt: {film} has no mask of {structure!r} below {options.root}")
        path = options.root / found[structure]
        try:
            if path.exists() and not path.is_file():
                raise OSError("is no regular file")
            with Image.open(path, formats=("PNG", "GIF")) as file:
                planes.append(np.asarray(file.convert("L")) > 0)
        except BROKEN as error:
            raise DataError(f"jsrt: cannot read the mask {path}: {_short(error)}") from error
        if planes[-1].shape != planes[0].shape:
            raise DataError(f"jsrt: the mask {path} has another size than that of {STRUCTURES[0]}")
    return np.stack(planes)


def extent(row: Any, options: JsrtOptions) -> tuple[float, float]:
    """Return a film's height and width in mm: all of them show the same field."""
    del row, options
    return SIDE_MM, SIDE_MM


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _files(root: Path, start: str = "") -> list[PurePath]:
    """Return every file below the root whose name starts so, sorted, relative to the root."""
    found = [
        PurePath(folder, name)
        for folder, _, names in os.walk(root)
        for name in names
        if name.upper().startswith(start)
    ]
    return sorted(path.relative_to(root) for path in found)


def _films(root: Path, files: list[PurePath]) -> dict[str, str]:
    raw: dict[str, str] = {}
    converted: dict[str, str] = {}
    for path in files:
        name = FILM.fullmatch(path.name)
        inside = [part.lower() for part in path.parts[:-1]]
        if name is None or "masks" in inside or (inside and _structure(inside[-1]) in STRUCTURES):
            continue
        film = name[1].upper()
        if not 1 <= int(film[5:]) <= COUNTS[film[:5]]:
            raise DataError(f"jsrt: {root / path}: the JSRT has no film {film}")
        if name[2].lower() == ".img":
            # All247images/ repeats Nodule154images/ and NonNodule93images/: either will do.
            raw.setdefault(film, path.as_posix())
        elif converted.setdefault(film, path.as_posix()) != path.as_posix():
            converted[film] += f" and {path.as_posix()}"
    for film, paths in converted.items():
        if " and " in paths and film not in raw:
            raise DataError(f"jsrt: {film} is below {root} twice: {paths}")
    return converted | raw


def _structure(folder: str) -> str:
    return folder.lower().replace(" ", "_").removesuffix("_png")


def _masks(root: Path, files: list[PurePath]) -> dict[str, dict[str, str]]:
    """Return film -> structure -> path; a GIF, as given out, is taken before a PNG."""
    found: dict[tuple[str, str, str], str] = {}
    for path in files:
        name = MASK.fullmatch(path.name)
        if name is None or len(path.parts) < 3 or path.parts[-3].lower() != "masks":
            continue
        structure = _structure(path.parts[-2])
        if structure not in STRUCTURES:
            continue
        key = name[1].upper(), structure, name[2].lower()
        if key in found:
            raise DataError(
                f"jsrt: {key[0]} has two masks of {structure!r} below {root}: {found[key]} and "
                f"{path.as_posix()}"
            )
        found[key] = path.as_posix()
    masks: dict[str, dict[str, str]] = {}
    for (film, structure, _), where in sorted(found.items(), key=lambda entry: entry[0]):
        masks.setdefault(film, {}).setdefault(structure, where)
    return masks


def _split(options: JsrtOptions, masks: dict[str, dict[str, str]]) -> dict[str, str]:
    splits = {}
    for film, paths in masks.items():
        if options.split == "scr":
            splits[film] = _fold(film, list(paths.values()), options.root)
            continue
        # A hash and not a shuffle: half of the films split as they do in the whole.
        digest = blake2b(f"{options.split_seed}:{film}".encode(), digest_size=8).digest()
        share = int.from_bytes(digest, "big") / 2**64
        splits[film] = "test" if share < options.test_fraction else "train"
    return splits


def _fold(film: str, paths: list[str], root: Path) -> str:
    folds = [FOLDS.keys() & {part.lower() for part in PurePath(path).parts} for path in paths]
    if len(folds[0]) != 1 or any(fold != folds[0] for fold in folds):
        raise DataError(
            f"jsrt: the masks of {film}, {root / paths[0]} and others, lie not all in fold1/ or "
            "all in fold2/, which split 'scr' needs"
        )
    return FOLDS[folds[0].pop()]


def _people(root: Path, files: list[PurePath]) -> dict[str, tuple[str | None, float]]:
    people: dict[str, tuple[str | None, float]] = {}
    for path in [root / file for file in files if file.name.lower() in CLINICAL]:
        # Other bytes than UTF-8 can only stand in the diagnosis, which is not used.
        records = [
            (number, record)
            for number, line in _lines(path, "replace")
            # Some editions have lost line ends: a record ends where the next film's name is.
            for record in re.split(r"(?=JPC[LN]N[0-9]{3}\.IMG)", line)[1:]
        ]
        if not records:
            raise DataError(f"jsrt: {path} names no film JPCLN001.IMG")
        for number, record in records:
            film, person = record[:8], _person(record)
            if repr(people.setdefault(film, person)) != repr(person):  # NaN is not NaN
                raise DataError(f"jsrt: {path}, line {number}: {film} is another person above")
    return people


def _person(record: str) -> tuple[str | None, float]:
    """Return sex and age, each missing where the record does not clearly say it."""
    fields = re.split(r"[\s,]+", record.strip().lower())
    place = SEX_FIELD[record[:5]]
    sexes = [field for field in fields if field in ("male", "female")]
    sex = {"male": "M", "female": "F"}[sexes[0]] if len(set(sexes)) == 1 else None
    # Size and subtlety are numbers too: an age is only what stands right where it should.
    known = len(fields) > place and fields[place] in ("male", "female")
    age = float(fields[place - 1]) if known and re.fullmatch(r"[0-9]+", fields[place - 1]) else -1
    return sex, age if 0 <= age <= 120 else np.nan


def _lines(path: Path, errors: str = "strict") -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("is no regular file")
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            text = file.read().decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"jsrt: cannot read {path}, line {line}: not UTF-8 text") from error
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise DataError(f"jsrt: cannot read {path}: {_short(error)}") from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _listed(
    options: JsrtOptions, films: dict[str, str], masks: dict[str, dict[str, str]]
) -> dict[str, str]:
    splits: dict[str, str] = {}
    for split, file in options.split_files.items():
        path = options.root / file
        lines = _lines(path)
        if not lines:
            raise DataError(f"jsrt: the list {path} names no film")
        for number, line in lines:
            where = f"jsrt: {path}, line {number}"
            # Whatever follows the name belongs to others.
            name = LISTED.fullmatch(re.split(r"[\s,]", line.strip(), maxsplit=1)[0])
            if name is None:
                shown = line.strip()[:60]
                raise DataError(f"{where}: {shown!r} is no film; a film is JPCLN001.IMG")
            film = name[1].upper()
            if film not in films or film not in masks:
                raise DataError(
                    f"{where}: {film} has no {'mask' if film in films else 'film'} below the root"
                )
            if film in splits:
                raise DataError(f"{where}: {film} stands above already, or in another list")
            splits[film] = split
    return splits


def fixture(folder: Path) -> JsrtOptions:
    """Write 54 drawn raw films 64 x 64: lungs dark, heart and clavicles bright."""
    rng = np.random.default_rng(247)
    clinical: dict[str, list[str]] = {"JPCLN": [], "JPCNN": []}
    places = {"JPCLN": "Nodule154images", "JPCNN": "NonNodule93images"}
    for number in range(54):
        kind = "JPCLN" if number < 30 else "JPCNN"
        order = len(clinical[kind]) + 1
        film, age, sex = f"{kind}{order:03d}", 20 + number, ("Male", "Female")[number % 2]
        masks = _draw(int(rng.integers(-2, 3)))
        shades = {"left_lung": 900, "right_lung": 900, "heart": 3000}
        pixels = rng.normal(2100, 150, (64, 64))
        for structure, mask in masks.items():
            pixels[np.kron(mask, np.ones((2, 2))) > 0] = shades.get(structure, 3600)
            at = folder / f"scratch/fold{2 - order % 2}/masks" / structure.replace("_", " ")
            at.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask.astype(np.uint8) * 255).save(at / f"{film}.gif")
        (folder / places[kind]).mkdir(exist_ok=True)
        raw = (DEEPEST - pixels.clip(0, DEEPEST)).astype(">u2")
        (folder / places[kind] / f"{film}.IMG").write_bytes(raw.tobytes())
        rest = "non-nodule" if order > number else "1634\t692\tmalignant\tl.upper lobe\tlung cancer"
        numbers = f"5\t15\t{age}" if kind == "JPCLN" else str(age)
        clinical[kind].append(f"{film}.IMG\t{numbers}\t{sex}\t{rest}\n")
    (folder / "Clinical_Information").mkdir(exist_ok=True)
    for name, lines in zip(("CLNDAT_EN.txt", "CNNDAT_EN.TXT"), clinical.values(), strict=True):
        path = folder / "Clinical_Information" / name
        path.write_text("".join(lines), encoding="utf-8")
    return JsrtOptions(root=folder, test_fraction=0.3, side=64)


def _draw(shift: int) -> dict[str, np.ndarray]:
    # The patient's left is on the right of the picture; the heart lies over the left lung.
    y, x = np.mgrid[:32, :32]
    y = y + shift
    return {
        "left_lung": ((y - 17) / 11) ** 2 + ((x - 23) / 6) ** 2 < 1,
        "right_lung": ((y - 17) / 11) ** 2 + ((x - 8) / 6) ** 2 < 1,
        "heart": ((y - 21) / 5) ** 2 + ((x - 18) / 5) ** 2 < 1,
        "left_clavicle": (abs(y - 7) < 2) & (x > 18) & (x < 28),
        "right_clavicle": (abs(y - 7) < 2) & (x > 3) & (x < 13),
    }


SPEC = DatasetSpec(
    name="jsrt",
    schema=LabelSchema(name="jsrt-organs", kind="mask", labels=STRUCTURES),
    options=JsrtOptions,
    read=read,
    read_image=read_image,
    read_mask=read_mask,
    extent=extent,
    fixture=fixture,
    card=DatasetCard(
        title="JSRT Digital Image Database, with the SCR masks",
        home="http://db.jsrt.or.jp/eng.php",
        licence="Given out for research after registration; read the terms there and at the SCR.",
        access="registered",
        citation=(
            "Shiraishi J, Katsuragawa S, Ikezoe J, et al. Development of a digital image database "
            "for chest radiographs with and without a lung nodule. AJR 2000;174:71-74; masks: van "
            "Ginneken B, Stegmann MB, Loog M. Segmentation of anatomical structures in chest "
            "radiographs using supervised methods. Medical Image Analysis 2006;10:19-40."
        ),
        rows={"all": 247},
    ),
)


@hookimpl
def ark_datasets() -> list[DatasetSpec]:
    """Return ``jsrt``."""
    return [SPEC]
