"""VinDr-RibCXR for Ark: 245 PA films with the outlines of twenty ribs, R1 to R10 and L1 to L10.

Reads ``Vindr_RibCXR_train_mask.json`` and ``Vindr_RibCXR_val_mask.json`` as they are given out.  A
rib that was not drawn (``"None"``) may be on the film all the same: its column in the table is
missing, so that nobody trains on or scores its plane of the mask, which is all False.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw
from pydantic import BaseModel, ConfigDict

from ark_framework import DataError, DatasetCard, DatasetSpec, LabelSchema, hookimpl

RIBS = tuple(f"{side}{number}" for side in "RL" for number in range(1, 11))
# The official validation set is the published test set; the core makes a validation split.
SPLITS = {"train": "train", "val": "test"}
FOLDERS = ("", "Annotations", "Annotations/{part}", "data/{part}")
IMAGE = re.compile(r"(?:[\w. -]+/)*[\w. -]+\.png")
# No film is so large; a point beyond is a slip, and would overflow the drawing.
FARTHEST = 1e5
Outlines = dict[str, list[np.ndarray | None]]  # by film, those of its ribs


class VindrRibcxrOptions(BaseModel):
    """Where the files are.

    Args:
        root: The folder with the two JSON files, or with ``Annotations/``, that the paths of the
            films start at.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path


def read(options: VindrRibcxrOptions) -> pd.DataFrame:
    """Return one row per film: the official train as train, the official val as test.

    A rib's column is 1 where it was drawn and NaN where it was not.

    Raises:
        DataError: a file that is missing or wrong, naming the key.
    """
    splits: dict[str, str] = {}
    drawn: list[list[float]] = []
    for part, split in SPLITS.items():
        path = _path(options, part)
        for image, ribs in _outlines(path).items():
            if image in splits:
                raise DataError(f"vindr-ribcxr: {path}, key 'img': {image!r} is in both files")
            splits[image] = split
            drawn.append([np.nan if rib is None else 1.0 for rib in ribs])
    films = {"image": list(splits), "split": list(splits.values()), "view": "PA"}
    return pd.DataFrame(films).join(pd.DataFrame(drawn, columns=list(RIBS)))


def read_mask(row: Any, options: VindrRibcxrOptions) -> np.ndarray:
    """Return ``(20, H, W)`` bool: each rib, filled, at the film's own size.

    Raises:
        DataError: a film that no file names, or whose size cannot be read.
    """
    for part in SPLITS:
        ribs = _outlines(_path(options, part)).get(row.image)
        if ribs is not None:
            size = _size(options.root / row.image)
            return np.stack([_filled(rib, size) for rib in ribs])
    raise DataError(f"vindr-ribcxr: no file in {options.root} names the film {row.image!r}")


def _filled(rib: np.ndarray | None, size: tuple[int, int]) -> np.ndarray:
    plane = Image.new("1", size)
    if rib is not None:
        ImageDraw.Draw(plane).polygon([(x, y) for x, y in rib.tolist()], fill=1)
    return np.asarray(plane)


def _size(path: Path) -> tuple[int, int]:
    try:
        if path.exists() and not path.is_file():
            raise OSError("is no regular file")
        with Image.open(path, formats=("PNG", "JPEG")) as film:  # the pixels are not read
            return film.size
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"vindr-ribcxr: cannot read the film {path}: {reason}") from error


def _path(options: VindrRibcxrOptions, part: str) -> Path:
    name = f"Vindr_RibCXR_{part}_mask.json"
    paths = [options.root / folder.format(part=part) / name for folder in FOLDERS]
    found = next((path for path in paths if path.exists()), None)
    if found is None:
        raise DataError(
            f"vindr-ribcxr: {options.root} has no {name}, nor has Annotations/ or data/"
        )
    return found


