"""Seconds of 1,000 bootstrap replicates of 14 labels, beside scikit-learn on the same draws.

scikit-learn is timed on some replicates, spread over all labels, and scaled.

python benchmarks/intervals.py --films 25596
"""

from __future__ import annotations

import argparse
import json
from time import perf_counter

import numpy as np
from sklearn.metrics import roc_auc_score

from ark_framework.statistics import bootstrap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=25_596)
    parser.add_argument("--labels", type=int, default=14)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--sampled", type=int, default=10)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    groups = np.sort(rng.integers(0, max(given.films // 9, 1), given.films))
    prevalence = np.geomspace(0.003, 0.25, given.labels)
    targets = (rng.random((given.films, given.labels)) < prevalence) * 1.0
    scores = rng.normal(size=targets.shape) + targets
    ours = {
        name: timed(scores, targets, each, given.replicates)
        for name, each in (("by patient", groups), ("by film", None))
    }
    theirs = reference(scores, targets, groups, given.sampled) * given.replicates / given.sampled
    result = {
        "films": given.films,
        "labels": given.labels,
        "replicates": given.replicates,
        "seconds": {name: round(each, 2) for name, each in ours.items()},
        "scikit-learn seconds": round(theirs, 1),
        "ratio": {name: round(theirs / each, 1) for name, each in ours.items()},
    }
    print(json.dumps(result, indent=1))


def timed(
    scores: np.ndarray, targets: np.ndarray, groups: np.ndarray | None, replicates: int
) -> float:
    began = perf_counter()
    bootstrap(scores, targets, groups=groups, replicates=replicates)
    return perf_counter() - began


def reference(
    scores: np.ndarray, targets: np.ndarray, groups: np.ndarray, replicates: int
) -> float:
    """Seconds of scikit-learn's areas alone, given the weights of each draw."""
    rng, seconds = np.random.default_rng(0), 0.0
    count = int(groups.max()) + 1
    for _ in range(replicates):
        weights = np.bincount(rng.integers(0, count, count), minlength=count)[groups]
        rows = np.repeat(np.arange(len(groups)), weights)
        began = perf_counter()
        for label in range(scores.shape[1]):
            roc_auc_score(targets[rows, label], scores[rows, label])
        seconds += perf_counter() - began
    return seconds


if __name__ == "__main__":
    main()
