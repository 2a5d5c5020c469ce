"""The loop of fine-tuning, from its first or resumed step to its predictions of the test films.

What is learned is an :class:`Objective`: labels in ``classification``, masks in ``segmentation``.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ark_framework.checkpoint import restore_optimizer
from ark_framework.corpus import Corpus
from ark_framework.durations import left
from ark_framework.errors import CheckpointError, Interrupted, RunError
from ark_framework.model import FilmEncoder, trainable
from ark_framework.runtime import Runtime
from ark_framework.schedule import LearningRate
from ark_framework.tensors import must_fit
from ark_framework.transfer.layers import layered_optimizer
from ark_framework.transfer.protocol import TuningConfig
from ark_framework.transfer.splits import Split
from ark_framework.transfer.workfolder import LAST, WorkFolder

# Seconds between lines that say how far a training has come.
QUIET = 20.0
# Of the time, at most; a model of few films and large weights would else mostly save.
SAVING = 0.1


@dataclass(frozen=True, kw_only=True)
class Validation:
    """After an epoch (from 1): the loss, and a score that people know; only ``loss`` ever chooses.

    ``score`` is the mean AUROC of scored labels, or the mean Dice of structures; ``None`` where
    there is none.
    """

    epoch: int
    loss: float
    score: float | None


@dataclass(frozen=True, kw_only=True)
class Course:
    """How a training went.

    Attributes:
        val_curve: By epoch; empty where validation decides nothing.
        best_epoch: The epoch (from 1) after which the weights were taken.
        epochs: That were begun.
        steps: That were taken.
        seconds: Of training and validation, interruptions not counted.
    """

    val_curve: tuple[Validation, ...]
    best_epoch: int
    epochs: int
    steps: int
    seconds: float


def course(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the fields of a :class:`Course` from what a work folder keeps.

    Raises:
        CheckpointError: some are missing.
    """
    try:
        curve = tuple(Validation(**each) for each in values["val_curve"])
        return asdict(Course(**{**values, "val_curve": ()})) | {"val_curve": curve}
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} is damaged; delete it to train again") from error


class Objective(Protocol):
    """What is learned from which films; the loop knows nothing else of them.

    Attributes:
        steps: In an epoch.
        least: Films of a step's batch, at least.
        can_validate: Whether there is a film to validate on.
        where: Dataset and split, for people.
    """

    steps: int
    least: int
    can_validate: bool
    where: str

    def loss(self, step: int) -> Tensor | None:
        """Return this rank's share of the loss of a step, counted from 0, attached to the graph.

        ``None`` where it has none of the step's films.
        """
        ...

    def validate(self) -> tuple[float, float | None]:
        """Return the loss and the score of the validation films; the model is left in eval."""
        ...

    def predict(self) -> np.ndarray:
        """Return the predictions of the test films; the model is left in eval."""
        ...


def asked(
    model: FilmEncoder,
    corpus: Corpus,
    split: Split,
    config: TuningConfig,
    seed: int,
    runtime: Runtime,
) -> dict[str, Any]:
    """Return all that a result depends on: films, weights and targets as digests."""
    weights, data = hashlib.sha256(), hashlib.sha256(corpus.store.fingerprint.encode())
    for name, tensor in model.state_dict().items():
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    for rows in (split.train, split.val, split.test):
        data.update(f"{len(rows)}".encode() + corpus.index[rows].tobytes())
    labels = corpus.table.frame[list(corpus.schema.labels)].to_numpy(dtype=np.float32)
    for rows in (split.train, split.val):  # test labels have no part in it
        data.update(labels[rows].tobytes())
    return {
        **config.model_dump(mode="json"),
        "seed": seed,
        "precision": runtime.precision,
        "films or labels": data.hexdigest()[:16],
        "initial weights": weights.hexdigest()[:16],
    }


