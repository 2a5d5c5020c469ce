"""One run from its first (or resumed) step to its end: all that the loop leaves to others."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from os.path import lexists
from pathlib import Path
from time import perf_counter

import numpy as np

from ark_framework import checkpoint, observers
from ark_framework.badbatch import BadBatches
from ark_framework.badsteps import BadSteps
from ark_framework.batches import StoreBatches
from ark_framework.errors import CheckpointError, ConfigError, Interrupted, MachineError
from ark_framework.events import (
    CycleFinished,
    Forgetting,
    RunFinished,
    RunStarted,
    TaskFinished,
    TaskScore,
)
from ark_framework.interruption import stoppable
from ark_framework.metrics import forgetting
from ark_framework.model import ArkModel
from ark_framework.plan import Visit
from ark_framework.preparation import Prepared, build_student, make_losses
from ark_framework.pretrain import (
    NotFinite,
    State,
    drain,
    flush_check,
    make_optimizer,
    pretrain,
)
from ark_framework.ranks import RanksLost
from ark_framework.run import RunFolder
from ark_framework.runtime import Runtime
from ark_framework.scoring import Scorer
from ark_framework.speed import Gauge
from ark_framework.teacher import Teacher


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a finished run gives: its folder and its test scores."""

    folder: Path
    scores: tuple[TaskScore, ...]
    prepared: Prepared


