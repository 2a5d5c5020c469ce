"""One run from its first (or resumed) step to its end: all that the loop leaves to others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from ark_framework import checkpoint, observers
from ark_framework.batches import StoreBatches
from ark_framework.errors import ArkError, Interrupted
from ark_framework.events import (
    CycleFinished,
    Forgetting,
    RunFinished,
    RunStarted,
    StepsFlushed,
    TaskFinished,
    TaskScore,
)
from ark_framework.interruption import stoppable
from ark_framework.metrics import forgetting
from ark_framework.model import ArkModel
from ark_framework.plan import Visit
from ark_framework.preparation import Prepared, build_student, make_losses
from ark_framework.pretrain import State, drain, flush_check, make_optimizer, pretrain
from ark_framework.run import RunFolder
from ark_framework.runtime import open_runtime
from ark_framework.scoring import Scorer
from ark_framework.teacher import Teacher


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a finished run gives: its folder and its test scores."""

    folder: Path
    scores: tuple[TaskScore, ...]
    prepared: Prepared


@dataclass
class Session:
    """One run from its first (or resumed) step to its end; the loop's watcher."""

    prepared: Prepared
    folder: RunFolder
    say: Callable[[str], None]
    best: dict[str, dict[str, float]] = field(default_factory=dict)
    best_mean: float = -1.0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, *, resume: bool, init_from: Path | None, watching: Sequence[object]) -> RunResult:
        """Train from the first or the last saved step to the end, then test once."""
        config, plan = self.prepared.config, self.prepared.plan
        self.runtime = open_runtime(config.runtime)
        self.scorer = Scorer(
            plan=plan,
            corpora=self.prepared.corpora,
            train_rows=self.prepared.rows,
            config=config,
            runtime=self.runtime,
        )
        state = self._start(init_from)
        offset = self._resume(state) if resume else 0
        with ExitStack() as files:
            self._observe(state, offset, watching, files)
            return self._train(state)

    def _train(self, state: State) -> RunResult:
        config, plan = self.prepared.config, self.prepared.plan
        self.batches = StoreBatches(
            plan,
            self.prepared.corpora,
            rows=self.prepared.rows,
            config=config,
            runtime=self.runtime,
        )
        self._notify(
            "ark_run_started",
            RunStarted(
                folder=self.folder.path,
                step=state.step,
                total_steps=plan.total_steps,
                plan=plan.to_json(),
            ),
        )
        self.clock, self.saved = perf_counter(), state.step
        try:
            with stoppable(self.stop):
                pretrain(
                    plan,
                    state,
                    self.batches,
                    losses=make_losses(self.prepared, self.runtime.device),
                    runtime=self.runtime,
                    clip=config.optim.clip,
                    watcher=self,
                )
        except Interrupted:
            self.folder.status("interrupted", step=state.step)
            raise
        except ArkError as error:
            self._notify("ark_run_finished", RunFinished(step=state.step, status="failed"))
            self.folder.status("failed", step=state.step, error=str(error))
            raise
        return self._finish(state)

    def _start(self, init_from: Path | None) -> State:
        student = build_student(self.prepared).to(self.runtime.device)
        if init_from is not None:
            content = checkpoint.load(init_from)
            moved = checkpoint.transfer(
                student,
                content["teacher"],
                path=init_from,
                labels={task.name: task.labels for task in self.prepared.plan.tasks},
                theirs={task["name"]: task["labels"] for task in content["meta"]["tasks"]},
            )
            self.say(
                f"weights from {init_from}: heads kept {_listed(moved.kept)}, "
                f"added {_listed(moved.added)}, dropped {_listed(moved.dropped)}"
            )
        student.train()
        return State(
            student=student,
            teacher=Teacher(self._first_teacher(student)),
            optimizer=make_optimizer(student, self.prepared.config.optim),
            broken=torch.zeros((), device=self.runtime.device),
        )

    def _first_teacher(self, student: ArkModel) -> ArkModel:
        if self.prepared.config.teacher.start == "copy":
            return student
        return build_student(self.prepared, draw=1).to(self.runtime.device)

    def _resume(self, state: State) -> int:
        if not self.folder.last.is_file():
            self.say("no checkpoint yet: the run starts again at step 0")
            return 0
        content = checkpoint.load(self.folder.last)
        checkpoint.restore(state, content, path=self.folder.last)
        meta = content["meta"]
        self.best, self.best_mean = meta["best"], meta["best_mean"]
        self.say(f"resuming at step {state.step} of {self.prepared.plan.total_steps}")
        self.folder.status("running")
        return int(meta["metrics_offset"])

    def _observe(
        self, state: State, offset: int, watching: Sequence[object], files: ExitStack
    ) -> None:
        if self.folder.metrics.exists():
            observers.JsonLines.truncate(self.folder.metrics, offset)
        self.lines = observers.JsonLines(self.folder.metrics)
        files.callback(self.lines.close)
        mine: list[object] = [self.lines, observers.TrainLog(self.folder.path / "train.log")]
        if self.prepared.config.log.tensorboard:
            board = observers.TensorBoard(self.folder.path / "tb", purge_step=state.step or None)
            files.callback(board.close)
            mine.append(board)
        self.registry = self.prepared.registry.with_observers(*mine, *watching)

    def _notify(self, hook: str, event: object) -> None:
        self.registry.notify(hook, event)

    # The loop's watcher -----------------------------------------------------------------------

    def stepped(self, state: State, visit: Visit) -> None:
        """Flush every ``log.every`` steps, save every ``checkpoint.every``, stop when told."""
        config = self.prepared.config
        stopping = self.stop.is_set()
        saving = state.step % config.checkpoint.every == 0 or stopping
        if state.step % config.log.every == 0 or saving:
            self._flush(state)
        if saving and state.visit_step < visit.steps:
            self._save(state)
            self._halt(state)

    def visited(self, state: State, visit: Visit) -> None:
        """Report the end of a task; score all tasks in the cycles that measure forgetting."""
        self._flush(state)
        every = self.prepared.config.eval.forgetting_every
        scores: tuple[TaskScore, ...] = ()
        lost: tuple[Forgetting, ...] = ()
        if every and (visit.cycle + 1) % every == 0:
            scores = self._score(state)
            lost = forgetting(self.best, scores)
            self._remember(scores)
        plan = self.prepared.plan
        update = visit.index if plan.ema == "task" else state.step - 1
        self._notify(
            "ark_task_finished",
            TaskFinished(
                step=state.step,
                cycle=visit.cycle,
                task="+".join(plan.task_names(visit)),
                momentum=plan.momentum(update),
                scores=scores,
                forgetting=lost,
            ),
        )
        if visit.index == plan.visits_of(visit.cycle)[-1].index:
            return  # the cycle's end scores and saves next; a checkpoint here would skip it
        if state.step % self.prepared.config.checkpoint.every == 0 or self.stop.is_set():
            self._save(state)
        self._halt(state)

    def cycled(self, state: State, cycle: int) -> None:
        """Score on validation and save at the end of a cycle."""
        config = self.prepared.config
        every = config.eval.every
        last = cycle + 1 == self.prepared.plan.cycles
        scores = self._score(state) if every and ((cycle + 1) % every == 0 or last) else ()
        self._remember(scores)
        self._notify(
            "ark_cycle_finished", CycleFinished(step=state.step, cycle=cycle, scores=scores)
        )
        self._save(state)
        if config.checkpoint.keep and (cycle + 1) % config.checkpoint.keep == 0:
            self._save(state, self.folder.checkpoints / f"cycle-{cycle + 1:04d}.pt")
        mean = [each.auroc for each in scores if each.model == "teacher"]
        if config.checkpoint.best and mean and float(np.nanmean(mean)) > self.best_mean:
            self.best_mean = float(np.nanmean(mean))
            self._save(state, self.folder.checkpoints / "best.pt")
        if not last:
            self._halt(state)

    def _halt(self, state: State) -> None:
        if self.stop.is_set():
            raise Interrupted(
                f"stopped at step {state.step}; the same command with --resume goes on from there"
            )

    def _flush(self, state: State) -> None:
        flush_check(state)
        records = drain(state)
        if records:
            now = perf_counter()
            self._notify(
                "ark_steps_flushed",
                StepsFlushed(
                    steps=records, seconds=now - self.clock, wait_seconds=self.batches.waited()
                ),
            )
            self.clock = now

    def _score(self, state: State) -> tuple[TaskScore, ...]:
        models = {"student": state.student, "teacher": state.teacher.model}
        scores = self.scorer.scores(models, "val")
        self.clock = perf_counter()
        return scores

    def _remember(self, scores: Sequence[TaskScore]) -> None:
        for each in scores:
            if np.isfinite(each.auroc):
                known = self.best.setdefault(each.model, {})
                known[each.task] = max(known.get(each.task, each.auroc), each.auroc)

    def _save(self, state: State, path: Path | None = None) -> None:
        checkpoint.save(
            path or self.folder.last,
            state,
            {
                "metrics_offset": self.lines.offset(),
                "best": self.best,
                "best_mean": self.best_mean,
                "config": self.prepared.config.model_dump(mode="json"),
                "tasks": [
                    {"name": task.name, "labels": list(task.labels), "kind": task.kind}
                    for task in self.prepared.plan.tasks
                ],
            },
        )
        self.clock = perf_counter()

    def _finish(self, state: State) -> RunResult:
        scores: tuple[TaskScore, ...] = ()
        if self.prepared.config.eval.test:
            models = {"student": state.student, "teacher": state.teacher.model}
            scores = self.scorer.scores(models, "test", save=self.folder.path / "predictions")
        self._notify(
            "ark_run_finished", RunFinished(step=state.step, status="finished", scores=scores)
        )
        self.folder.status("finished", step=state.step)
        return RunResult(folder=self.folder.path, scores=scores, prepared=self.prepared)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"
