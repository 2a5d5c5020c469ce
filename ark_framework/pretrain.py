"""Cyclic pretraining: the paper's algorithm, readable beside its Figure 1.

    for each cycle
        for each task
            for each batch
                the student learns the task, and to agree with the teacher's projection
            the teacher follows the student

Figure 1's boxes: encoder, projector and multi-task heads are :mod:`ark_framework.model`; the
EMA arrow is :mod:`ark_framework.teacher`; the two views come from :mod:`ark_framework.views`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ark_framework.badsteps import BadSteps
from ark_framework.batches import Batches
from ark_framework.config import OptimConfig
from ark_framework.errors import RunError
from ark_framework.events import StepRecord
from ark_framework.model import ArkModel, FilmEncoder, trainable
from ark_framework.plan import RunPlan, Visit
from ark_framework.runtime import Runtime
from ark_framework.teacher import Teacher
from ark_framework.views import Part, Views

TensorLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What is minimized: one loss per task, with its weights, and the consistency loss."""

    tasks: Mapping[str, TensorLoss]
    consistency: TensorLoss
    weights: Mapping[str, float] = field(default_factory=dict)
    class_weights: Mapping[str, Tensor] = field(default_factory=dict)

    def of_part(self, logits: Tensor, part: Part) -> Tensor:
        """Return the mean loss of a part over its annotated entries, times the task's weight."""
        loss = self.tasks[part.task](logits, part.target)
        annotated = part.annotated if loss.ndim == 2 else part.annotated_rows
        weights = self.class_weights.get(part.task)
        if weights is not None:
            positive = part.target.nan_to_num()
            emphasis = 1.0 + positive * (weights - 1.0)
            loss = loss * (emphasis if loss.ndim == 2 else (positive * weights).sum(dim=1))
        return loss.sum() / max(annotated, 1) * self.weights.get(part.task, 1.0)


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Detached device scalars of one step; nobody reads them until the flush."""

    step: int
    cycle: int
    task: str
    images: int
    lr: float
    weight: float
    values: Tensor  # (3,): total, task, consistency
    bad: Tensor  # (): 1 where the loss or a gradient was not finite, else 0


class NotFinite(RunError):
    """More steps were bad than may be skipped; ``step`` is the first that may not."""

    def __init__(self, message: str, *, step: int) -> None:
        super().__init__(message)
        self.step = step


class Watcher(Protocol):
    """What happens around the loop: flushing, scoring, saving.  Each is one call."""

    def stepped(self, state: State, visit: Visit) -> None:
        """Called after each step."""

    def visited(self, state: State, visit: Visit) -> None:
        """Called at the end of a task, after the teacher has followed."""

    def cycled(self, state: State, cycle: int) -> None:
        """Called at the end of a cycle."""


@dataclass(kw_only=True)
class State:
    """Everything that moves: what a checkpoint holds.

    ``visit`` and ``visit_step`` say where the next step is; ``step`` counts all steps taken.
    """

    student: ArkModel
    teacher: Teacher
    optimizer: torch.optim.Optimizer
    bad: BadSteps
    visit: int = 0
    visit_step: int = 0
    step: int = 0
    pending: list[StepResult] = field(default_factory=list)


def make_optimizer(model: FilmEncoder, config: OptimConfig) -> torch.optim.Optimizer:
    """Build the optimizer; weight decay spares vectors (biases and norms).

    Fused on every device: the fused kernels obey ``found_inf``, which gates the update without
    waiting for the device.
    """
    matrices = [each for _, each in trainable(model) if each.ndim > 1]
    vectors = [each for _, each in trainable(model) if each.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
    sgd = torch.optim.SGD(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        fused=True,
    )
    if config.momentum > 0:
        # Fused SGD cannot mix parameters with and without a buffer, and a head's first step comes
        # after others'.  From zero, the first step's buffer is the gradient, as torch makes it.
        for parameter in (*matrices, *vectors):
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def pretrain(
    plan: RunPlan,
    state: State,
    batches: Batches,
    *,
    losses: Losses,
    runtime: Runtime,
    clip: float | None = None,
    watcher: Watcher,
) -> None:
    """Run the plan from where ``state`` stands to its end.

    Raises:
        NotFinite: too many losses or gradients were not; nothing has moved since.
    """
    for cycle in plan.cycles_from(state.visit):
        for visit in plan.visits_of(cycle):
            if visit.index < state.visit:
                continue
            with closing(batches(visit, state.visit_step)) as every:
                for views in every:
                    result = _step(plan, state, visit, views, losses, runtime, clip)
                    if plan.ema == "step":
                        momentum = plan.momentum(state.step)
                        state.teacher.update(state.student, momentum, held=state.bad.held)
                    state.pending.append(result)
                    state.step += 1
                    state.visit_step += 1
                    watcher.stepped(state, visit)
            flush_check(state)
            if plan.ema == "task":
                state.teacher.update(state.student, plan.momentum(visit.index))
            state.visit, state.visit_step = visit.index + 1, 0
            watcher.visited(state, visit)
        watcher.cycled(state, cycle)


def _step(
    plan: RunPlan,
    state: State,
    visit: Visit,
    views: Views,
    losses: Losses,
    runtime: Runtime,
    clip: float | None,
) -> StepResult:
    weight = plan.consistency_weight(plan.update_of(visit, state.step))
    for group in state.optimizer.param_groups:
        group["lr"] = plan.lr(state.step)
    runtime.seed_step(plan.seed, state.step)
    state.bad.begin()
    values = torch.zeros(3, device=runtime.device)
    for piece in views.pieces(runtime.piece):
        values += _learn(state, piece, losses, runtime, weight, tasks=len(views.parts))
    learned = [each for group in state.optimizer.param_groups for each in group["params"]]
    runtime.ranks.add_gradients(learned, values, scarce=views.scarce)
    _move(state, learned, values[0], clip)
    return StepResult(
        step=state.step,
        cycle=visit.cycle,
        task="+".join(plan.task_names(visit)),
        images=views.films,
        lr=state.optimizer.param_groups[0]["lr"],
        weight=weight,
        values=values,
        bad=state.bad.bad,
    )


def _learn(
    state: State, views: Views, losses: Losses, runtime: Runtime, weight: float, *, tasks: int
) -> Tensor:
    """Add the gradients of some films of a batch; return their share of its losses ``(3,)``.

    Sums are divided by the counts of the global batch, so that shares and gradients add up to
    those of the batch whole.
    """
    each, consistency = part_losses(state, views, losses, runtime)
    task_loss = each.sum() / tasks
    total = (1.0 - weight) * task_loss + weight * consistency
    total.backward()  # type: ignore[no-untyped-call]
    return torch.stack([total.detach(), task_loss.detach(), consistency.detach()])


def part_losses(
    state: State, views: Views, losses: Losses, runtime: Runtime
) -> tuple[Tensor, Tensor]:
    """Return the loss of each part ``(P,)`` and the consistency loss ``()`` of some films."""
    with runtime.autocast():
        known = state.teacher.project(views.teacher)
        features = state.student.encode(views.student)
        logits = [state.student.classify(p.task, features, p.films) for p in views.parts]
    pairs = zip(logits, views.parts, strict=True)
    each = torch.stack([losses.of_part(each.float(), p) for each, p in pairs])
    agreed = losses.consistency(features.projected.float(), known.float())
    return each, agreed.sum() / views.films


def _move(state: State, learned: list[nn.Parameter], loss: Tensor, clip: float | None) -> None:
    """Step the optimizer, which moves nothing at a bad step nor after too many of them."""
    norm = torch.nn.utils.get_total_norm([each.grad for each in learned if each.grad is not None])
    state.bad.judge(loss, norm)
    if clip is not None:
        torch.nn.utils.clip_grads_with_norm_(learned, clip, norm)
    state.optimizer.found_inf = state.bad.held  # type: ignore[attr-defined]
    state.optimizer.step()
    # None, not zero: a head that is not in use then stays where it is, momentum included.
    state.optimizer.zero_grad(set_to_none=True)


def flush_check(state: State) -> None:
    """Raise if there were more bad steps than may be skipped.

    Raises:
        NotFinite: naming task, cycle and step of the first that may not.
    """
    count, allowed = int(state.bad.count.item()), state.bad.allowed
    if count <= allowed:
        return
    bad = [result for result in state.pending if bool(result.bad)]
    first = bad[allowed - count + len(bad)]
    what = "a gradient" if bool(first.values[0].isfinite()) else "the loss"
    before = f"after {allowed} skipped steps, " if allowed else ""
    raise NotFinite(
        f"{before}{what} is not finite at step {first.step} (cycle {first.cycle}, task "
        f"{first.task}), and nothing moved at it",
        step=first.step,
    )


def drain(state: State) -> tuple[StepRecord, ...]:
    """Read the pending steps from the device, once, and forget them."""
    if not state.pending:
        return ()
    told = [torch.cat([result.values, result.bad[None]]) for result in state.pending]
    values = torch.stack(told).double().cpu().tolist()
    records = tuple(
        StepRecord(
            step=result.step,
            cycle=result.cycle,
            task=result.task,
            loss=loss,
            task_loss=task,
            consistency_loss=consistency,
            consistency_weight=result.weight,
            lr=result.lr,
            images=result.images,
            skipped=bool(bad),
        )
        for result, (loss, task, consistency, bad) in zip(state.pending, values, strict=True)
    )
    state.pending.clear()
    return records
