"""Grey values: how many a film may have, and how deep ones become shallow, a part at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ark_framework.errors import DataError

# Detectors reach about 6,000 x 6,000; what is larger is refused before it is decoded, and so is
# what is very long: padded to a square it would be.
MAX_PIXELS, MAX_SIDE = 2**27, 2**14
# What is decoded is as large at the most, with four bytes a pixel and whatever else a file says.
MAX_BYTES = 2**30
# Values that are computed with at a time: floats take eight times the room of a stored pixel.
PART = 2**20


def check_size(width: int, height: int, path: Path) -> None:
    """Refuse a film without pixels, or with more than any has.

    Raises:
        DataError: naming the file and its size.
    """
    if width < 1 or height < 1:
        raise DataError(f"{path}: {width} x {height}: it has no pixels")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise DataError(f"{path}: {width} x {height} pixels is too large for a film")


def by_parts(
    values: np.ndarray, change: Callable[[np.ndarray], np.ndarray], dtype: type[np.generic]
) -> np.ndarray:
    """Return ``change(values)``, computed some rows at a time."""
    made = np.empty(values.shape, dtype=dtype)
    step = max(1, PART * len(values) // max(1, values.size))
    for start in range(0, len(values), step):
        made[start : start + step] = change(values[start : start + step])
    return made


def spread(values: np.ndarray, dtype: type[np.uint8] | type[np.uint16]) -> np.ndarray:
    """Map the array's own minimum..maximum to the whole range of ``dtype``, linearly."""
    low, high = float(values.min()), float(values.max())
    if high == low:
        return np.zeros(values.shape, dtype=dtype)
    scale = np.iinfo(dtype).max / (high - low)
    return by_parts(values, lambda part: np.rint((part.astype(np.float64) - low) * scale), dtype)
