"""Rates by subgroup and their gaps against scikit-learn, exact formulas, a slow loop and nulls."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, precision_score, roc_auc_score

from ark_framework import metrics
from ark_framework.errors import ConfigError, DataError
from ark_framework.statistics import MEASURES, TESTED, GroupedFilms, holm, subgroups
from ark_framework.statistics.draws import resample

CUT = 0.3


def world(
    seed: int, *, patients: int = 150, ill: float = 0.3, better: float = 1.5, shared: float = 0.5
) -> GroupedFilms:
    """One to four films a patient, whose scores share a part; everybody, two sexes, two views."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    effect, noise = rng.normal(size=patients)[patient], rng.normal(size=len(patient))
    targets = ((rng.random(patients) < ill)[patient] & (rng.random(len(patient)) < 0.7)).astype(
        np.float64
    )
    latent = math.sqrt(shared) * effect + math.sqrt(1 - shared) * noise + better * targets
    scores = np.round(1 / (1 + np.exp(1 - latent)), 2)
    sex, view = (rng.random(patients) < 0.5)[patient], rng.random(len(patient)) < 0.6
    return GroupedFilms(
        scores=scores,
        called=scores >= CUT,
        targets=targets,
        patient=patient,
        members=np.stack([np.ones(len(patient), dtype=bool), sex, ~sex, view, ~view], axis=1),
    )


def sexes(films: GroupedFilms) -> GroupedFilms:
    """Return two groups only."""
    return replace(films, members=films.members[:, 1:3])


def calibration_error(targets: np.ndarray, scores: np.ndarray) -> float:
    """Return scikit-learn's ten bins' distances, weighted by their films."""
    true, told = calibration_curve(targets, scores, n_bins=10, strategy="uniform")
    bins = np.digitize(scores, np.linspace(0, 1, 11)[1:-1], right=True)
    counts = np.unique(bins, return_counts=True)[1]
    return float(np.average(np.abs(true - told), weights=counts))


@pytest.mark.parametrize("seed", range(3))
def test_values_equal_scikit_learn(seed: int) -> None:
    """Six measures and four counts of every group; entries that are NaN and -1 are left out."""
    films = world(seed)
    films.targets[::7], films.targets[1::9] = np.nan, -1
    films.scores[::7] = np.nan
    found = subgroups(films, [(1, 2)], replicates=50)
    for score, member in zip(found.groups, films.members.T, strict=True):
        rows = member & metrics.known(films.targets)
        targets, scores = films.targets[rows], films.scores[rows]
        called = scores >= CUT
        tn, fp, fn, tp = confusion_matrix(targets, called).ravel()
        expected = {
            "auroc": roc_auc_score(targets, scores),
            "fnr": fn / (fn + tp),
            "fpr": fp / (fp + tn),
            "ppv": precision_score(targets, called),
            "ece": calibration_error(targets, scores),
            "bias": scores.mean() - targets.mean(),
        }
        values = {each: interval.value for each, interval in score.measures.items()}
        assert values == pytest.approx(expected, abs=1e-12)
        assert (score.films, score.positives, score.negatives) == (rows.sum(), fn + tp, fp + tn)
        assert score.patients == len(np.unique(films.patient[rows]))
        assert all(each.low < each.value < each.high for each in score.measures.values())
    first, second = (group.measures for group in found.groups[1:3])
    for each in MEASURES:
        gap = found.gaps[0][each]
        assert gap.value == pytest.approx(first[each].value - second[each].value, abs=1e-12)
        assert gap.low < gap.value < gap.high
        assert math.isfinite(gap.p) == (each in TESTED)


def test_rates_equal_fairlearn() -> None:
    """A second opinion where it is installed: rates by group and the largest gap."""
    fairlearn = pytest.importorskip("fairlearn.metrics")
    films = world(4)
    assert films.called is not None
    frame = fairlearn.MetricFrame(
        metrics={"fnr": fairlearn.false_negative_rate, "fpr": fairlearn.false_positive_rate},
        y_true=films.targets,
        y_pred=films.called.astype(int),
        sensitive_features=films.members[:, 1],
    )
    found = subgroups(films, [(1, 2)], replicates=50)
    for each in ("fnr", "fpr"):
        values = [found.groups[k].measures[each].value for k in (2, 1)]
        assert values == pytest.approx(frame.by_group[each].to_list(), abs=1e-12)
        assert abs(found.gaps[0][each].value) == pytest.approx(frame.difference()[each], abs=1e-12)


def effective(people: np.ndarray) -> float:
    """As many patients with equal numbers of films would say as much of a variance."""
    films = np.bincount(people).astype(float)
    return float((films**2).sum() ** 2 / (films**4).sum())


