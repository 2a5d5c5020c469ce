"""Dice, IoU and HD95 of masks against an oracle, and their intervals by patient."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import binary_erosion, gaussian_filter
from scipy.spatial.distance import cdist

from ark_framework.errors import DataError
from ark_framework.overlap import (
    METRICS,
    FilmScores,
    by_structure,
    concatenate,
    film_frame,
    film_scores,
    set_dice,
    structure_table,
)
from ark_framework.statistics import bootstrap_means_paired
from ark_framework.statistics.estimate import Estimate

SIDE = 23


def blob(rng: np.random.Generator, share: float) -> np.ndarray:
    """A mask with smooth edges that holds about this share, touching the border as it may."""
    field = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 2.5)
    return np.asarray(field > np.quantile(field, 1 - share))


def degenerate() -> list[np.ndarray]:
    """Empty, one pixel in a corner and inside, lines, a frame along the border, and all."""
    masks = np.zeros((7, SIDE, SIDE), dtype=bool)
    masks[1, 0, 0] = masks[2, 11, 12] = True
    masks[3, 5] = masks[4, np.arange(SIDE), np.arange(SIDE)] = True
    masks[5] = True
    masks[5, 1:-1, 1:-1] = False
    masks[6] = True
    return list(masks)


def pairs() -> tuple[np.ndarray, np.ndarray]:
    """Pairs ``(n, 1, S, S)`` of random and degenerate masks, each with each."""
    rng = np.random.default_rng(0)
    every = [*degenerate(), *(blob(rng, share) for share in (0.02, 0.2, 0.2, 0.5, 0.9))]
    found = np.array([(a, b) for a in every for b in every])
    return found[:, :1], found[:, 1:]


def oracle(a: np.ndarray, b: np.ndarray, step: np.ndarray) -> tuple[float, float, float]:
    """Dice, IoU and HD95 by sets of pixels and all their distances."""
    both = [{*map(tuple, np.argwhere(each))} for each in (a, b)]
    if not both[0] and not both[1]:
        return 1.0, 1.0, 0.0
    common, either = both[0] & both[1], both[0] | both[1]
    dice, iou = 2 * len(common) / (len(both[0]) + len(both[1])), len(common) / len(either)
    if not both[0] or not both[1]:
        return dice, iou, math.nan
    edges = [np.argwhere(each & ~binary_erosion(each)) * step for each in (a, b)]
    far = cdist(*edges)
    return dice, iou, max(np.percentile(far.min(axis=axis), 95) for axis in (0, 1))


@pytest.mark.parametrize("scaled", [False, True])
def test_scores_are_the_oracles(scaled: bool) -> None:
    """Random and degenerate masks, square pixels and oblong ones; empty masks as is said."""
    predicted, true = pairs()
    rng = np.random.default_rng(1)
    spacing = rng.uniform(0.1, 3, (len(true), 2))
    drawn = np.ones((len(true), 1), dtype=bool)
    found = film_scores(predicted, true, drawn, spacing if scaled else None)
    steps = spacing if scaled else np.ones_like(spacing)
    expected = np.array(
        [oracle(a[0], b[0], step) for a, b, step in zip(predicted, true, steps, strict=True)]
    )
    scores = np.concatenate([found.dice, found.iou, found.hd95], axis=1)
    np.testing.assert_allclose(scores, expected, rtol=1e-12, equal_nan=True)
    assert found.empty.sum() == 1
    assert found.unmatched.sum() == 2 * 11


def films(count: int = 60, *, seed: int = 0) -> tuple[FilmScores, np.ndarray]:
    """Scores of three structures by patients with one to three films; some are not drawn."""
    rng = np.random.default_rng(seed)
    true = np.array([[blob(rng, share) for share in (0.1, 0.3, 0.5)] for _ in range(count)])
    predicted = true ^ (rng.random(true.shape) < rng.uniform(0, 0.2, (count, 1, 1, 1)))
    predicted[:5, 0] = False
    true[3:8, 0] = False
    drawn = rng.random((count, 3)) < 0.9
    return film_scores(predicted, true, drawn), rng.integers(0, count // 2, count)


def test_what_is_not_drawn_is_not_scored() -> None:
    """An undrawn structure has no score and no count, whatever its masks hold; parts join up."""
    rng = np.random.default_rng(2)
    predicted, true = rng.random((2, 9, 2, 8, 8)) < 0.5
    drawn = rng.random((9, 2)) < 0.5
    whole = film_scores(predicted, true, drawn)
    for name in vars(whole):
        assert np.array_equal(np.isfinite(getattr(whole, name)), drawn), name
    parts = [film_scores(predicted[a:b], true[a:b], drawn[a:b]) for a, b in pairwise((0, 4, 5, 9))]
    for name, joined in vars(concatenate(parts)).items():
        np.testing.assert_array_equal(joined, getattr(whole, name))
    kept = predicted[drawn[:, 0], 0], true[drawn[:, 0], 0]
    pixels = (kept[0] & kept[1]).sum(), kept[0].sum() + kept[1].sum()
    assert set_dice(whole)[0] == pytest.approx(2 * pixels[0] / pixels[1])
    told = by_structure(whole, ["a", "b"])["a"]
    assert told["drawn"] == drawn[:, 0].sum()
    assert told["dice"] == pytest.approx(whole.dice[drawn[:, 0], 0].mean())


def loop(values: dict[str, np.ndarray], times: np.ndarray) -> list[float]:
    """The four metrics of each structure, and their means, of films held so many times."""
    held = np.repeat(np.arange(len(times)), times)
    taken = {name: each[held] for name, each in values.items()}
    found = []
    for metric in METRICS:
        if metric == "dice_set":
            pixels = np.nansum(taken["predicted"], axis=0) + np.nansum(taken["true"], axis=0)
            each = 2 * np.nansum(taken["intersection"], axis=0) / pixels
        else:
            each = np.nanmean(taken[metric], axis=0)
        found += [*each, each.mean()]
    return found


def test_intervals_are_the_slow_loops() -> None:
    """Patients are drawn and left out one by one, films repeated, every mean taken anew."""
    scores, groups = films()
    found = structure_table(scores, ["a", "b", "c"], groups, replicates=200, seed=5)
    names, patient = np.unique(groups, return_inverse=True)
    count = len(names)
    uniform = np.random.default_rng(5).random((200, count))
    draws = [np.bincount((row * count).astype(int), minlength=count) for row in uniform]
    without = 1 - np.eye(count, dtype=int)
    value, drawn, left = (
        np.array([loop(vars(scores), weights[patient]) for weights in each])
        for each in (np.ones((1, count), dtype=int), draws, without)
    )
    have = [len(np.unique(groups[np.isfinite(column)])) for column in scores.dice.T]
    with_distance = [len(np.unique(groups[np.isfinite(column)])) for column in scores.hd95.T]
    for m, metric in enumerate(METRICS):
        for k, structure in enumerate(("a", "b", "c", "mean")):
            column = 4 * m + k
            own = with_distance if metric == "hd95" else have
            expected = Estimate(
                value=value[0, column],
                drawn=drawn[:, column],
                without=left[:, column],
                asked=200,
                patients=min(own) if structure == "mean" else own[k],
            )
            row = found.query(f"structure == {structure!r} and metric == {metric!r}").iloc[0]
            assert (row["value"], row["low"], row["high"]) == pytest.approx(
                (expected.value, *expected.bca(0.95))
            )


def test_the_table_counts_and_says_why_nothing_is_claimed() -> None:
    """Counts are of drawn films; nothing is claimed of few patients or of films that agree."""
    scores, groups = films()
    found = structure_table(scores, ["a", "b", "c"], groups)
    assert found["structure"].tolist() == [name for name in [*"abc", "mean"] for _ in METRICS]
    assert found["metric"].tolist() == 4 * [*METRICS]
    a, distance = found.iloc[0], found.iloc[3]
    lost = int(scores.unmatched[:, 0].sum())
    assert (a["drawn"], a["empty"]) == (scores.drawn[:, 0].sum(), scores.empty[:, 0].sum())
    assert a["unmatched"] == lost > 0
    assert distance["note"] == f"without {lost} films that lack one mask"
    few = structure_table(scores, ["a", "b", "c"], groups % 8)
    assert few[["low", "high"]].isna().all(axis=None)
    assert few["note"].str.endswith("8 patients, at least 10 are needed").all()
    masks = np.ones((20, 2, 4, 4), dtype=bool)
    drawn = np.array([[True, False]] * 20)
    same = structure_table(film_scores(masks, masks, drawn), ["x", "y"], None)
    assert same.query("structure == 'x'")["note"].str.endswith("the films do not differ").all()
    assert same.query("structure == 'mean'")["value"].tolist() == [1, 1, 1, 0]
    assert same.query("structure == 'mean'")["note"].str.startswith("of 1 of 2 structures").all()


def test_two_models_are_compared_on_the_same_patients() -> None:
    """The value is the difference of the means, and what films have in common cancels."""
    scores, groups = films(120)
    rng = np.random.default_rng(3)
    other = scores.dice - 0.02 + rng.normal(0, 0.005, scores.dice.shape)
    found = bootstrap_means_paired(scores.dice, other, groups=groups)
    gap = np.nanmean(scores.dice, axis=0).mean() - np.nanmean(other, axis=0).mean()
    assert found.value == pytest.approx(gap)
    assert found.low < gap < found.high
    means = structure_table(scores, ["a", "b", "c"], groups).query("structure == 'mean'").iloc[0]
    assert found.high - found.low < (means["high"] - means["low"]) / 5
    assert "8 patients" in bootstrap_means_paired(scores.dice, other, groups=groups % 8).reason
    with pytest.raises(DataError, match="not of the same films"):
        bootstrap_means_paired(scores.dice, other[::-1], groups=groups)


def test_the_frame_holds_each_films_scores() -> None:
    """A row per film in order, blank where a structure is not drawn."""
    scores, _ = films(12)
    rows = pd.DataFrame({"image": [f"{i}.png" for i in range(12)], "patient": "p", "split": "test"})
    frame = film_frame(rows.set_index(np.arange(5, 17)), scores, ["a", "b", "c"])
    assert list(frame)[:5] == ["image", "patient", "a:dice", "a:iou", "a:hd95"]
    np.testing.assert_array_equal(frame["c:dice"], scores.dice[:, 2])
    assert frame["b:iou"].isna().sum() == (~scores.drawn[:, 1]).sum()


@pytest.mark.parametrize("what", ["shape", "type", "drawn", "spacing"])
def test_what_does_not_fit_is_refused(what: str) -> None:
    """Probabilities, masks of another size, and a spacing of 0 would give a score in silence."""
    masks, drawn = np.ones((3, 1, 4, 4), dtype=bool), np.ones((3, 1), dtype=bool)
    predicted = {"shape": masks[..., :3], "type": masks * 0.4}.get(what, masks)
    with pytest.raises(DataError, match="give"):
        film_scores(
            predicted,
            masks,
            drawn[:2] if what == "drawn" else drawn,
            np.zeros((3, 2)) if what == "spacing" else None,
        )
