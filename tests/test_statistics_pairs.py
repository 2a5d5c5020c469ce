"""Accuracy's interval, two models on the same films, tests over pairs: each against an oracle."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from ark_framework import metrics
from ark_framework.errors import ConfigError, DataError
from ark_framework.statistics import (
    Difference,
    Interval,
    bootstrap,
    bootstrap_paired,
    bootstrap_rows,
    bootstrap_rows_paired,
    corrected_t,
    delong_paired,
    paired_t,
    weighted_accuracy,
    weighted_average_precision,
)


def classes(seed: int, films: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of two models that share noise, of three exclusive classes; some films unlabelled."""
    rng = np.random.default_rng(seed)
    targets = np.eye(3)[rng.integers(0, 3, films)]
    shared = rng.normal(size=targets.shape)
    a, b = (shared + rng.normal(size=targets.shape) + gain * targets for gain in (2.5, 2.0))
    targets[rng.random(films) < 0.1] = np.nan
    return a, b, targets


def numbers(found: Difference, sign: int = 1) -> tuple[float, ...]:
    """Value, bounds and p, of ``b - a`` where the sign is -1."""
    ends = sorted((sign * found.low, sign * found.high))
    return (sign * found.value, *ends, found.p)


def test_weighted_accuracy_is_that_of_repeated_rows() -> None:
    """A film of weight k counts k times; no film at all has no accuracy."""
    scores, _, targets = (each[:40] for each in classes(0))
    use = metrics.known(targets).all(axis=1)
    scores, targets = scores[use], targets[use]
    weights = np.random.default_rng(0).poisson(1, (6, len(scores))).astype(np.float32)
    weights[-1] = 0
    found = weighted_accuracy(scores, targets, weights)
    for each, value in zip(weights, found, strict=True):
        rows = np.repeat(np.arange(len(scores)), each.astype(int))
        expected = metrics.accuracy(scores[rows], targets[rows])
        assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_agrees_with_scipy(seed: int) -> None:
    """On one film a patient the bounds are SciPy's BCa, up to a film and a half of 270."""
    scores, _, targets = classes(seed)
    found = bootstrap_rows(scores, targets, replicates=4000)
    use = metrics.known(targets).all(axis=1)
    right = (scores.argmax(axis=1) == targets.argmax(axis=1))[use] * 1.0
    theirs = stats.bootstrap(
        (right,), np.mean, method="BCa", n_resamples=4000, random_state=np.random.default_rng(seed)
    )
    assert found.value == pytest.approx(metrics.accuracy(scores, targets), abs=1e-12)
    expected = tuple(theirs.confidence_interval)
    assert (found.low, found.high) == pytest.approx(expected, abs=1.5 / use.sum())
    assert math.sqrt(found.variance) == pytest.approx(theirs.standard_error, rel=0.1)


Bounds = Interval | Difference
FORMS: dict[str, Callable[..., Bounds]] = {
    "accuracy": lambda a, b, *rest, **given: bootstrap_rows(a, *rest, **given),
    "accuracies": bootstrap_rows_paired,
    "label": lambda *each, **given: bootstrap_paired(*each, **given).labels[0],
    "mean": lambda *each, **given: bootstrap_paired(*each, **given).macro,
}


@pytest.mark.parametrize("form", FORMS)
def test_films_of_a_patient_are_drawn_together(form: str) -> None:
    """Copies of every film add nothing when grouped, and narrow the interval when not."""
    films = classes(1, films=120)
    many = [np.tile(each, (4, 1)) for each in films]
    once = FORMS[form](*films, replicates=300)
    grouped = FORMS[form](*many, groups=np.tile(np.arange(120), 4), replicates=300)
    alone = FORMS[form](*many, replicates=300)
    assert (grouped.low, grouped.high) == pytest.approx((once.low, once.high), abs=1e-9)
    assert alone.high - alone.low < 0.7 * (grouped.high - grouped.low)


def test_accuracy_is_not_estimable() -> None:
    """Nothing is claimed of nine patients, all right, all wrong, no labels or broken scores."""
    scores, _, targets = classes(2, films=40)
    few = bootstrap_rows(scores, targets, groups=np.arange(40) % 9)
    assert few.reason == "not estimable: 9 patients, at least 10 are needed"
    assert few.value == pytest.approx(metrics.accuracy(scores, targets))
    assert math.isnan(few.low)
    assert not bootstrap_rows(scores, targets, groups=np.arange(40) % 10).reason
    whole = np.eye(3)[np.arange(40) % 3]
    assert bootstrap_rows(whole, whole).reason == "not estimable: the value is 1"
    assert bootstrap_rows(-whole, whole).reason == "not estimable: the value is 0"
    assert bootstrap_rows(scores, np.full((40, 3), np.nan)).reason.startswith("not estimable: 0 pa")
    scores[np.flatnonzero(metrics.known(targets[:, 0]))[0], 1] = np.inf
    assert bootstrap_rows(scores, targets).reason == "not estimable: a score is not finite"
    assert "finite" in bootstrap_rows_paired(whole + 0.1, scores, targets).reason


