"""Batches of training films with their targets, as a function of seed and step alone."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ark_framework.config import ViewsConfig
from ark_framework.corpus import Corpus, training_targets
from ark_framework.errors import DataError
from ark_framework.runtime import generator
from ark_framework.views import Draws, Part, draw, make_views, part

# What a generator is for, beside those of batches.py and scoring.py; never to be renumbered.
ORDER, VIEWS, SOFT = 21, 22, 23


class TrainingFilms:
    """Each epoch visits every annotated film once, in batches of nearly equal size.

    Args:
        corpus: Whose films they are.
        rows: Table rows to train on, ``(n,)``; those without an annotation are left out.
        task: Name of the head that they train.
        batch_size: Films in a batch, at most.
        views: How the views are drawn.
        flip: Chance that a view is mirrored left to right.
        seed: Of order, views and soft labels.
        device: Where views and targets go.

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
    ) -> None:
        raw = corpus.table.targets()[rows]
        known = ~np.isnan(training_targets(raw, corpus.schema, np.zeros_like(raw)))
        # The cross-entropy leaves out a row that is not whole, the others an entry.
        useful = known.all(axis=1) if corpus.schema.kind == "multiclass" else known.any(axis=1)
        if not useful.any():
            raise DataError(f"{corpus.name}: none of {len(rows)} training films is annotated")
        self._corpus, self._task, self._seed, self._device = corpus, task, seed, device
        self._views, self._flip = views, flip
        self._rows, self._raw = rows[useful], raw[useful]
        self.steps = -(-len(self._rows) // batch_size)  # in an epoch
        self._order = lru_cache(maxsize=1)(self._permutation)
        self._soft = lru_cache(maxsize=1)(self._uniform)

    def batch(self, step: int) -> tuple[Tensor, Part]:
        """Return views ``(b, C, S, S)`` and targets of global ``step``, which counts from 0."""
        epoch, place = divmod(step, self.steps)
        count = len(self._rows)
        # Even shares: no last batch of a single film, which batch norm could not take.
        bounds = count * place // self.steps, count * (place + 1) // self.steps
        chosen = self._order(epoch)[slice(*bounds)]
        films = torch.from_numpy(self._corpus.images(self._rows[chosen])).to(self._device)
        student, _ = make_views(films, self._draw(len(chosen), step), self._views)
        target = torch.from_numpy(self._target(chosen, epoch))
        return student, part(self._task, target, device=self._device)

    def _draw(self, count: int, step: int) -> Draws:
        rng = generator(self._seed, VIEWS, step)
        drawn = draw(count, self._views, rng)
        mirrored = rng.random(count) < self._flip
        geometry = drawn.geometry.copy()
        geometry[mirrored, :, 0] *= -1  # the map from the view's x to the film
        return replace(drawn, geometry=geometry)

    def _target(self, chosen: np.ndarray, epoch: int) -> np.ndarray:
        raw, schema = self._raw[chosen], self._corpus.schema
        uniform = self._soft(epoch)[chosen] if schema.uncertain == "soft" else np.zeros_like(raw)
        return training_targets(raw, schema, uniform)

    def _permutation(self, epoch: int) -> np.ndarray:
        return generator(self._seed, ORDER, epoch).permutation(len(self._rows))

    def _uniform(self, epoch: int) -> np.ndarray:
        shape = self._raw.shape
        uniform: np.ndarray = generator(self._seed, SOFT, epoch).random(shape, dtype=np.float32)
        return uniform
