"""The loop of fine-tuning, from its first or resumed step to its predictions of the test films."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ark_framework import metrics, registry
from ark_framework.config import LossesConfig
from ark_framework.corpus import Corpus, scored_targets
from ark_framework.errors import Interrupted, RunError
from ark_framework.model import ArkModel
from ark_framework.pretrain import Losses
from ark_framework.runtime import Runtime, seed_step
from ark_framework.schedule import LearningRate
from ark_framework.specs import LabelSchema
from ark_framework.transfer.candidate import TASK
from ark_framework.transfer.layers import layered_optimizer
from ark_framework.transfer.protocol import FinetuneConfig
from ark_framework.transfer.splits import Split
from ark_framework.transfer.tencrop import logits, probabilities
from ark_framework.transfer.training_films import TrainingFilms
from ark_framework.transfer.workfolder import WorkFolder
from ark_framework.views import part

# Of the time, at most; a model of few films and large weights would else mostly save.
SAVING = 0.1


@dataclass(frozen=True, kw_only=True)
class Validation:
    """After an epoch (from 1): loss per annotated entry, and the mean AUROC of scored labels.

    ``auroc`` is ``None`` where no label has both classes; only ``loss`` ever chooses.
    """

    epoch: int
    loss: float
    auroc: float | None


class Training:
    """One training from its first or resumed step to its result."""

    def __init__(
        self,
        model: ArkModel,
        corpus: Corpus,
        split: Split,
        config: FinetuneConfig,
        seed: int,
        runtime: Runtime,
        work: WorkFolder,
        say: Callable[[str], None],
    ) -> None:
        self.model = model.to(runtime.device)
        if config.freeze == "backbone":
            self.model.backbone.requires_grad_(requires_grad=False)
        self.corpus, self.split, self.config, self.seed = corpus, split, config, seed
        self.runtime, self.work, self.say = runtime, work, say
        self.films = TrainingFilms(
            corpus,
            split.train,
            task=TASK,
            batch_size=config.batch_size,
            views=config.views,
            flip=config.flip,
            seed=seed,
            device=runtime.device,
        )
        self.total = config.steps or config.epochs * self.films.steps
        self.rate = _rate(config, self.total)
        self.losses = _losses(corpus.schema)
        self.optimizer = layered_optimizer(self.model, config.optim, config.layer_decay)
        self.targets = _validation_targets(corpus, split.val)
        self.validates = self._must_validate()
        self.step, self.seconds = 0, 0.0
        self.curve: list[Validation] = []
        self.best: dict[str, Tensor] | None = None
        # The first step with a loss that is not finite; stays on the device until an epoch ends.
        self.bad = torch.full((), math.inf, device=runtime.device)
        self.saving = self.saved = 0.0

    def run(self, stop: threading.Event) -> tuple[dict[str, Any], np.ndarray]:
        """Train, then predict; return what the folder keeps.  Raises as ``finetune`` does."""
        self._resume()
        self.clock = self.saved = perf_counter()
        while not self._ended():
            self._step()
            whole = self.step % self.films.steps == 0 or self.step == self.total
            asked = stop.is_set()
            if whole or asked:
                self._must_be_finite()
            if whole and self.validates:
                self._validate()
            stopping = asked and not self._ended()
            if stopping or (whole and self._due()):
                self._save()
            if stopping:
                raise Interrupted(
                    f"{self.work.path}: stopped at step {self.step} of {self.total}; "
                    "the same command goes on from there"
                )
        return self._finish()

    def _ended(self) -> bool:
        patience = self.config.patience
        waited = len(self.curve) - self._lowest().epoch if self.curve else 0
        return self.step >= self.total or (patience > 0 and waited >= patience)

    def _lowest(self) -> Validation:
        return min(self.curve, key=lambda each: each.loss)

    def _step(self) -> None:
        rate = self.rate.value(step=self.step, cycle=0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        self.model.train()
        if self.config.freeze == "backbone":
            self.model.backbone.eval()
        seed_step(self.seed, self.step)
        views, films = self.films.batch(self.step)
        with self.runtime.autocast():
            output = self.model(views, TASK)
        loss = self.losses.of_part(output.float(), films)
        loss.backward()  # type: ignore[no-untyped-call]
        self._move(loss.detach())
        self.step += 1

    def _move(self, loss: Tensor) -> None:
        """Step the optimizer unless a loss was not finite, now or before."""
        here = torch.where(loss.isfinite(), math.inf, float(self.step))
        self.bad = torch.minimum(self.bad, here)
        if self.config.optim.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optim.clip)
        self.optimizer.found_inf = self.bad.isfinite().float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _must_be_finite(self) -> None:
        first = float(self.bad)
        if math.isfinite(first):
            epoch = int(first) // self.films.steps + 1
            raise RunError(
                f"the loss is not finite in epoch {epoch}, at step {int(first) + 1} of "
                f"{self.total}; nothing moved after it; lower optim.lr or set optim.clip"
            )

    def _must_validate(self) -> bool:
        if self.config.select == "last" and not self.config.patience:
            return False
        exclusive = self.corpus.schema.kind == "multiclass"
        known = ~np.isnan(self.targets)
        if (known.all(axis=1) if exclusive else known).any():
            return True
        self.say(
            f"{self.corpus.name}, {self.split.name}: no validation films; "
            "no early stopping, and the last weights are taken"
        )
        return False

    def _validate(self) -> None:
        output = self._logits(self.split.val, tencrop=False)
        loss = float(self.losses.of_part(output[0], part(TASK, torch.from_numpy(self.targets))))
        epoch = len(self.curve) + 1
        if not math.isfinite(loss):
            raise RunError(
                f"the validation loss is not finite after epoch {epoch}; "
                "lower optim.lr or set optim.clip"
            )
        schema = self.corpus.schema
        by_label = metrics.auroc(probabilities(output, schema.kind), self.targets)
        scored = [schema.labels.index(label) for label in schema.scored]
        mean, count = metrics.macro(by_label[scored])
        self.curve.append(Validation(epoch=epoch, loss=loss, auroc=mean if count else None))
        if self.config.select == "val" and self._lowest().epoch == epoch:
            state = self.model.state_dict()
            self.best = {name: each.detach().clone() for name, each in state.items()}

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

    def _due(self) -> bool:
        return not self._ended() and (perf_counter() - self.saved) * SAVING >= self.saving

    def _save(self) -> None:
        began = self._tick()
        self.work.save(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "best": self.best,
                "curve": [asdict(each) for each in self.curve],
                "step": self.step,
                "seconds": self.seconds,
            }
        )
        self.saved = perf_counter()
        self.saving = self.saved - began

    def _resume(self) -> None:
        state = self.work.load()
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best = state["best"]
        self.curve = [Validation(**each) for each in state["curve"]]
        self.step, self.seconds = state["step"], state["seconds"]
        self.say(f"{self.work.path}: going on at step {self.step} of {self.total}")

    def _finish(self) -> tuple[dict[str, Any], np.ndarray]:
        self._tick()
        epochs = -(-self.step // self.films.steps)
        if self.best is not None:
            self.model.load_state_dict(self.best)
        output = self._logits(self.split.test, tencrop=self.config.tencrop)
        predicted = probabilities(output, self.corpus.schema.kind)
        if not np.isfinite(predicted).all():
            raise RunError(f"predictions are not finite after step {self.step}; lower optim.lr")
        values = {
            "val_curve": [asdict(each) for each in self.curve],
            "best_epoch": self._lowest().epoch if self.best is not None else epochs,
            "epochs": epochs,
            "steps": self.step,
            "seconds": self.seconds,
        }
        self.work.finish(values, predicted, self.model.state_dict() if self.config.keep else None)
        return values, predicted

    def _tick(self) -> float:
        now = perf_counter()
        self.seconds, self.clock = self.seconds + now - self.clock, now
        return now


def _rate(config: FinetuneConfig, total: int) -> LearningRate:
    peak, warmup = config.optim.lr, config.warmup * total
    return LearningRate(
        kind=config.schedule,
        unit="step",
        peak=peak,
        start=peak / max(warmup, 1.0),
        end=0.0,
        warmup=warmup,
        length=float(total),
        prefix=True,
        first_cycle=None,
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
