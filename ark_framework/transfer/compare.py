"""Table 2, Figure 2 and the external matrix: arms compared, with what their differences rest on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ark_framework.statistics import (
    BEST,
    SECOND,
    TIED,
    Difference,
    corrected_t,
    holm,
    paired_t,
    two_sample_t,
    welch,
)
from ark_framework.transfer.arms import NONE, Arm, Condition, arms, mean_sd
from ark_framework.transfer.outcome import Outcome
from ark_framework.transfer.pairs import by_films

LEVEL = 0.95
SEEDS = "Welch's t over seeds"
PUBLISHED = "two-sample t over seeds"
FOLDS = "corrected resampled t over folds"
DRAWS = "paired t over draws"
FILMS = "paired bootstrap by patient"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """An arm beside the best one.

    Attributes:
        difference: The best's score minus its own; ``None`` for the best itself.
        p: Holm's, over the models of the column.
        published: The same by a two-sample t test over seeds, uncorrected.
        marks: What a table shows.
    """

    arm: Arm
    marks: tuple[str, ...] = ()
    difference: Difference | None = None
    p: float = math.nan
    published: Difference | None = None


@dataclass(frozen=True, kw_only=True)
class Column:
    """One dataset's column of a protocol's table: every model under the same condition."""

    protocol: str
    dataset: str
    condition: Condition
    method: str
    standings: tuple[Standing, ...]

    @property
    def best(self) -> Arm:
        """Return the arm that others are compared with; the first where none has a score."""
        marked = (each.arm for each in self.standings if BEST in each.marks)
        return next(marked, self.standings[0].arm)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A model's mean over draws of the films that it learned from.

    Attributes:
        x: Shots, the share of the training patients, or the training films.
        draws: How many there are; seeds where training films are counted.
        low: End of Student's interval of the mean, NaN for one draw.
        gain: Over the first model, on the same draws; ``None`` for the first itself.
    """

    arm: Arm
    x: float
    mean: float
    sd: float
    draws: int
    low: float
    high: float
    gain: Difference | None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One chart of Figure 2: by model its points, few films before many."""

    protocol: str
    dataset: str
    over: str
    lines: Mapping[str, tuple[Point, ...]]

    @property
    def first(self) -> Arm:
        """Return an arm of the chart."""
        return next(iter(self.lines.values()))[0].arm


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that a study's outcomes say.

    Attributes:
        columns: In the order of protocols and datasets.
        curves: Few shots, shares of the training patients, and few training films.
        external: An arm for each model, head and dataset.
    """

    models: tuple[str, ...]
    columns: tuple[Column, ...] = ()
    curves: tuple[Curve, ...] = ()
    external: tuple[Arm, ...] = ()

    def shared(self, arm: Arm) -> int:
        """Return how many labels an arm's mean AUROC is of, or structures its mean Dice."""
        labels = arm.first.labels
        every = (labels[label] for label in arm.first.scored or labels)
        return sum(math.isfinite(each.get("dice", each.get("auroc", math.nan))) for each in every)


def compare(outcomes: Sequence[Outcome], *, out: Path, folds: int = 5) -> Comparison:
    """Compare a study's models.

    Args:
        outcomes: Of :meth:`Study.run`.
        out: The study's folder, whose saved predictions serve where a model has one score.
        folds: Parts that folds are dealt into, where there are folds.
    """
    every = arms(outcomes)
    models = tuple(dict.fromkeys(each.model for each in every))
    groups: dict[tuple[str, str, Condition], list[Arm]] = {}
    for arm in every:
        if arm.protocol != "external":
            groups.setdefault((arm.protocol, arm.dataset, arm.condition), []).append(arm)
    return Comparison(
        models=models,
        columns=tuple(
            column(group, out=out, folds=folds)
            for (protocol, dataset, condition), group in groups.items()
            if condition == _fullest(groups, protocol, dataset)
        ),
        curves=_curves(groups),
        external=tuple(each for each in every if each.protocol == "external"),
    )


