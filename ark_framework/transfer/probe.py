"""What embeddings hold: linear classifiers, few-shot ones and nearest neighbors, all in batch.

Every model is given the same films: fractions and shots are drawn by label and patient, never by
embedding.  Embeddings are standardized by the mean and deviation of the training films (of all
folds', where there are folds); labels play no part in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ark_framework import metrics
from ark_framework.corpus import Corpus, scored_targets, training_targets
from ark_framework.runtime import Runtime
from ark_framework.transfer.linear import Problems, solve, solve_small
from ark_framework.transfer.protocol import ProbeConfig
from ark_framework.transfer.shots import draw_fraction, draw_shots
from ark_framework.transfer.splits import Split

TEMPERATURE = 0.07  # of the neighbors' weights, as DINO's (Caron et al. 2021)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Scores ``(n_test, C)`` of one classifier; NaN for a label that could not be learned."""

    split: Split
    scores: np.ndarray
    setting: dict[str, Any]


class Probe:
    """A dataset's embeddings on the device, and what is fitted on them.

    Args:
        features: ``(n, D)`` of ``rows``.
        corpus: Whose labels.
        rows: ``(n,)`` all rows that any split names, ascending.
        splits: Which train, validate and test.
        config: The protocol.
        runtime: Device.
    """

    def __init__(
        self,
        features: np.ndarray,
        corpus: Corpus,
        rows: np.ndarray,
        splits: Sequence[Split],
        config: ProbeConfig,
        runtime: Runtime,
    ) -> None:
        self.corpus, self.rows, self.splits, self.config = corpus, rows, splits, config
        self.device = runtime.device
        raw = corpus.table.targets()[rows]
        schema = corpus.schema
        # A soft policy's draws are for many passes; a classifier that is fitted once gets its mean.
        self.targets = training_targets(raw, schema, np.full(raw.shape, 0.5, np.float32))
        self.certain = scored_targets(raw, schema).astype(np.float64)
        self.groups = corpus.table.groups()[rows]
        self.exclusive = schema.kind == "multiclass"
        self.x = standardized(features, self._any_train(), self.device)

    def full(self) -> Iterator[Fitted]:
        """Yield linear classifiers on each fraction of each split's training films."""
        parts = list(self._fractions())
        weights = np.zeros((len(self.rows), len(parts)), dtype=np.float32)
        for column, (_, _, train) in enumerate(parts):
            weights[train, column] = 1.0
        solution = solve(
            Problems.grid(
                self.x,
                torch.from_numpy(self.targets).to(self.device),
                weights=torch.from_numpy(weights).to(self.device),
                c=self.config.c,
                exclusive=self.exclusive,
            )
        )
        grid = (-1, len(parts), len(self.config.c))
        coef = solution.coef.reshape(*grid, *solution.coef.shape[1:])
        intercept = solution.intercept.reshape(*grid, *solution.intercept.shape[1:])
        settled = solution.converged.reshape(grid).cpu()
        fitted = torch.tensor([not why for why in solution.reason]).reshape(grid)
        for column, (split, setting, _) in enumerate(parts):
            chosen = self._choose(coef[:, column], intercept[:, column], split)
            scores = self._scores(coef[:, column, chosen], intercept[:, column, chosen], split.test)
            where = (slice(None), column, chosen)
            setting |= {
                "c": self.config.c[chosen],
                "converged": bool(settled[where][fitted[where]].all()),
            }
            yield Fitted(split=split, scores=scores, setting=setting)

    def few_shot(self) -> Iterator[Fitted]:
        """Yield classifiers on a few films of each label; validation films play no part."""
        for split in self.splits:
            train = self._where(split.train)
            shots = draw_shots(
                self.certain[train],
                self.groups[train],
                kind=self.corpus.schema.kind,
                draws=self.config.draws,
                seed=self.config.seed,
            )
            for count in self.config.shots:
                for draw in range(self.config.draws):
                    sets = {label: train[rows] for label, rows in shots.of(count, draw).items()}
                    scores = self._from_few(sets, split)
                    setting = {"shots": count, "draw": draw}
                    yield Fitted(split=split, scores=scores, setting=setting)

    def nearest(self) -> Iterator[Fitted]:
        """Yield the means over each test film's nearest training films, weighted by nearness."""
        unit = torch.nn.functional.normalize(self.x, dim=1)
        targets = torch.from_numpy(self.targets).to(self.device)
        for split in self.splits:
            train = torch.from_numpy(self._where(split.train)).to(self.device)
            test = torch.from_numpy(self._where(split.test)).to(self.device)
            count = min(self.config.neighbors, len(train))
            found = []
            for start in range(0, len(test), 1024):
                block = unit[test[start : start + 1024]]
                near, which = (block @ unit[train].T).topk(count, dim=1)
                labels = targets[train][which]  # (b, count, C)
                known = ~labels.isnan()
                weight = (near / TEMPERATURE).softmax(1)[:, :, None] * known
                found.append((weight * labels.nan_to_num()).sum(1) / weight.sum(1))
            scores = torch.cat(found).double().cpu().numpy()
            yield Fitted(split=split, scores=scores, setting={"neighbors": count})

    def _any_train(self) -> np.ndarray:
        return self._where(np.unique(np.concatenate([split.train for split in self.splits])))

    def _where(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.rows, rows)

    def _fractions(self) -> Iterator[tuple[Split, dict[str, Any], np.ndarray]]:
        for split in self.splits:
            train = self._where(split.train)
            for fraction in self.config.fractions:
                if fraction == 1:
                    yield split, {"fraction": 1.0}, train
                    continue
                for draw in range(self.config.draws):
                    kept = draw_fraction(
                        self.groups[train], fraction, seed=self.config.seed, draw=draw
                    )
                    yield split, {"fraction": fraction, "draw": draw}, train[kept]

    def _choose(self, coef: Tensor, intercept: Tensor, split: Split) -> int:
        """Return which regularization has the best mean AUROC on validation; of equals, more."""
        middle = len(self.config.c) // 2
        if not len(split.val):
            return middle
        truth = self.certain[self._where(split.val)]
        scored = [self.corpus.schema.labels.index(each) for each in self.corpus.schema.scored]
        means = []
        for index in range(len(self.config.c)):
            scores = self._scores(coef[:, index], intercept[:, index], split.val)
            means.append(metrics.macro(metrics.auroc(scores, truth)[scored])[0])
        order = np.argsort(self.config.c, kind="stable")
        ranked = np.array(means)[order]
        return int(order[np.nanargmax(ranked)]) if np.isfinite(ranked).any() else middle

    def _scores(self, coef: Tensor, intercept: Tensor, rows: np.ndarray) -> np.ndarray:
        x = self.x[torch.from_numpy(self._where(rows)).to(self.device)]
        return probabilities(x, coef, intercept, exclusive=self.exclusive)

    def _from_few(self, sets: dict[int, np.ndarray], split: Split) -> np.ndarray:
        scores = np.full((len(split.test), len(self.corpus.schema.labels)), np.nan)
        if not sets:
            return scores
        rows = torch.from_numpy(np.stack(list(sets.values()))).to(self.device)
        truth = torch.from_numpy(self.certain).to(self.device, torch.float32)[rows.cpu()]
        if not self.exclusive:  # each problem has its own label: (P, n)
            own = torch.tensor(list(sets))
            truth = truth[torch.arange(len(own)), :, own]
        x, every = self.x[rows], torch.ones(rows.shape, device=self.device)
        solution = solve_small(x, truth.to(self.device), every, c=self.config.few_shot_c)
        found = self._scores(solution.coef, solution.intercept, split.test)
        if self.exclusive:
            return found
        scores[:, list(sets)] = found
        return scores


def standardized(features: np.ndarray, train: np.ndarray, device: torch.device) -> Tensor:
    """Return features ``(n, D)`` on the device, by the mean and deviation of rows ``train``."""
    x = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)).to(device)
    seen = x[torch.from_numpy(train).to(device)]
    spread = seen.std(dim=0, correction=0)
    # A feature that never varies says nothing; it stays at zero instead of at noise.
    return (x - seen.mean(0)) * torch.where(spread > 1e-6, 1 / spread, 0.0)


def probabilities(x: Tensor, coef: Tensor, intercept: Tensor, *, exclusive: bool) -> np.ndarray:
    """Return probabilities ``(n, C)`` by coefficients ``(T, [K,] D)``, intercepts alike."""
    if exclusive:
        coef, intercept = coef.squeeze(0), intercept.squeeze(0)
    logits = (x @ coef.T).double() + intercept
    chances = logits.softmax(1) if exclusive else logits.sigmoid()
    return np.asarray(chances.cpu().numpy())
