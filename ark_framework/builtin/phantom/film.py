"""Drawing a phantom film: smooth fields on one grid, float32, nothing from a global generator.

Brightness stands for density, as on a film: bone and heart bright, lung dark.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ark_framework.builtin.phantom.case import Case, stream

STRUCTURES = ("left lung", "right lung", "heart", "left clavicle", "right clavicle")
Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """One patient's shape, in body coordinates (x to the patient's left, y down, about -1..1)."""

    lung_x: float
    lung_w: float
    lung_h: float
    lung_y: float
    heart_w: float
    heart_x: float
    enlarged: float
    rib_gap: float
    clavicle: float


def anatomy(case: Case) -> Anatomy:
    """Return a patient's anatomy; sex and age change it."""
    rng = stream(case.hospital, 3, case.patient)
    woman = 0.94 if case.female else 1.0
    age = (case.age - 55) / 40.0
    return Anatomy(
        lung_x=0.40 * woman * rng.uniform(0.93, 1.07),
        lung_w=0.285 * woman * rng.uniform(0.92, 1.08),
        lung_h=0.62 * woman * (1 - 0.04 * age) * rng.uniform(0.93, 1.07),
        lung_y=-0.05 + rng.uniform(-0.05, 0.05),
        heart_w=0.26 * (1 + 0.05 * age) * rng.uniform(0.95, 1.05),
        heart_x=0.10 * rng.uniform(0.7, 1.3),
        rib_gap=0.165 * rng.uniform(0.9, 1.1),
        clavicle=rng.uniform(0.05, 0.25),
        enlarged=rng.uniform(1.12, 1.50),
    )


@lru_cache(maxsize=4)
def _grid(size: int) -> tuple[Array, Array]:
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0
    x, y = np.meshgrid(axis, axis)
    return x, y


def _soft(distance: Array, edge: float) -> Array:
    """Return 1 inside (distance < 0), 0 outside, with a smooth edge."""
    return np.asarray(np.clip(0.5 - distance * (0.5 / edge), 0.0, 1.0), dtype=np.float32)


