"""What ``ark predict`` writes: a table that is whole or not there, and how many films it holds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, TextIO

from ark_framework.cli.plain import answers, echo
from ark_framework.durations import left
from ark_framework.errors import ConfigError, DataError
from ark_framework.text import printable

if TYPE_CHECKING:
    import pandas as pd

# Seconds between lines that say how far it has come, and digits of a probability: a float32's.
QUIET, DIGITS = 10.0, 9


@dataclass
class Output:
    """The table of ``ark predict``, written a few rows at a time.

    Attributes:
        out: Its file; standard output when ``None``.
        as_json: Whether it is an object a line, not CSV.
        max_bad: Unreadable films to put up with.
        total: How many films there will be.
    """

    out: Path | None
    as_json: bool
    max_bad: int
    total: int
    _films: int = field(default=0, init=False)
    _bad: int = field(default=0, init=False)
    _first: str = field(default="", init=False)
    _began: float = field(default=0.0, init=False)
    _spoke: float = field(default=0.0, init=False)

    def check(self, *, overwrite: bool) -> None:
        """Refuse a file where none can be, or where one is.

        Raises:
            ConfigError: it is so.
        """
        if self.out is None:
            return
        if self.out.is_dir() or not self.out.parent.is_dir():
            raise ConfigError(f"--out {self.out}: name a file in a folder that exists")
        if self.out.exists() and not overwrite:
            raise ConfigError(f"--out {self.out} exists; name another file or give --overwrite")

    @contextmanager
    def opened(self) -> Iterator[TextIO]:
        """Open a file that is put in place when it is whole, or standard output."""
        self._began = self._spoke = monotonic()
        if self.out is None:
            yield answers()
            return
        beside = self.out.with_name(f".{self.out.name}.part")
        try:
            with beside.open("w", encoding="utf-8", newline="") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.out)
        finally:
            beside.unlink(missing_ok=True)

    def add(self, rows: pd.DataFrame, problems: Mapping[str, str], file: TextIO) -> None:
        """Write a row per film; a line now and then says how far it has come.

        Args:
            rows: In the order of the films; the column ``image`` has their names.
            problems: Why a film cannot be read, by name.
            file: As :meth:`opened` gave it.
        """
        if problems and not self._bad:
            self._first = ": ".join(next(iter(problems.items())))
        self._bad += int(rows["image"].isin(list(problems)).sum())
        texts = rows.select_dtypes(exclude="number").map(_written)
        rows = rows.assign(**{str(name): column for name, column in texts.items()})
        if self.as_json:
            rows.to_json(file, orient="records", lines=True, double_precision=15)
        else:
            header = not self._films
            text = rows.to_csv(index=False, header=header, float_format=f"%.{DIGITS}g")
            file.write(printable(text) if file.isatty() else text)
        self._films += len(rows)
        if monotonic() - self._spoke > QUIET:
            self._spoke = monotonic()
            remains = left(self._films, self.total, seconds=self._spoke - self._began)
            echo(f"predicted {self._films:,} of {self.total:,} films{remains}", err=True)

    def close(self) -> None:
        """Say how many films there are, and what could not be read.

        Raises:
            DataError: it is more than ``max_bad``.
        """
        where = f" in {self.out}" if self.out else ""
        said = f"{self._bad} of {self._films} films cannot be read, the first {self._first}"
        if self._bad > self.max_bad:
            raise DataError(f"{said}; the others are{where or ' above'} (--max-bad {self.max_bad})")
        if self._bad:
            echo(said, err=True)
        if self.out:
            echo(f"{self._films} films{where}")


def _written(value: object) -> object:
    """Return a name as text: bytes in it that are none are spelled out, as are returns.

    Before Python 3.13 a CSV does not quote a return, which would end its row.
    """
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "backslashreplace").decode().replace("\r", "\\r")


def may_fill(option: str, folder: Path, films: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse a folder of pictures that is in use, or would be searched for films.

    Raises:
        ConfigError: it is so.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{option} {folder}: is a file, not a folder")
    for path in films:
        if path.is_dir() and folder.resolve().is_relative_to(path.resolve()):
            raise ConfigError(f"{option} {folder}: lies in {path}, which is searched for films")
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise ConfigError(f"{option} {folder} is in use; name another or give --overwrite")
