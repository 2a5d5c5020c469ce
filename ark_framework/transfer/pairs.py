"""Two arms on the same test films: their saved predictions, compared by patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ark_framework.statistics import Difference, bootstrap_paired, bootstrap_rows_paired
from ark_framework.transfer.arms import Arm
from ark_framework.transfer.outcome import Outcome
from ark_framework.transfer.study import predictions_of

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
    labels = one.scored or list(one.labels)
    exclusive = np.isfinite(one.accuracy)
    films = [
        read_films(out, each, list(one.labels) if exclusive else labels) for each in (one, other)
    ]
    first, second = films
    if first is None or second is None:
        return Difference(value=value, reason="not estimable: its predictions were not saved")
    if not np.array_equal(first.images, second.images):
        return Difference(value=value, reason="not estimable: predictions are of other films")
    given = (first.scores, second.scores, first.targets)
    found = (
        bootstrap_rows_paired(*given, groups=first.patients, level=level)
        if exclusive
        else bootstrap_paired(*given, groups=first.patients, level=level).macro
    )
    if not abs(found.value - value) < AGREE:
        return Difference(value=value, reason="not estimable: predictions give other scores")
    return found


def read_films(out: Path, found: Outcome, labels: Sequence[str]) -> Films | None:
    """Read an outcome's predictions of some labels; ``None`` where there are none."""
    path = predictions_of(out, found)
    if not path.is_file():
        return None
    frame = pd.read_csv(path, dtype={"image": str, "patient": str})
    if not {"image", "patient", *labels, *(f"p:{label}" for label in labels)} <= set(frame):
        return None
    own = "\0" + frame["image"]
    return Films(
        images=frame["image"].to_numpy(),
        patients=pd.factorize(frame["patient"].where(frame["patient"].notna(), own))[0],
        scores=frame[[f"p:{label}" for label in labels]].to_numpy(dtype=np.float64),
        targets=np.stack(
            [_as_scored(frame[label], found.labels[label]) for label in labels], axis=1
        ),
    )


def _as_scored(entries: pd.Series, counts: Mapping[str, float]) -> np.ndarray:
    """Return a label's entries ``(n,)``; blank ones are negatives where they were scored as such.

    The file has the table's own entries, and the outcome the counts behind its scores.
    """
    raw = entries.to_numpy(dtype=np.float64)
    blank = np.isnan(raw)
    as_negatives = int((raw == 0).sum() + blank.sum()) == counts["negatives"]
    return np.where(blank, 0.0, raw) if as_negatives else raw
