"""Scores of masks, film by film and over a set, with intervals by patient."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from ark_framework.errors import DataError
from ark_framework.statistics.draws import patients
from ark_framework.statistics.estimate import ROUNDING, Estimate
from ark_framework.statistics.ratios import Ratios, column_mean, ratio
from ark_framework.statistics.results import too_few_patients

METRICS = ("dice", "dice_set", "iou", "hd95")
PER_FILM = ("dice", "iou", "hd95")
MEAN = "mean"


@dataclass(frozen=True, kw_only=True)
class FilmScores:
    """Scores of ``n`` films and ``K`` structures, each ``(n, K)`` float64; see :func:`film_scores`.

    All are NaN where a structure is not drawn on a film.

    Attributes:
        hd95: In pixels or mm; NaN also where one of the two masks is empty.
        intersection: Pixels in both masks.
        predicted: Pixels in the predicted one.
        true: Pixels in the drawn one.
    """

    dice: np.ndarray
    iou: np.ndarray
    hd95: np.ndarray
    intersection: np.ndarray
    predicted: np.ndarray
    true: np.ndarray

    @property
    def drawn(self) -> np.ndarray:
        """Return where a structure is drawn, ``(n, K)`` bool: these alone are scored."""
        return np.asarray(np.isfinite(self.true))

    @property
    def empty(self) -> np.ndarray:
        """Return where both masks are empty, ``(n, K)`` bool."""
        return np.asarray((self.predicted == 0) & (self.true == 0))

    @property
    def unmatched(self) -> np.ndarray:
        """Return where exactly one of the masks is empty, ``(n, K)`` bool: HD95 has no value."""
        return np.asarray((self.predicted == 0) ^ (self.true == 0))


def film_scores(
    predicted: np.ndarray,
    true: np.ndarray,
    drawn: np.ndarray,
    spacing: np.ndarray | None = None,
) -> FilmScores:
    """Score masks ``(n, K, H, W)`` bool against those drawn.

    Dice is ``2 |A & B| / (|A| + |B|)`` and IoU ``|A & B| / |A | B|``.  HD95 is the 95th percentile
    (linear interpolation) of the distances from each boundary pixel of one mask to the nearest of
    the other, the larger of the two directions.  The boundary is the mask without its erosion by
    a cross; beyond the film nothing is in.

    Both masks empty: Dice 1, IoU 1, HD95 0.  Exactly one empty: Dice 0, IoU 0, and HD95 has no
    value; such films are counted as unmatched.

    Args:
        predicted: Of a model.
        true: As drawn by a reader.
        drawn: ``(n, K)`` bool, whether the reader drew the structure, were it only as absent.
        spacing: ``(n, 2)`` mm from row to row and column to column; HD95 is in pixels without.

    Raises:
        DataError: shapes or types do not belong together, or a spacing is not positive.
    """
    _check(predicted, true, drawn, spacing)
    common, one, other = _pixels(predicted, true, drawn)
    empty = one + other == 0
    dice = _dice(common, one, other)
    with np.errstate(invalid="ignore"):
        iou = np.where(empty, 1.0, common / (one + other - common))
    hd95 = np.where(empty, 0.0, np.nan)
    for film, structure in np.argwhere((one > 0) & (other > 0)):
        masks = predicted[film, structure], true[film, structure]
        hd95[film, structure] = _hd95(*masks, 1.0 if spacing is None else spacing[film])
    return FilmScores(dice=dice, iou=iou, hd95=hd95, intersection=common, predicted=one, true=other)


def film_dice(predicted: np.ndarray, true: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Return the Dice of :func:`film_scores` alone, ``(n, K)``, where distances cost too much."""
    _check(predicted, true, drawn, None)
    return _dice(*_pixels(predicted, true, drawn))


