"""Batches of training films with their targets, as a function of seed and step alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ark_framework.config import ViewsConfig
from ark_framework.corpus import Corpus, training_targets
from ark_framework.errors import DataError
from ark_framework.ranks import SINGLE, Ranks
from ark_framework.runtime import generator
from ark_framework.transfer.order import Order
from ark_framework.views import Part, make_views, part

SOFT = 23  # what a generator is for, beside those of order.py


class TrainingFilms:
    """Views and targets of the annotated films, step by step; see :class:`Order`.

    Args:
        corpus: Whose films they are.
        rows: Table rows to train on, ``(n,)``; those without an annotation are left out.
        task: Name of the head that they train.
        batch_size: Films in a batch, at most.
        views: How the views are drawn.
        flip: Chance that a view is mirrored left to right.
        seed: Of order, views and soft labels.
        device: Where views and targets go.
        ranks: Of which this one gets its films of each batch.

    Raises:
        DataError: no film is annotated.
    """

    def __init__(
        self,
        corpus: Corpus,
        rows: np.ndarray,
        *,
        task: str,
        batch_size: int,
        views: ViewsConfig,
        flip: float,
        seed: int,
        device: torch.device,
        ranks: Ranks = SINGLE,
    ) -> None:
        raw = corpus.table.targets()[rows]
        known = ~np.isnan(training_targets(raw, corpus.schema, np.zeros_like(raw)))
        # The cross-entropy leaves out a row that is not whole, the others an entry.
        useful = known.all(axis=1) if corpus.schema.kind == "multiclass" else known.any(axis=1)
        if not useful.any():
            raise DataError(f"{corpus.name}: none of {len(rows)} training films is annotated")
        self._corpus, self._task, self._seed, self._device = corpus, task, seed, device
        self._views, self._flip, self._ranks = views, flip, ranks
        self._rows, self._raw = rows[useful], raw[useful]
        self.order = Order(count=len(self._rows), batch_size=batch_size, seed=seed)
        self._soft = lru_cache(maxsize=1)(self._uniform)

    def batch(self, step: int) -> tuple[Tensor, Part]:
        """Return views ``(b, C, S, S)`` and targets of global ``step``, which counts from 0.

        They are this rank's; entries are counted over the global batch.
        """
        chosen = self.order.chosen(step)
        mine = self._ranks.mine(len(chosen))
        films = torch.from_numpy(self._corpus.images(self._rows[chosen[mine]])).to(self._device)
        drawn = self.order.views(len(chosen), step, self._views, flip=self._flip)
        student, _ = make_views(films, drawn.of(mine), self._views)
        target = torch.from_numpy(self._target(chosen, step // self.order.steps))
        return student, part(self._task, target, device=self._device, mine=mine)

    def _target(self, chosen: np.ndarray, epoch: int) -> np.ndarray:
        raw, schema = self._raw[chosen], self._corpus.schema
        uniform = self._soft(epoch)[chosen] if schema.uncertain == "soft" else np.zeros_like(raw)
        return training_targets(raw, schema, uniform)

    def _uniform(self, epoch: int) -> np.ndarray:
        shape = self._raw.shape
        uniform: np.ndarray = generator(self._seed, SOFT, epoch).random(shape, dtype=np.float32)
        return uniform