def test_standard_errors_equal_a_slow_loop() -> None:
    """The same weights film by film: of views, which share patients, so differences covary."""
    films, asked = world(5), 60
    size = int(films.patient.max()) + 1
    weights = resample(
        lambda each: each, np.zeros(size), replicates=asked, seed=3, films=len(films.scores)
    ).drawn
    rows = np.zeros((asked, 2, 2))
    for r, weight in enumerate(weights[:, films.patient]):
        for k, member in enumerate(films.members[:, 3:].T):
            of = {"sample_weight": weight[member]}
            rows[r, k] = (
                roc_auc_score(films.targets[member], films.scores[member], **of),
                np.average((films.scores - films.targets)[member], weights=weight[member]),
            )
    found = subgroups(films, [(3, 4)], replicates=asked, seed=3)
    ends = [found.groups[k].measures for k in (3, 4)]
    rests = {"auroc": films.targets == 1, "bias": films.known}
    for column, (each, resting) in enumerate(rests.items()):
        drawn, values = rows[..., column], np.array([end[each].value for end in ends])
        assert [end[each].variance for end in ends] == pytest.approx(drawn.var(axis=0, ddof=1))
        members = [films.patient[resting & films.members[:, k]] for k in (3, 4)]
        counts = np.array([effective(member) for member in members])
        if each == "auroc":
            shrunk = (values * counts + 1) / (counts + 2)
            wider = shrunk * (1 - shrunk) / (values * (1 - values))
            drawn = values + (drawn - values) * np.sqrt(wider)
        apart, count = drawn[:, 0] - drawn[:, 1], counts.min()
        error = math.sqrt(apart.var(ddof=1) * count / (count - 1))
        gap = found.gaps[0][each]
        assert gap.high - gap.value == pytest.approx(stats.t.ppf(0.975, count - 1) * error)
        assert each == "bias" or gap.p == pytest.approx(
            2 * stats.t.sf(abs(gap.value) / error, count - 1)
        )


def test_copies_of_films_add_nothing() -> None:
    """A patient's films are drawn together: with every film four times, bounds are the same."""
    films = world(6)
    rows = np.repeat(np.arange(len(films.scores)), 4)
    many = GroupedFilms(
        scores=films.scores[rows],
        called=films.scores[rows] >= CUT,
        targets=films.targets[rows],
        patient=films.patient[rows],
        members=films.members[rows],
    )
    once, copied = (subgroups(each, [(1, 2)], replicates=200) for each in (films, many))
    for each in MEASURES:
        a, b = once.gaps[0][each], copied.gaps[0][each]
        assert (b.low, b.high) == pytest.approx((a.low, a.high), abs=1e-9)
        one, two = (found.groups[1].measures[each] for found in (once, copied))
        assert (two.low, two.high) == pytest.approx((one.low, one.high), abs=1e-9)


def test_all_missed_and_none() -> None:
    """Rates of 1 and 0 keep an exact interval, and gaps the variance of Agresti and Caffo."""
    counts = np.array([12, 15])
    group = np.repeat([0, 1], 2 * counts)
    targets = np.concatenate([np.repeat([1.0, 0.0], each) for each in counts])
    films = GroupedFilms(
        scores=np.random.default_rng(0).random(54),
        called=(group == 1) & (targets == 1),
        targets=targets,
        patient=np.arange(54),
        members=np.stack([group == 0, group == 1], axis=1),
    )
    found = subgroups(films, [(0, 1), (0, 0)], replicates=100)
    for score, count, missed in zip(found.groups, counts, (12, 0), strict=True):
        exact = stats.binomtest(missed, count).proportion_ci(method="exact")
        fnr = score.measures["fnr"]
        assert (fnr.value, fnr.reason) == (missed / count, "")
        assert (fnr.low, fnr.high) == pytest.approx((exact.low, exact.high))
    shares = np.array([13, 1]) / (counts + 2)
    error = math.sqrt((shares * (1 - shares) / (counts + 2)).sum())
    gap = found.gaps[0]["fnr"]
    assert gap.value == 1
    assert gap.p == pytest.approx(2 * stats.t.sf(1 / error, 11))
    assert gap.low == pytest.approx(1 - stats.t.ppf(0.975, 11) * error)
    assert gap.high == 1  # no difference of rates goes further
    assert found.gaps[0]["fpr"].p == 1  # nobody is called falsely in either
    assert found.groups[0].measures["ppv"].reason == (
        "not scored: 0 patients with called films, at least 10 are needed"
    )


def test_not_scored() -> None:
    """Too few patients, no cut, no probabilities, an empty group and a perfect area say so."""
    films = world(7, better=20)
    members = films.members.copy()
    ill = np.unique(films.patient[(films.targets == 1) & members[:, 1]])
    members[:, 1] &= (films.targets == 0) | (films.patient < ill[7])
    members[:, 4] = False
    found = subgroups(replace(films, members=members), [(1, 2), (2, 3), (3, 4)], replicates=50)
    few = "not scored: 7 patients with positives, at least 10 are needed"
    for each in ("fnr", "auroc"):
        score, gap = found.groups[1].measures[each], found.gaps[0][each]
        assert (score.reason, gap.reason) == (few, few)
        assert np.isnan([score.value, score.low, gap.value, gap.low, gap.p]).all()
    assert found.gaps[0]["fpr"].p > 0
    area, gap = found.groups[2].measures["auroc"], found.gaps[1]["auroc"]
    assert (area.value, area.reason, gap.reason) == (1, *["not estimable: the value is 1"] * 2)
    assert found.groups[4].films == 0
    assert all(each.reason.startswith("not scored: 0 patients") for each in found.gaps[2].values())
    lax = subgroups(replace(films, members=members), [(1, 2)], least=5, replicates=50)
    assert lax.groups[1].measures["fnr"].value == 0
    bare = replace(films, called=None, scores=films.scores * 9 - 4, probabilities=False)
    measures = subgroups(bare, [], replicates=50).groups[0].measures
    reasons = {each: measures[each].reason for each in MEASURES if each != "auroc"}
    assert reasons == {
        **dict.fromkeys(("fnr", "fpr", "ppv"), "not scored: no cut could be chosen"),
        **dict.fromkeys(("ece", "bias"), "not scored: the scores are no probabilities"),
    }


