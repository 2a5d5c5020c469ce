"""Schedules: pure functions of an index."""

from __future__ import annotations

import math

import pytest

from ark_framework import schedule

PUBLISHED = schedule.LearningRate(
    kind="cosine",
    unit="cycle",
    peak=0.3,
    start=1e-6,
    end=1e-5,
    warmup=20,
    length=200,
    prefix=False,
    first_cycle=None,
)


@pytest.mark.parametrize(
    ("cycle", "expected"),
    [
        (0, 1e-6),
        (10, 0.1500005),
        (19, 0.28500005),
        (20, 0.29266),
        (50, 0.25607),
        (100, 0.150005),
        (150, 0.0439),
        (199, 2.85e-5),
    ],
)
def test_published_schedule_as_intended(cycle: int, expected: float) -> None:
    """The rate at eight cycles is what the published configuration meant."""
    assert PUBLISHED.value(step=0, cycle=cycle) == pytest.approx(expected, rel=3e-3)


def test_timm_gives_the_same_rate() -> None:
    """Warm-up and cosine by cycle equal timm's scheduler, cycle by cycle."""
    import torch
    from timm.scheduler import CosineLRScheduler

    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.3)
    oracle = CosineLRScheduler(
        optimizer, t_initial=200, lr_min=1e-5, warmup_t=20, warmup_lr_init=1e-6
    )
    for cycle in range(200):
        oracle.step(cycle)
        expected = optimizer.param_groups[0]["lr"]
        assert PUBLISHED.value(step=0, cycle=cycle) == pytest.approx(expected, rel=1e-12)


def test_prefix_peaks_where_the_warm_up_ends() -> None:
    """With ``prefix`` the rate reaches its peak exactly and ends at ``end``."""
    rate = schedule.LearningRate(
        kind="cosine",
        unit="step",
        peak=0.1,
        start=0.0,
        end=0.001,
        warmup=10,
        length=110,
        prefix=True,
        first_cycle=None,
    )
    assert rate.value(step=10, cycle=0) == pytest.approx(0.1)
    assert rate.value(step=5, cycle=0) == pytest.approx(0.05)
    assert rate.value(step=110, cycle=0) == pytest.approx(0.001)


def test_constant_with_its_own_first_cycle() -> None:
    """As released: one rate for cycle 0, another for ever after."""
    rate = schedule.LearningRate(
        kind="constant",
        unit="cycle",
        peak=0.0045,
        start=0,
        end=0,
        warmup=0,
        length=200,
        prefix=True,
        first_cycle=1e-6,
    )
    assert [rate.value(step=9, cycle=c) for c in (0, 1, 199)] == [1e-6, 0.0045, 0.0045]


@pytest.mark.parametrize(("cycle", "expected"), [(50, 0.91464), (100, 0.95), (150, 0.98536)])
def test_momentum_at_the_published_points(cycle: int, expected: float) -> None:
    """Momentum after 50, 100 and 150 cycles of six tasks is the published one."""
    assert schedule.momentum(cycle * 6, 1200, first=0.9) == pytest.approx(expected, abs=1e-5)


def test_consistency_follows_the_momentum() -> None:
    """With first momentum 0.9 and peak 0.5 the weight is 5 (m - 0.9), as published."""
    for index in range(0, 1200, 7):
        m = schedule.momentum(index, 1200, first=0.9)
        weight = schedule.consistency_weight(index, 1200, peak=0.5)
        assert math.isclose(weight, 5 * (m - 0.9), abs_tol=1e-12)
