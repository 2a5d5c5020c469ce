"""Two arms on the same test films: their saved predictions, compared by patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ark_framework.statistics import (
    Difference,
    bootstrap_means_paired,
    bootstrap_paired,
    bootstrap_rows_paired,
)
from ark_framework.transfer.arms import Arm
from ark_framework.transfer.outcome import Outcome
from ark_framework.transfer.pieces import predictions_of

# What separates a score that the saved predictions give from one that they do not.
AGREE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Films:
    """Saved predictions: ``images`` (n,), ``patients`` (n,), ``scores`` and ``targets`` (n, C)."""

    images: np.ndarray
    patients: np.ndarray
    scores: np.ndarray
    targets: np.ndarray


def by_films(a: Arm, b: Arm, *, out: Path, level: float = 0.95) -> Difference:
    """Compare two arms by a paired bootstrap of patients, in the first repeat that both have.

    Nothing is claimed where predictions are missing, or do not give the recorded scores.
    """
    common = [key for key in a.outcomes if key in b.outcomes]
    if not common:
        return Difference(value=a.mean() - b.mean(), reason="not estimable: no split in common")
    one, other = a.outcomes[common[0]], b.outcomes[common[0]]
    value = one.score - other.score
    masks = bool(np.isfinite(one.dice))
    read = read_masks if masks else _read_scored
    first, second = (read(out, each) for each in (one, other))
    if first is None or second is None:
        return Difference(value=value, reason="not estimable: its predictions were not saved")
    same = np.array_equal(first.images, second.images)
    if not same or (masks and not np.array_equal(first.targets, second.targets)):
        return Difference(value=value, reason="not estimable: predictions are of other films")
    found = _paired(one, first, second, level)
    if not abs(found.value - value) < AGREE:
        return Difference(value=value, reason="not estimable: predictions give other scores")
    return found


def _paired(one: Outcome, first: Films, second: Films, level: float) -> Difference:
    if np.isfinite(one.dice):
        return bootstrap_means_paired(
            first.scores, second.scores, groups=first.patients, level=level
        )
    given = (first.scores, second.scores, first.targets)
    if np.isfinite(one.accuracy):
        return bootstrap_rows_paired(*given, groups=first.patients, level=level)
    return bootstrap_paired(*given, groups=first.patients, level=level).macro


def _read_scored(out: Path, found: Outcome) -> Films | None:
    every = np.isfinite(found.accuracy)
    return read_films(out, found, list(found.labels if every else found.scored or found.labels))


def read_films(out: Path, found: Outcome, labels: Sequence[str]) -> Films | None:
    """Read an outcome's predictions of some labels; ``None`` where there are none."""
    frame = _read(out, found, [*labels, *(f"p:{label}" for label in labels)])
    if frame is None:
        return None
    return Films(
        images=frame["image"].to_numpy(),
        patients=_patients(frame),
        scores=frame[[f"p:{label}" for label in labels]].to_numpy(dtype=np.float64),
        targets=np.stack(
            [_as_scored(frame[label], found.labels[label]) for label in labels], axis=1
        ),
    )


def read_masks(out: Path, found: Outcome) -> Films | None:
    """Read an outcome's Dice of each film and structure; ``None`` where there is none.

    ``targets`` say what is drawn: films on which a structure is not have no Dice.
    """
    columns = [f"{label}:dice" for label in found.labels]
    frame = _read(out, found, columns)
    if frame is None:
        return None
    dice = frame[columns].to_numpy(dtype=np.float64)
    return Films(
        images=frame["image"].to_numpy(),
        patients=_patients(frame),
        scores=dice,
        targets=np.isfinite(dice),
    )


def _read(out: Path, found: Outcome, columns: Sequence[str]) -> pd.DataFrame | None:
    path = predictions_of(out, found)
    if not path.is_file():
        return None
    frame = pd.read_csv(path, dtype={"image": str, "patient": str})
    return frame if {"image", "patient", *columns} <= set(frame) else None


def _patients(frame: pd.DataFrame) -> np.ndarray:
    """Return the number ``(n,)`` of each film's patient; one without is its own."""
    own = "\0" + frame["image"]
    return np.asarray(pd.factorize(frame["patient"].where(frame["patient"].notna(), own))[0])


def _as_scored(entries: pd.Series, counts: Mapping[str, float]) -> np.ndarray:
    """Return a label's entries ``(n,)``; blank ones are negatives where they were scored as such.

    The file has the table's own entries, and the outcome the counts behind its scores.
    """
    raw = entries.to_numpy(dtype=np.float64)
    blank = np.isnan(raw)
    as_negatives = int((raw == 0).sum() + blank.sum()) == counts["negatives"]
    return np.where(blank, 0.0, raw) if as_negatives else raw
