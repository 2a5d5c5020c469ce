"""A batch of stored films → student and teacher views, on the device.

Both views are sampled from the stored film by one affine map per film, drawn on the CPU from a
counter-based generator: a random crop (area and aspect drawn like the published
RandomResizedCrop), then, with ``affine_p``, a shift, zoom and rotation.  Brightness-contrast or
gamma touches the student alone.  Unlike two resampling passes, one map samples the film once, so
what lies beyond the crop is the film itself; only the film's own border is reflected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ark_framework.config import ViewsConfig


@dataclass(frozen=True, kw_only=True)
class Part:
    """The films of one task within a batch.

    Attributes:
        task: Task name.
        films: Where they lie in the batch.
        target: ``(b, C)`` float, NaN = not annotated.
        annotated: Entries of ``target`` that are annotated, over the global batch.
        annotated_rows: Rows with every entry annotated, over the global batch.
    """

    task: str
    films: slice
    target: Tensor
    annotated: int
    annotated_rows: int


@dataclass(frozen=True, kw_only=True)
class Views:
    """Two views ``(B, C, S, S)``, floats in 0..1, and the tasks' parts of the batch."""

    student: Tensor
    teacher: Tensor
    parts: tuple[Part, ...]


def part(task: str, target: Tensor, *, start: int = 0, device: torch.device | None = None) -> Part:
    """Make a part of ``len(target)`` films from ``start`` on.

    ``target`` is counted where it lies, on the CPU, before it goes to ``device``: counting on a
    GPU would have to wait for it.
    """
    known = ~target.isnan()
    return Part(
        task=task,
        films=slice(start, start + len(target)),
        target=target.to(device),
        annotated=int(known.sum()),
        annotated_rows=int(known.all(dim=1).sum()),
    )


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Random numbers of one batch: geometry ``(B, 2, 3)`` and photometry, each ``(B,)``."""

    geometry: np.ndarray
    gain: np.ndarray
    offset: np.ndarray
    gamma: np.ndarray


def draw(count: int, config: ViewsConfig, rng: np.random.Generator) -> Draws:
    """Draw the views of ``count`` films."""
    crop = _crops(count, config, rng)
    affine = _affines(count, config, rng)
    touched = rng.random(count) < config.photometry_p
    curve = touched & (rng.random(count) < 0.5)
    linear = touched & ~curve
    one = np.ones(count)
    return Draws(
        geometry=(crop @ affine)[:, :2].astype(np.float32),
        gain=np.where(linear, one + rng.uniform(-1, 1, count) * config.contrast, 1.0),
        offset=np.where(linear, rng.uniform(-1, 1, count) * config.brightness, 0.0),
        gamma=np.where(curve, rng.uniform(*config.gamma, count), 1.0),
    )


def make_views(films: Tensor, draws: Draws, config: ViewsConfig) -> tuple[Tensor, Tensor]:
    """Sample both views.

    Args:
        films: ``(B, C, S, S)`` uint8 on the device.
        draws: From :func:`draw`.
        config: Sizes and the teacher's view.

    Returns:
        Student and teacher views ``(B, C, V, V)``, float32 in 0..1.
    """
    unit = films.to(torch.float32).div_(255.0)
    shape = [len(films), films.shape[1], config.size, config.size]
    matrices = torch.from_numpy(draws.geometry).to(films.device)
    grid = functional.affine_grid(matrices, shape, align_corners=False)
    student = _sample(unit, grid, "bilinear")
    if config.teacher == "whole":
        teacher = whole(films, config.size)
    elif config.teacher_sampling == "bilinear":
        teacher = student
    else:
        teacher = _sample(unit, grid, "nearest")
    return _photometry(student, draws), teacher


def whole(films: Tensor, size: int) -> Tensor:
    """Return whole films ``(B, C, size, size)``, float32 in 0..1, antialiased."""
    unit = films.to(torch.float32).div_(255.0)
    if films.shape[-1] == size:
        return unit
    return functional.interpolate(
        unit, (size, size), mode="bilinear", align_corners=False, antialias=True
    )


def center(films: Tensor, size: int) -> Tensor:
    """Return the middle ``(B, C, size, size)`` of films, float32 in 0..1: the view for scoring.

    A store at 256 and views at 224 give the published resize-256, crop-224 evaluation.
    """
    margin = (films.shape[-1] - size) // 2
    cut = films[..., margin : margin + size, margin : margin + size]
    return cut.to(torch.float32).div_(255.0)


def _sample(unit: Tensor, grid: Tensor, mode: str) -> Tensor:
    return functional.grid_sample(
        unit, grid, mode=mode, padding_mode="reflection", align_corners=False
    )


def _photometry(views: Tensor, draws: Draws) -> Tensor:
    columns: Sequence[np.ndarray] = (draws.gain, draws.offset, draws.gamma)
    gain, offset, gamma = (
        torch.from_numpy(column.astype(np.float32)).to(views.device)[:, None, None, None]
        for column in columns
    )
    return (views * gain + offset).clamp(0.0, 1.0).pow(gamma)


def _crops(count: int, config: ViewsConfig, rng: np.random.Generator) -> np.ndarray:
    # Ten tries, the first that fits wins, else the last one clamped: as torchvision does it,
    # but for a whole batch at once.
    low, high = (float(np.log(bound)) for bound in config.ratio)
    area = rng.uniform(*config.scale, (count, 10))
    aspect = np.exp(rng.uniform(low, high, (count, 10)))
    width, height = np.sqrt(area * aspect), np.sqrt(area / aspect)
    first = np.argmax((width <= 1) & (height <= 1), axis=1)
    rows = np.arange(count)
    width = np.minimum(width[rows, first], 1.0)
    height = np.minimum(height[rows, first], 1.0)
    matrix = np.tile(np.eye(3), (count, 1, 1))
    matrix[:, 0, 0], matrix[:, 1, 1] = width, height
    # In the -1..1 coordinates of affine_grid a crop of width w can move by 1 - w either way.
    matrix[:, 0, 2] = rng.uniform(-1, 1, count) * (1 - width)
    matrix[:, 1, 2] = rng.uniform(-1, 1, count) * (1 - height)
    return matrix


def _affines(count: int, config: ViewsConfig, rng: np.random.Generator) -> np.ndarray:
    used = rng.random(count) < config.affine_p
    angle = np.deg2rad(rng.uniform(-1, 1, count) * config.rotate) * used
    zoom = 1.0 / (1.0 + rng.uniform(-1, 1, count) * config.zoom * used)
    matrix = np.tile(np.eye(3), (count, 1, 1))
    matrix[:, 0, 0] = matrix[:, 1, 1] = np.cos(angle) * zoom
    matrix[:, 0, 1], matrix[:, 1, 0] = -np.sin(angle) * zoom, np.sin(angle) * zoom
    # Shifts are shares of the side, and the side is 2 in affine_grid's coordinates.
    matrix[:, :2, 2] = rng.uniform(-1, 1, (count, 2)) * 2 * config.shift * used[:, None]
    return matrix
