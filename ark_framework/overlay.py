"""Masks drawn over films: a translucent fill and an outline for each structure."""

from __future__ import annotations

import numpy as np

# Okabe and Ito's colors (2008), which people who see few colors can tell apart, too.
FIRST = (
    (86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66),
    (213, 94, 0), (204, 121, 167), (0, 114, 178),
)  # fmt: skip
FILL = 0.35
# Sides of a film for which an outline is one pixel wide.
THIN = 384


def colors(count: int) -> np.ndarray:
    """Return ``(count, 3)`` uint8 colors that differ well; the first are the same for any count.

    Beyond the first seven, each next one lies farthest from all before it, in CIELAB, among those
    that a grey film is not and that show on black.
    """
    chosen = np.array(FIRST, dtype=np.uint8)[:count]
    if count <= len(chosen):
        return chosen
    levels = np.linspace(0, 255, 6, dtype=np.uint8)
    others = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    lab = _lab(others)
    visible = (lab[:, 0] > 40) & (np.hypot(lab[:, 1], lab[:, 2]) > 30)
    others, lab = others[visible], lab[visible]
    distance = np.linalg.norm(lab[:, None] - _lab(chosen), axis=2).min(axis=1)
    for _ in range(count - len(chosen)):
        farthest = int(distance.argmax())
        chosen = np.concatenate([chosen, others[farthest : farthest + 1]])
        distance = np.minimum(distance, np.linalg.norm(lab - lab[farthest], axis=1))
    return chosen


def overlay(
    film: np.ndarray, structures: np.ndarray, colors: np.ndarray | None = None
) -> np.ndarray:
    """Draw structures over a film.

    Args:
        film: ``(H, W)`` uint8.
        structures: ``(K, H, W)`` bool; where several lie, their colors mix and cover more.
        colors: ``(K, 3)`` uint8; :func:`colors` of ``K`` when ``None``.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    paints = _default(len(structures)) if colors is None else colors
    mixed = np.zeros((*film.shape, 3), dtype=np.float32)
    depth = structures.sum(axis=0)[..., None]
    for plane, paint in zip(structures, paints, strict=True):
        mixed[plane] += paint
    seen = (1 - FILL) ** depth.astype(np.float32)
    drawn = film[..., None] * seen + mixed / np.maximum(depth, 1) * (1 - seen)
    width = max(1, round(min(film.shape) / THIN))
    for plane, paint in zip(structures, paints, strict=True):
        drawn[outline(plane, width)] = paint
    shown: np.ndarray = np.rint(drawn).astype(np.uint8)
    return shown


def outline(plane: np.ndarray, width: int = 1) -> np.ndarray:
    """Return a mask's outermost pixels ``(H, W)`` bool, ``width`` deep, by its four neighbors."""
    inner = plane
    for _ in range(width):
        around = np.pad(inner, 1)
        inner = inner & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    edge: np.ndarray = plane & ~inner
    return edge


_default = colors  # under another name for `overlay`, whose argument hides it


def _lab(rgb: np.ndarray) -> np.ndarray:
    """Return CIELAB ``(n, 3)`` under D65 of sRGB ``(n, 3)`` uint8 (IEC 61966-2-1, CIE 15)."""
    unit = rgb / 255.0
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    xyz = linear @ to_xyz.T / to_xyz.sum(axis=1)
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
