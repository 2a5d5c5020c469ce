"""Perceptual hashes: a film keeps its hash through what people do to films; strangers differ."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ark_framework import prints
from ark_framework.images import fit_square, read_image

REAL = os.environ.get("ARK_REAL_DATA")
real = pytest.mark.skipif(REAL is None, reason="ARK_REAL_DATA is not set")
CROPS = {
    "middle": (0.02, 0.02, 0.98, 0.98),
    "each side": (0.04, 0.04, 0.96, 0.96),
    "corner": (0.04, 0.04, 1.0, 1.0),
    "one side": (0.04, 0.0, 1.0, 1.0),
    "below": (0.0, 0.0, 1.0, 0.96),
}


def drawn(count: int, seed: int = 0, side: int = 96) -> np.ndarray:
    """Return smooth random films ``(N, 1, side, side)``."""
    small = np.random.default_rng(seed).random((count, 12, 12))
    films = [
        np.asarray(Image.fromarray((each * 255).astype(np.uint8)).resize((side, side)))
        for each in small
    ]
    return np.stack(films)[:, None]


def resaved(film: np.ndarray, crop: tuple[float, float, float, float]) -> np.ndarray:
    """Return a film cropped, at half its size, of gamma 0.7, through JPEG of quality 60."""
    image = Image.fromarray(film)
    width, height = image.size
    box = tuple(round(v * s) for v, s in zip(crop, (width, height) * 2, strict=True))
    image = image.crop(box).resize((width // 2, height // 2))  # type: ignore[arg-type]
    lighter = (255 * (np.asarray(image) / 255) ** 0.7).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(lighter).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


def nearest(ours: np.ndarray, theirs: np.ndarray) -> tuple[set[tuple[int, int]], np.ndarray]:
    """Return the confirmed pairs between films and the candidates ``(n, 2)``."""
    mine, other = prints.hashes(ours), prints.hashes(theirs)
    best: dict[tuple[int, int], tuple[int, int, bool]] = {}
    for window in range(mine.shape[1]):
        for swapped in (False, True):
            wide, whole = (other, mine) if swapped else (mine, other)
            for rows, columns in prints.near(wide[:, window], whole[:, 0]):
                far = prints.distances(wide[rows, window], whole[columns, 0])
                for row, column, bits in zip(rows, columns, far, strict=True):
                    pair = (int(column), int(row)) if swapped else (int(row), int(column))
                    best[pair] = min(best.get(pair, (999, 0, False)), (int(bits), window, swapped))
    same = set()
    for (row, column), (_, window, swapped) in best.items():
        films = ours[row : row + 1], theirs[column : column + 1]
        if prints.confirm(*(films[::-1] if swapped else films), np.array([window]))[0]:
            same.add((row, column))
    return same, np.array(sorted(best))


def test_exposure_and_size_leave_the_hash() -> None:
    """A monotone change of grey values changes no bit; half the size changes a few."""
    films = drawn(20)
    lighter = (255 * (films / 255.0) ** 0.7).round().astype(np.uint8)
    half = films.reshape(20, 1, 48, 2, 48, 2).mean(axis=(3, 5)).round().astype(np.uint8)
    before = prints.hashes(films)[:, 0]
    assert prints.distances(before, prints.hashes(lighter)[:, 0]).max() <= 4
    assert prints.distances(before, prints.hashes(half)[:, 0]).max() <= 16


def test_strangers_are_far() -> None:
    """Random films differ in about half of the bits."""
    hashes = prints.hashes(drawn(60))[:, 0]
    far = prints.distances(hashes[:30], hashes[30:])
    assert far.min() > prints.RADIUS
    assert 100 < far.mean() < 156


def test_distances_count_bits() -> None:
    """The distance is the number of differing bits, against unpacked bits."""
    ours, theirs = np.random.default_rng(1).integers(0, 256, (2, 50, 32), dtype=np.uint8)
    slow = (np.unpackbits(ours, axis=1) != np.unpackbits(theirs, axis=1)).sum(axis=1)
    np.testing.assert_array_equal(prints.distances(ours, theirs), slow)


def test_pigeonholes_miss_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the size where every pair is compared, all pairs within NARROW bits are found once."""
    rng = np.random.default_rng(2)
    ours = rng.integers(0, 256, (400, 32), dtype=np.uint8)
    bits = np.unpackbits(ours, axis=1)
    for row, count in enumerate(rng.integers(0, prints.NARROW + 4, 400)):
        bits[row, rng.choice(prints.BITS, count, replace=False)] ^= 1
    theirs = np.packbits(bits, axis=1)[::-1]
    far = prints.distances(ours[:, None], theirs[None])
    expected = {(int(i), int(j)) for i, j in zip(*np.nonzero(far <= prints.NARROW), strict=True)}
    assert 200 < len(expected) < 400
    monkeypatch.setattr(prints, "EVERY_PAIR", 100)
    found = [
        (int(i), int(j))
        for rows, columns in prints.near(ours, theirs)
        for i, j in zip(rows, columns, strict=True)
    ]
    assert sorted(found) == sorted(expected)
    compared = prints.candidate_count(ours, theirs)
    assert len(expected) <= compared < 8 * 400


def test_every_pair_is_found_within_the_radius() -> None:
    """Below that size all pairs within the radius are found, and no other."""
    rng = np.random.default_rng(3)
    ours = rng.integers(0, 256, (50, 32), dtype=np.uint8)
    bits = np.unpackbits(ours, axis=1)
    for row in range(50):
        bits[row, rng.choice(prints.BITS, row + 15, replace=False)] ^= 1
    found = [
        (int(i), int(j))
        for rows, columns in prints.near(ours, np.packbits(bits, axis=1))
        for i, j in zip(rows, columns, strict=True)
    ]
    assert found == [(row, row) for row in range(prints.RADIUS - 15 + 1)]


@pytest.mark.parametrize("crop", CROPS.values(), ids=CROPS)
def test_drawn_twins(crop: tuple[float, float, float, float]) -> None:
    """A film cropped by 4 %, halved, brightened and compressed is found; no stranger is."""
    films = drawn(40)
    cut = np.stack([fit_square(resaved(film[0], crop), 96, "squash") for film in films])
    same, _ = nearest(films, cut)
    assert {(row, row) for row in range(40)} >= same
    assert len(same) >= 38


@real
@pytest.mark.parametrize("crop", CROPS.values(), ids=CROPS)
def test_real_twins(crop: tuple[float, float, float, float]) -> None:
    """Of 200 real films so re-saved at least 95 % are found, and no pair of two patients."""
    files = sorted((Path(str(REAL)) / "nih_chestxray14" / "images").iterdir())
    chosen = sorted(np.random.default_rng(4).choice(len(files), 200, replace=False).tolist())
    read = [read_image(files[place]) for place in chosen]
    patients = [files[place].name.split("_")[0] for place in chosen]
    films = np.stack([fit_square(film, 128, "squash") for film in read])
    cut = np.stack([fit_square(resaved(film, crop), 128, "squash") for film in read])
    same, candidates = nearest(films, cut)
    assert all(patients[row] == patients[column] for row, column in same)
    assert sum(row == column for row, column in same) >= 190
    assert len(candidates) < 400
