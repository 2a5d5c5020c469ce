"""Patients drawn with replacement, and left out, in blocks that fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ark_framework.errors import DataError
from ark_framework.statistics.results import FEW

JACKKNIFE = 200  # delete-a-block estimates for the acceleration; exact up to as many patients
ELEMENTS = 2_000_000  # weights in memory at once


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """``K`` numbers of all films ``(K,)``, of each draw ``(R, K)``, of each deletion ``(J, K)``."""

    value: np.ndarray
    drawn: np.ndarray
    without: np.ndarray

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> Replicates:
        """Apply a function of the last axis to all three."""
        return Replicates(
            value=change(self.value), drawn=change(self.drawn), without=change(self.without)
        )


def resample(
    evaluate: Callable[[np.ndarray], np.ndarray],
    strata: np.ndarray,
    *,
    replicates: int,
    seed: int,
    films: int,
    jackknife: bool = True,
) -> Replicates:
    """Evaluate ``(R, G)`` weights of patients ``-> (R, K)`` on draws and deletions.

    The draws are a function of ``strata``, ``replicates`` and ``seed``: whatever is evaluated on
    the same films sees the same replicates.
    """
    value = evaluate(np.ones((1, len(strata)), np.float32))[0]
    nothing = np.empty((0, len(value)))
    drawn = [evaluate(each) for each in _draws(strata, replicates, seed, films)]
    without = [evaluate(each) for each in _deletions(strata, films)] if jackknife else []
    return Replicates(
        value=value,
        drawn=np.concatenate([nothing, *drawn]),
        without=np.concatenate([nothing, *without]),
    )


def patients(scores: np.ndarray, targets: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Return the number ``(n,)`` of each film's patient, from 0; each film its own without groups.

    Raises:
        DataError: the shapes do not belong together.
    """
    if scores.shape != targets.shape or scores.ndim != 2:
        raise DataError(
            f"scores {scores.shape} and targets {targets.shape} differ; "
            "give both as (films, labels)"
        )
    rows = np.arange(len(scores)) if groups is None else np.asarray(groups)
    if rows.shape != (len(scores),):
        raise DataError(
            f"groups are {rows.shape}; give one patient for each of {len(scores)} films"
        )
    return np.asarray(np.unique(rows, return_inverse=True)[1])


def strata(smaller: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Return ``(G,)``: 0, or 1 + the rarest label whose smaller class the patient has.

    ``smaller`` holds each label's patients of the class that fewer have.
    """
    found = np.zeros(size, dtype=np.int64)
    for c in sorted(range(len(smaller)), key=lambda each: len(smaller[each]), reverse=True):
        if len(smaller[c]) < FEW:
            found[smaller[c]] = c + 1
    return found


def _blocks(count: int, films: int) -> Iterator[int]:
    step = max(1, ELEMENTS // max(films, 1))
    for start in range(0, count, step):
        yield min(step, count - start)


def _draws(strata: np.ndarray, count: int, seed: int, films: int) -> Iterator[np.ndarray]:
    """Yield ``(block, G)`` times that each patient was drawn; the blocking changes nothing."""
    rng, size = np.random.default_rng(seed), len(strata)
    order = np.argsort(strata, kind="stable")
    _, which, sizes = np.unique(strata[order], return_inverse=True, return_counts=True)
    low = (np.cumsum(sizes) - sizes)[which]
    for block in _blocks(count, films):
        picks = low + (rng.random((block, size)) * sizes[which]).astype(np.int64)
        picks += np.arange(block)[:, None] * size
        times = np.bincount(picks.ravel(), minlength=block * size).reshape(block, size)
        weights = np.empty((block, size), dtype=np.float32)
        weights[:, order] = times
        yield weights


def _deletions(strata: np.ndarray, films: int) -> Iterator[np.ndarray]:
    """Yield ``(block, G)`` weights that leave out one block of patients each."""
    size = len(strata)
    count = min(size, JACKKNIFE)
    member = np.empty(size, dtype=np.int64)
    member[np.argsort(strata, kind="stable")] = np.arange(size) % max(count, 1)
    done = 0
    for block in _blocks(count, films):
        yield (member != np.arange(done, done + block)[:, None]).astype(np.float32)
        done += block
