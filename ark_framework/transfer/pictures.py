"""Some test films with the masks that were drawn and found, from the worst to the best."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ark_framework import masks as bits
from ark_framework.corpus import Corpus
from ark_framework.overlap import FilmScores
from ark_framework.overlay import colors, overlay
from ark_framework.transfer.structures import Structures

LEAST, GAP, LINE = 256, 6, 14  # side of a film as shown, and room between and above


def write(
    path: Path,
    corpus: Corpus,
    rows: np.ndarray,
    structures: Structures,
    found: np.ndarray,
    scores: FilmScores,
    count: int,
) -> None:
    """Write a sheet of ``count`` films at equal steps of Dice: the film, as drawn, as found.

    Args:
        path: A PNG.
        corpus: Whose films they are.
        rows: Table rows ``(n,)``.
        structures: The masks.
        found: Bits ``(n, B, S, S)`` uint8.
        scores: Of these films.
        count: How many are shown, at most.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a film without any drawn structure
        dice = np.nanmean(scores.dice, axis=1)
    order = np.argsort(dice)[: np.isfinite(dice).sum()]
    chosen = order[np.unique(np.linspace(0, len(order) - 1, count).round().astype(int))]
    paints = colors(len(structures.names))
    strips = []
    for index in chosen:
        film = corpus.images(rows[index : index + 1])[0].mean(axis=0).astype(np.uint8)
        true = structures.of(corpus.masks(rows[index : index + 1]))[0]
        mine = bits.unpack(found[index], len(structures.names))
        strips.append(_strip(film, true, mine, paints, f"Dice {dice[index]:.3f}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    _sheet(strips, structures.names, paints).save(path)


def _strip(
    film: np.ndarray, true: np.ndarray, found: np.ndarray, paints: np.ndarray, text: str
) -> Image.Image:
    # Enlarged before it is drawn on, so that outlines stay thin.
    times = -(-LEAST // len(film))
    film, true, found = (each.repeat(times, -1).repeat(times, -2) for each in (film, true, found))
    plain = np.repeat(film[..., None], 3, axis=2)
    side = len(film)
    made = Image.new("RGB", (3 * side + 2 * GAP, side + LINE))
    drawn = ((plain, text), (overlay(film, true, paints), "as drawn"))
    for place, (pixels, word) in enumerate((*drawn, (overlay(film, found, paints), "as found"))):
        made.paste(Image.fromarray(pixels), (place * (side + GAP), LINE))
        ImageDraw.Draw(made).text((place * (side + GAP), 1), word, fill="white")
    return made


def _sheet(strips: list[Image.Image], names: tuple[str, ...], paints: np.ndarray) -> Image.Image:
    width, height = strips[0].size
    across = 2 if len(strips) > 1 else 1
    down = -(-len(strips) // across)
    made = Image.new("RGB", (across * (width + 2 * GAP), down * (height + GAP) + 2 * LINE))
    for number, strip in enumerate(strips):
        made.paste(strip, (number % across * (width + 2 * GAP), number // across * (height + GAP)))
    left = 0.0
    draw = ImageDraw.Draw(made)
    for name, paint in zip(names, paints.tolist(), strict=True):
        draw.text((left, made.height - LINE), name, fill=tuple(paint))
        left += draw.textlength(f"{name}    ")
    return made