def column(group: Sequence[Arm], *, out: Path, folds: int) -> Column:
    """Compare arms with the one of the highest mean; a model is distinguished by Holm's p alone.

    The best is chosen on the very scores that are compared, so p-values are a guide.
    """
    method, test = _method(group, out=out, folds=folds)
    ranked = sorted((a for a in group if math.isfinite(a.mean())), key=lambda arm: -arm.mean())
    means = [arm.mean() for arm in ranked]
    runner_up = next((mean for mean in means if mean < means[0]), math.nan)
    places = {runner_up: SECOND, **dict.fromkeys(means[:1], BEST)} if len(ranked) > 1 else {}
    differences = [test(ranked[0], arm) for arm in ranked[1:]]
    adjusted = holm([each.p for each in differences]).tolist()
    found = {}
    for arm, difference, p in zip(
        ranked, [None, *differences], [math.nan, *adjusted], strict=False
    ):
        place = (places[arm.mean()],) if arm.mean() in places else ()
        apart = difference is None or p < 1 - LEVEL
        found[arm.model] = Standing(
            arm=arm,
            marks=place if apart else (*place, TIED),
            difference=difference,
            p=p,
            published=_published(ranked[0], arm) if difference and method == SEEDS else None,
        )
    one = group[0]
    return Column(
        protocol=one.protocol,
        dataset=one.dataset,
        condition=one.condition,
        method=method,
        standings=tuple(found.get(arm.model, Standing(arm=arm)) for arm in group),
    )


Test = Callable[[Arm, Arm], Difference]


def _method(group: Sequence[Arm], *, out: Path, folds: int) -> tuple[str, Test]:
    """Return how the arms of a column are compared: by what their scores vary over."""
    keys = [key for arm in group for key in arm.outcomes]
    if len({split for _, split, _ in keys}) > 1:

        def over_folds(a: Arm, b: Arm) -> Difference:
            one, other = _pairs(a.by("split"), b.by("split"))
            return corrected_t(one - other, 1 / folds, level=LEVEL)

        return FOLDS, over_folds
    if len({draw for _, _, draw in keys}) > 1:
        return DRAWS, over_draws
    if all(len(arm.by("seed")) > 1 for arm in group):
        return SEEDS, _welch
    return FILMS, lambda a, b: by_films(a, b, out=out, level=LEVEL)


def over_draws(a: Arm, b: Arm) -> Difference:
    """Compare two arms on the draws that both have; see :attr:`Arm.repeats`."""
    return paired_t(*_pairs(a.by(a.repeats), b.by(a.repeats)), level=LEVEL)


def _welch(a: Arm, b: Arm) -> Difference:
    return _quietly(welch, a, b)


def _published(a: Arm, b: Arm) -> Difference:
    return _quietly(two_sample_t, a, b)


def _quietly(test: Callable[..., Difference], a: Arm, b: Arm) -> Difference:
    with warnings.catch_warnings():
        # scipy takes the seeds of an arm that all agree for a loss of precision.
        warnings.simplefilter("ignore", RuntimeWarning)
        return test(_seeds(a), _seeds(b), level=LEVEL)


def _seeds(arm: Arm) -> np.ndarray:
    return np.array([*arm.by("seed").values()])


def _pairs(
    a: Mapping[int | str, float], b: Mapping[int | str, float]
) -> tuple[np.ndarray, np.ndarray]:
    common = [name for name in a if name in b]
    return np.array([a[name] for name in common]), np.array([b[name] for name in common])


def _fullest(
    groups: Mapping[tuple[str, str, Condition], object], protocol: str, dataset: str
) -> Condition | None:
    """Return the condition that a protocol's table shows; few shots are curves alone."""
    own = [condition for name, where, condition in groups if (name, where) == (protocol, dataset)]
    if own[0][0] == "shots":
        return None
    return max(own, key=lambda each: each[1]) if own[0] != NONE else NONE


def _curves(groups: Mapping[tuple[str, str, Condition], list[Arm]]) -> tuple[Curve, ...]:
    charts: dict[tuple[str, str, str], list[list[Arm]]] = {}
    for (protocol, dataset, (over, _)), group in groups.items():
        if over:
            charts.setdefault((protocol, dataset, over), []).append(group)
    found = []
    for (protocol, dataset, over), chart in charts.items():
        if over != "shots" and len(chart) == 1:
            continue
        lines: dict[str, list[Point]] = {}
        for group in sorted(chart, key=lambda arms: arms[0].condition[1]):
            for arm in group:
                first = None if arm is group[0] else group[0]
                lines.setdefault(arm.model, []).append(_point(arm, first))
        points = {model: tuple(line) for model, line in lines.items()}
        found.append(Curve(protocol=protocol, dataset=dataset, over=over, lines=points))
    return tuple(found)


def _point(arm: Arm, first: Arm | None) -> Point:
    from scipy.stats import t

    mean, sd, draws = mean_sd([*arm.by(arm.repeats).values()])
    reach = (
        float(t.ppf((1 + LEVEL) / 2, draws - 1)) * sd / math.sqrt(draws) if draws > 1 else math.nan
    )
    return Point(
        arm=arm,
        x=float(arm.condition[1]),
        mean=mean,
        sd=sd,
        draws=draws,
        low=mean - reach,
        high=mean + reach,
        gain=None if first is None else over_draws(arm, first),
    )
