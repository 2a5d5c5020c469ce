"""How often 95 % intervals hold the truth, in simulated sets.

Of AUROC: binormal scores; 9 negatives to a positive:

- ``delong``, ``bootstrap``: one film a patient.
- ``patients``: 9 films a patient and a patient effect of half the score's variance; a tenth of the
  patients is ill, two thirds of an ill patient's films are positive; positives counts ill patients.
- ``films``: the same effect, a tenth of the films positive whoever's they are; positives counts
  films, which few patients share: 30 positives come from 33 patients.
- ``macro``: the mean of three labels as in ``patients``, each ill patient's own; scores of one film
  correlate by 0.5.
- ``paired``: one label as in ``patients``, two models whose scores correlate by 0.5, the first
  better by the gap.

Of accuracy, three classes; positives counts patients:

- ``accuracy``, ``accuracy-patients``: one film, or 9 and the same effect on whether it is right.
- ``accuracy-paired``: 9 films, two models as above.

python benchmarks/coverage.py --sets 2000
python benchmarks/coverage.py --sets 500 --designs paired accuracy-paired --gap 0
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import NormalDist
from unittest.mock import patch

import numpy as np

from ark_framework.statistics import (
    Difference,
    Interval,
    bootstrap,
    bootstrap_paired,
    bootstrap_rows,
    bootstrap_rows_paired,
    delong,
)

Films = tuple[np.ndarray, np.ndarray, np.ndarray | None]
FILMS = 9
SHARE = 0.5
LABELS = 3
COLUMNS = {
    "macro": LABELS,
    "paired": 2,
    "accuracy": 1,
    "accuracy-patients": 1,
    "accuracy-paired": 2,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first set")
    parser.add_argument("--replicates", type=int, default=500)
    parser.add_argument("--positives", type=int, nargs="+", default=[5, 10, 30, 100])
    parser.add_argument("--truths", type=float, nargs="+", default=[0.70, 0.85, 0.95])
    parser.add_argument("--gap", type=float, default=0.05)
    parser.add_argument(
        "--designs", nargs="+", default=["delong", "bootstrap", "patients", "films"]
    )
    given = parser.parse_args()
    print("| design | positives | truth | coverage % | true below % | true above % | sets |")
    print("|---|---|---|---|---|---|---|")
    for design in given.designs:
        for positives in given.positives:
            for area in given.truths:
                sets = range(given.first, given.first + given.sets)
                row = cover(design, positives, area, sets, given.replicates, given.gap)
                print(f"| {design} | {positives} | {area} | {row} |", flush=True)


def cover(
    design: str, positives: int, area: float, sets: range, replicates: int, gap: float
) -> str:
    found = []
    truth = gap if "paired" in design else area
    for index in sets:
        rng = np.random.default_rng([index, positives, int(area * 100)])
        # What is not estimable with few positives is estimated here, to show why.
        with patch("ark_framework.statistics.results.FEW", 2):
            if design in COLUMNS:
                each = wide_interval(design, positives, area, gap, rng, replicates)
            else:
                scores, targets, groups = simulate(design, positives, area, rng)
                each = interval(design, scores, targets, groups, replicates, index)
        if not each.reason:
            found.append((each.low, each.high))
    low, high = np.array(found).T
    shares = ((low <= truth) & (truth <= high), truth < low, truth > high)
    return " | ".join([*(f"{100 * share.mean():.1f}" for share in shares), str(len(found))])


def interval(
    design: str,
    scores: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray | None,
    replicates: int,
    seed: int,
) -> Interval:
    if design == "delong":
        return delong(scores, targets)
    found = bootstrap(
        scores[:, None], targets[:, None], groups=groups, replicates=replicates, seed=seed
    )
    return found.labels[0]


def wide_interval(
    design: str, count: int, area: float, gap: float, rng: np.random.Generator, replicates: int
) -> Interval | Difference:
    """Return the interval of a mean, of an accuracy or of a difference."""
    paired = "paired" in design
    truths = [area, area - gap] if paired else [area] * COLUMNS[design]
    limits = np.array([NormalDist().inv_cdf(each) for each in truths])
    if design.startswith("accuracy"):
        groups = np.repeat(np.arange(count), 1 if design == "accuracy" else FILMS)
        right = noise(groups, len(truths), rng) < limits
        kind = rng.integers(0, 3, len(groups))
        models = [np.eye(3)[np.where(each, kind, (kind + 1) % 3)] for each in right.T]
        targets: np.ndarray = np.eye(3)[kind]
    else:
        groups = np.repeat(np.arange(10 * count), FILMS)
        labels = 1 if paired else LABELS
        ill = np.stack([rng.permutation(10 * count) < count for _ in range(labels)], axis=1)
        targets = (ill[groups] & (rng.random((len(groups), labels)) < 2 / 3)) * 1.0
        scores = noise(groups, len(truths), rng) + limits * 2**0.5 * targets
        models = [scores[:, :1], scores[:, 1:]] if paired else [scores]
    seed = int(rng.integers(2**31))
    if design == "macro":
        return bootstrap(models[0], targets, groups=groups, replicates=replicates, seed=seed).macro
    if design == "paired":
        return bootstrap_paired(
            models[0], models[1], targets, groups=groups, replicates=replicates, seed=seed
        ).labels[0]
    of_rows: Callable[..., Interval | Difference] = (
        bootstrap_rows_paired if paired else bootstrap_rows
    )
    return of_rows(*models, targets, groups=groups, replicates=replicates, seed=seed)


def noise(groups: np.ndarray, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``(films, columns)`` of variance 1, correlated by 0.5, with the patient's share."""
    effect, own = (
        (rng.normal(size=(count, 1)) + rng.normal(size=(count, columns))) * 0.5**0.5
        for count in (int(groups.max()) + 1, len(groups))
    )
    return np.asarray(effect[groups] * SHARE**0.5 + own * (1 - SHARE) ** 0.5)


def simulate(design: str, positives: int, area: float, rng: np.random.Generator) -> Films:
    shift = NormalDist().inv_cdf(area) * 2**0.5
    if design in ("delong", "bootstrap"):
        targets = np.repeat([1.0, 0.0], [positives, 9 * positives])
        return rng.normal(size=len(targets)) + shift * targets, targets, None
    if design == "patients":
        ill = np.repeat([1.0, 0.0], [positives, 9 * positives])
        patients = len(ill)
        targets = np.repeat(ill, FILMS) * (rng.random(patients * FILMS) < 2 / 3)
    else:
        patients = round(positives * 10 / FILMS)
        targets = (rng.random(patients * FILMS) < 0.1) * 1.0
    groups = np.repeat(np.arange(patients), FILMS)
    effect = rng.normal(size=patients)[groups] * SHARE**0.5
    own = rng.normal(size=len(groups)) * (1 - SHARE) ** 0.5
    return effect + own + shift * targets, targets, groups


if __name__ == "__main__":
    main()
