"""Intervals, tests and thresholds against scikit-learn, SciPy, slow formulas and simulation."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score, roc_curve

from ark_framework import metrics
from ark_framework.errors import ConfigError, DataError
from ark_framework.statistics import (
    BEST,
    POLICIES,
    SECOND,
    TIED,
    Metric,
    bootstrap,
    choose,
    delong,
    delong_paired,
    difference_to_best,
    holm,
    label_scores,
    threshold_at_specificity,
    two_sample_t,
    weighted_auroc,
    weighted_average_precision,
    welch,
    youden_threshold,
)


def world(seed: int, films: int = 400, levels: int = 25) -> tuple[np.ndarray, np.ndarray]:
    """Tied scores of three labels that know something, with missing and doubtful entries."""
    rng = np.random.default_rng(seed)
    targets = rng.choice([0.0, 1.0, np.nan, -1.0], (films, 3), p=[0.6, 0.2, 0.1, 0.1])
    scores = rng.normal(size=targets.shape) + (targets == 1)
    return np.round(scores * levels / 6) / levels, targets


def slow_delong(a: np.ndarray, b: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """The covariance of two areas from every pair of films, as in DeLong et al. (1988)."""
    parts = []
    for scores in (a, b):
        pairs = scores[truth == 1][:, None] - scores[truth == 0][None]
        psi = np.where(pairs > 0, 1.0, np.where(pairs == 0, 0.5, 0.0))
        parts.append((psi.mean(), psi.mean(axis=1), psi.mean(axis=0)))
    (area, rows_a, columns_a), (_, rows_b, columns_b) = parts
    s10 = np.cov(rows_a, rows_b)[0, 1] / len(rows_a)
    return float(area), float(s10 + np.cov(columns_a, columns_b)[0, 1] / len(columns_a))


@pytest.mark.parametrize("seed", range(5))
def test_label_scores_equal_scikit_learn(seed: int) -> None:
    """Areas and counts are those of the annotated entries, label by label, to 1e-12."""
    scores, targets = world(seed)
    for c, found in enumerate(label_scores(scores, targets)):
        use = (targets[:, c] == 0) | (targets[:, c] == 1)
        truth, value = targets[use, c], scores[use, c]
        assert found.auroc == pytest.approx(roc_auc_score(truth, value), abs=1e-12)
        expected = average_precision_score(truth, value)
        assert found.average_precision == pytest.approx(expected, abs=1e-12)
        assert (found.positives, found.negatives) == ((truth == 1).sum(), (truth == 0).sum())


def test_an_absent_class_has_counts_and_no_area() -> None:
    """Without negatives the area is NaN and the counts say why."""
    (found,) = label_scores(np.arange(4.0)[:, None], np.array([[1.0], [1], [np.nan], [-1]]))
    assert math.isnan(found.auroc)
    assert (found.positives, found.negatives) == (2, 0)


@pytest.mark.parametrize(
    ("metric", "oracle"),
    [(weighted_auroc, roc_auc_score), (weighted_average_precision, average_precision_score)],
)
def test_weighted_metrics_equal_scikit_learn(metric: Metric, oracle: object) -> None:
    """Integer weights, zeros and ties included, give scikit-learn's weighted area to 1e-12."""
    rng = np.random.default_rng(0)
    for levels in (3, 1000):
        scores = np.sort(rng.integers(0, levels, 200) / levels)
        positive = rng.random(200) < 0.2
        weights = rng.poisson(1, (8, 200)).astype(np.float32)
        expected = [oracle(positive, scores, sample_weight=each) for each in weights]  # type: ignore[operator]
        np.testing.assert_allclose(metric(scores, positive, weights), expected, atol=1e-12, rtol=0)


