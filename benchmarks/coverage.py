"""How often 95 % intervals hold the true AUROC, in simulated sets.

Binormal scores; 9 negatives to a positive.  Four designs:

- ``delong``, ``bootstrap``: one film a patient.
- ``patients``: 9 films a patient and a patient effect of half the score's variance; a tenth of the
  patients is ill, two thirds of an ill patient's films are positive; positives counts ill patients.
- ``films``: the same effect, a tenth of the films positive whoever's they are; positives counts
  films, which few patients share: 30 positives come from 33 patients.

python benchmarks/coverage.py --sets 2000
"""

from __future__ import annotations

import argparse
from statistics import NormalDist
from unittest.mock import patch

import numpy as np

from ark_framework.statistics import Interval, bootstrap, delong

Films = tuple[np.ndarray, np.ndarray, np.ndarray | None]
FILMS = 9
SHARE = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=2000)
    parser.add_argument("--replicates", type=int, default=500)
    parser.add_argument("--positives", type=int, nargs="+", default=[5, 10, 30, 100])
    parser.add_argument(
        "--designs", nargs="+", default=["delong", "bootstrap", "patients", "films"]
    )
    given = parser.parse_args()
    print("| design | positives | AUROC | coverage % | true below % | true above % | sets |")
    print("|---|---|---|---|---|---|---|")
    for design in given.designs:
        for positives in given.positives:
            for area in (0.70, 0.85, 0.95):
                row = cover(design, positives, area, given.sets, given.replicates)
                print(f"| {design} | {positives} | {area} | {row} |", flush=True)


def cover(design: str, positives: int, area: float, sets: int, replicates: int) -> str:
    found = []
    for index in range(sets):
        rng = np.random.default_rng([index, positives, int(area * 100)])
        scores, targets, groups = simulate(design, positives, area, rng)
        # What is not estimable with few positives is estimated here, to show why.
        with patch("ark_framework.statistics.results.FEW", 2):
            each = interval(design, scores, targets, groups, replicates, index)
        if not each.reason:
            found.append((each.low, each.high))
    low, high = np.array(found).T
    shares = ((low <= area) & (area <= high), area < low, area > high)
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
