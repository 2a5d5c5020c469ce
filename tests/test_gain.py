"""The gain benchmark: fair arms, honest controls, and a page that is its result's."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import gain  # noqa: E402
import gain_page  # noqa: E402
import hospitals  # noqa: E402


@pytest.mark.parametrize("arm", [each for each in gain.ARMS if each.centers], ids=str)
def test_every_arm_has_the_same_budget(arm: gain.Arm) -> None:
    """Steps, films seen and visits do not depend on how many hospitals there are."""
    values = gain.settings(arm, seed=3)
    visits = values["cycles"] * len(values["tasks"])
    assert visits == gain.VISITS
    assert [task["steps"] for task in values["tasks"]] == [gain.STEPS] * len(arm.centers)
    assert values["batch_size"] == gain.BATCH


def test_permuted_labels() -> None:
    """Prevalences stay within each split, the films are the same, the tie to them is gone."""
    center = hospitals.CENTERS["classes"]
    true, dealt = (
        hospitals.table(center, hospitals.FilmOptions(films=1500, permuted=permuted))
        for permuted in (False, True)
    )
    labels, facts = list(center.labels), ["image", "split", "patient"]
    assert true[facts].equals(dealt[facts])
    assert true.groupby("split")[labels].sum().equals(dealt.groupby("split")[labels].sum())
    chance = (true[labels].mean() ** 2).sum()
    agree = (true[labels].to_numpy().argmax(1) == dealt[labels].to_numpy().argmax(1)).mean()
    assert abs(agree - chance) < 0.05


def test_gains_are_paired_by_seed() -> None:
    """What a seed does to all arms leaves the interval, which is that of scipy's paired test."""
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(0)
    arms = dict.fromkeys(name for _, ours, base in gain_page.comparisons() for name in ours + base)
    seeds = rng.normal(0.7, 0.1, (5, 1))
    scores = {"few-shot 4": {arm: (seeds + rng.normal(0, 0.01, (5, 10))).tolist() for arm in arms}}
    name = gain_page.over(gain_page.PERMUTED, gain_page.RANDOM)
    found = gain_page.gains(scores, gain_page.comparisons())["few-shot 4"][name]
    ours, base = (
        np.mean(scores["few-shot 4"][arm], axis=1) for arm in (gain_page.PERMUTED, gain_page.RANDOM)
    )
    low, high = ttest_rel(ours, base).confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert found["high"] - found["low"] < 0.05


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.01, 0.2, "above 0"), (-0.2, -0.01, "below 0"), (-0.1, 0.1, "contains 0")],
)
def test_sentences_follow_the_interval(low: float, high: float, said: str) -> None:
    """Nobody decides what is said of an interval."""
    assert gain_page.verdict({"low": low, "high": high, "reason": ""}) == said


def test_the_page_is_the_results() -> None:
    """Page, plot and gains come from the kept scores, and those from these drawings."""
    result = json.loads(gain.RESULT.read_text("utf-8"))
    assert gain.world().items() <= result.items()
    for part, asked in (
        (result, gain_page.comparisons()),
        (result["controls"], gain_page.CONTROLS),
    ):
        again = json.loads(json.dumps(gain_page.gains(part["scores"], asked)))
        assert again.keys() == part["gains"].keys()
        for measure, each in again.items():
            for name, found in each.items():
                assert found == pytest.approx(part["gains"][measure][name], nan_ok=True)
    assert gain.PAGE.read_text("utf-8") == gain_page.page(result)
    assert gain.PLOT.read_text("utf-8") == gain_page.plot(result["gains"])
