"""Which films a few-shot or partial-data classifier may see: nested draws that all models share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ark_framework.specs import Kind

SHOTS, FRACTION = 1, 2  # what a generator is for, so that the two draw apart


@dataclass(frozen=True, kw_only=True)
class Shots:
    """Orders in which films are taken: ``order[draw][label]`` is one of rows for each side.

    A side is positives or negatives of a label or, for exclusive classes, a class; those have one
    set together, under label 0.
    """

    order: tuple[Mapping[int, tuple[np.ndarray, ...]], ...]

    def of(self, count: int, draw: int) -> dict[int, np.ndarray]:
        """Return the rows ``(sides * count,)`` of each label that has ``count`` of every side.

        A smaller count's rows are among a larger one's of the same draw.
        """
        return {
            label: np.concatenate([side[:count] for side in sides])
            for label, sides in self.order[draw].items()
            if all(len(side) >= count for side in sides)
        }


def draw_shots(
    targets: np.ndarray,
    groups: np.ndarray,
    *,
    kind: Kind,
    draws: int = 10,
    seed: int = 0,
) -> Shots:
    """Draw films for few-shot classifiers, a function of the arguments alone.

    Patients are taken before second films of the same patient.

    Args:
        targets: ``(n, C)``; only entries 0 and 1 are eligible.
        groups: ``(n,)`` patient of each film.
        kind: Exclusive classes (``multiclass``) share one set, ``count`` films of each class.
        draws: How many.
        seed: Of all draws.
    """
    labels = range(targets.shape[1])

    def order(draw: int, label: int, side: int, rows: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng([seed, SHOTS, draw, label, side])
        return _patients_first(rng.permutation(rows), groups)

    def of(draw: int) -> dict[int, tuple[np.ndarray, ...]]:
        if kind == "multiclass":
            sides = [np.flatnonzero(targets[:, c] == 1) for c in labels]
            return {0: tuple(order(draw, 0, c, rows) for c, rows in enumerate(sides))}
        return {
            label: tuple(
                order(draw, label, side, np.flatnonzero(targets[:, label] == side))
                for side in (1, 0)
            )
            for label in labels
        }

    return Shots(order=tuple(of(draw) for draw in range(draws)))


def draw_fraction(
    groups: np.ndarray, fraction: float, *, draw: int = 0, seed: int = 0
) -> np.ndarray:
    """Return the rows, ascending, of a share of the patients, at least one; shares are nested.

    Args:
        groups: ``(n,)`` patient of each film.
        fraction: Share of patients, in (0, 1].
        draw: Which of many.
        seed: Of all draws.
    """
    patients = np.unique(groups)
    order = np.random.default_rng([seed, FRACTION, draw]).permutation(patients)
    return np.flatnonzero(np.isin(groups, order[: max(1, round(fraction * len(patients)))]))


def _patients_first(rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Order rows so that every patient's first film comes before any one's second."""
    seen: dict[int, int] = {}
    turn = np.empty(len(rows), dtype=np.int64)
    for index, patient in enumerate(groups[rows].tolist()):
        turn[index] = seen[patient] = seen.get(patient, -1) + 1
    return rows[np.argsort(turn, kind="stable")]
