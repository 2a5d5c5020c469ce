"""Masks of structures that may overlap: a bit for each structure, eight structures to a byte."""

from __future__ import annotations

import numpy as np

from ark_framework.images import fit_square

# White of a mask while it is resized: its half, quarters … and 64ths are whole grey values, so
# that what is exactly half inside is not lost to rounding.
WHITE = 192


def planes(count: int) -> int:
    """Return how many byte planes hold ``count`` structures."""
    return -(-count // 8)


def pack(structures: np.ndarray) -> np.ndarray:
    """Pack ``(..., K, H, W)`` bool into ``(..., B, H, W)`` uint8: bit ``k % 8`` of ``k // 8``."""
    return np.packbits(structures, axis=-3, bitorder="little")


def unpack(bits: np.ndarray, count: int) -> np.ndarray:
    """Return the ``count`` structures ``(..., K, H, W)`` bool of ``(..., B, H, W)`` uint8."""
    return np.unpackbits(bits, axis=-3, count=count, bitorder="little").astype(bool)


def fit(structures: np.ndarray, size: int, fit: str) -> np.ndarray:
    """Fit masks to the square that their film becomes (see :func:`images.fit_square`).

    Args:
        structures: ``(K, H, W)`` bool; its size may be another than the film's, its aspect not.
            Where ``pad`` and ``crop`` halve an odd number, the two differ by half of its pixel.
        size: Side in pixels.
        fit: ``squash``, ``pad`` (nothing lies there) or ``crop``.

    Returns:
        ``(K, size, size)`` bool.  A pixel is in where at least half of what it averages is.
    """
    found = np.empty((len(structures), size, size), dtype=bool)
    for place, plane in enumerate(structures):
        found[place] = fit_square(plane * np.uint8(WHITE), size, fit)[0] >= WHITE // 2
    return found
