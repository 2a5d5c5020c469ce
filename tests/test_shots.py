"""Few-shot draws and fractions: eligible films alone, nested, by patient, the same for all."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from ark_framework.transfer.shots import Shots, draw_fraction, draw_shots

COUNTS = (1, 2, 4, 8, 16)


def films(rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Labels ``(n, 3)`` with every kind of entry, the last one rare, and about 100 patients."""
    rng = np.random.default_rng(0)
    targets = rng.choice([0.0, 1.0, np.nan, -1.0], (rows, 3), p=[0.5, 0.3, 0.1, 0.1])
    targets[:, 2] = np.where(np.arange(rows) < 5, 1.0, 0.0)
    return targets, rng.integers(0, 100, rows)


def drawn(targets: np.ndarray, groups: np.ndarray, seed: int = 0) -> Shots:
    return draw_shots(targets, groups, kind="multilabel", draws=4, seed=seed)


def test_each_label_gets_its_positives_and_negatives() -> None:
    """``count`` of either, all different and annotated for certain; never a shorter set."""
    targets, groups = films()
    shots = drawn(targets, groups)
    for draw in range(4):
        for count in COUNTS:
            sets = shots.of(count, draw)
            assert list(sets) == ([0, 1, 2] if count <= 4 else [0, 1])
            for label, rows in sets.items():
                assert len(set(rows.tolist())) == 2 * count
                assert (targets[rows[:count], label] == 1).all()
                assert (targets[rows[count:], label] == 0).all()


def test_exclusive_classes_share_one_set() -> None:
    """``count`` films of each class, or none at all; rows without a class are not drawn."""
    label = np.arange(60) % 3
    targets = np.eye(3)[label]
    targets[:30:4] = np.nan
    shots = draw_shots(targets, np.arange(60), kind="multiclass", draws=2)
    (rows,) = shots.of(5, 1).values()
    np.testing.assert_array_equal(label[rows], np.repeat([0, 1, 2], 5))
    assert np.isfinite(targets[rows]).all()
    most = int(np.nansum(targets, axis=0).min())
    assert shots.of(most, 0)
    assert not shots.of(most + 1, 0)


def test_a_larger_set_holds_the_smaller() -> None:
    shots = drawn(*films())
    for draw in range(4):
        for small, large in pairwise(COUNTS):
            for label, rows in shots.of(large, draw).items():
                assert set(shots.of(small, draw)[label]) < set(rows)


def test_second_films_of_a_patient_come_last() -> None:
    """A side has one film of each patient while it has patients, and then their others."""
    targets = np.repeat([[1.0], [0.0]], 30, axis=0)
    groups = np.repeat(np.arange(20), 3)
    for draw in range(4):
        for count, people in ((1, 1), (8, 8), (10, 10), (16, 10), (30, 10)):
            rows = drawn(targets, groups).of(count, draw)[0]
            assert len(set(groups[rows[:count]])) == len(set(groups[rows[count:]])) == people


def test_draws_depend_on_seed_draw_and_label_alone() -> None:
    """The same again; other draws, seeds and labels differ; further columns change nothing."""
    targets, groups = films()
    targets[:, 1] = targets[:, 0]
    one, again = drawn(targets, groups), drawn(targets, groups)
    other = drawn(targets, groups, seed=1)
    alone = drawn(targets[:, :1], groups)
    for draw in range(4):
        sets = one.of(8, draw)
        np.testing.assert_array_equal(sets[0], again.of(8, draw)[0])
        np.testing.assert_array_equal(sets[0], alone.of(8, draw)[0])
        assert set(sets[0]) != set(other.of(8, draw)[0])
        assert set(sets[0]) != set(sets[1])
        assert set(sets[0]) != set(one.of(8, (draw + 1) % 4)[0])


def test_shares_are_of_patients_and_nested() -> None:
    """All films of a patient or none, as many patients as asked, each share in the next."""
    _, groups = films()
    people = len(np.unique(groups))
    before: set[int] = set()
    for fraction in (0.001, 0.01, 0.1, 0.5, 1.0):
        rows = draw_fraction(groups, fraction, draw=3)
        taken = set(groups[rows].tolist())
        assert len(taken) == max(1, round(fraction * people))
        np.testing.assert_array_equal(rows, np.flatnonzero(np.isin(groups, list(taken))))
        assert before <= taken
        before = taken
    assert len(rows) == len(groups)


@pytest.mark.parametrize("change", [{"draw": 1}, {"seed": 1}])
def test_other_draws_take_other_patients(change: dict[str, int]) -> None:
    _, groups = films()
    one = draw_fraction(groups, 0.2)
    np.testing.assert_array_equal(one, draw_fraction(groups, 0.2))
    assert set(one) != set(draw_fraction(groups, 0.2, **change))