@dataclass
class Session:
    """One run from its first (or resumed) step to its end; the loop's watcher.

    Attributes:
        remember: Writes what is trained on; no checkpoint is written before it.
    """

    prepared: Prepared
    folder: RunFolder
    say: Callable[[str], None]
    runtime: Runtime
    remember: Callable[[], None]
    best: dict[str, dict[str, float]] = field(default_factory=dict)
    best_mean: float = -1.0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, *, resume: bool, init_from: Path | None, watching: Sequence[object]) -> RunResult:
        """Train from the first or the last saved step to the end, then test once."""
        config, plan = self.prepared.config, self.prepared.plan
        self.ranks = self.runtime.ranks
        self.scorer = Scorer(
            plan=plan,
            corpora=self.prepared.corpora,
            train_rows=self.prepared.rows,
            config=config,
            runtime=self.runtime,
            between=self._heed,
        )
        try:
            saved = resume and lexists(self.folder.last)  # whatever lies there
            state = self._start(None if saved else init_from)
            offset = self._resume(state) if resume else 0
            with ExitStack() as files:
                self._observe(state, offset, watching, files)
                return self._train(state)
        except Interrupted:
            raise
        except Exception as error:
            self._failed(error)
            if isinstance(error, RanksLost) and self.stop.is_set():
                signal.raise_signal(signal.SIGTERM)  # torchrun's, which came while that was written
            raise

    def _train(self, state: State) -> RunResult:
        config, plan = self.prepared.config, self.prepared.plan
        self.batches = StoreBatches(
            plan,
            self.prepared.corpora,
            rows=self.prepared.rows,
            config=config,
            runtime=self.runtime,
        )
        self.bad = BadBatches(
            folder=self.folder.path, plan=plan, batches=self.batches, runtime=self.runtime
        )
        task, size = plan.tasks[0].name, config.views.size
        self.gauge = Gauge.open(state.teacher.model, task, size, self.runtime)
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
        with stoppable(self.stop):
            return self._to_the_end(state)

    def _to_the_end(self, state: State) -> RunResult:
        """Run the loop and the test; a signal waits until it is written down how they ended."""
        try:
            self._pretrain(state)
            return self._finish(state)
        except Interrupted:
            self._status("interrupted", step=self.saved)
            self.ranks.wait()  # whoever ends first would end the others before they have saved
            raise
        except Exception as error:
            self._failed(error, step=state.step)
            with suppress(MachineError):  # as above
                self._notify("ark_run_finished", RunFinished(step=state.step, status="failed"))
            raise

    def _pretrain(self, state: State) -> None:
        losses = make_losses(self.prepared, self.runtime.device)
        try:
            pretrain(
                self.prepared.plan,
                state,
                self.batches,
                losses=losses,
                runtime=self.runtime,
                clip=self.prepared.config.optim.clip,
                watcher=self,
            )
        except NotFinite as error:
            raise self.bad.ended(error, state, losses) from error

    def _start(self, init_from: Path | None) -> State:
        student = build_student(self.prepared).to(self.runtime.device)
        if init_from is not None:
            content = checkpoint.load(init_from)
            meta = checkpoint.meta(content, path=init_from)
            moved = checkpoint.transfer(
                student,
                content["teacher"],
                path=init_from,
                labels={task.name: task.labels for task in self.prepared.plan.tasks},
                theirs={task.name: task.labels for task in meta.tasks},
            )
            self.say(
                f"weights from {init_from}: heads kept {_listed(moved.kept)}, "
                f"added {_listed(moved.added)}, dropped {_listed(moved.dropped)}"
            )
        student.train()
        self.runtime.share_batch_norm(student, self.say)
        return State(
            student=student,
            teacher=Teacher(self._first_teacher(student)),
            optimizer=make_optimizer(student, self.prepared.config.optim),
            bad=BadSteps(student, allowed=self.prepared.config.optim.max_bad_steps),
        )

    def _first_teacher(self, student: ArkModel) -> ArkModel:
        if self.prepared.config.teacher.start == "copy":
            return student
        return build_student(self.prepared, draw=1).to(self.runtime.device)

    def _resume(self, state: State) -> int:
        if not lexists(self.folder.last):
            self.say("no checkpoint yet: the run starts again at step 0")
            return 0
        try:
            content = checkpoint.load(self.folder.last)
            meta = checkpoint.meta(content, path=self.folder.last)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {checkpoint.instead(self.folder.last)}") from error
        checkpoint.restore(state, content, path=self.folder.last)
        if not self.prepared.plan.passes_by(state.visit, state.visit_step, state.step):
            raise CheckpointError(f"{self.folder.last} stands at a step that its run never takes")
        skipped = content["position"].get("bad_steps", 0)
        if skipped > state.bad.allowed:
            raise ConfigError(
                f"{self.folder.last} has skipped {skipped} steps, and optim.max_bad_steps is "
                f"{state.bad.allowed}; give --max-bad-steps {skipped} or more to go on with it"
            )
        self.best, self.best_mean = meta.best, meta.best_mean
        self.say(f"resuming at step {state.step} of {self.prepared.plan.total_steps}")
        self._status("running")
        return meta.metrics_offset

    def _observe(
        self, state: State, offset: int, watching: Sequence[object], files: ExitStack
    ) -> None:
        if not self.ranks.first:
            return
        lost = observers.JsonLines.truncate(self.folder.metrics, offset)
        if lost:
            self.say(f"{self.folder.metrics} has lost {lost} bytes that were written before")
        self.lines = observers.JsonLines(self.folder.metrics)
        files.callback(self.lines.close)
        mine: list[object] = [observers.TrainLog(self.folder.path / "train.log")]
        if self.prepared.config.log.tensorboard:
            board = observers.TensorBoard(self.folder.path / "tb", purge_step=state.step or None)
            files.callback(board.close)
            mine.append(board)
        self.registry = self.prepared.registry.with_observers(*mine, *watching)

    def _notify(self, hook: str, event: object) -> None:
        if self.ranks.first:
            write = getattr(self.lines, hook, None)
            if write is not None:  # not as observers are told: a run does not go on without it
                write(event)
            self.registry.notify(hook, event)

    def _status(self, status: str, **about: object) -> None:
        if self.ranks.first:
            self.folder.status(status, **about)

    def _failed(self, error: Exception, **about: object) -> None:
        with suppress(MachineError):  # a full disk, which may be the error itself
            self._status("failed", error=str(error), **about)

    def _asked(self) -> bool:
        """Whether any rank was asked to stop; all ranks ask at the same places, and agree."""
        return self.ranks.any([self.stop.is_set()])[0]

    # The loop's watcher -----------------------------------------------------------------------

    def stepped(self, state: State, visit: Visit) -> None:
        """Flush every ``log.every`` steps, save every ``checkpoint.every``, stop when told."""
        config = self.prepared.config
        stopping = self._asked()
        # Scoring may take long and be stopped: what it needs is saved before it begins.
        scoring = state.visit_step == visit.steps and self.scorer.due(visit)
        saving = state.step % config.checkpoint.every == 0 or scoring or stopping
        if state.step % config.log.every == 0 or saving:
            self._flush(state)
        if saving:
            self._save(state)
        if stopping:
            self._halt()

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
        mean = [each.auroc for each in scores if each.model == "teacher"]
        if config.checkpoint.best and mean and float(np.nanmean(mean)) > self.best_mean:
            self.best_mean = float(np.nanmean(mean))
            self._save(state, self.folder.checkpoints / "best.pt")
        if config.checkpoint.keep and (cycle + 1) % config.checkpoint.keep == 0:
            self._save(state, self.folder.checkpoints / f"cycle-{cycle + 1:04d}.pt")
        self._save(state)  # last: from here on nothing of the cycle is done again

    def _heed(self) -> None:
        """Stop between two batches of a scoring, which is begun again from what was saved."""
        if self._asked():
            self._halt()

    def _halt(self) -> None:
        raise Interrupted(
            f"stopped at step {self.saved}, and saved in {self.folder.path}: --resume goes on from "
            "there, as does the same command with that --out"
        )

    def _flush(self, state: State) -> None:
        flush_check(state)
        records = drain(state)
        if records:
            if line := self.bad.skipped(records, state):
                self.say(line)
            now = perf_counter()
            event = self.gauge.flushed(records, now - self.clock, self.batches.waited())
            self._notify("ark_steps_flushed", event)
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
        self.saved = state.step
        if not self.ranks.first:
            return
        self.remember()
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
            save = self.folder.path / "predictions" if self.ranks.first else None
            scores = self.scorer.scores(models, "test", save=save)
        self._notify(
            "ark_run_finished", RunFinished(step=state.step, status="finished", scores=scores)
        )
        self._status("finished", step=state.step)
        return RunResult(folder=self.folder.path, scores=scores, prepared=self.prepared)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"