def test_differences_are_those_of_the_intervals_own_values() -> None:
    """Labels, mean and accuracy differ by what the two models' own intervals say."""
    a, b, targets = classes(3)
    one, other = bootstrap(a, targets, replicates=50), bootstrap(b, targets, replicates=50)
    found = bootstrap_paired(a, b, targets, replicates=50)
    for each, x, y in zip(
        (*found.labels, found.macro),
        (*one.labels, one.macro),
        (*other.labels, other.macro),
        strict=True,
    ):
        assert each.value == pytest.approx(x.value - y.value, abs=1e-12)
        assert each.low < each.value < each.high
    rows = bootstrap_rows_paired(a, b, targets, replicates=50)
    accuracies = [metrics.accuracy(each, targets) for each in (a, b)]
    assert rows.value == pytest.approx(accuracies[0] - accuracies[1], abs=1e-12)


def test_a_model_differs_from_itself_by_nothing() -> None:
    """Identical models differ by 0 without variance, and so do those that rank and choose alike."""
    a, _, targets = classes(4)
    for b in (a, 2 * a):
        found = bootstrap_paired(a, b, targets, replicates=50)
        both = (*found.labels, found.macro, bootstrap_rows_paired(a, b, targets, replicates=50))
        for each in both:
            assert each.value == 0
            assert each.reason == "not estimable: the difference has no variance"
            assert math.isnan(each.p)


def test_differences_are_antisymmetric() -> None:
    """``a - b`` is ``-(b - a)`` with the same p, a label that one model breaks included."""
    a, b, targets = classes(5, films=200)
    targets[:, 1:] = np.where(np.arange(200)[:, None] < 12, targets[:, 1:], 0)
    b[:, 1] = np.nan
    groups = np.arange(200) // 3
    there, back = (
        bootstrap_paired(*each, targets, groups=groups, replicates=100) for each in ((a, b), (b, a))
    )
    assert there.labels[1].reason == "not estimable: a score is not finite"
    assert there.labels[2].reason.startswith("not estimable: ")
    pairs = [(there.labels[0], back.labels[0]), (there.macro, back.macro)]
    b[:, 1] = 0
    rows = [
        bootstrap_rows_paired(*each, targets, groups=groups, replicates=100)
        for each in ((a, b), (b, a))
    ]
    for one, other in (*pairs, tuple(rows)):
        assert not one.reason
        assert numbers(one) == pytest.approx(numbers(other, sign=-1), abs=1e-12)


def test_paired_agrees_with_delong_and_normal_theory() -> None:
    """On one film a patient standard errors are DeLong's and the paired proportions', to 8 %."""
    a, b, targets = classes(6, films=600)
    drawn = bootstrap_paired(a, b, targets, replicates=2000)
    for c, each in enumerate(drawn.labels):
        exact = delong_paired(a[:, c], b[:, c], targets[:, c])
        assert each.high - each.low == pytest.approx(exact.high - exact.low, rel=0.08)
        assert each.p == pytest.approx(exact.p, abs=0.03)
    use = metrics.known(targets).all(axis=1)
    right = [each.argmax(axis=1)[use] == targets.argmax(axis=1)[use] for each in (a, b)]
    theirs = stats.ttest_rel(*(each * 1.0 for each in right))
    found = bootstrap_rows_paired(a, b, targets, replicates=2000)
    low, high = theirs.confidence_interval()
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.08 * (high - low))
    assert found.p == pytest.approx(theirs.pvalue, abs=0.03)


