"""A contact sheet: films as they are packed, and under each both views that training would draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image, ImageDraw

from ark_framework import masks as bits
from ark_framework.cli.choice import Chosen
from ark_framework.config import ViewsConfig
from ark_framework.errors import DataError
from ark_framework.overlay import colors, overlay
from ark_framework.packing import ensure
from ark_framework.specs import DatasetSpec
from ark_framework.views import Draws, draw, make_views

GAP = 4
HEADING = 16
# Wider cells show nothing more at the size that people look at a sheet.
LARGEST = 224
# Films of a dataset, where --limit does not say otherwise.
SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One dataset's films under ``title``.

    Attributes:
        films: ``(n, C, S, S)`` uint8.
        masks: ``(n, K, S, S)`` bool of the ``structures``, which a dataset without masks has none
            of.
    """

    title: str
    films: np.ndarray
    masks: np.ndarray
    structures: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Row:
    """Pictures ``(S, S, 3)`` under a heading, and under that a legend, line by line."""

    heading: str
    pictures: list[np.ndarray]
    legend: list[list[tuple[int, int]]]  # of each line, structures and where they begin

    def height(self, cell: int) -> int:
        return HEADING * (1 + len(self.legend)) + cell + GAP


def some_films(chosen: Chosen, spec: DatasetSpec) -> tuple[list[str], Strip]:
    """Draw some training films, decode them, and return their names and the strip.

    Raises:
        DataError: none of them can be read.
    """
    table, options = chosen.read(spec)
    rows = table.rows("train") if len(table.rows("train")) else np.arange(len(table))
    drawn = np.random.default_rng(chosen.config.seed).permutation(rows)
    images = table.frame["image"].iloc[np.sort(drawn[: chosen.config.limit or SHOWN])].tolist()
    store = chosen.config.store
    with TemporaryDirectory(prefix="ark-preview-") as folder:  # a look must not pack everything
        packed = ensure(
            spec, options, images, folder=Path(folder), size=store.size, fit=store.fit,
            structures=table.structures, workers=1, max_bad=len(images),
        )  # fmt: skip
        kept = packed.rows(images)
        if not (kept >= 0).any():
            image, reason = next(iter(packed.bad.items()))
            raise DataError(f"{spec.name}: no film could be read, the first {image!r}: {reason}")
        strip = Strip(
            title=f"{spec.name} ({len(table)} films)",
            films=np.array(packed.images[kept[kept >= 0]]),
            masks=bits.unpack(np.array(packed.masks[kept[kept >= 0]]), packed.structures),
            structures=table.schema.labels if table.structures else (),
        )
    return [image for image, row in zip(images, kept, strict=True) if row >= 0], strip


def contact_sheet(strips: Sequence[Strip], views: ViewsConfig, *, seed: int) -> Image.Image:
    """Draw rows for each dataset: the packed films, the student's views, the teacher's.

    A dataset of masks has a row more, its masks over the films, and its views show the masks under
    the geometry of the film.
    """
    cell = min(LARGEST, max(strip.films.shape[-1] for strip in strips))
    count = max(len(strip.films) for strip in strips)
    width = GAP + count * (cell + GAP)
    rows = [
        (strip, row)
        for place, strip in enumerate(strips)
        for row in _rows(strip, views, np.random.default_rng([seed, place]), width)
    ]
    sheet = Image.new("RGB", (width, sum(row.height(cell) for _, row in rows)), "white")
    pen, top = ImageDraw.Draw(sheet), 0
    for strip, row in rows:
        pen.text((GAP, top + 2), row.heading, fill="black")
        _draw_legend(pen, row.legend, strip.structures, top + HEADING)
        below = top + HEADING * (1 + len(row.legend))
        for column, picture in enumerate(row.pictures):
            shown = Image.fromarray(picture).resize((cell, cell))
            sheet.paste(shown, (GAP + column * (cell + GAP), below))
        top += row.height(cell)
    return sheet


def _rows(
    strip: Strip, views: ViewsConfig, generator: np.random.Generator, width: int
) -> Iterator[_Row]:
    draws = draw(len(strip.films), views, generator)
    seen = make_views(torch.from_numpy(strip.films), draws, views)
    yield _Row(f"{strip.title}: as packed", _pictures(strip.films, None), [])
    if strip.structures:
        legend = _legend(strip.structures, width)
        yield _Row("with its masks", _pictures(strip.films, strip.masks), legend)
    carried = _carry(strip.masks, draws, views) if strip.structures else (None, None)
    for name, films, masks in zip(("student", "teacher"), seen, carried, strict=True):
        pixels = films.mul(255).round().to(torch.uint8).numpy()
        yield _Row(f"{name}'s view", _pictures(pixels, masks), [])


def _carry(masks: np.ndarray, draws: Draws, views: ViewsConfig) -> tuple[np.ndarray, ...]:
    """Return both views ``(n, K, V, V)`` bool of masks: the films' geometry, no photometry."""
    one = np.ones(len(masks))
    still = replace(draws, gain=one, offset=0 * one, gamma=one)
    white = torch.from_numpy(masks.astype(np.uint8) * 255)
    return tuple(view.numpy() >= 0.5 for view in make_views(white, still, views))


def _pictures(films: np.ndarray, masks: np.ndarray | None) -> list[np.ndarray]:
    """Draw masks, where there are any, over films."""
    if masks is None:
        return [_picture(film) for film in films]
    grey = films.mean(axis=1).round().astype(np.uint8)
    return [overlay(film, mask) for film, mask in zip(grey, masks, strict=True)]


def _picture(film: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(np.broadcast_to(film, (3, *film.shape[1:])), 0, 2))


def _legend(structures: Sequence[str], width: int) -> list[list[tuple[int, int]]]:
    """Lay out which structures stand on each line, and where they begin."""
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    lines: list[list[tuple[int, int]]] = [[]]
    start = GAP
    for place, name in enumerate(structures):
        long = HEADING + round(pen.textlength(name)) + 2 * GAP
        if lines[-1] and start + long > width:
            lines.append([])
            start = GAP
        lines[-1].append((place, start))
        start += long
    return lines


def _draw_legend(
    pen: ImageDraw.ImageDraw,
    legend: list[list[tuple[int, int]]],
    structures: Sequence[str],
    top: int,
) -> None:
    paints = colors(len(structures)).tolist()
    for line, entries in enumerate(legend):
        for place, start in entries:
            y = top + line * HEADING
            box = (start, y + 3, start + HEADING - 2 * GAP, y + HEADING - GAP)
            pen.rectangle(box, fill=tuple(paints[place]))
            pen.text((start + HEADING - GAP, y + 2), structures[place], fill="black")
