"""``ark predict``: a table of probabilities for films."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, TextIO

import click

from ark_framework.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd

    from ark_framework.pretrained import Pretrained
    from ark_framework.transfer.predict import Predicted
    from ark_framework.transfer.saliency import Gallery

# Seconds between lines that say how far it has come, and digits of a probability: a float32's.
QUIET, DIGITS = 10.0, 9


@click.command("predict")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--list",
    "listed",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also the films in a text file, one a line, or in a CSV's column image or path.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The table to write; else to stdout.")
@click.option("--overwrite", is_flag=True, help="Write over what is at --out and --saliency.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON, an object a line, not CSV.")
@click.option("--tasks", multiple=True, metavar="TASK,...", help="Heads to show; all by default.")
@click.option(
    "--score",
    "scores",
    multiple=True,
    metavar="[NAME=]TASK:LABEL[+...]",
    help="Add a column: an output, or the mean of several. May be repeated.",
)
@click.option(
    "--saliency",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Also write where in each film an output comes from, as pictures.",
)
@click.option("--for", "asked", metavar="TASK:LABEL", help="The output for --saliency.")
@click.option("--raw-maps", is_flag=True, help="Beside each picture its map, as .npy.")
@click.option(
    "--max-bad",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Unreadable films to put up with; more of them give exit code 3.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes that decode; else all cores."
)
@click.option("--device", help="Where the model computes; else the GPU where there is one.")
def predict(
    model: Path,
    images: tuple[Path, ...],
    listed: Path | None,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    tasks: tuple[str, ...],
    scores: tuple[str, ...],
    saliency: Path | None,
    asked: str | None,
    raw_maps: bool,
    max_bad: int,
    workers: int | None,
    device: str | None,
) -> None:
    """Write a table of probabilities for films, one row each.

    MODEL is a run, a checkpoint, or the folder of an import or export.  IMAGES are files (PNG,
    JPEG, TIFF, DICOM) and folders, searched with all that is below them.  A film that cannot be
    read keeps its row, without numbers and with the reason in the last column.  Research use only.

    \b
    ark predict runs/first films/ --out table.csv
    ark predict models/ark6 films/ --score tb=vindr:Tuberculosis+shenzhen:TB
    """
    from ark_framework.transfer.films import find
    from ark_framework.transfer.predict import Layout, choose
    from ark_framework.transfer.predict import predict as predicted
    from ark_framework.transfer.zeroshot import parse_score

    if not images and listed is None:
        raise ConfigError("name films, folders, or a --list of films")
    names = find(images, listed=listed)
    _may_write(out, saliency, overwrite=overwrite)
    loaded = _load(model, device)
    layout = Layout(
        tasks=choose(loaded, [name for each in tasks for name in each.split(",") if name]),
        scores=tuple(parse_score(each, loaded.tasks) for each in scores),
        pictures=saliency is not None,
    )
    gallery = _gallery(loaded, saliency, asked, raw=raw_maps)
    _say_unnamed(loaded)
    tally = _Tally()
    with _opened(out) as file:
        for found in predicted(loaded, names, workers=workers):
            pictures = gallery.hang(found) if gallery else ()
            _write(layout.rows(found, pictures), file, as_json=as_json, first=not tally.films)
            tally.add(found)
    tally.close(out, max_bad)


def _may_write(out: Path | None, saliency: Path | None, *, overwrite: bool) -> None:
    if out is not None:
        if out.is_dir() or not out.parent.is_dir():
            raise ConfigError(f"--out {out}: name a file in a folder that exists")
        if out.exists() and not overwrite:
            raise ConfigError(f"--out {out} exists; name another file or give --overwrite")
    if saliency is not None and saliency.exists():
        if not saliency.is_dir():
            raise ConfigError(f"--saliency {saliency}: is a file, not a folder")
        if any(saliency.iterdir()) and not overwrite:
            raise ConfigError(f"--saliency {saliency} is in use; name another or give --overwrite")


def _load(model: Path, device: str | None) -> Pretrained:
    from ark_framework.config import RuntimeConfig
    from ark_framework.pretrained import load
    from ark_framework.runtime import open_runtime

    return load(model, device=open_runtime(RuntimeConfig(device=device)).device)


def _gallery(
    model: Pretrained, folder: Path | None, asked: str | None, *, raw: bool
) -> Gallery | None:
    if (folder is None) != (asked is None) or (raw and folder is None):
        raise ConfigError("--saliency FOLDER and --for TASK:LABEL are given together")
    if folder is None or asked is None:
        return None
    from ark_framework.transfer.saliency import Gallery
    from ark_framework.transfer.zeroshot import parse_score

    parts = parse_score(asked, model.tasks).parts
    if len(parts) > 1:
        raise ConfigError(f"--for {asked}: one output, not a mean of several")
    return Gallery(folder, model, parts[0], raw=raw)


def _say_unnamed(model: Pretrained) -> None:
    unnamed = [task.name for task in model.tasks if not task.named]
    if unnamed:
        click.echo(f"names not known: heads {', '.join(unnamed)} and their labels", err=True)


@contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    """Open a file that is put in place when it is whole, or standard output."""
    if out is None:
        yield sys.stdout
        return
    beside = out.with_name(f".{out.name}.part")
    try:
        with beside.open("w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)


def _write(rows: pd.DataFrame, file: TextIO, *, as_json: bool, first: bool) -> None:
    if as_json:
        rows.to_json(file, orient="records", lines=True, double_precision=15)
    else:
        rows.to_csv(file, index=False, header=first, float_format=f"%.{DIGITS}g")


class _Tally:
    """Films so far, and those that could not be read."""

    def __init__(self) -> None:
        self.films = self._bad = 0
        self._first = ""
        self._spoke = monotonic()

    def add(self, found: Predicted) -> None:
        """Count some films; a line now and then says how far it has come."""
        self.films += len(found.names)
        if found.problems and not self._bad:
            name, why = next(iter(found.problems.items()))
            self._first = f"{name}: {why}"
        self._bad += int((~found.readable).sum())
        if monotonic() - self._spoke > QUIET:
            self._spoke = monotonic()
            click.echo(f"predicted {self.films:,} films", err=True)

    def close(self, out: Path | None, max_bad: int) -> None:
        """Say what could not be read.

        Raises:
            DataError: it is more than ``max_bad``.
        """
        where = f" in {out}" if out else ""
        said = f"{self._bad} of {self.films} films cannot be read, the first {self._first}"
        if self._bad > max_bad:
            raise DataError(f"{said}; the others are{where or ' above'} (--max-bad {max_bad})")
        if self._bad:
            click.echo(said, err=True)
        if out:
            click.echo(f"{self.films} films{where}")