def _pose(case: Case, size: int) -> tuple[Array, Array, np.random.Generator]:
    """Return body coordinates of every pixel: each film is shifted, scaled and turned."""
    rng = stream(case.hospital, 4, case.film)
    x, y = _grid(size)
    angle = np.deg2rad(rng.uniform(-14, 14))
    zoom = rng.uniform(0.84, 1.28) * (1.06 if case.view == "AP" else 1.0)
    dx, dy = rng.uniform(-0.17, 0.17, 2)
    cos, sin = np.float32(np.cos(angle) * zoom), np.float32(np.sin(angle) * zoom)
    x, y = x - np.float32(dx), y - np.float32(dy)
    return cos * x + sin * y, cos * y - sin * x, rng


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Soft masks ``(S, S)`` in 0..1 of the structures of one film."""

    lungs: tuple[Array, Array]
    heart: Array
    clavicles: tuple[Array, Array]


def shapes(case: Case, x: Array, y: Array, body: Anatomy) -> Shapes:
    """Return the structures of a film at body coordinates ``x``, ``y``."""
    lungs = []
    for side in (1.0, -1.0):
        across = (x * side - body.lung_x) / body.lung_w
        down = (y - body.lung_y) / body.lung_h
        # Wider at the base than at the apex; the base is flat, cut by the diaphragm.
        width = 1.0 + 0.22 * down
        oval = (across / width) ** 2 + down**2 * (0.75 + 0.25 * down**2) - 1.0
        base = body.lung_y + 0.78 * body.lung_h - 0.10 * np.abs(across - 0.2)
        inside = _soft(oval * 0.3, 0.03) * _soft(y - base, 0.03)
        lungs.append(inside)
    large = body.enlarged if "enlarged heart" in case.findings else 1.0
    large *= 1.08 if case.view == "AP" else 1.0
    wide = body.heart_w * large
    lean = x - body.heart_x * large - 0.18 * (y - 0.2)
    heart = _soft(((lean / wide) ** 2 + ((y - 0.22) / (0.30 * large**0.5)) ** 2 - 1.0) * 0.15, 0.03)
    clavicles = []
    for side in (1.0, -1.0):
        along = x * side
        line = y + 0.52 + body.clavicle * (along - 0.1) - 0.05 * np.sin(along * 5)
        span = _soft(np.abs(along - 0.38) - 0.32, 0.03)
        clavicles.append(_soft(np.abs(line) - 0.025, 0.02) * span)
    return Shapes(lungs=(lungs[0], lungs[1]), heart=heart, clavicles=(clavicles[0], clavicles[1]))


def masks(case: Case, size: int) -> Array:
    """Return the structures of a film, ``(5, size, size)`` bool, in the order of STRUCTURES."""
    x, y, _ = _pose(case, size)
    made = shapes(case, x, y, anatomy(case))
    return np.stack([*made.lungs, made.heart, *made.clavicles]) > 0.5


def draw(case: Case, size: int) -> Array:
    """Return the film, ``(size, size)`` uint8."""
    x, y, rng = _pose(case, size)
    body = anatomy(case)
    made = shapes(case, x, y, body)
    lung = made.lungs[0] + made.lungs[1]
    film = 0.62 * _soft(np.abs(x) ** 3 + 0.2 * np.abs(y) ** 3 - 0.85, 0.15) + 0.05
    film += 0.14 * _soft(np.abs(x) - 0.07, 0.05)  # spine and mediastinum
    texture = _texture(rng, size)
    film = film - lung * (0.40 + 0.05 * texture)
    film += _findings(case, x, y, body, made, rng, texture)
    film = film * (1 - made.heart * 0.85) + 0.66 * made.heart * 0.85
    ribs = np.cos((y + 0.22 * x * x) * np.float32(2 * np.pi / body.rib_gap))
    film += 0.06 * np.clip(ribs, 0, 1) * _soft(np.abs(x) - 0.72, 0.1)
    film += 0.13 * (made.clavicles[0] + made.clavicles[1])
    return _expose(case, film, rng, size)


# How plain a finding is varies widely, as it does on real films: the plain ones teach early, and
# the faint ones keep the ceiling below certainty.
def _findings(
    case: Case,
    x: Array,
    y: Array,
    body: Anatomy,
    made: Shapes,
    rng: np.random.Generator,
    texture: Array,
) -> Array:
    added = np.zeros_like(x)
    # Every film draws the same numbers, whatever it shows, so that a finding changes nothing else.
    sides = rng.integers(0, 2, 6)
    numbers = rng.random((6, 8))
    for index, name in enumerate(("opacity", "nodule", "effusion", "pneumothorax", "edema")):
        if name in case.findings:
            side = int(sides[index])
            sign = 1.0 if side == 0 else -1.0
            across = (x * sign - body.lung_x) / body.lung_w
            down = (y - body.lung_y) / body.lung_h
            drawn = _DRAWN[name](case, across, down, numbers[index], texture)
            both = made.lungs[0] + made.lungs[1]
            added += drawn * (both if name == "edema" else made.lungs[side])
    return added


def _opacity(case: Case, across: Array, down: Array, n: Array, texture: Array) -> Array:
    center = -0.55 + 0.25 * n[0] if case.upper else 0.05 + 0.5 * n[0]
    spread = 0.17 + 0.14 * n[1]
    far = ((across - (n[2] - 0.5) * 0.9) * 0.55) ** 2 + (down - center) ** 2
    cloud = np.exp(-far / np.float32(2 * spread**2))
    return np.asarray(cloud * (0.12 + 0.36 * n[3] + 0.08 * texture))


def _nodule(case: Case, across: Array, down: Array, n: Array, texture: Array) -> Array:
    del case, texture
    radius = 0.16 + 0.14 * n[0]
    far = ((across - (n[1] - 0.5) * 1.1) * 0.5) ** 2 + (down - (n[2] - 0.5) * 1.2) ** 2
    return _soft(np.sqrt(far) - radius, 0.04) * np.float32(0.16 + 0.44 * n[3])


def _effusion(case: Case, across: Array, down: Array, n: Array, texture: Array) -> Array:
    del case, texture
    level = 0.64 - 0.42 * n[0]
    # A meniscus: it climbs at the outer wall.
    return _soft(level - 0.22 * np.clip(across, -1, 1) ** 2 - down, 0.05) * np.float32(0.36)


def _pneumothorax(case: Case, across: Array, down: Array, n: Array, texture: Array) -> Array:
    del case
    rim = 0.62 - 0.22 * n[0]
    edge = np.sqrt((across / 1.0) ** 2 + (down + 0.15) ** 2) - rim
    outside = _soft(-edge, 0.05) * _soft(down - 0.35 * n[1], 0.15)
    line = _soft(np.abs(edge) - 0.03, 0.03) * _soft(down - 0.3, 0.15)
    return np.asarray((0.06 + 0.12 * n[2]) * line - outside * (0.10 + 0.18 * n[2] - 0.05 * texture))


def _edema(case: Case, across: Array, down: Array, n: Array, texture: Array) -> Array:
    del case
    fan = np.exp(-((across + 0.6) ** 2) * 0.8 - (down - 0.1) ** 2 * 2.0)
    waves = np.cos(across * 13 + n[0] * 6) * np.cos(down * 17 + n[1] * 6)
    return np.asarray((0.08 + 0.22 * n[2]) * (0.45 + fan) * (0.7 + 0.5 * waves + 0.3 * texture))


_DRAWN = {
    "opacity": _opacity,
    "nodule": _nodule,
    "effusion": _effusion,
    "pneumothorax": _pneumothorax,
    "edema": _edema,
}


def _texture(rng: np.random.Generator, size: int) -> Array:
    """Return smooth noise of unit spread: vessels, at two scales."""
    made = np.zeros((size, size), dtype=np.float32)
    for cells, weight in ((8, 0.6), (20, 0.6)):
        coarse = rng.standard_normal((cells, cells), dtype=np.float32)
        where = np.linspace(0, cells - 1.001, size, dtype=np.float32)
        low = where.astype(np.int64)
        part = where - low
        rows = coarse[low] * (1 - part)[:, None] + coarse[low + 1] * part[:, None]
        made += np.float32(weight) * (rows[:, low] * (1 - part) + rows[:, low + 1] * part)
    return made


def _expose(case: Case, film: Array, rng: np.random.Generator, size: int) -> Array:
    """Apply the hospital's equipment: blur, gain, gamma, noise, frame, inversion of none."""
    hospital = case.hospital
    for _ in range(hospital.blur):
        film[1:-1] = (film[:-2] + 2 * film[1:-1] + film[2:]) / 4
        film[:, 1:-1] = (film[:, :-2] + 2 * film[:, 1:-1] + film[:, 2:]) / 4
    gain, offset = rng.uniform(0.75, 1.2), rng.uniform(-0.10, 0.12)
    gamma = rng.uniform(*hospital.gamma)
    x, _ = _grid(size)
    tilt = rng.uniform(-0.08, 0.08)
    film = np.clip(film * gain + offset + tilt * x, 0.0, 1.0) ** np.float32(gamma)
    film += rng.standard_normal(film.shape, dtype=np.float32) * np.float32(hospital.noise)
    if rng.random() < hospital.border:
        edge = max(1, int(size * rng.uniform(0.02, 0.07)))
        film[:edge] = film[-edge:] = 0.0
        film[:, :edge] = film[:, -edge:] = 0.0
    return np.asarray(np.clip(film * 255.0, 0, 255), dtype=np.uint8)
