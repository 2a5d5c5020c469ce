"""Seconds of 14 labels x 20 folds of logistic regression, beside scikit-learn's, and how alike.

The vectors are drawn: correlated features with a decaying spectrum, standardized, and rare to
common labels of a linear signal and noise.  scikit-learn is timed on some of the fits, spread over
labels and folds, and scaled; ``--all`` runs them all.

Both solvers have to reach the same stationarity, ``--tol``: the gradient's largest entry over the
films, measured in float64 by one function.  Where scikit-learn stops short of it, its tolerance is
tightened; a type in which it never gets there is out, and of the types that are left the faster
one counts.  At 1e-4 the rule leaves the coefficients of rare labels at C = 1 open: two solutions
that obey it may have a cosine of 0.97.

Processor seconds stand beside those on the clock, because other work slows the two differently.

python benchmarks/probe.py --films 20000
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ark_framework.transfer.linear import Problems, Solution, solve

TIGHTER = (1.0, 0.3, 0.1)  # of the tolerance, until scikit-learn gets there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=1376)
    parser.add_argument("--labels", type=int, default=14)
    parser.add_argument("--folds", type=int, default=20)
    parser.add_argument("--tol", type=float, default=1e-6)
    parser.add_argument("--c", type=float, nargs="+", default=[0.01, 1.0])
    parser.add_argument("--sampled", type=int, default=5)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    world = World.draw(given.films, given.width, given.labels, given.folds)
    sampled = given.labels * given.folds if given.all else given.sampled
    with threadpool_limits(given.threads):
        result = {f"C={c:g}": compare(world, c, given.tol, sampled) for c in given.c}
    print(json.dumps({**vars(given), **result}, indent=1))


@dataclass(frozen=True, kw_only=True)
class World:
    """Vectors ``(N, D)``, labels ``(N, T)``, and each film's fold ``(N,)``."""

    x: np.ndarray
    y: np.ndarray
    fold: np.ndarray
    folds: int

    @classmethod
    def draw(cls, films: int, width: int, labels: int, folds: int) -> World:
        rng = np.random.default_rng(0)
        spectrum = 1 / np.arange(1, width + 1) + 0.05**2
        hidden = rng.standard_normal((films, width), dtype=np.float32) * np.sqrt(spectrum)
        turn, _ = np.linalg.qr(rng.standard_normal((width, width)))
        x = (hidden @ turn.T).astype(np.float32)
        few = hidden[:, :200] @ (rng.standard_normal((200, labels)) * spectrum[:200, None] ** -0.25)
        noisy = few / few.std(0) + 0.6 * rng.logistic(size=few.shape)
        rare = np.geomspace(0.01, 0.3, labels)
        y = noisy > [np.quantile(column, 1 - p) for column, p in zip(noisy.T, rare, strict=True)]
        fold = np.arange(films) % folds
        return cls(x=(x - x.mean(0)) / x.std(0), y=y.astype(np.float32), fold=fold, folds=folds)


def compare(world: World, c: float, tol: float, sampled: int) -> dict[str, Any]:
    ours, spent = timed(world, c, tol)
    wide = world.x.astype(np.float64)
    count = world.y.shape[1] * world.folds
    found = ours.coef.double().numpy().reshape(world.y.shape[1], world.folds, -1)
    offset = ours.intercept.double().numpy().reshape(found.shape[:2])
    worst = max(
        stationarity(wide, world, found[:, fold], offset[:, fold], c, fold)
        for fold in range(world.folds)
    )
    where = [divmod(round(each), world.folds) for each in np.linspace(0, count - 1, sampled)]
    theirs = [reference(world, wide, c, tol, *each) for each in where]
    alike = [
        agreement(wide, world, found[at], fit.coef, *at)
        for at, fit in zip(where, theirs, strict=True)
    ]
    scaled = np.mean([fit.seconds for fit in theirs], axis=0) * count
    return {
        "fits": count,
        "seconds": {"clock": round(spent[0], 1), "processor": round(spent[1], 1)},
        "scikit-learn": {
            "fits": len(theirs),
            "seconds, scaled": {"clock": round(scaled[0]), "processor": round(scaled[1])},
            "types and tolerances": sorted({fit.how for fit in theirs}),
            "stationarity": max(fit.stationarity for fit in theirs),
        },
        "ratio": {
            "clock": round(scaled[0] / spent[0], 1),
            "processor": round(scaled[1] / spent[1], 1),
        },
        "stationarity": worst,
        "least cosine": round(min(cosine for cosine, _ in alike), 6),
        "largest AUC difference": round(max(area for _, area in alike), 6),
        "mean iterations": round(float(ours.iterations.double().mean()), 1),
        "converged": bool(ours.converged.all()),
    }


def timed(world: World, c: float, tol: float) -> tuple[Solution, tuple[float, float]]:
    x, y = torch.from_numpy(world.x), torch.from_numpy(world.y)
    train = torch.from_numpy(world.fold[:, None] != np.arange(world.folds)).float()
    began = perf_counter(), process_time()
    solution = solve(Problems.grid(x, y, weights=train, c=(c,)), tol=tol)
    return solution, (perf_counter() - began[0], process_time() - began[1])


@dataclass(frozen=True, kw_only=True)
class Reference:
    """scikit-learn's fit: coefficients ``(D,)``, seconds on the clock and of the processor."""

    coef: np.ndarray
    seconds: tuple[float, float]
    stationarity: float
    how: str


def reference(
    world: World, wide: np.ndarray, c: float, tol: float, label: int, fold: int
) -> Reference:
    """Fit in either type until the tolerance is reached; of those that did, return the faster."""
    kept, reached = world.fold != fold, []
    for x in (world.x[kept], wide[kept]):
        for tighter in TIGHTER:
            model = LogisticRegression(C=c, tol=tol * tighter, max_iter=100_000)
            began = perf_counter(), process_time()
            model.fit(x, world.y[kept, label])
            seconds = perf_counter() - began[0], process_time() - began[1]
            coef, offset = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
            far = stationarity(wide, world, coef, offset, c, fold, label)
            if far <= tol:
                how = f"{x.dtype} {model.tol:.1g}"
                fit = Reference(coef=coef[0], seconds=seconds, stationarity=far, how=how)
                reached.append(fit)
                break
    return min(reached, key=lambda fit: fit.seconds[1])


def agreement(
    wide: np.ndarray, world: World, one: np.ndarray, two: np.ndarray, label: int, fold: int
) -> tuple[float, float]:
    """Return the coefficients' cosine, and how far their areas on the fold's films are apart."""
    held = world.fold == fold
    cosine = float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))
    truth, scores = world.y[held, label], wide[held] @ np.stack([one, two], 1)
    first, second = (roc_auc_score(truth, column) for column in scores.T)
    return cosine, abs(float(first - second))


def stationarity(
    wide: np.ndarray,
    world: World,
    coef: np.ndarray,
    offset: np.ndarray,
    c: float,
    fold: int,
    label: int | None = None,
) -> float:
    """Return the gradient's largest entry over the films, of all labels or one, in float64."""
    kept = world.fold != fold
    y = world.y[kept] if label is None else world.y[kept, label : label + 1]
    x = wide[kept]
    residual = 1 / (1 + np.exp(-(x @ coef.T + offset))) - y
    slope = np.abs(x.T @ residual + coef.T / c).max()
    return float(max(slope, np.abs(residual.sum(0)).max()) / kept.sum())


if __name__ == "__main__":
    main()