def test_films_refuse() -> None:
    """Shapes that do not belong together and broken scores are errors that say what to mend."""
    films = world(8)
    with pytest.raises(DataError, match="same films"):
        replace(films, members=films.members[1:])
    with pytest.raises(DataError, match="not finite"):
        replace(films, scores=films.scores * np.nan)
    with pytest.raises(DataError, match="within 0 to 1"):
        replace(films, scores=films.scores * 2)
    with pytest.raises(ConfigError, match="at least 2"):
        subgroups(films, [], least=1)


def test_intervals_cover_and_gaps_are_found() -> None:
    """Of 100 sets about 95 % of intervals hold the truth, where patients' films are alike; a
    model that misses every positive of one sex is found, with its sign."""
    sets, held, found = 100, dict.fromkeys(MEASURES, 0), 0
    whole = subgroups(sexes(world(0, patients=40000, shared=0.9)), [], replicates=2)
    truth = {each: interval.value for each, interval in whole.groups[0].measures.items()}
    for seed in range(sets):
        films = sexes(world(seed, shared=0.9))
        assert films.called is not None
        for each, interval in subgroups(films, [], replicates=150).groups[0].measures.items():
            held[each] += interval.low <= truth[each] <= interval.high
        if seed % 4 == 0:
            blind = films.called & ~(films.members[:, 0] & (films.targets == 1))
            gap = subgroups(replace(films, called=blind), [(0, 1)], replicates=150).gaps[0]["fnr"]
            found += gap.p < 0.001 and gap.value > 0
    assert min(held.values()) >= 0.88 * sets
    assert found >= 20


def test_null_audits_stay_silent() -> None:
    """Sexes that do not differ: of 30 audits of six labels with few positives, many of them
    missed, Holm over labels and measures lets few alarm; single tests reject about 5 %."""
    audits, alarms, single = 30, 0, []
    for seed in range(audits):
        p = []
        for label in range(6):
            share, better = (0.18, 0.25, 0.5)[label % 3], label / 2 - 0.5
            films = sexes(world(100 * seed + label, ill=share, better=better, shared=0.9))
            gaps = subgroups(films, [(0, 1)], replicates=150, seed=seed).gaps[0]
            p += [gaps[each].p for each in TESTED]
        alarms += bool((holm(p) < 0.05).any())
        single += p
    known = np.array(single)[np.isfinite(single)]
    assert len(known) >= 0.8 * len(single)
    assert (known < 0.05).mean() <= 0.07
    assert alarms <= 4


def test_few_patients_with_most_films_do_not_alarm() -> None:
    """Sexes dealt at random to 40 patients of whom four have half the films: few p below 0.05."""
    rng = np.random.default_rng(11)
    sizes = np.array([60, 50, 40, 30, *([5] * 36)])
    patient = np.repeat(np.arange(40), sizes)
    own = rng.normal(0, 1.5, 40)[patient]  # a patient's films are alike
    called = own + rng.normal(0, 1, len(patient)) > 1
    low = 0
    for _ in range(100):
        female = rng.permutation(np.arange(40) < 20)[patient]
        films = GroupedFilms(
            scores=called.astype(float),
            called=called,
            targets=np.zeros(len(patient)),
            patient=patient,
            members=np.stack([female, ~female], axis=1),
        )
        gap = subgroups(films, [(0, 1)], replicates=100).gaps[0]["fpr"]
        low += gap.p < 0.05
    assert low <= 8


def test_one_patient_with_most_films_claims_nothing() -> None:
    """A value without an interval and no gap, with the reason; intervals stay within -1 and 1."""
    rng = np.random.default_rng(5)
    patient = np.repeat(np.arange(24), [80, *([4] * 23)])
    members = np.stack([patient < 12, patient >= 12], axis=1)
    films = GroupedFilms(
        scores=rng.random(len(patient)),
        called=rng.random(len(patient)) < 0.4,
        targets=np.zeros(len(patient)),
        patient=patient,
        members=members,
    )
    found = subgroups(films, [(0, 1)], replicates=100)
    one = found.groups[0].measures["fpr"]
    assert np.isfinite(one.value)
    assert "most of the films are of one patient" in one.reason
    assert "most of the films are of one patient" in found.gaps[0]["fpr"].reason
    assert np.isfinite(found.groups[1].measures["fpr"].low)
