"""The plan decides every number, and training obeys it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ark_framework import config as configuration
from ark_framework import pretrain as loop
from ark_framework.errors import ConfigError
from ark_framework.launch import train
from ark_framework.plan import RunPlan
from ark_framework.preparation import prepare

Small = Callable[..., dict[str, Any]]
# Of a recipe, what says when and how much; the model and the films stay small.
COURSE = ("cycles", "lr", "teacher", "optim", "strategy", "order")


def plan_of(values: dict[str, Any]) -> RunPlan:
    return prepare(configuration.parse(values)).plan


def with_recipe(small: Small, name: str, **changes: Any) -> dict[str, Any]:
    recipe = configuration.recipe(name)
    course = {key: recipe[key] for key in COURSE if key in recipe}
    return small(**{"cycles": 10, "teacher": {"momentum": 0.9}, **course, **changes})


def cosine(value: RunPlan, t: float, total: float) -> float:
    """The learning rate by the closed form, written anew from the paper's schedule."""
    rate = value.learning_rate
    if rate.kind == "constant":
        return rate.peak
    warm = rate.warmup
    if t < warm:
        return rate.start + t * (rate.peak - rate.start) / warm
    begun, length = (warm, total - warm) if rate.prefix else (0.0, total)
    return rate.end + (rate.peak - rate.end) * (1 + math.cos(math.pi * (t - begun) / length)) / 2


@pytest.mark.parametrize("recipe", configuration.recipes())
def test_the_learning_rate_is_the_closed_form(small: Small, recipe: str) -> None:
    """At three indices of every recipe, within the warm-up, after it and near the end."""
    plan = plan_of(with_recipe(small, recipe))
    for step in (1, plan.total_steps // 3, plan.total_steps - 2):
        cycle = plan.visit_of(step).cycle
        by_cycle = plan.learning_rate.unit == "cycle"
        t, total = (cycle, plan.cycles) if by_cycle else (step, plan.total_steps)
        expected = cosine(plan, t, total)
        if cycle == 0 and plan.learning_rate.first_cycle is not None:
            expected = plan.learning_rate.first_cycle
        assert plan.lr(step) == pytest.approx(expected, rel=1e-12, abs=0)


@pytest.mark.parametrize("recipe", ["default", "ark6", "ark6-as-released"])
def test_training_obeys_the_plan(
    small: Small, tmp_path: Path, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rate that the optimizer holds when it steps is the plan's, at every step."""
    used: list[float] = []
    move = loop._move

    def watched(state: loop.State, *rest: Any) -> None:
        rates = {group["lr"] for group in state.optimizer.param_groups}
        assert len(rates) == 1
        used.append(rates.pop())
        move(state, *rest)

    monkeypatch.setattr(loop, "_move", watched)
    values = with_recipe(small, recipe, cycles=5, eval={"every": 0, "test": False})
    result = train(values, out=tmp_path / "run")
    plan = result.prepared.plan
    assert used == [plan.lr(step) for step in range(plan.total_steps)]
    logged = [
        json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().split("\n")[:-1]
    ]
    assert [each["lr"] for each in logged if each["event"] == "step"] == used
    momenta = [each["momentum"] for each in logged if each["event"] == "task"]
    assert momenta == [plan.momentum(update) for update in range(plan.updates)]


def test_the_share_left_of_the_start(small: Small) -> None:
    """It is the product of the momenta, as the plan says."""
    plan = plan_of(small(cycles=4))
    assert plan.updates == 12
    assert plan.residual == pytest.approx(math.prod(plan.momentum(k) for k in range(12)), rel=1e-15)
    assert plan.to_json()["initial_weights_left_in_teacher"] == plan.residual


def test_strategies_take_the_same_number_of_steps(small: Small) -> None:
    """Cyclic, concurrent and sequential: equal steps; who is visited when differs."""
    plans = {name: plan_of(small(strategy=name)) for name in ("cyclic", "concurrent", "sequential")}
    assert len({plan.total_steps for plan in plans.values()}) == 1
    assert [v.tasks for v in plans["cyclic"].visits] == [(0,), (1,), (2,)] * 3
    assert [v.tasks for v in plans["sequential"].visits] == [(0,)] * 3 + [(1,)] * 3 + [(2,)] * 3
    assert [v.tasks for v in plans["concurrent"].visits] == [(0, 1, 2)] * 3
    assert {task.batch_size for task in plans["concurrent"].tasks} == {16 // 3}
    assert plans["concurrent"].updates == plans["concurrent"].total_steps


def test_a_shuffled_order_is_a_function_of_the_seed(small: Small) -> None:
    """Every cycle visits every task once, in an order that differs between cycles."""
    plan = plan_of(small(cycles=8, order="shuffled"))
    orders = [tuple(v.tasks[0] for v in plan.visits_of(cycle)) for cycle in range(8)]
    assert all(sorted(order) == [0, 1, 2] for order in orders)
    assert len(set(orders)) > 2
    assert plan_of(small(cycles=8, order="shuffled")).visits == plan.visits
    assert plan_of(small(cycles=8, order="shuffled", seed=1)).visits != plan.visits


def test_tasks_may_differ_in_everything(small: Small) -> None:
    """Steps, films, weight, head and class weights are each task's own."""
    plan = plan_of(
        small(
            tasks=[
                {"dataset": "phantom-east", "class_weights": "balanced", "head": "mlp"},
                {"dataset": "phantom-north", "name": "again", "steps": 2, "weight": 0.5},
                {"dataset": "phantom-north", "max_rows": 20, "class_weights": {"nodule": 3.0}},
            ]
        )
    )
    east, again, north = plan.tasks
    assert (east.head, again.steps, again.weight, north.rows) == ("mlp", 2, 0.5, 20)
    assert (again.name, north.name) == ("again", "phantom-north")
    assert not again.whole_passes
    assert north.class_weights == (1.0, 3.0, 1.0, 1.0, 1.0, 1.0)
    assert east.class_weights is not None
    assert 0.3 < east.class_weights[0] < 3


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ([{"dataset": "phantom-organs"}], "mask dataset does not pretrain"),
        ([{"dataset": "phantom-eats"}], "did you mean 'phantom-east'"),
        ([{"dataset": "phantom-east"}] * 2, "used twice"),
        ([{"dataset": "phantom-east", "head": "linaer"}], "did you mean 'linear'"),
        ([{"dataset": "phantom-east", "loss": "cross_entropy"}], "not multilabel"),
        ([{"dataset": "phantom-east", "class_weights": {"apical": 1.0}}], "no label 'apical'"),
    ],
)
def test_a_task_that_cannot_be(small: Small, tasks: list[dict[str, Any]], said: str) -> None:
    """Refused before anything is trained, on one line."""
    with pytest.raises(ConfigError, match=said) as error:
        plan_of(small(tasks=tasks))
    assert "\n" not in str(error.value)
