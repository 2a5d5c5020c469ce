"""In which order films come in training, and how each is viewed: functions of seed and step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ark_framework.config import ViewsConfig
from ark_framework.runtime import generator
from ark_framework.views import Draws, draw

# What a generator is for, beside those of batches.py and scoring.py; never to be renumbered.
ORDER, VIEWS = 21, 22


@dataclass(frozen=True, kw_only=True)
class Order:
    """Each epoch visits every one of ``count`` films once, in batches of nearly equal size.

    Attributes:
        count: Films.
        batch_size: Films in a batch, at most.
        seed: Of order and views.
    """

    count: int
    batch_size: int
    seed: int

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return -(-self.count // self.batch_size)

    @property
    def least(self) -> int:
        """Films in a batch, at least."""
        return self.count // self.steps

    def chosen(self, step: int) -> np.ndarray:
        """Return which of the films global ``step``, counted from 0, is about, ``(b,)`` int64."""
        epoch, place = divmod(step, self.steps)
        # Even shares: no last batch of a single film, which batch norm could not take.
        bounds = self.count * place // self.steps, self.count * (place + 1) // self.steps
        return _permutation(self.seed, epoch, self.count)[slice(*bounds)]

    def views(self, count: int, step: int, config: ViewsConfig, *, flip: float) -> Draws:
        """Draw the views of a step's films; ``flip`` is the chance of a mirror image."""
        rng = generator(self.seed, VIEWS, step)
        drawn = draw(count, config, rng)
        mirrored = rng.random(count) < flip
        geometry = drawn.geometry.copy()
        geometry[mirrored, :, 0] *= -1  # the map from the view's x to the film
        return replace(drawn, geometry=geometry)


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    return generator(seed, ORDER, epoch).permutation(count)