def _pixels(predicted: np.ndarray, true: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(
        np.where(drawn, np.count_nonzero(each, axis=(2, 3)), np.nan)
        for each in (predicted & true, predicted, true)
    )


def _dice(common: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.where(one + other == 0, 1.0, 2 * common / (one + other))


def concatenate(parts: Iterable[FilmScores]) -> FilmScores:
    """Join the scores of one batch of films after another; there must be one."""
    every = list(parts)
    names = [field.name for field in fields(FilmScores)]
    return FilmScores(
        **{name: np.concatenate([getattr(each, name) for each in every]) for name in names}
    )


def set_dice(scores: FilmScores) -> np.ndarray:
    """Return Dice over all pixels of the drawn films ``(K,)``; NaN where neither mask has any."""
    pixels = np.nansum(scores.predicted + scores.true, axis=0)
    return ratio(2 * np.nansum(scores.intersection, axis=0), pixels)


def by_structure(scores: FilmScores, labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return each structure's means over films, its Dice over the set, and its counts of films.

    ``drawn`` films are scored; of them, ``empty`` ones have neither mask, ``unmatched`` ones one.
    """
    per_film = {name: film_mean(getattr(scores, name)) for name in PER_FILM}
    told = {**per_film, "dice_set": set_dice(scores)}
    return {
        label: {name: float(told[name][k]) for name in METRICS}
        | {name: int(each[k]) for name, each in _counts(scores).items()}
        for k, label in enumerate(labels)
    }


def film_mean(values: np.ndarray) -> np.ndarray:
    """Return ``(K,)`` means of ``(n, K)`` over the films that have a value; NaN without any."""
    return ratio(np.nansum(values, axis=0), np.isfinite(values).sum(axis=0))


def film_frame(rows: pd.DataFrame, scores: FilmScores, labels: Sequence[str]) -> pd.DataFrame:
    """Return a row per film: image, patient, and ``<structure>:dice``, ``:iou``, ``:hd95``.

    Args:
        rows: Of the annotation table, the ``n`` films in order.
        scores: Theirs.
        labels: The ``K`` structures.
    """
    columns = {
        f"{label}:{name}": getattr(scores, name)[:, k]
        for k, label in enumerate(labels)
        for name in PER_FILM
    }
    return rows[["image", "patient"]].reset_index(drop=True).join(pd.DataFrame(columns))


def structure_table(
    scores: FilmScores,
    labels: Sequence[str],
    groups: np.ndarray | None,
    *,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Return a row for each structure and metric, and for the means over structures.

    Intervals are the bootstrap's (BCa) over patients, drawn once for all structures and metrics:
    means over the drawn films, and of ``dice_set`` the ratio of sums.  Nothing is claimed of
    fewer than ten patients.  A mean is over the structures that have a value.

    Args:
        scores: Of ``n`` films.
        labels: The ``K`` structures.
        groups: ``(n,)`` patient of each film; each film its own without.
        replicates: How many.
        level: Of confidence.
        seed: Of the draws.

    Returns:
        Columns ``structure`` (``mean`` in the end), ``metric`` (``dice``, ``dice_set``, ``iou``,
        ``hd95``), ``value``, ``low``, ``high``, ``drawn``, ``empty``, ``unmatched`` (films; summed
        over structures for a mean) and ``note``.
    """
    patient = patients(scores.true, scores.true, groups)
    ratios = Ratios.of(*_parts(scores), patient)
    found = ratios.resample(replicates=replicates, seed=seed)
    counts = _counts(scores)
    single = [(label, np.array([k])) for k, label in enumerate(labels)]
    rows = []
    for name, members in [*single, (MEAN, np.arange(len(labels)))]:
        films = {what: int(each[members].sum()) for what, each in counts.items()}
        for m, metric in enumerate(METRICS):
            own = m * len(labels) + members
            known = own[np.isfinite(found.value[own])]
            number = Estimate.of(column_mean(found, known), 0, patients=ratios.patients(known))
            low, high, reason = _interval(number, level)
            notes = [f"of {len(known)} of {len(own)} structures"] * (0 < len(known) < len(own))
            if metric == "hd95" and films["unmatched"]:
                notes.append(f"without {films['unmatched']} films that lack one mask")
            told = {"value": number.value, "low": low, "high": high, **films}
            note = "; ".join(filter(None, (*notes, reason)))
            rows.append({"structure": name, "metric": metric, **told, "note": note})
    return pd.DataFrame(rows)


def _interval(number: Estimate, level: float) -> tuple[float, float, str]:
    reason = too_few_patients(number.patients) or number.reason
    if not reason and np.ptp(number.drawn) < ROUNDING:
        reason = "not estimable: the films do not differ"
    return (math.nan, math.nan, reason) if reason else (*number.bca(level), "")


def _parts(scores: FilmScores) -> tuple[np.ndarray, np.ndarray]:
    """Return above and below the line ``(n, 4 K)``, in the order of ``METRICS``."""
    means = {name: getattr(scores, name) for name in PER_FILM}
    above = means | {"dice_set": 2 * scores.intersection}
    below = {name: np.isfinite(each) for name, each in means.items()}
    below |= {"dice_set": scores.predicted + scores.true}
    one, other = (np.concatenate([s[m] for m in METRICS], axis=1) for s in (above, below))
    return np.nan_to_num(one), np.nan_to_num(other)


def _counts(scores: FilmScores) -> dict[str, np.ndarray]:
    """Return films by structure, each ``(K,)``."""
    return {name: getattr(scores, name).sum(axis=0) for name in ("drawn", "empty", "unmatched")}


def _hd95(a: np.ndarray, b: np.ndarray, step: np.ndarray | float) -> float:
    """Return HD95 of two masks ``(H, W)`` that are not empty."""
    from scipy.ndimage import distance_transform_edt

    one, other = (_boundary(each) for each in _cropped(a, b))
    return max(
        float(np.percentile(distance_transform_edt(~to, sampling=step)[of], 95))
        for of, to in ((one, other), (other, one))
    )


def _cropped(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the box that holds both: all that distances between them depend on."""
    either = a | b
    rows, columns = (np.flatnonzero(either.any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return a[box], b[box]


def _boundary(mask: np.ndarray) -> np.ndarray:
    """Return the pixels that lack one of their four neighbors."""
    around = np.pad(mask, 1)
    inside = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return np.asarray(mask & ~inside)


def _check(
    predicted: np.ndarray, true: np.ndarray, drawn: np.ndarray, spacing: np.ndarray | None
) -> None:
    if predicted.shape != true.shape or true.ndim != 4 or drawn.shape != true.shape[:2]:
        raise DataError(
            f"masks {predicted.shape} and {true.shape}, drawn {drawn.shape} do not fit; give "
            "(films, structures, height, width) twice, and (films, structures)"
        )
    kinds = predicted.dtype, true.dtype, drawn.dtype
    if any(kind != np.bool_ for kind in kinds):
        raise DataError(f"masks are {kinds[0]} and {kinds[1]}, drawn {kinds[2]}; give bool")
    if spacing is not None and not (
        spacing.shape == (len(true), 2) and (np.isfinite(spacing) & (spacing > 0)).all()
    ):
        raise DataError(
            f"spacing {spacing.shape} is not of {len(true)} films, or not above 0; give mm as "
            "(films, 2), or none"
        )
