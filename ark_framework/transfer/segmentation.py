"""Masks as what is learned: the loss, validation and predictions of films with structures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ark_framework import masks as bits
from ark_framework import registry
from ark_framework.corpus import Corpus
from ark_framework.errors import RunError
from ark_framework.overlap import film_dice
from ark_framework.registry import Registry
from ark_framework.runtime import Runtime
from ark_framework.specs import LabelSchema
from ark_framework.transfer.mask_films import MaskFilms, targets
from ark_framework.transfer.protocol import SegmentConfig
from ark_framework.transfer.splits import Split
from ark_framework.transfer.structures import Structures
from ark_framework.transfer.upernet import UperNet
from ark_framework.views import whole

INSIDE = 0.5  # a pixel is in where its probability is at least this, as published


class Segmentation:
    """An :class:`~ark_framework.transfer.training.Objective`; ``network`` is on the device."""

    def __init__(
        self,
        network: UperNet,
        corpus: Corpus,
        split: Split,
        structures: Structures,
        config: SegmentConfig,
        seed: int,
        runtime: Runtime,
        plugins: Registry | None = None,
    ) -> None:
        self.network, self.corpus, self.split = network, corpus, split
        self.structures, self.config, self.runtime = structures, config, runtime
        self.films = MaskFilms(
            corpus,
            split.train,
            structures,
            batch_size=config.batch_size,
            views=config.views,
            flip=config.flip,
            seed=seed,
            device=runtime.device,
            ranks=runtime.ranks,
        )
        self.steps, self.least = self.films.order.steps, self.films.order.least
        schema = LabelSchema(name="structures", kind="mask", labels=structures.names)
        known = plugins or registry.load(())
        self.entries = known.loss(config.loss, kind="mask").build(schema)
        self.drawn = structures.drawn(corpus.table.drawn())
        self.can_validate = bool(self.drawn[split.val].any())
        self.where = f"{corpus.name}, {split.name}"

    def loss(self, step: int) -> Tensor | None:
        """Return this rank's share of the mean loss of a step over its films' drawn structures."""
        views, masks = self.films.batch(step)
        if not len(views):
            return None
        with self.runtime.autocast():
            output = self.network(views)
        entries: Tensor = self.entries(output.float(), masks)
        films, drawn = self.films.counts(step)
        return entries.sum() / (max(drawn, 1) if entries.ndim == 2 else films)

    def validate(self) -> tuple[float, float | None]:
        """Return the mean loss over drawn structures, and their mean Dice, film by film."""
        total, count, scores = 0.0, 0, []
        for rows, output in self._outputs(self.split.val):
            true, drawn = self._truth(rows)
            masks = targets(torch.from_numpy(true), torch.from_numpy(drawn))
            total += float(self.entries(output, masks).sum())
            count += int(drawn.sum())
            found = (output.sigmoid() >= INSIDE).numpy()
            scores.append(film_dice(found, true, drawn))
        by_structure = [each[np.isfinite(each)] for each in np.concatenate(scores).T]
        known = [float(each.mean()) for each in by_structure if len(each)]
        return total / max(count, 1), float(np.mean(known)) if known else None

    def predict(self) -> np.ndarray:
        """Return the masks of the test films, ``(n, B, S, S)`` uint8, a bit a structure."""
        found = []
        for _, output in self._outputs(self.split.test):
            if not bool(output.isfinite().all()):
                raise RunError("the masks are not finite after training; lower optim.lr")
            found.append(bits.pack((output.sigmoid() >= INSIDE).numpy()))
        return np.concatenate(found)

    def _outputs(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield rows and their logits ``(b, J, S, S)`` float32 on the CPU, of whole films."""
        self.network.eval()
        for start in range(0, len(rows), self.config.batch_size):
            some = rows[start : start + self.config.batch_size]
            films = torch.from_numpy(self.corpus.images(some)).to(self.runtime.device)
            with torch.no_grad(), self.runtime.autocast():
                output = self.network(whole(films, self.config.views.size))
            yield some, output.float().cpu()

    def _truth(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.structures.of(self.corpus.masks(rows)), self.drawn[rows]


def fewer(corpus: Corpus, split: Split, structures: Structures, count: int, *, seed: int) -> Split:
    """Return a split that trains on ``count`` films alone and validates on none.

    Patients are drawn by ``seed``; what a smaller count draws is in what a larger one draws.
    """
    drawn = structures.drawn(corpus.table.drawn()[split.train])
    rows = split.train[drawn.any(axis=1)]
    patients = corpus.table.groups()[rows]
    order = np.random.default_rng([seed, 0xF1]).permutation(np.unique(patients))
    place = np.argsort(order)[np.searchsorted(np.sort(order), patients)]
    chosen = rows[np.argsort(place, kind="stable")[:count]]
    return Split(name=split.name, train=np.sort(chosen), val=split.val[:0], test=split.test)
