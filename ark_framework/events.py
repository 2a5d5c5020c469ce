"""The frozen data that observers are given.

Everything here is plain Python: no tensors, so an observer can never hold the device back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One training step as it was applied.

    ``step`` counts from 0 over the whole run; ``loss`` is the weighted total, ``task_loss`` and
    ``consistency_loss`` its unweighted parts; ``lr`` is read back from the optimizer.  Nothing
    moved at a ``skipped`` one: its loss, or a gradient, was not finite.
    """

    step: int
    cycle: int
    task: str
    loss: float
    task_loss: float
    consistency_loss: float
    consistency_weight: float
    lr: float
    images: int
    skipped: bool = False


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """How one model does on one task: macro AUROC over scorable labels, and each label's."""

    task: str
    model: str
    split: str
    auroc: float
    labels: Mapping[str, float]
    images: int


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """Best validation AUROC so far minus now, for one task after a visit to another."""

    task: str
    model: str
    best: float
    now: float


@dataclass(frozen=True, kw_only=True)
class RunStarted:
    """A run begins or goes on; ``step`` is the first step it will take, ``total_steps`` the end."""

    folder: Path
    step: int
    total_steps: int
    plan: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class StepsFlushed:
    """The steps since the last flush, and how fast they went (seconds and images).

    ``wait_seconds`` of the seconds the loop waited for batches.  ``memory`` is the process's own,
    in bytes, without mapped films.  On a GPU ``device_memory`` is the most that tensors took so
    far, and ``matmul_share`` the steps' FLOP/s over the matmul rate measured at the start.
    """

    steps: tuple[StepRecord, ...]
    seconds: float
    wait_seconds: float
    memory: int = 0
    device_memory: int | None = None
    matmul_share: float | None = None


@dataclass(frozen=True, kw_only=True)
class TaskFinished:
    """One visit to a task ended and the teacher followed with ``momentum``.

    ``scores`` and ``forgetting`` are empty except in cycles that measure them.
    """

    step: int
    cycle: int
    task: str
    momentum: float
    scores: tuple[TaskScore, ...] = ()
    forgetting: tuple[Forgetting, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CycleFinished:
    """One cycle ended; ``scores`` are on validation and empty in cycles that do not score."""

    step: int
    cycle: int
    scores: tuple[TaskScore, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunFinished:
    """The run ended; ``scores`` are on test, taken once."""

    step: int
    status: str
    scores: tuple[TaskScore, ...] = ()