def test_bootstrap_values_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are the plain areas; the size of a block changes nothing; the seed does."""
    scores, targets = world(1)
    groups = np.arange(len(scores)) // 4
    found = bootstrap(scores, targets, groups=groups, replicates=100)
    values = [each.value for each in found.labels]
    np.testing.assert_allclose(values, metrics.auroc(scores, targets), atol=1e-12, rtol=0)
    assert found.macro.value == pytest.approx(np.mean(values), abs=1e-12)
    assert all(each.low < each.value < each.high for each in (*found.labels, found.macro))
    monkeypatch.setattr("ark_framework.statistics.draws.ELEMENTS", 1)
    assert bootstrap(scores, targets, groups=groups, replicates=100) == found
    assert bootstrap(scores, targets, groups=groups, replicates=100, seed=1) != found


def test_films_of_a_patient_are_drawn_together() -> None:
    """Copies of every film add nothing when grouped, and narrow the interval when not."""
    scores, targets = world(2, films=150)
    many = (np.tile(scores, (4, 1)), np.tile(targets, (4, 1)))
    once = bootstrap(scores, targets, replicates=300).labels[0]
    grouped = bootstrap(*many, groups=np.tile(np.arange(150), 4), replicates=300).labels[0]
    alone = bootstrap(*many, replicates=300).labels[0]
    assert (grouped.low, grouped.high) == pytest.approx((once.low, once.high), abs=1e-9)
    assert alone.high - alone.low < 0.7 * (grouped.high - grouped.low)


def test_the_mean_keeps_the_correlation_between_labels() -> None:
    """The mean of one label given twice has that label's interval: draws are shared."""
    scores, targets = (each[:, :1] for each in world(3))
    one = bootstrap(scores, targets, replicates=200)
    two = bootstrap(np.tile(scores, 2), np.tile(targets, 2), replicates=200)
    assert two.macro.high - two.macro.low == pytest.approx(one.macro.high - one.macro.low, abs=1e-9)


def test_rare_labels_stay_in_every_replicate() -> None:
    """A label with two positives is not estimable, and does not take the mean with it."""
    scores, targets = world(4)
    targets[:, 0] = 0
    targets[[5, 6], 0] = 1
    found = bootstrap(scores, targets, replicates=100)
    assert found.labels[0].reason == "not estimable: 2 positives, at least 10 are needed"
    assert math.isnan(found.labels[0].low)
    assert not found.macro.reason
    assert found.macro.low < found.macro.value < found.macro.high


def test_not_estimable() -> None:
    """Nothing is claimed at AUROC 1 or 0, of few patients, of one class, of broken scores."""
    targets = np.repeat([0.0, 1.0], 20)
    for sign in (1, -1):
        scores = sign * np.arange(40.0)
        assert "the value is" in delong(scores, targets).reason
        assert "the value is" in bootstrap(scores[:, None], targets[:, None]).labels[0].reason
    few = bootstrap(
        np.random.default_rng(0).random((40, 1)), targets[:, None], groups=np.arange(40) // 4
    ).labels[0]
    assert few.reason.startswith("not estimable: 5 patients with positives")
    assert few.positives == 20
    nothing = delong(np.arange(20.0), np.ones(20))
    assert math.isnan(nothing.value)
    assert nothing.reason.startswith("not estimable: 0 negatives")
    assert "finite" in delong(np.full(40, np.nan), targets).reason
    with pytest.raises(DataError, match="differ"):
        bootstrap(np.zeros((3, 2)), np.zeros((3, 1)))
    with pytest.raises(DataError, match="one patient"):
        bootstrap(np.zeros((3, 1)), np.zeros((3, 1)), groups=np.zeros(2))


@pytest.mark.parametrize("seed", range(3))
def test_delong_equals_the_slow_formula(seed: int) -> None:
    """Area, variance, logit interval and the paired test, with ties and missing entries."""
    scores, targets = world(seed)
    a, b, truth = scores[:, 0], scores[:, 0] + scores[:, 1], targets[:, 0]
    found, paired = delong(a, truth), delong_paired(a, b, truth)
    area, variance = slow_delong(a, a, truth)
    other, other_variance = slow_delong(b, b, truth)
    covariance = slow_delong(a, b, truth)[1]
    assert found.value == pytest.approx(area, abs=1e-12)
    assert found.variance == pytest.approx(variance, abs=1e-12)
    freedom = min((truth == 1).sum(), (truth == 0).sum()) - 1
    reach = stats.t.ppf(0.975, freedom) * math.sqrt(variance) / (area * (1 - area))
    expected = stats.logistic.cdf(stats.logistic.ppf(area) + np.array([-reach, reach]))
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-12)
    error = math.sqrt(variance + other_variance - 2 * covariance)
    assert paired.value == pytest.approx(area - other, abs=1e-12)
    assert paired.p == pytest.approx(2 * stats.norm.sf(abs(area - other) / error), abs=1e-9)
    assert paired.high - paired.low == pytest.approx(2 * stats.norm.ppf(0.975) * error, abs=1e-9)
    assert "no variance" in delong_paired(a, 2 * a, truth).reason


