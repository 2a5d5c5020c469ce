"""Outcomes grouped into arms: one model on one dataset under one condition, over what repeats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ark_framework.exposure import UNKNOWN, YES
from ark_framework.transfer.outcome import Outcome

Key = tuple[int, str, int]
"""Of a repeat: its seed, its split's name and its draw."""
Part = Literal["seed", "split", "draw"]
Condition = tuple[str, Any]
"""What tells the arms of one model apart: ``("shots", 4)``, ``("fraction", 0.1)``, or nothing."""
CONDITIONS = ("shots", "fraction", "films", "head")
NONE: Condition = ("", None)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One model's outcomes; equal keys of two arms had the same films to learn and to be tested on.

    Attributes:
        outcomes: By their key, seeds before splits before draws.
    """

    protocol: str
    dataset: str
    model: str
    condition: Condition
    outcomes: Mapping[Key, Outcome]

    @property
    def values(self) -> np.ndarray:
        """Return the scores ``(k,)`` in order; NaN where none could be had."""
        return np.array([each.score for each in self.outcomes.values()])

    @property
    def first(self) -> Outcome:
        """Return the first outcome."""
        return next(iter(self.outcomes.values()))

    @property
    def metric(self) -> str:
        """Return what :attr:`values` are."""
        return metric_of(self.outcomes.values())

    @property
    def repeats(self) -> Part:
        """Return what draws the training films anew: where they are counted, the seed."""
        return "seed" if self.condition[0] == "films" else "draw"

    @property
    def films(self) -> int:
        """Return how many films were tested on; folds test on each film once in a repeat."""
        return sum(each.films for each in self._tested())

    def mean(self) -> float:
        """Return the mean of the scores that could be had; NaN without any."""
        return mean_sd(self.values)[0]

    def by(self, part: Part) -> dict[int | str, float]:
        """Return the mean score of each seed, split or draw over the other two."""
        index = ("seed", "split", "draw").index(part)
        found: dict[int | str, list[float]] = {}
        for key, each in self.outcomes.items():
            if math.isfinite(each.score):
                found.setdefault(key[index], []).append(each.score)
        return {name: float(np.mean(each)) for name, each in found.items()}

    def exposure(self) -> dict[str, dict[str, int]]:
        """Count the test films, and their patients' films, by whether they were trained on."""
        found: dict[str, dict[str, int]] = {}
        for each in self._tested():
            counts = each.trained_on or {"films": {UNKNOWN: each.films}}
            for what, answers in counts.items():
                total = found.setdefault(what, {})
                for answer, count in answers.items():
                    total[answer] = total.get(answer, 0) + count
        return found

    @property
    def seen(self) -> str:
        """Return whether test films or patients were trained on: ``yes``, ``unknown`` or empty."""
        counts = self.exposure().values()
        return next((word for word in (YES, UNKNOWN) if any(c.get(word) for c in counts)), "")

    def _tested(self) -> list[Outcome]:
        """Return one outcome for each split of the first repeat."""
        found: dict[str, Outcome] = {}
        for (_, split, _), each in self.outcomes.items():
            found.setdefault(split, each)
        repeat = next(iter(found)).partition(".")[0]
        return [each for name, each in found.items() if name.partition(".")[0] == repeat]


def arms(outcomes: Iterable[Outcome]) -> tuple[Arm, ...]:
    """Group outcomes by protocol, dataset, condition and model, in order of first appearance."""
    every = list(outcomes)
    most = _most_films(every)
    found: dict[tuple[str, str, Condition, str], dict[Key, Outcome]] = {}
    for each in every:
        under = condition(each.setting)
        if under == ("films", most.get((each.dataset, each.setting.get("split", "")))):
            under = ("films", most[each.dataset, None])
        where = (each.protocol, each.dataset, under, each.model)
        found.setdefault(where, {})[_key(each.setting)] = each
    return tuple(
        Arm(
            protocol=protocol,
            dataset=dataset,
            condition=under,
            model=model,
            outcomes=dict(sorted(group.items(), key=lambda item: _order(item[0]))),
        )
        for (protocol, dataset, under, model), group in found.items()
    )


def condition(setting: Mapping[str, Any]) -> Condition:
    """Return what a setting says beyond its seed, split and draw."""
    return next(((name, setting[name]) for name in CONDITIONS if name in setting), NONE)


def metric_of(outcomes: Iterable[Outcome]) -> str:
    """Return what the scores are: Dice of masks, accuracy of exclusive classes, or mean AUROC."""
    every = list(outcomes)
    if any(math.isfinite(each.dice) for each in every):
        return "mean Dice"
    exclusive = any(math.isfinite(each.accuracy) for each in every)
    return "accuracy" if exclusive else "mean AUROC"


def mean_sd(values: Sequence[float] | np.ndarray) -> tuple[float, float, int]:
    """Return mean, standard deviation (of a sample) and count of the finite values."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    mean = float(known.mean()) if len(known) else math.nan
    return mean, float(known.std(ddof=1)) if len(known) > 1 else math.nan, len(known)


def _most_films(outcomes: Iterable[Outcome]) -> dict[tuple[str, str | None], int]:
    """Return the most training films of each dataset's splits, and of any split of a dataset.

    All films of one fold and all of another are one condition, though a few films apart.
    """
    found: dict[tuple[str, str | None], int] = {}
    for each in outcomes:
        for split in (each.setting.get("split", ""), None):
            where = (each.dataset, split)
            found[where] = max(each.setting.get("films", 0), found.get(where, 0))
    return found


def _key(setting: Mapping[str, Any]) -> Key:
    return setting.get("seed", 0), setting.get("split", ""), setting.get("draw", 0)


def _order(key: Key) -> tuple[int, int, str, int]:
    seed, split, draw = key
    return seed, len(split), split, draw  # "fold 1.10" after "fold 1.9"
