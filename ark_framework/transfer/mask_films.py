"""Batches of training films with their masks, under one geometry, by seed and step alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ark_framework.config import ViewsConfig
from ark_framework.corpus import Corpus
from ark_framework.errors import DataError
from ark_framework.ranks import SINGLE, Ranks
from ark_framework.transfer.order import Order
from ark_framework.transfer.structures import Structures
from ark_framework.views import Draws, grid, make_views


class MaskFilms:
    """Views and masks of the films on which a structure is drawn, step by step.

    Args:
        corpus: Whose films they are.
        rows: Table rows to train on, ``(n,)``; those without any drawn structure are left out.
        structures: Which masks.
        batch_size: Films in a batch, at most.
        views: How the views are drawn; a film's masks share its geometry and nothing else.
        flip: Chance that both are mirrored left to right.
        seed: Of order and views.
        device: Where they go.
        ranks: Of which this one gets its films of each batch.

    Raises:
        DataError: fewer than two films, which the decoder's batch norm cannot take.
    """

    def __init__(
        self,
        corpus: Corpus,
        rows: np.ndarray,
        structures: Structures,
        *,
        batch_size: int,
        views: ViewsConfig,
        flip: float,
        seed: int,
        device: torch.device,
        ranks: Ranks = SINGLE,
    ) -> None:
        drawn = structures.drawn(corpus.table.drawn()[rows])
        useful = drawn.any(axis=1)
        if useful.sum() < 2:
            raise DataError(
                f"{corpus.name}: {useful.sum()} training films with masks; at least 2 are needed"
            )
        self._corpus, self._structures, self._device = corpus, structures, device
        self._views, self._flip, self._ranks = views, flip, ranks
        self._rows, self._drawn = rows[useful], drawn[useful]
        self.order = Order(
            count=len(self._rows), batch_size=_least(len(self._rows), batch_size), seed=seed
        )

    def counts(self, step: int) -> tuple[int, int]:
        """Return the films of a step's global batch, and the structures drawn on them."""
        chosen = self.order.chosen(step)
        return len(chosen), int(self._drawn[chosen].sum())

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return views ``(b, C, S, S)`` and masks ``(b, J, S, S)``, NaN where not drawn.

        They are this rank's.
        """
        every = self.order.chosen(step)
        mine = self._ranks.mine(len(every))
        chosen = every[mine]
        rows = self._rows[chosen]
        films = torch.from_numpy(self._corpus.images(rows)).to(self._device)
        masks = torch.from_numpy(self._structures.of(self._corpus.masks(rows))).to(self._device)
        drawn = torch.from_numpy(self._drawn[chosen]).to(self._device)
        draws = self.order.views(len(every), step, self._views, flip=self._flip).of(mine)
        view, _ = make_views(films, draws, self._views)
        return view, targets(sample(masks, draws, self._views.size), drawn)


def _least(count: int, batch_size: int) -> int:
    """Return a batch size, the next larger one that leaves no film of ``count`` alone."""
    while count // -(-count // batch_size) < 2:
        batch_size += 1
    return batch_size


def sample(masks: Tensor, draws: Draws, size: int) -> Tensor:
    """Sample masks ``(b, J, S, S)`` bool as their films' views are: ``(b, J, size, size)`` bool.

    A pixel is in where at least half of what is sampled there is.
    """
    where = grid(torch.from_numpy(draws.geometry).to(masks.device), size)
    soft = functional.grid_sample(
        masks.float(), where, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return soft >= 0.5


def targets(masks: Tensor, drawn: Tensor) -> Tensor:
    """Return masks as floats, NaN throughout where a structure is not drawn on a film."""
    return masks.float().masked_fill(~drawn[:, :, None, None], torch.nan)