def test_seeds_equal_scipy() -> None:
    """Student and Welch give SciPy's p and interval; one seed or equal seeds give neither."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.8, 0.01, 5), rng.normal(0.79, 0.03, 7)
    for test, equal in ((two_sample_t, True), (welch, False)):
        found, expected = test(a, b), stats.ttest_ind(a, b, equal_var=equal)
        low, high = expected.confidence_interval(0.95)
        assert (found.p, found.low, found.high) == pytest.approx(
            (expected.pvalue, low, high), abs=1e-12
        )
        assert found.value == pytest.approx(a.mean() - b.mean())
        assert "one seed" in test(a[:1], b).reason
        assert "do not differ" in test(np.ones(3), np.ones(3)).reason


def test_holm_by_hand() -> None:
    """Times 4, 3, 2, 1 in ascending order, never falling, at most 1; NaN is not counted."""
    found = holm([0.01, 0.04, np.nan, 0.03, 0.005])
    np.testing.assert_allclose(found, [0.03, 0.06, np.nan, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]


def test_difference_to_best_marks() -> None:
    """The second is marked, what seeds cannot tell apart is marked, what is worse is not."""
    noise = np.array([-0.01, 0.0, 0.01, 0.005, -0.005])
    found = difference_to_best(
        {"worse": 0.6 + noise, "best": 0.8 + noise, "near": 0.798 + noise, "once": np.array([0.7])}
    )
    marks = {each.name: each.marks for each in found}
    assert marks == {"best": (BEST,), "near": (SECOND, TIED), "once": (TIED,), "worse": ()}
    worse = found[-1]
    assert worse.p == pytest.approx(2 * worse.difference.p)
    assert worse.difference.low < 0.2 < worse.difference.high
    with pytest.raises(DataError, match="finite"):
        difference_to_best({"empty": np.array([np.nan])})


def test_thresholds_equal_scikit_learn() -> None:
    """Youden's J is the ROC curve's highest, and ``>=`` the cut gives the stated rates."""
    scores, targets = (each[:, 0] for each in world(5))
    use = metrics.known(targets)
    false, true, _ = roc_curve(targets[use], scores[use])
    best = youden_threshold(scores, targets)
    assert best.sensitivity + best.specificity - 1 == pytest.approx((true - false).max())
    asked = [*dict.fromkeys(POLICIES).items(), ("target-specificity", 0.95), ("fixed", 0.2)]
    for policy, at in asked:
        found = choose(policy, scores, targets, at=at)
        tn, fp, fn, tp = confusion_matrix(targets[use], scores[use] >= found.value).ravel()
        assert found.policy.startswith(policy)
        assert found.sensitivity == pytest.approx(tp / (tp + fn))
        assert found.specificity == pytest.approx(tn / (tn + fp))
        assert (found.positives, found.negatives) == (tp + fn, tn + fp)
    lowest = threshold_at_specificity(scores, targets, specificity=0.9)
    below = np.unique(scores[use])
    below = below[below < lowest.value][-1]
    assert lowest.specificity >= 0.9 > (scores[targets == 0] < below).mean()
    assert choose("target-specificity", scores, targets) == lowest
    assert choose("target-specificity", scores, targets, at=0.95).specificity >= 0.95
    assert choose("fixed", scores, targets).value == 0.5
    healthy = choose("fixed", scores, np.zeros(len(scores)), at=0.2)
    assert (healthy.value, healthy.policy, healthy.positives) == (0.2, "fixed 0.2", 0)
    assert math.isnan(healthy.sensitivity)
    assert healthy.specificity == pytest.approx((scores < 0.2).mean())


def test_thresholds_refuse() -> None:
    """An unknown policy and validation data of one class are the user's to mend."""
    with pytest.raises(ConfigError, match="youden"):
        choose("best", np.zeros(2), np.zeros(2))
    with pytest.raises(ConfigError, match="leave out"):
        choose("youden", np.zeros(2), np.arange(2.0), at=0.5)
    with pytest.raises(ConfigError, match="finite"):
        choose("fixed", np.zeros(2), np.arange(2.0), at=math.nan)
    with pytest.raises(DataError, match="both classes"):
        youden_threshold(np.zeros(2), np.zeros(2))
    with pytest.raises(ConfigError, match="share"):
        threshold_at_specificity(np.zeros(2), np.arange(2.0), specificity=90)


def test_intervals_cover() -> None:
    """Of 150 sets with 30 positives about 95 % of intervals hold the truth (the full table is
    ``benchmarks/coverage.py``); 90 and 99 % are 2.8 standard errors below and 2.2 above."""
    area, sets, held = 0.85, 150, np.zeros(2)
    targets = np.repeat([1.0, 0.0], [30, 90])
    for seed in range(sets):
        noise = np.random.default_rng(seed).normal(size=120)
        scores = noise + NormalDist().inv_cdf(area) * 2**0.5 * targets
        drawn = bootstrap(scores[:, None], targets[:, None], replicates=200).labels[0]
        held += [each.low <= area <= each.high for each in (delong(scores, targets), drawn)]
    assert (held / sets >= 0.90).all()
    assert (held / sets <= 0.99).all()
