"""Perceptual hashes of films: the same film under another name, size, exposure or crop.

A film is shrunk to 64 x 64, its grey values are replaced by their ranks (so any exposure curve
leaves it as it is), and the signs of its 256 lowest cosine coefficients are the hash.  A second
film may be a crop of the first, so each film is also hashed through windows that leave out up to
4 % at each border.  Measured on 826 real films, re-saved at half size, gamma 0.7, cropped by 4 %
and as JPEG of quality 60: 95 % of twins lie within 30 bits of one of the windows, and of 340,000
pairs of strangers none within 52.  Candidates are confirmed on pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np

from ark_framework.arrays import open_map
from ark_framework.store import Store

VERSION = 1
# Films whose kept hashes are made again, and compared: another store's have the same shape.
LOOKED_AT = 4
BITS = 256
SIDE = 64
COEFFICIENTS = 17
# Bits that a film and its twin may differ in, where every pair is compared.
RADIUS = 40
# Where there are too many pairs for that: what pigeonholes of 32 bits find without a miss.
NARROW = 7
# Pairs that are compared one by one; beyond it, pigeonholes.
EVERY_PAIR = 4_000_000_000
# Correlation of the films' middle frequencies that confirms a candidate.
SAME = 0.93
# Windows of a film, as (left, top, width): the whole, nine crops of 4 %, and two of equal margins.
WINDOWS = (
    (0.0, 0.0, 1.0),
    *((x / 100, y / 100, 0.96) for x in (0, 2, 4) for y in (0, 2, 4)),
    (0.04, 0.04, 0.92),
    (0.01, 0.01, 0.98),
)
# What may be left of one side, as (start, width), where a film was cropped unequally.
CUTS = (
    (0.0, 1.0),
    (0.0, 0.96),
    (0.04, 0.96),
    (0.02, 0.96),
    (0.0, 0.98),
    (0.02, 0.98),
    (0.04, 0.92),
)


def hashes(films: np.ndarray) -> np.ndarray:
    """Return the hashes of films through every window.

    Args:
        films: ``(N, C, S, S)`` or ``(N, S, S)`` uint8.

    Returns:
        ``(N, 12, 32)`` uint8, 256 bits each; window 0 is the whole film.
    """
    ranks = _ranks(films)
    made = np.empty((len(films), len(WINDOWS), BITS // 8), dtype=np.uint8)
    for index, window in enumerate(WINDOWS):
        rows, columns = _cosines(window)
        spectrum = rows @ ranks @ columns.T
        bits = spectrum.reshape(len(films), -1)[:, 1 : BITS + 1] > 0
        made[:, index] = np.packbits(bits, axis=1)
    return made


def store_hashes(store: Store) -> np.ndarray:
    """Return the hashes of a store's films, ``(N, 12, 32)`` uint8; made once, kept beside them."""
    path = store.folder / f"prints-{VERSION}.npy"
    shape = (len(store.images), len(WINDOWS), BITS // 8)
    there = kept(path)
    if there is not None and there.shape == shape and there.dtype == np.uint8:
        rows = np.linspace(0, len(there) - 1, min(len(there), LOOKED_AT)).astype(np.int64)
        if np.array_equal(there[rows], hashes(np.asarray(store.images[rows]))):
            return there
    made = np.empty(shape, dtype=np.uint8)
    for start in range(0, len(made), 512):
        made[start : start + 512] = hashes(np.asarray(store.images[start : start + 512]))
    keep(path, made)
    return made


def near(
    ours: np.ndarray, theirs: np.ndarray, *, radius: int = RADIUS
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield candidate pairs, as rows of ``ours`` and rows of ``theirs``.

    Every pair within ``radius`` bits is found while there are at most :data:`EVERY_PAIR`
    comparisons; beyond that every pair within :data:`NARROW`.

    Args:
        ours: ``(N, 32)`` uint8.
        theirs: ``(M, 32)`` uint8.
    """
    if len(ours) * len(theirs) <= EVERY_PAIR:
        yield from _every_pair(ours, theirs, radius)
    else:
        yield from _pigeonholes(ours, theirs, NARROW)


def distances(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return the number of bits in which hashes ``(…, 32)`` differ, pair by pair."""
    differ = np.bitwise_count(ours ^ theirs)
    return np.asarray(differ.sum(axis=-1, dtype=np.int32))


def confirm(ours: np.ndarray, theirs: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Return which candidate pairs are one film.

    Args:
        ours: ``(N, C, S, S)`` uint8, the films that may be larger cuts.
        theirs: ``(N, C, S', S')`` uint8.
        windows: ``(N,)`` the window of ``ours`` under which the hashes are nearest.

    Returns:
        ``(N,)`` bool: the correlation of what lies between two blurs is at least :data:`SAME`,
        through that window or another crop of up to 4 % at each side.
    """
    mine, other = _ranks(ours), _band(_ranks(theirs))
    same = np.zeros(len(mine), dtype=bool)
    for window in np.unique(windows):
        chosen = windows == window
        left, top, width = WINDOWS[window]
        same[chosen] = _alike(mine[chosen], other[chosen], (top, width), (left, width))
    for across, down in product(CUTS, CUTS):  # cropped on one side, or unequally
        left_over = np.flatnonzero(~same)
        if not len(left_over):
            break
        same[left_over] = _alike(mine[left_over], other[left_over], down, across)
    return same


def _alike(
    mine: np.ndarray, other: np.ndarray, down: tuple[float, float], across: tuple[float, float]
) -> np.ndarray:
    """Whether ranks cut to ``down`` x ``across`` agree with the middle frequencies ``other``."""
    cut = _band(_line(*down) @ mine @ _line(*across).T)
    return np.asarray((cut * other).sum(axis=(1, 2)) >= SAME)


def _ranks(films: np.ndarray) -> np.ndarray:
    """Return films as ranks in 0..1, ``(N, 64, 64)`` float32."""
    grey = films if films.ndim == 3 else films[:, 0] if films.shape[1] == 1 else films.mean(axis=1)
    shrink = _shrink(grey.shape[-1])
    small = (shrink @ grey.astype(np.float32) @ shrink.T).reshape(len(films), -1)
    # As a stable argsort, in a fifth of the time: floats that are not negative sort as their bits.
    keys = small.view(np.uint32).astype(np.uint64) << np.uint64(32)
    keys |= np.arange(small.shape[1], dtype=np.uint64)
    keys.sort(axis=1)
    order = (keys & np.uint64(2**32 - 1)).astype(np.int64)
    ranks: np.ndarray = np.empty_like(small)
    values = np.linspace(0, 1, small.shape[1], dtype=np.float32)
    np.put_along_axis(ranks, order, np.broadcast_to(values, small.shape), axis=1)
    return ranks.reshape(-1, SIDE, SIDE)


@lru_cache(maxsize=8)
def _shrink(size: int) -> np.ndarray:
    """Return the ``(64, size)`` matrix that averages a side; it interpolates a smaller one."""
    edges = np.linspace(0, size, SIDE + 1)
    cell = np.arange(size)
    overlap = np.minimum(edges[1:, None], cell + 1) - np.maximum(edges[:-1, None], cell)
    overlap = overlap.clip(0)
    return np.asarray(overlap / overlap.sum(axis=1, keepdims=True), dtype=np.float32)


@lru_cache(maxsize=len(WINDOWS))
def _cosines(window: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosine basis through a window, for rows and columns, ``(17, 64)`` each."""
    place = (np.arange(SIDE) + 0.5) / SIDE
    order = np.arange(COEFFICIENTS)[:, None]
    basis = np.cos(np.pi * order * place[None]).astype(np.float32)
    rows, columns = _samples(window)
    return basis @ rows, basis @ columns


@lru_cache(maxsize=len(WINDOWS))
def _samples(window: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrices ``(64, 64)`` that sample a window's rows and columns."""
    left, top, width = window
    return _line(top, width), _line(left, width)


@lru_cache(maxsize=len(WINDOWS) + len(CUTS))
def _line(start: float, width: float) -> np.ndarray:
    where = (start + width * (np.arange(SIDE) + 0.5) / SIDE) * SIDE - 0.5
    where = where.clip(0, SIDE - 1)
    low = np.minimum(where.astype(int), SIDE - 2)
    part = (where - low).astype(np.float32)
    matrix = np.zeros((SIDE, SIDE), dtype=np.float32)
    rows = np.arange(SIDE)
    matrix[rows, low] = 1 - part
    matrix[rows, low + 1] += part
    return matrix


@lru_cache(maxsize=2)
def _blur(sigma: float) -> np.ndarray:
    place = np.arange(SIDE)
    matrix = np.exp(-((place[:, None] - place[None]) ** 2) / (2 * sigma**2))
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True), dtype=np.float32)


def _band(ranks: np.ndarray) -> np.ndarray:
    """Return what lies between a blur of 1 and one of 4 pixels, centred, of unit length."""
    fine, coarse = _blur(1.0), _blur(4.0)
    band = (fine @ ranks @ fine.T - coarse @ ranks @ coarse.T)[:, 3:-3, 3:-3]
    band = band - band.mean(axis=(1, 2), keepdims=True)
    length = np.sqrt(np.square(band).sum(axis=(1, 2), keepdims=True))
    return np.asarray(band / np.maximum(length, 1e-9))


def _every_pair(
    ours: np.ndarray, theirs: np.ndarray, radius: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    # As +1 and -1, a product of 256 numbers is 256 - 2 x distance: the matmul is the fast way.
    signs = [np.unpackbits(each, axis=1).astype(np.float32) * 2 - 1 for each in (ours, theirs)]
    step = max(1, 50_000_000 // max(len(theirs), 1))
    for start in range(0, len(ours), step):
        close = signs[0][start : start + step] @ signs[1].T >= BITS - 2 * radius
        rows, columns = np.nonzero(close)
        yield rows + start, columns


def candidate_count(ours: np.ndarray, theirs: np.ndarray, radius: int = NARROW) -> int:
    """Return how many pairs the pigeonholes compare bit by bit, for :data:`NARROW` or another."""
    total = 0
    deal = np.random.default_rng(BITS).permutation(BITS)
    for mine, other in zip(
        *(_keys(each, deal, radius + 1) for each in (ours, theirs)), strict=True
    ):
        values, counts = np.unique(other, return_counts=True)
        place = np.searchsorted(values, mine).clip(max=len(values) - 1)
        total += int(counts[place][values[place] == mine].sum())
    return total


def _pigeonholes(
    ours: np.ndarray, theirs: np.ndarray, radius: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Find pairs within ``radius`` bits: they agree in at least one of ``radius + 1`` groups.

    Neighbouring coefficients are alike in all films, so bits are dealt to the groups at random.
    """
    deal = np.random.default_rng(BITS).permutation(BITS)
    keys = [_keys(each, deal, radius + 1) for each in (ours, theirs)]
    words = [np.ascontiguousarray(each).view(np.uint64) for each in (ours, theirs)]
    for group in range(radius + 1):
        order = keys[1][group].argsort(kind="stable")
        column = keys[1][group][order]
        first = np.searchsorted(column, keys[0][group], "left")
        count = np.searchsorted(column, keys[0][group], "right") - first
        for rows, columns in _expand(first, count, order):
            differ = np.bitwise_count(words[0][rows] ^ words[1][columns]).sum(axis=1)
            new = differ <= radius
            for earlier in range(group):  # found by an earlier group already
                new[new] = keys[0][earlier][rows[new]] != keys[1][earlier][columns[new]]
            yield rows[new], columns[new]


def _keys(packed: np.ndarray, deal: np.ndarray, groups: int) -> list[np.ndarray]:
    """Return one integer per hash and group, ``groups`` arrays ``(N,)`` uint64."""
    return [_key(packed, part) for part in np.array_split(deal, groups)]


def _key(packed: np.ndarray, bits: np.ndarray) -> np.ndarray:
    key = np.zeros(len(packed), dtype=np.uint64)
    for place, bit in enumerate(bits):
        value = (packed[:, bit // 8] >> np.uint8(7 - bit % 8)) & np.uint8(1)
        key |= value.astype(np.uint64) << np.uint64(place)
    return key


def _expand(
    first: np.ndarray, count: np.ndarray, order: np.ndarray, most: int = 4_000_000
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs of equal keys in pieces of about ``most``."""
    ends = np.cumsum(count)
    rows = np.flatnonzero(count)
    start = 0
    while start < len(rows):
        begun = ends[rows[start]] - count[rows[start]]
        stop = max(start + 1, int(np.searchsorted(ends[rows], begun + most, "right")))
        piece = rows[start:stop]
        left = np.repeat(piece, count[piece])
        offset = np.arange(len(left)) - np.repeat(ends[piece] - count[piece] - begun, count[piece])
        yield left, order[np.repeat(first[piece], count[piece]) + offset]
        start = stop


def kept(path: Path) -> np.ndarray | None:
    """Return an array that :func:`keep` wrote, or ``None`` if there is none or it is damaged."""
    try:
        return np.asarray(open_map(path))
    except (OSError, ValueError):
        return None


def keep(path: Path, made: np.ndarray) -> None:
    """Write an array beside, then put it in place; a disk that refuses is no error."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            np.save(file, made)
        beside.replace(path)
    except OSError:  # a store on a read-only disk: made again next time
        beside.unlink(missing_ok=True)