def _outlines(path: Path) -> Outlines:
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"vindr-ribcxr: cannot read {path}: {error.strerror}") from error
    return _parse(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _parse(path: Path, *_changed: int) -> Outlines:
    """Read a file once, and not again for each mask."""
    found = _json(path)
    images = _objects(found, path)["img"]
    outlines: Outlines = {}
    for index, image in images.items():
        where = f"vindr-ribcxr: {path}, key 'img', index {index[:40]!r}"
        if not isinstance(image, str) or not IMAGE.fullmatch(image) or ".." in image.split("/"):
            raise DataError(f"{where}: {str(image)[:60]!r} is no path of a png below the root")
        if image in outlines:
            raise DataError(f"{where}: {image!r} stands above already")
        outlines[image] = [
            _outline(found[rib][index], f"vindr-ribcxr: {path}, key {rib!r}, index {index[:40]!r}")
            for rib in RIBS
        ]
    return outlines


def _json(path: Path) -> Any:
    try:
        if path.exists() and not path.is_file():
            raise OSError("is no regular file")
        return json.loads(path.read_bytes(), object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"vindr-ribcxr: cannot read {path}: {reason}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # JSON readers keep the last of two equal keys and say nothing.
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice[:40]!r} stands there twice")
    return entries


def _objects(found: Any, path: Path) -> dict[str, dict[str, Any]]:
    """Check that there are the films and each rib, and that all have the same indexes."""
    if not isinstance(found, dict):
        raise DataError(f"vindr-ribcxr: {path} is no JSON object with 'img' and the ribs")
    for key in ("img", *RIBS):
        where = f"vindr-ribcxr: {path}, key {key!r}"
        if key not in found:
            raise DataError(f"{where}: is missing")
        if not isinstance(found[key], dict):
            raise DataError(f"{where}: must be an object by index, not {type(found[key]).__name__}")
        if other := sorted(found[key].keys() ^ found["img"].keys()):
            raise DataError(f"{where}: has other indexes than 'img': {other[0][:40]!r}")
    if unknown := sorted(found.keys() - {"img", *RIBS}):
        raise DataError(
            f"vindr-ribcxr: {path}, key {unknown[0][:40]!r}: is no rib R1..R10, L1..L10"
        )
    if not found["img"]:
        raise DataError(f"vindr-ribcxr: {path}, key 'img': names no film")
    return found


def _outline(points: Any, where: str) -> np.ndarray | None:
    """Return the points ``(n, 2)``, x and y, or None where the rib was not drawn."""
    if points is None or points == "None":
        return None
    if not isinstance(points, list) or len(points) < 3:
        shown = f"{len(points)} points" if isinstance(points, list) else repr(points)[:40]
        raise DataError(f"{where}: must be three points or more, or 'None', not {shown}")
    for number, point in enumerate(points):
        good = isinstance(point, dict) and {"x", "y"} <= point.keys()
        if not good or not all(_place(point[axis]) for axis in "xy"):
            shown = repr(point)[:60]
            raise DataError(f"{where}, point {number}: {shown} has not x and y on a film")
    return np.array([(point["x"], point["y"]) for point in points], dtype=np.float64)


def _place(value: Any) -> bool:
    # NaN compares as False; true and false are integers to Python.
    return type(value) in (int, float) and -FARTHEST <= value <= FARTHEST


def fixture(folder: Path) -> VindrRibcxrOptions:
    """Write 52 drawn films: the ribs are bright bands that slope down and out, and may overlap."""
    rng = np.random.default_rng(245)
    for part, count in (("train", 40), ("val", 12)):
        images: dict[str, str] = {}
        ribs: dict[str, dict[str, Any]] = {rib: {} for rib in RIBS}
        (folder / "data" / part / "img").mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image = f"data/{part}/img/VinDr_RibCXR_{part}_{number:03d}.png"
            images[str(number)] = image
            pixels = rng.normal(60, 5, (64, 64))
            shift = rng.uniform(-2, 2, 2)
            for place, rib in enumerate(RIBS):
                if place == number % 37:  # one rib of some films was not drawn
                    ribs[rib][str(number)] = "None"
                    continue
                points = _band(place) + shift
                pixels += 70 * _filled(points, (64, 64))
                ribs[rib][str(number)] = [{"x": x, "y": y} for x, y in points.tolist()]
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / image)
        text = json.dumps({"img": images, **ribs})
        (folder / f"Vindr_RibCXR_{part}_mask.json").write_text(text, encoding="utf-8")
    return VindrRibcxrOptions(root=folder)


def _band(place: int) -> np.ndarray:
    # A right rib is on the left of the film.
    inner, outer = (30, 6) if place < 10 else (34, 58)
    top = 4 + 5 * (place % 10)
    return np.array([(inner, top), (outer, top + 5), (outer, top + 9), (inner, top + 4)], float)


SPEC = DatasetSpec(
    name="vindr-ribcxr",
    schema=LabelSchema(name="vindr-ribs", kind="mask", labels=RIBS),
    options=VindrRibcxrOptions,
    read=read,
    fixture=fixture,
    read_mask=read_mask,
    card=DatasetCard(
        title="VinDr-RibCXR: segmentation and labelling of individual ribs",
        home="https://vindr.ai/datasets/ribcxr",
        licence="VinDr data use agreement: signed, and sent to the owners for the link.",
        access="credentialed",
        citation=(
            "Nguyen HC, Le TT, Pham HH, Nguyen HQ. VinDr-RibCXR: A Benchmark Dataset for Automatic "
            "Segmentation and Labeling of Individual Ribs on Chest X-rays. MIDL 2021. "
            "arXiv:2107.01327."
        ),
        rows={"train": 196, "test": 49, "all": 245},
    ),
)


@hookimpl
def ark_datasets() -> list[DatasetSpec]:
    """Return ``vindr-ribcxr``."""
    return [SPEC]
