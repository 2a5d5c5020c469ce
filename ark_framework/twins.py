"""Pairs of stored films that are one film: candidates by hash, confirmed on pixels, kept."""

from __future__ import annotations

import hashlib

import numpy as np

from ark_framework import prints
from ark_framework.store import Store

# Change it when other pairs come out of the same stores.
VERSION = 2
# Candidates whose pixels are compared at once.
CHUNK = 1024


def twins(mine: Store, other: Store) -> tuple[np.ndarray, bool]:
    """Return pairs of store rows ``(n, 2)`` that are one film, and whether every pair was compared.

    Of a store with itself each pair is given once, and of films whose hashes are the same each is
    paired with the first of them alone, which is paired with others for all of them: one picture
    may stand a thousand times where films are missing.  Flat films, among them those that cannot
    be read, show nobody and are in no pair.  The search is long for large stores, so its result is
    kept beside ``mine``.
    """
    wide = len(mine.images) * len(other.images) <= prints.EVERY_PAIR
    version = f"{prints.VERSION}.{VERSION}.{int(wide)}.{other.folder.name}"
    path = mine.folder / f"twins-{hashlib.sha256(version.encode()).hexdigest()[:16]}.npy"
    kept = prints.kept(path)
    if kept is not None and _fits(kept, len(mine.images), len(other.images)):
        return kept, wide
    found = _twins(mine, other)
    prints.keep(path, found)
    return found, wide


def _fits(pairs: np.ndarray, ours: int, theirs: int) -> bool:
    """Whether kept pairs are rows of both stores."""
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype != np.int64:
        return False
    return bool(((pairs >= 0) & (pairs < [ours, theirs])).all())


def _twins(mine: Store, other: Store) -> np.ndarray:
    itself = mine.folder == other.folder
    ours = theirs = prints.store_hashes(mine)
    rows, repeats = _distinct(mine, ours)
    columns = rows
    if not itself:
        theirs = prints.store_hashes(other)
        columns, _ = _distinct(other, theirs)
    pairs = _pairs(ours[rows], theirs[columns], itself=itself)
    pairs[:, 0], pairs[:, 1] = rows[pairs[:, 0]], columns[pairs[:, 1]]
    found = pairs[_confirmed(mine, other, pairs), :2]
    if itself:
        found = np.concatenate([found, repeats])
    return found[np.lexsort((found[:, 1], found[:, 0]))]


def _distinct(store: Store, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of distinct films that are not flat, and pairs of one and what repeats it."""
    words = hashes.reshape(len(hashes), -1).view(np.uint64)
    factors = np.random.default_rng(0).integers(0, 2**64, words.shape[1], dtype=np.uint64)
    flat = prints.hashes(np.zeros((1, *store.images.shape[1:]), np.uint8)).reshape(-1)
    keys = words @ factors
    rows = np.flatnonzero(keys != flat.view(np.uint64) @ factors)
    rows = rows[np.argsort(keys[rows], kind="stable")]
    new = np.ones(len(rows), dtype=bool)
    new[1:] = keys[rows[1:]] != keys[rows[:-1]]
    first = rows[new][np.cumsum(new) - 1]
    repeats = np.zeros((len(rows) - int(new.sum()), 5), dtype=np.int64)  # all of it, unturned
    repeats[:, 0], repeats[:, 1] = first[~new], rows[~new]
    same = _confirmed(store, store, repeats)
    return np.sort(np.concatenate([rows[new], repeats[~same, 1]])), repeats[same, :2]


def _pairs(ours: np.ndarray, theirs: np.ndarray, *, itself: bool) -> np.ndarray:
    """Return candidates ``(n, 5)``, each once: left, right, distance, window, swapped."""
    found = []
    for window in range(ours.shape[1]):
        # Either may be the crop: windows of ours against whole films of theirs, and the reverse.
        found.append(_candidates(ours[:, window], theirs[:, 0], window, swapped=False))
        if window and not itself:
            swapped = _candidates(theirs[:, window], ours[:, 0], window, swapped=True)
            found.append(swapped)
    columns = np.concatenate(found)
    if itself:  # which of the two is the crop is in `swapped` then
        turned = columns[:, 0] > columns[:, 1]
        columns[turned, :2], columns[turned, 4] = columns[turned, 1::-1], 1
        columns = columns[columns[:, 0] != columns[:, 1]]
    columns = columns[np.lexsort((columns[:, 2], columns[:, 1], columns[:, 0]))]
    nearest = np.ones(len(columns), dtype=bool)
    nearest[1:] = (columns[1:, :2] != columns[:-1, :2]).any(axis=1)
    return columns[nearest]


def _candidates(ours: np.ndarray, theirs: np.ndarray, window: int, *, swapped: bool) -> np.ndarray:
    parts = [np.zeros((0, 5), dtype=np.int64)]
    for rows, columns in prints.near(ours, theirs):
        distance = prints.distances(ours[rows], theirs[columns])
        left, right = (columns, rows) if swapped else (rows, columns)
        constant = np.full(len(rows), window), np.full(len(rows), int(swapped))
        parts.append(np.stack([left, right, distance, *constant], axis=1).astype(np.int64))
    return np.concatenate(parts)


def _confirmed(mine: Store, other: Store, pairs: np.ndarray) -> np.ndarray:
    same = np.zeros(len(pairs), dtype=bool)
    for start in range(0, len(pairs), CHUNK):
        piece = pairs[start : start + CHUNK]
        left, right = mine.images[piece[:, 0]], other.images[piece[:, 1]]
        equal = np.zeros(len(piece), dtype=bool)
        if left.shape == right.shape:
            equal = (left == right).all(axis=(1, 2, 3))
            same[start + np.flatnonzero(equal)] = True
        turned = piece[:, 4] == 1
        for which, whole, cut in ((~turned & ~equal, left, right), (turned & ~equal, right, left)):
            if which.any():
                verdict = prints.confirm(whole[which], cut[which], piece[which, 3])
                same[start + np.flatnonzero(which)] = verdict
    return same
