"""Probes trained on women, on men, or on a mixture, and tested on both (Larrazabal et al. 2020).

All are trained alike: one regularization, which nothing chooses, and embeddings standardized by
the films that any of them trains on.  Folds and labels of a share are solved in one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ark_framework import metrics
from ark_framework.corpus import Corpus, scored_targets, training_targets
from ark_framework.fairness.folds import Fold
from ark_framework.transfer.linear import Problems, solve
from ark_framework.transfer.probe import probabilities, standardized


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A fold's test films of one sex.

    Attributes:
        images: ``(n,)``.
        targets: ``(n, C)`` float32: 1, 0, and NaN or -1, which are not scored.
        scores: ``(n, C)`` float32 by the share of women trained on; NaN for a label that could not
            be learned.
    """

    images: np.ndarray
    targets: np.ndarray
    scores: Mapping[float, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Exclusive:
    """What came out.

    Attributes:
        folds: A row per label, fold, share of women among the training films and tested sex.
        tested: By fold number and sex; the areas in ``folds`` are of exactly these scores.
    """

    folds: pd.DataFrame
    tested: Mapping[tuple[int, str], Tested]

    def save(self, path: Path) -> None:
        """Write ``fold-01/F/images``, ``…/targets``, ``…/trained-0.00`` and so on as one npz."""
        arrays: dict[str, np.ndarray] = {}
        for (number, sex), each in self.tested.items():
            name = f"fold-{number:02d}/{sex}"
            arrays |= {f"{name}/images": each.images, f"{name}/targets": each.targets}
            arrays |= {f"{name}/trained-{share:.2f}": each.scores[share] for share in each.scores}
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def exclusive(
    features: np.ndarray,
    rows: np.ndarray,
    corpus: Corpus,
    folds: Sequence[Fold],
    *,
    c: float,
    device: torch.device,
    targets: np.ndarray | None = None,
) -> Exclusive:
    """Train on each fold's sets of films and test on both sexes.

    Args:
        features: ``(n, D)`` of ``rows``.
        rows: ``(n,)`` ascending, all rows that a fold trains or tests on among them.
        corpus: Whose labels.
        folds: All with the same shares.
        c: Inverse regularization.
        device: Where to compute.
        targets: Labels ``(N, C)`` instead of the corpus's; NaN is not annotated, whatever the
            schema makes of blanks.
    """
    schema = corpus.schema
    if targets is None:
        targets = corpus.table.targets()
    else:
        schema = replace(schema, blank="ignore")
    raw = targets[rows]
    work = _Work(
        x=standardized(features, np.searchsorted(rows, _any_train(folds)), device),
        rows=rows,
        images=corpus.table.frame["image"].to_numpy(dtype=str)[rows],
        labels=schema.labels,
        # A soft policy's draws are for many passes; what is fitted once gets their mean.
        learned=training_targets(raw, schema, np.full(raw.shape, 0.5, np.float32)),
        certain=scored_targets(raw, schema),
        classes=schema.kind == "multiclass",
    )
    fitted = {share: work.fit([fold.train[share] for fold in folds], c) for share in folds[0].train}
    tested = {
        (fold.number, sex): work.test(fold, place, sex, fitted)
        for place, fold in enumerate(folds)
        for sex in fold.test
    }
    lines = [
        line
        for place, fold in enumerate(folds)
        for share in fold.train
        for sex in fold.test
        for line in work.lines(fold, place, sex, share, fitted[share], tested[fold.number, sex])
    ]
    return Exclusive(folds=pd.DataFrame(lines), tested=tested)


def _any_train(folds: Sequence[Fold]) -> np.ndarray:
    return np.unique(np.concatenate([rows for fold in folds for rows in fold.train.values()]))


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    """Probes of F folds: ``coef`` ``(T, F, [K,] D)``, ``intercept`` alike, ``converged`` (C, F)."""

    coef: Tensor
    intercept: Tensor
    converged: np.ndarray


@dataclass(frozen=True, kw_only=True)
class _Work:
    """Films ``(n, …)`` of ``rows`` on the device; ``classes`` says that labels exclude others."""

    x: Tensor
    rows: np.ndarray
    images: np.ndarray
    labels: tuple[str, ...]
    learned: np.ndarray
    certain: np.ndarray
    classes: bool

    def where(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.rows, rows)

    def fit(self, trains: Sequence[np.ndarray], c: float) -> _Fitted:
        """Fit every label on each fold's training films, over the films that any fold has."""
        used = np.unique(np.concatenate(trains))
        weights = np.zeros((len(used), len(trains)), dtype=np.float32)
        for column, train in enumerate(trains):
            weights[np.searchsorted(used, train), column] = 1.0
        at = torch.from_numpy(self.where(used))
        device = self.x.device
        solution = solve(
            Problems.grid(
                self.x[at.to(device)],
                torch.from_numpy(self.learned)[at].to(device),
                weights=torch.from_numpy(weights).to(device),
                c=(c,),
                exclusive=self.classes,
            )
        )
        grid = (-1, len(trains))
        settled = solution.converged.reshape(grid).cpu().numpy()
        return _Fitted(
            coef=solution.coef.reshape(*grid, *solution.coef.shape[1:]),
            intercept=solution.intercept.reshape(*grid, *solution.intercept.shape[1:]),
            converged=np.broadcast_to(settled, (len(self.labels), len(trains))),
        )

    def test(self, fold: Fold, place: int, sex: str, fitted: Mapping[float, _Fitted]) -> Tested:
        at = self.where(fold.test[sex])
        x = self.x[torch.from_numpy(at).to(self.x.device)]
        scores = {}
        for share, each in fitted.items():
            coef, intercept = each.coef[:, place], each.intercept[:, place]
            found = probabilities(x, coef, intercept, exclusive=self.classes).astype(np.float32)
            found[:, ~self._both(fold.train[share])] = np.nan
            scores[share] = found
        return Tested(images=self.images[at], targets=self.certain[at], scores=scores)

    def _both(self, train: np.ndarray) -> np.ndarray:
        """Return which labels ``(C,)`` have certain positives and negatives among films."""
        known = self.certain[self.where(train)]
        return np.asarray((known == 1).any(axis=0) & (known == 0).any(axis=0))

    def lines(
        self, fold: Fold, place: int, sex: str, share: float, fitted: _Fitted, tested: Tested
    ) -> Iterator[dict[str, Any]]:
        train = self.where(fold.train[share])
        columns = {
            "auroc": metrics.auroc(tested.scores[share], tested.targets),
            "train_films": np.isfinite(self.learned[train]).sum(axis=0),
            "train_positives": (self.certain[train] == 1).sum(axis=0),
            "test_films": metrics.known(tested.targets).sum(axis=0),
            "test_positives": (tested.targets == 1).sum(axis=0),
            "converged": fitted.converged[:, place],
        }
        about = {"fold": fold.number, "share": share, "tested_on": sex}
        for column, label in enumerate(self.labels):
            own = {name: values[column].item() for name, values in columns.items()}
            yield {"label": label, **about, **own}