def test_few_patients_are_given_students_reach() -> None:
    """Of ten patients with as many films each, interval and p are those of t on their means."""
    rng = np.random.default_rng(0)
    kind, groups = rng.integers(0, 3, 200), np.arange(200) % 10
    hard = rng.normal(size=(10, 2))[groups] + rng.normal(size=(200, 2))
    right = hard < [1.0, 0.2]
    a, b = (np.eye(3)[np.where(each, kind, (kind + 1) % 3)] for each in right.T)
    found = bootstrap_rows_paired(a, b, np.eye(3)[kind], groups=groups, replicates=20_000)
    means = np.stack([right[groups == each].mean(axis=0) for each in range(10)], axis=1)
    expected = stats.ttest_rel(*means)
    low, high = expected.confidence_interval()
    assert found.high - found.low == pytest.approx(high - low, rel=0.02)
    assert found.p == pytest.approx(expected.pvalue, rel=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_p_and_interval_agree(seed: int) -> None:
    """p is below 0.1 exactly where the 90 % interval leaves 0 out; p is the level that touches."""
    a, b, targets = classes(seed, films=150)
    given = {"groups": np.arange(150) // 2, "metric": weighted_average_precision, "replicates": 100}
    for each in bootstrap_paired(a, b, targets, level=0.9, **given).labels:  # type: ignore[arg-type]
        assert (each.p < 0.1) == (each.low > 0 or each.high < 0)
    macro = bootstrap_paired(a, b, targets, **given).macro  # type: ignore[arg-type]
    touching = bootstrap_paired(a, b, targets, level=1 - macro.p, **given).macro  # type: ignore[arg-type]
    assert min(abs(touching.low), abs(touching.high)) == pytest.approx(0, abs=1e-9)


def test_paired_films_narrow_the_interval() -> None:
    """What two models have in common cancels: the difference is surer than independent models'."""
    a, b, targets = classes(7)
    found = bootstrap_paired(a, b, targets).macro
    alone = [bootstrap(each, targets).macro for each in (a, b)]
    apart = math.hypot(*(each.high - each.low for each in alone))
    assert found.high - found.low < 0.85 * apart


def test_a_perfect_or_rare_label_has_no_difference() -> None:
    """At AUROC 1 of either model, or with nine positives, the reason is that of an interval."""
    a, b, targets = classes(8, films=200)
    a[:, 0] = np.nan_to_num(targets[:, 0])
    targets[:, 1] = 0
    targets[:9, 1] = 1
    found = bootstrap_paired(a, b, targets, replicates=50)
    assert found.labels[0].reason == "not estimable: the value is 1"
    assert found.labels[1].reason == "not estimable: 9 positives, at least 10 are needed"
    assert math.isnan(found.labels[1].p)
    assert not found.labels[2].reason
    assert not found.macro.reason
    nothing = bootstrap_paired(a, b, np.zeros_like(a), replicates=50).macro
    assert math.isnan(nothing.value)
    assert nothing.reason == "not estimable: no label has both classes"
    with pytest.raises(DataError, match="both models"):
        bootstrap_paired(a, b[:, :2], targets)


def test_paired_t_equals_scipy() -> None:
    """Value, p and interval are SciPy's; one pair, equal or broken differences give neither."""
    rng = np.random.default_rng(0)
    a = rng.normal(0.8, 0.02, 6)
    b = a - rng.normal(0.01, 0.01, 6)
    found, expected = paired_t(a, b, level=0.9), stats.ttest_rel(a, b)
    low, high = expected.confidence_interval(0.9)
    assert numbers(found) == pytest.approx(((a - b).mean(), low, high, expected.pvalue), abs=1e-12)
    assert paired_t(a[:1], b[:1]).reason == "not estimable: fewer than two pairs"
    assert "do not differ" in paired_t(a, a - 0.01).reason
    assert "finite" in paired_t(a, np.append(b[:5], np.nan)).reason
    with pytest.raises(DataError, match="pairs"):
        paired_t(a, b[:3])


@pytest.mark.parametrize(("k", "share"), [(25, 0.2), (10, 0.1), (3, 1 / 3)])
def test_corrected_t_equals_the_direct_formula(k: int, share: float) -> None:
    """Nadeau and Bengio's t from films counted one by one: 600 of which ``share`` are tested."""
    x = np.random.default_rng(k).normal(0.01, 0.02, k)
    mean = sum(x) / k
    variance = sum((each - mean) ** 2 for each in x) / (k - 1)
    tested = 600 * share
    error = math.sqrt((1 / k + tested / (600 - tested)) * variance)
    reach = stats.t.ppf(0.975, k - 1) * error
    p = 2 * (1 - stats.t.cdf(abs(mean) / error, k - 1))
    found = corrected_t(x, share)
    assert numbers(found) == pytest.approx((mean, mean - reach, mean + reach, p), abs=1e-12)
    assert numbers(corrected_t(-x, share)) == pytest.approx(numbers(found, sign=-1), abs=1e-12)
    assert found.p > paired_t(x, np.zeros(k)).p


def test_corrected_t_refuses() -> None:
    """A share in percent and a table of differences are the caller's to mend; one fold says why."""
    with pytest.raises(ConfigError, match="not between 0 and 1"):
        corrected_t(np.arange(5.0), 20)
    with pytest.raises(DataError, match="one for each fold"):
        corrected_t(np.zeros((5, 5)), 0.2)
    assert corrected_t(np.ones(1), 0.2).reason == "not estimable: fewer than two pairs"


def test_differences_cover() -> None:
    """Of 200 sets of 60 patients with 3 films about 95 % of intervals hold the true difference of
    accuracy, 0.1 (``benchmarks/coverage.py`` has more); 90 and 99 % are 3.2 and 2.6 standard
    errors away."""
    sets, held = 200, 0
    groups = np.repeat(np.arange(60), 3)
    for seed in range(sets):
        rng = np.random.default_rng(seed)
        hard = (rng.normal(size=(60, 1))[groups] + rng.normal(size=(180, 2))) / 2**0.5
        kind = rng.integers(0, 3, 180)
        models = [
            np.eye(3)[np.where(each < limit, kind, (kind + 1) % 3)]
            for each, limit in zip(hard.T, stats.norm.ppf([0.8, 0.7]), strict=True)
        ]
        found = bootstrap_rows_paired(
            models[0], models[1], np.eye(3)[kind], groups=groups, replicates=200
        )
        held += found.low <= 0.1 <= found.high
    assert 0.90 <= held / sets <= 0.99
