"""The comparison of strategies: its rules, its budget, and the page that it wrote."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from ark_framework.builtin.phantom import VERSION, generator_hash
from ark_framework.statistics import Difference

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The script, which is no part of any package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("strategies")
    for name in ("strategies", "strategies_page"):
        sys.modules.pop(name)


@pytest.fixture(scope="module")
def rules(script: ModuleType) -> ModuleType:
    """The module of the rules."""
    return sys.modules["strategies_page"]


def test_steps_to_target(rules: ModuleType) -> None:
    """The first scored step that reaches it counts, though a later one falls back."""
    curve = [[30, 0.5], [60, 0.7], [90, 0.6]]
    assert [rules.steps_to(curve, goal) for goal in (0.5, 0.6, 0.7, 0.71)] == [30, 60, 60, None]


@pytest.mark.parametrize(
    ("low", "high", "p", "verdict"),
    [
        (0.1, 0.3, 0.01, "higher"),
        (-0.3, -0.1, 0.01, "lower"),
        (-0.1, 0.3, 0.01, "not distinguished"),
        (0.0, 0.3, 0.01, "not distinguished"),
        (0.1, 0.3, 0.05, "not distinguished once corrected for several tests"),
    ],
)
def test_verdict(rules: ModuleType, low: float, high: float, p: float, verdict: str) -> None:
    """A direction is claimed only where the interval leaves 0 out and Holm's p agrees."""
    apart = Difference(value=(low + high) / 2, low=low, high=high, p=0.01)
    assert rules.Compared(*rules.PAIRS[0], apart, p).verdict == verdict


def test_a_seed_without_a_number(rules: ModuleType) -> None:
    """Where one seed did not reach the target nothing is averaged or claimed, and it is counted."""
    apart = rules.difference([30, None, 60], [30, 60, 90])
    assert math.isnan(apart.value)
    assert rules.Compared(*rules.PAIRS[0], apart, math.nan).verdict == "not estimable"
    assert rules.interval([30, None, 60], 0) == "not reached in 1 of 3 (else 30, 60)"
    assert rules.interval([None, None], 0) == "not reached in 2 of 2"


def test_interval(rules: ModuleType) -> None:
    """Mean and t interval of three seeds, by hand: 2 +- 4.303 / sqrt(3)."""
    assert rules.interval([1.0, 2.0, 3.0], 2) == "2.00 [-0.48, 4.48]"


def test_sentence(rules: ModuleType) -> None:
    """Names of one verdict stand together; "all" only where there is no other verdict."""
    verdicts = {"a": "not distinguished", "b": "higher", "c": "not distinguished"}
    assert rules.sentence(verdicts) == "higher: b; not distinguished: a, c"
    assert rules.sentence(dict.fromkeys("ab", "lower")) == "lower: all"


def test_a_rate_that_diverged(script: ModuleType, rules: ModuleType) -> None:
    """It is never chosen, whatever the others scored."""
    arm = rules.REFERENCE
    runs: dict[str, dict[str, object]] = {
        rules.key(arm, rate, script.TUNING): {m: {"last": 0.1} for m in script.MODELS}
        for rate in script.RATES
    }
    runs[rules.key(arm, script.RATES[0], script.TUNING)] = {"diverged": "at step 3"}
    assert script.best_rate(runs, arm) == script.RATES[1]


def test_budget(script: ModuleType) -> None:
    """A run that took a step or a film of a task more or less than the others is refused."""
    steps = [
        {"event": "step", "task": name, "images": script.BATCH}
        for name in script.TASKS
        for _ in range(script.STEPS // len(script.TASKS))
    ]
    scored = [
        {"task": name, "model": model, "auroc": 0.5 + 0.1 * index}
        for model in script.MODELS
        for index, name in enumerate(script.TASKS)
    ]
    lost = [{"model": model, "best": 0.75, "now": 0.5} for model in script.MODELS]
    events = [
        *steps,
        {"event": "task", "forgetting": lost},
        {"event": "cycle", "step": 30, "scores": scored},
    ]
    norms = [1.0] * (script.STEPS * 3 // 4) + [3.0] * (script.STEPS // 4)
    record = script.summarize(events, norms)
    assert record["gradient"] == [1, 1, 1, 3]
    assert record["teacher"]["curve"] == [[30, 0.6]]
    assert record["teacher"]["between"] == 0.25
    for wrong in (events[1:], [{**steps[0], "images": script.BATCH - 3}, *events[1:]]):
        with pytest.raises(RuntimeError, match="not the budget"):
            script.summarize(wrong, norms)


def test_the_page_is_of_these_results(script: ModuleType) -> None:
    """Nothing on the page is typed by hand; whoever changes the drawing measures again."""
    results = json.loads(script.RESULTS.read_text("utf-8"))
    assert results["generator"] == f"{VERSION}-{generator_hash()}"
    assert script.page(results) == script.PAGE.read_text("utf-8")
