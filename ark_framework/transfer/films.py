"""The films that somebody names: found, and decoded a window at a time."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ark_framework.decoding import Reader, cores, decode_all
from ark_framework.errors import ConfigError, DataError
from ark_framework.images import FORMATS, read_image
from ark_framework.packing import ALONE

if TYPE_CHECKING:
    from ark_framework.blueprint import Preprocessing

# Decoded films that may wait for the model: workers hand over as fast as they can.
WINDOW_BYTES = 2**28
COLUMNS = ("image", "path")  # of a CSV list


@dataclass(frozen=True, kw_only=True)
class Films:
    """Some films: their names, ``pixels`` ``(n, 1, R, R)`` uint8, and what is wrong, by name."""

    names: tuple[str, ...]
    pixels: np.ndarray
    problems: dict[str, str]


class Stems:
    """Names for what is written of films; of two alike, also but for case, the later has a number.

    Args:
        taken: Names that none may have.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = {name.casefold(): 1 for name in taken}

    def of(self, film: str) -> str:
        """Return the name for a film: its file's, without the suffix of its kind."""
        path = Path(film)
        return self.new(path.stem if path.suffix.lower() in suffixes() else path.name)

    def new(self, name: str) -> str:
        """Return this name, or where it is taken a new one."""
        while (count := self._taken.get(name.casefold(), 0)) > 0:
            self._taken[name.casefold()] += 1
            name = f"{name}-{count + 1}"
        self._taken[name.casefold()] = 1
        return name


def find(paths: Sequence[Path], *, listed: Path | None = None) -> Iterator[str]:
    """Return films: each named file, those below each named folder, those of a list.

    Below a folder a film is known by its suffix, a DICOM also by its first bytes; hidden files are
    left out, and folders are read in the order of their names.  A list is a text file with a path
    a line, or a CSV with a column ``image`` or ``path``; its paths start at the working folder.

    Raises:
        ConfigError: a named file or folder is not there.
        DataError: once there, a folder without films, or a list that cannot be read.
    """
    for path in paths:
        if not path.exists():
            raise ConfigError(f"{path}: no such file or folder")
    return _found(paths, listed)


def _found(paths: Sequence[Path], listed: Path | None) -> Iterator[str]:
    for path in paths:
        yield from _below(path) if path.is_dir() else (str(path),)
    if listed is not None:
        yield from _listed(listed)


def decoded(
    names: Iterable[str], film: Preprocessing, *, batch: int, workers: int | None = None
) -> Iterator[Films]:
    """Yield ``batch`` films at a time, fitted as the model was trained, black where unreadable.

    However many there are, a bounded number is held.

    Args:
        names: Files.
        film: How they are fitted.
        batch: Films at a time.
        workers: Processes; all cores when ``None``.  Few films are decoded in this one.

    Raises:
        MachineError: a codec is missing, or a worker died.
    """
    reader = Reader(root=None, channels=1, size=film.resize, fit=film.fit, read=_read)
    window = max(2 * ALONE, WINDOW_BYTES // film.resize**2)
    names = iter(names)
    while held := tuple(islice(names, window)):
        chunks = [held[start : start + batch] for start in range(0, len(held), batch)]
        count = 1 if len(held) <= ALONE else min(workers or cores(), len(chunks))
        with closing(decode_all(reader, chunks, workers=count)) as results:
            for chunk, (pixels, failed) in zip(chunks, results, strict=True):
                problems = {name: why.removeprefix(f"{name}: ") for name, why in failed.items()}
                yield Films(names=chunk, pixels=pixels, problems=problems)


@cache
def suffixes() -> frozenset[str]:
    """Return the suffixes of films, in lower case."""
    known = Image.registered_extensions().items()
    return frozenset({name for name, kind in known if kind in FORMATS} | {".dcm", ".dicom"})


def _read(row: Any, options: Any) -> np.ndarray:
    del options
    return read_image(Path(row.image))


def _below(folder: Path) -> Iterator[str]:
    found = False
    for path in _files(folder):
        if path.suffix.lower() in suffixes() or _starts_as_dicom(path):
            found = True
            yield str(path)
    if not found:
        raise DataError(f"{folder}: no film below it (PNG, JPEG, TIFF, DICOM)")


def _files(folder: Path) -> Iterator[Path]:
    for parent, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def _starts_as_dicom(path: Path) -> bool:
    try:
        if not path.is_file():
            return False  # a pipe would be waited for
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _listed(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() == ".csv":
                rows = csv.DictReader(file)
                column = next((name for name in COLUMNS if name in (rows.fieldnames or ())), None)
                if column is None:
                    raise DataError(f"{path}: no column 'image' or 'path'; films are named there")
                lines: Iterable[str] = (row[column] or "" for row in rows)
            else:
                lines = file
            names = (name for line in lines if (name := line.strip()))
            first = next(names, None)
            if first is None:
                raise DataError(f"{path}: names no film")
            yield first
            yield from names
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a list of films: {error}") from error
