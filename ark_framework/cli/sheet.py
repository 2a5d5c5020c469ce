"""A contact sheet: films as they are packed, and under each both views that training would draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw

from ark_framework.config import ViewsConfig
from ark_framework.views import draw, make_views

GAP = 4
HEADING = 16
# Wider cells show nothing more at the size that people look at a sheet.
LARGEST = 224


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One dataset's films: ``films`` ``(n, C, S, S)`` uint8 under ``title``."""

    title: str
    films: np.ndarray


def contact_sheet(strips: Sequence[Strip], views: ViewsConfig, *, seed: int) -> Image.Image:
    """Draw three rows per dataset: the packed films, the student's views, the teacher's."""
    cell = min(LARGEST, max(strip.films.shape[-1] for strip in strips))
    count = max(len(strip.films) for strip in strips)
    height = 3 * (HEADING + cell + GAP)
    sheet = Image.new("RGB", (GAP + count * (cell + GAP), len(strips) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for place, strip in enumerate(strips):
        generator = np.random.default_rng([seed, place])
        student, teacher = make_views(
            torch.from_numpy(strip.films), draw(len(strip.films), views, generator), views
        )
        rows = (
            (f"{strip.title}: as packed", strip.films),
            ("student's view", _bytes(student)),
            ("teacher's view", _bytes(teacher)),
        )
        for row, (heading, films) in enumerate(rows):
            top = place * height + row * (HEADING + cell + GAP)
            pen.text((GAP, top + 2), heading, fill="black")
            for column, film in enumerate(films):
                where = (GAP + column * (cell + GAP), top + HEADING)
                sheet.paste(_picture(film, cell), where)
    return sheet


def _bytes(views: torch.Tensor) -> np.ndarray:
    array: np.ndarray = views.mul(255).round().to(torch.uint8).numpy()
    return array


def _picture(film: np.ndarray, side: int) -> Image.Image:
    pixels = np.moveaxis(np.broadcast_to(film, (3, *film.shape[1:])), 0, 2)
    return Image.fromarray(np.ascontiguousarray(pixels)).resize((side, side))