class Training:
    """One training of a model, already on its device, from its first step to its result."""

    def __init__(
        self,
        model: FilmEncoder,
        objective: Objective,
        config: TuningConfig,
        seed: int,
        runtime: Runtime,
        work: WorkFolder,
        say: Callable[[str], None],
    ) -> None:
        self.model, self.objective = model, objective
        if config.freeze == "backbone":
            self.model.backbone.requires_grad_(requires_grad=False)
        self.config, self.seed, self.work, self.say = config, seed, work, say
        self.runtime, self.ranks = runtime, runtime.ranks
        runtime.share_batch_norm(model, say)
        self.trained = [each for _, each in trainable(model)]
        self.total = config.steps or config.epochs * objective.steps
        self.rate = _rate(config, self.total)
        self.optimizer = layered_optimizer(self.model, config.optim, config.layer_decay)
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
        self.clock = self.saved = self.spoke = perf_counter()
        self.began = self.step
        while not self._ended():
            self._step()
            self._tell()
            whole = self.step % self.objective.steps == 0 or self.step == self.total
            asked = self.ranks.any([stop.is_set()])[0]
            if whole or asked:
                self._must_be_finite()
            if whole and self.validates:
                self._validate()
            stopping = asked and not self._ended()
            if stopping or (whole and self._due()):
                self._save()
            if stopping:
                self.ranks.wait()  # whoever ends first would end the one that saves
                raise Interrupted(
                    f"{self.work.path}: stopped at step {self.step} of {self.total}; "
                    "the same command goes on from there"
                )
        return self._finish()

    def _tell(self) -> None:
        now = perf_counter()
        if now - self.spoke < QUIET:
            return
        self.spoke = now
        remains = left(self.step - self.began, self.total - self.began, seconds=now - self.clock)
        self.say(f"{self.objective.where}: step {self.step} of at most {self.total}{remains}")

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
        self.runtime.seed_step(self.seed, self.step)
        value = torch.zeros((), device=self.bad.device)
        if (loss := self.objective.loss(self.step)) is not None:
            loss.backward()  # type: ignore[no-untyped-call]
            value += loss.detach()
        scarce = self.objective.least < self.ranks.world
        self.ranks.add_gradients(self.trained, value, scarce=scarce)
        self._move(value)
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
            epoch = int(first) // self.objective.steps + 1
            raise RunError(
                f"the loss is not finite in epoch {epoch}, at step {int(first) + 1} of "
                f"{self.total}; nothing moved after it; lower optim.lr or set optim.clip"
            )

    def _must_validate(self) -> bool:
        if self.config.select == "last" and not self.config.patience:
            return False
        if self.objective.can_validate:
            return True
        self.say(
            f"{self.objective.where}: no validation films; "
            "no early stopping, and the last weights are taken"
        )
        return False

    def _validate(self) -> None:
        # What chooses is the first rank's, so that all choose alike.
        loss, score = json.loads(self.ranks.tell(json.dumps(self.objective.validate())))
        epoch = len(self.curve) + 1
        if not math.isfinite(loss):
            raise RunError(
                f"the validation loss is not finite after epoch {epoch}; "
                "lower optim.lr or set optim.clip"
            )
        self.curve.append(Validation(epoch=epoch, loss=loss, score=score))
        if self.config.select == "val" and self._lowest().epoch == epoch:
            state = self.model.state_dict()
            self.best = {name: each.detach().clone() for name, each in state.items()}

    def _due(self) -> bool:
        return not self._ended() and (perf_counter() - self.saved) * SAVING >= self.saving

    def _save(self) -> None:
        if not self.ranks.first:
            return
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
        path, own = self.work.path / LAST, self.model.state_dict()
        try:
            for weights in (state["model"], state["best"] or state["model"]):
                must_fit(own, weights, path)
            self.model.load_state_dict(state["model"])
            restore_optimizer(self.optimizer, state["optimizer"], path)
            self.best = state["best"]
            self.curve = [Validation(**each) for each in state["curve"]]
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged; delete it to begin anew") from error
        self.say(f"{self.work.path}: going on at step {self.step} of {self.total}")

    def _finish(self) -> tuple[dict[str, Any], np.ndarray]:
        self._tick()
        epochs = -(-self.step // self.objective.steps)
        if self.best is not None:
            self.model.load_state_dict(self.best)
        predicted = self.objective.predict()
        if not np.isfinite(predicted).all():
            raise RunError(f"predictions are not finite after step {self.step}; lower optim.lr")
        values = {
            "val_curve": [asdict(each) for each in self.curve],
            "best_epoch": self._lowest().epoch if self.best is not None else epochs,
            "epochs": epochs,
            "steps": self.step,
            "seconds": self.seconds,
        }
        if self.ranks.first:
            weights = self.model.state_dict() if self.config.keep else None
            self.work.finish(values, predicted, weights)
        return values, predicted

    def _tick(self) -> float:
        now = perf_counter()
        self.seconds, self.clock = self.seconds + now - self.clock, now
        return now


def _rate(config: TuningConfig, total: int) -> LearningRate:
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
