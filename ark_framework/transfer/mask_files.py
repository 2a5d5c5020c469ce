"""Films' masks as files: at each film's own size, drawn over it, and in a row of a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image, ImageDraw

from ark_framework.errors import ArkError, MachineError
from ark_framework.images import fit_square, read_image, to_uint8
from ark_framework.overlay import colors, overlay
from ark_framework.transfer.films import Stems
from ark_framework.transfer.segmentation import INSIDE
from ark_framework.transfer.segmenter import Segmenter
from ark_framework.views import whole

MasksAs = Literal["png", "npz"]
MASKS_AS: tuple[str, ...] = get_args(MasksAs)
DRAWN = "overlay"  # the column, and the end of a picture's name
LARGEST = 1024  # long side of a picture
LONGEST = 80  # of a structure's name in a file's: a disk takes 255, and a union may have twenty
GAP, LINE = 4, 16  # of the legend, in pixels


class MaskFolder:
    """A folder of masks and pictures, named for their films; of two alike the later has a number.

    Args:
        folder: Made where it is not there.
        segmenter: What finds the masks.
        masks_as: ``png``, a file for each structure, 0 or 255; or ``npz``, ``masks`` ``(K, H, W)``
            bool and the names of the ``structures`` in one file for each film.
    """

    def __init__(self, folder: Path, segmenter: Segmenter, *, masks_as: MasksAs = "png") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._segmenter, self._masks_as = folder, segmenter, masks_as
        self._films = Stems()
        # Without a dot, so that what stands before the last one is the film.
        ends = Stems(taken=(DRAWN,))
        safe = [re.sub(r"[^\w+-]+", "_", each)[:LONGEST] for each in segmenter.structures]
        self._ends = [ends.new(each) for each in safe]

    @property
    def columns(self) -> list[str]:
        """Return the columns of the table.

        ``image``; ``area:<structure>``, percent of the film, and ``pixels:<structure>``;
        ``mask:<structure>`` or ``masks``, and ``overlay``, which are files; and ``problem``, why a
        film cannot be read.
        """
        names = self._segmenter.structures
        sizes = [f"{what}:{name}" for what in ("area", "pixels") for name in names]
        return ["image", *sizes, *self._files(), DRAWN, "problem"]

    def add(self, film: str) -> dict[str, Any]:
        """Find and write a film's masks, and return its row; one that cannot be read has no more.

        Raises:
            MachineError: a codec is missing, or the disk refuses.
        """
        row: dict[str, Any] = {**dict.fromkeys(self.columns), "image": film}
        try:
            pixels = read_image(Path(film))
        except MachineError:
            raise
        except ArkError as error:
            return row | {"problem": str(error).removeprefix(f"{film}: ")}
        masks = find(self._segmenter, pixels)
        for name, mask in zip(self._segmenter.structures, masks, strict=True):
            count = int(np.count_nonzero(mask))
            row |= {f"area:{name}": 100 * count / mask.size, f"pixels:{name}": count}
        return row | self._write(self._films.of(film), pixels, masks)

    def _files(self) -> list[str]:
        names = self._segmenter.structures
        return [f"mask:{name}" for name in names] if self._masks_as == "png" else ["masks"]

    def _write(self, stem: str, pixels: np.ndarray, masks: np.ndarray) -> dict[str, str]:
        """Write a film's files and return their names by column."""
        names = self._segmenter.structures
        if self._masks_as == "png":
            files = [f"{stem}.{end}.png" for end in self._ends]
        else:
            files = [f"{stem}.npz"]
        picture = f"{stem}.{DRAWN}.png"
        try:
            if self._masks_as == "png":
                for file, mask in zip(files, masks, strict=True):
                    _image(mask).save(self._folder / file)
            else:
                np.savez_compressed(self._folder / files[0], masks=masks, structures=names)
            draw(pixels, masks, names).save(self._folder / picture)
        except OSError as error:
            raise MachineError(
                f"cannot write masks of {stem} to {self._folder}: {error}; free some space"
            ) from error
        return {**dict(zip(self._files(), files, strict=True)), DRAWN: picture}


def find(segmenter: Segmenter, pixels: np.ndarray) -> np.ndarray:
    """Return a film's masks ``(K, H, W)`` bool at its own size.

    Probabilities are brought back bilinearly, and a pixel is in where they are at least one half.

    Args:
        segmenter: What finds them.
        pixels: ``(H, W)``, uint8 or uint16.
    """
    film = segmenter.preprocessing
    square = torch.tensor(fit_square(pixels, film.size, film.fit))[None]
    chances = segmenter.segment(whole(square, film.size))[0].cpu().numpy()
    found = np.empty((len(chances), *pixels.shape), dtype=bool)
    for place, plane in enumerate(chances):  # one at a time: twenty ribs are twenty large films
        found[place] = unfit(plane, pixels.shape, film.fit) >= INSIDE
    return found


def unfit(plane: np.ndarray, shape: Sequence[int], fit: str) -> np.ndarray:
    """Bring a plane of the square back to its film: what :func:`images.fit_square` did, undone.

    Args:
        plane: ``(S, S)`` float32.
        shape: ``(H, W)`` of the film.
        fit: How the film became the square.

    Returns:
        ``(H, W)`` float32, bilinear; zero where ``crop`` cut the film away.
    """
    height, width = shape
    if fit == "squash":
        return _resized(plane, height, width)
    side = max(shape) if fit == "pad" else min(shape)
    square = _resized(plane, side, side)
    top, left = abs(height - side) // 2, abs(width - side) // 2
    if fit == "pad":
        return square[top : top + height, left : left + width]
    film = np.zeros((height, width), dtype=np.float32)
    film[top : top + side, left : left + side] = square
    return film


def draw(pixels: np.ndarray, masks: np.ndarray, names: Sequence[str]) -> Image.Image:
    """Draw masks over their film, of ``LARGEST`` pixels on its long side at most, and a legend.

    Args:
        pixels: ``(H, W)``, uint8 or uint16.
        masks: ``(K, H, W)`` bool.
        names: Of the ``K`` structures.
    """
    film = Image.fromarray(to_uint8(pixels))
    share = min(1.0, LARGEST / max(film.size))
    width, height = (max(1, round(side * share)) for side in film.size)
    film = film.resize((width, height), Image.Resampling.BILINEAR)
    small = np.empty((len(masks), height, width), dtype=bool)
    for place, mask in enumerate(masks):
        shown = _image(mask).resize((width, height), Image.Resampling.BILINEAR)
        small[place] = np.asarray(shown) >= 128
    return _with_legend(Image.fromarray(overlay(np.asarray(film), small)), names)


def _with_legend(picture: Image.Image, names: Sequence[str]) -> Image.Image:
    pen = ImageDraw.Draw(picture)
    cell = LINE + GAP + max(int(pen.textlength(name)) + 1 for name in names)
    across = max(1, picture.width // cell)
    lines = -(-len(names) // across)
    made = Image.new("RGB", (max(picture.width, cell), picture.height + lines * LINE + GAP))
    made.paste(picture, (0, 0))
    pen = ImageDraw.Draw(made)
    for place, (name, paint) in enumerate(zip(names, colors(len(names)).tolist(), strict=True)):
        left = place % across * cell
        top = picture.height + GAP + place // across * LINE
        pen.rectangle((left + 2, top + 1, left + LINE - GAP, top + LINE - GAP - 1), tuple(paint))
        pen.text((left + LINE, top), name, fill="white")
    return made


def _image(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * np.uint8(255))


def _resized(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))
