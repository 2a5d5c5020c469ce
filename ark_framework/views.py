"""A batch of stored films → student and teacher views, on the device.

Both views are sampled from the stored film by one affine map per film, drawn on the CPU from a
counter-based generator: a random crop (area and aspect drawn like the published
RandomResizedCrop), then, with ``affine_p``, a shift, zoom and rotation.  Brightness-contrast or
gamma touches the student alone.  Unlike two resampling passes, one map samples the film once, so
what lies beyond the crop is the film itself; only the film's own border is reflected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ark_framework.config import ViewsConfig
from ark_framework.runtime import sent

# Films at once per thread on a CPU: what is made of them on the way stays in its cache.
FEW = 4


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

    def meets(self, rows: slice) -> bool:
        """Whether any of its films are among some of the batch."""
        return bool(self.films.start < rows.stop and rows.start < self.films.stop)

    def within(self, rows: slice) -> Part:
        """Return what of it is among some films of the batch, counted from their first."""
        first = max(self.films.start, rows.start)
        last = min(self.films.stop, rows.stop)
        own = slice(first - self.films.start, last - self.films.start)
        return replace(
            self, films=slice(first - rows.start, last - rows.start), target=self.target[own]
        )


@dataclass(frozen=True, kw_only=True)
class Views:
    """Two views ``(B, C, S, S)``, floats in 0..1, and the tasks' parts of the batch.

    Attributes:
        count: Films of the global batch; the ones here where it is ``None``.
        scarce: Whether a part of the global batch has fewer films than there are ranks, so that
            some rank has none of it.
    """

    student: Tensor
    teacher: Tensor
    parts: tuple[Part, ...]
    count: int | None = None
    scarce: bool = False

    @property
    def films(self) -> int:
        """Films of the global batch."""
        return len(self.student) if self.count is None else self.count

    def pieces(self, size: int | None) -> Iterator[Views]:
        """Yield the batch in pieces of at most ``size`` films, whole without; nothing if empty."""
        step = size or max(len(self.student), 1)
        for start in range(0, len(self.student), step):
            rows = slice(start, min(start + step, len(self.student)))
            yield Views(
                student=self.student[rows],
                teacher=self.teacher[rows],
                parts=tuple(p.within(rows) for p in self.parts if p.meets(rows)),
                count=self.films,
            )


def part(
    task: str,
    target: Tensor,
    *,
    start: int = 0,
    device: torch.device | None = None,
    mine: np.ndarray | None = None,
) -> Part:
    """Make a part whose films lie in the batch from ``start`` on.

    ``target`` is counted where it lies, on the CPU, before it goes to ``device``: counting on a
    GPU would have to wait for it.  Of the global batch's targets, ``mine`` are this rank's.
    """
    known = ~target.isnan()
    own = target if mine is None else target[torch.from_numpy(mine)]
    return Part(
        task=task,
        films=slice(start, start + len(own)),
        target=sent(own, device),
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

    def numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """Return float32 geometry ``(B, 2, 3)``, and gain, offset and gamma ``(B, 3)``."""
        tone = np.stack([self.gain, self.offset, self.gamma], axis=1)
        return self.geometry.astype(np.float32), tone.astype(np.float32)

    def of(self, films: np.ndarray) -> Draws:
        """Return those of some films of the batch."""
        return Draws(
            geometry=self.geometry[films],
            gain=self.gain[films],
            offset=self.offset[films],
            gamma=self.gamma[films],
        )


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


def make_views(
    films: Tensor, draws: Draws, config: ViewsConfig, *, compiled: bool = False
) -> tuple[Tensor, Tensor]:
    """Sample both views; nothing waits for the device.

    Args:
        films: ``(B, C, S, S)`` uint8 on the device.
        draws: From :func:`draw`.
        config: Sizes and the teacher's view.
        compiled: Whether to compile the work of a GPU.

    Returns:
        Student and teacher views ``(B, C, V, V)``, float32 in 0..1.
    """
    shape = (*films.shape[:2], config.size, config.size)
    if not len(films):  # a rank may have none; sampling nothing is refused
        nothing = films.new_empty(shape, dtype=torch.float32)
        return nothing, nothing
    if films.is_cpu:
        return _by_few(films, draws, config, shape)
    make = _compiled() if compiled else _at_once
    geometry, tone = (sent(torch.from_numpy(each), films.device) for each in draws.numbers())
    return make(films, geometry, tone, config.size, config.teacher, config.teacher_sampling)


def _at_once(
    films: Tensor, geometry: Tensor, tone: Tensor, size: int, teacher: str, sampling: str
) -> tuple[Tensor, Tensor]:
    """Make the views of a batch by few and large operations; numbers are tensors."""
    plain, other = _sampled(films, geometry, size, teacher, sampling)
    gain, offset, gamma = tone[:, :, None, None, None].unbind(1)
    return (plain * gain + offset).clamp_(0.0, 1.0).pow_(gamma), other


@cache
def _compiled() -> Callable[..., tuple[Tensor, Tensor]]:
    return torch.compile(_at_once)


def _by_few(
    films: Tensor, draws: Draws, config: ViewsConfig, shape: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Make the views of a few films after another, so that a CPU's cache holds what is between."""
    student, teacher = torch.empty(shape), torch.empty(shape)
    geometry, tone = map(torch.from_numpy, draws.numbers())
    few = FEW * torch.get_num_threads()
    for start in range(0, len(films), few):
        some = slice(start, start + few)
        plain, other = _sampled(
            films[some], geometry[some], config.size, config.teacher, config.teacher_sampling
        )
        teacher[some] = other
        _tone(plain, tone[some])
        student[some] = plain
    return student, teacher


def _tone(views: Tensor, tone: Tensor) -> None:
    """Change the tone of views in place; most have none to change, and powers are slow."""
    for view, (gain, offset, _) in zip(views, tone.tolist(), strict=True):
        if (gain, offset) != (1.0, 0.0):
            view.mul_(gain).add_(offset)
    views.clamp_(0.0, 1.0)
    for view, (_, _, gamma) in zip(views, tone.tolist(), strict=True):
        if gamma != 1.0:
            view.pow_(gamma)


def _sampled(
    films: Tensor, geometry: Tensor, size: int, teacher: str, sampling: str
) -> tuple[Tensor, Tensor]:
    """Return the student's view before its change of tone, and the teacher's."""
    unit = films.to(torch.float32).div_(255.0)
    where = grid(geometry, size)
    student = _sample(unit, where, "bilinear")
    if teacher == "whole":
        return student, whole(films, size)
    return student, student if sampling == "bilinear" else _sample(unit, where, sampling)


def grid(geometry: Tensor, size: int) -> Tensor:
    """Return where views are sampled, ``(B, size, size, 2)`` in -1..1, of maps ``(B, 2, 3)``.

    As torch's ``affine_grid``, but an outer sum: no matrix product, which is slow for so little and
    which TF32 would round to a tenth of a pixel.
    """
    side = (torch.arange(size, device=geometry.device) * 2 + 1) / size - 1
    across = (geometry[:, :, :1] * side).mT[:, None]
    down = (geometry[:, :, 1:2] * side + geometry[:, :, 2:]).mT[:, :, None]
    return across + down


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
