"""Labels as what is learned: losses, validation and predictions of films with answers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ark_framework import metrics, registry
from ark_framework.config import LossesConfig
from ark_framework.corpus import Corpus, scored_targets
from ark_framework.model import ArkModel
from ark_framework.pretrain import Losses
from ark_framework.runtime import Runtime
from ark_framework.specs import LabelSchema
from ark_framework.transfer.candidate import TASK
from ark_framework.transfer.protocol import FinetuneConfig
from ark_framework.transfer.splits import Split
from ark_framework.transfer.tencrop import logits, probabilities
from ark_framework.transfer.training_films import TrainingFilms
from ark_framework.views import part


class Classification:
    """An :class:`~ark_framework.transfer.training.Objective`; ``model`` is on the device."""

    def __init__(
        self,
        model: ArkModel,
        corpus: Corpus,
        split: Split,
        config: FinetuneConfig,
        seed: int,
        runtime: Runtime,
    ) -> None:
        self.model, self.corpus, self.split = model, corpus, split
        self.config, self.runtime = config, runtime
        self.films = TrainingFilms(
            corpus,
            split.train,
            task=TASK,
            batch_size=config.batch_size,
            views=config.views,
            flip=config.flip,
            seed=seed,
            device=runtime.device,
            ranks=runtime.ranks,
        )
        self.steps, self.least = self.films.order.steps, self.films.order.least
        self.losses = _losses(corpus.schema)
        self.targets = _validation_targets(corpus, split.val)
        known = ~np.isnan(self.targets)
        exclusive = corpus.schema.kind == "multiclass"
        self.can_validate = bool((known.all(axis=1) if exclusive else known).any())
        self.where = f"{corpus.name}, {split.name}"

    def loss(self, step: int) -> Tensor | None:
        """Return this rank's share of the mean loss of a step over its annotated entries."""
        views, films = self.films.batch(step)
        if not len(views):
            return None
        with self.runtime.autocast():
            output = self.model(views, TASK)
        return self.losses.of_part(output.float(), films)

    def validate(self) -> tuple[float, float | None]:
        """Return the loss per annotated entry, and the mean AUROC of scored labels."""
        output = self._logits(self.split.val, tencrop=False)
        loss = float(self.losses.of_part(output[0], part(TASK, torch.from_numpy(self.targets))))
        schema = self.corpus.schema
        by_label = metrics.auroc(probabilities(output, schema.kind), self.targets)
        scored = [schema.labels.index(label) for label in schema.scored]
        mean, count = metrics.macro(by_label[scored])
        return loss, mean if count else None

    def predict(self) -> np.ndarray:
        """Return probabilities of the test films, ``(n, C)`` float64."""
        output = self._logits(self.split.test, tencrop=self.config.tencrop)
        return probabilities(output, self.corpus.schema.kind)

    def _logits(self, rows: np.ndarray, *, tencrop: bool) -> Tensor:
        return logits(
            self.model,
            TASK,
            self.corpus,
            rows,
            size=self.config.views.size,
            tencrop=tencrop,
            batch_size=self.config.batch_size,
            runtime=self.runtime,
        )


def _losses(schema: LabelSchema) -> Losses:
    known = registry.load(())
    name = {"multilabel": LossesConfig().multilabel, "multiclass": LossesConfig().multiclass}
    loss = known.loss(name[schema.kind], kind=schema.kind)
    unused = known.loss("mse", kind="consistency")
    return Losses(tasks={TASK: loss.build(schema)}, consistency=unused.build(None))


def _validation_targets(corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    """Return ``(n, C)``; NaN where not annotated, and where uncertain: neither is scored."""
    targets = scored_targets(corpus.table.targets()[rows], corpus.schema)
    return np.where(targets == -1, np.float32(np.nan), targets)
