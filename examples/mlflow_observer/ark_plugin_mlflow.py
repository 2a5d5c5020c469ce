"""Runs in an MLflow store: what was planned, losses and rates, scores, and how it ended."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ark_framework import hookimpl
from ark_framework.events import (
    CycleFinished,
    RunFinished,
    RunStarted,
    StepsFlushed,
    TaskFinished,
    TaskScore,
)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

RUN_FILE = "mlflow-run.txt"  # in the run's folder: the id to go on with
STATUS = {"finished": "FINISHED", "failed": "FAILED"}
BATCH = 1000  # metrics that one call may carry


class MlflowObserver:
    """One run at a time; ``ark_run_started`` begins another, or goes on with it."""

    client: MlflowClient
    run: str
    logged: dict[str, int]  # the last step of each metric that the store has

    @hookimpl
    def ark_run_started(self, event: RunStarted) -> None:
        """Begin an MLflow run, or go on with the one that this folder began."""
        # Clinics' machines: no usage statistics, unless somebody asks for them.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or _local(event.folder))
        kept = event.folder / RUN_FILE
        if kept.is_file():
            self.run = kept.read_text("utf-8").strip()
            self.client.update_run(self.run, status="RUNNING")
        else:
            self.run = self._begin(event)
            kept.write_text(f"{self.run}\n", encoding="utf-8")
        # Steps after the last checkpoint are taken again, to the same values.
        self.logged = {
            key: max(each.step for each in self.client.get_metric_history(self.run, key))
            for key in self.client.get_run(self.run).data.metrics
        }

    @hookimpl
    def ark_steps_flushed(self, event: StepsFlushed) -> None:
        """Log losses by task, the consistency weight and the learning rate of each step."""
        found: list[tuple[str, float, int]] = []
        for step in event.steps:
            for name in ("loss", "task_loss", "consistency_loss"):
                found.append((f"{name}/{step.task}", getattr(step, name), step.step))
            found.append(("consistency_weight", step.consistency_weight, step.step))
            found.append(("lr", step.lr, step.step))
        self._log(found)

    @hookimpl
    def ark_task_finished(self, event: TaskFinished) -> None:
        """Log the teacher's momentum."""
        self._log([("momentum", event.momentum, event.step)])

    @hookimpl
    def ark_cycle_finished(self, event: CycleFinished) -> None:
        """Log validation scores."""
        self._log(_scores(event.scores, event.step))

    @hookimpl
    def ark_run_finished(self, event: RunFinished) -> None:
        """Log test scores and end the MLflow run."""
        self._log(_scores(event.scores, event.step))
        self.client.set_terminated(self.run, STATUS.get(event.status, "KILLED"))

    def _begin(self, event: RunStarted) -> str:
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "ark")
        known = self.client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self.client.create_experiment(name)
        run: str = self.client.create_run(experiment, run_name=event.folder.name).info.run_id
        values = [Param(_key(key), str(value)[:6000]) for key, value in _flat(event.plan)]
        for start in range(0, len(values), 100):  # a call takes no more
            self.client.log_batch(run, params=values[start : start + 100])
        return run

    def _log(self, found: Sequence[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        new = [
            Metric(_key(name), value, now, step)
            for name, value, step in found
            if step > self.logged.get(_key(name), -1)
        ]
        self.logged.update({each.key: each.step for each in new})
        for start in range(0, len(new), BATCH):
            self.client.log_batch(self.run, metrics=new[start : start + BATCH])


def _local(folder: Path) -> str:
    place = folder.absolute() / "mlflow"
    place.mkdir(exist_ok=True)
    return f"sqlite:///{place / 'mlflow.db'}"


def _key(name: str) -> str:
    """Return a name that MLflow takes: a concurrent step's tasks are joined by ``+``."""
    return re.sub(r"[^/\w.\- ]", "-", name)


def _scores(scores: Sequence[TaskScore], step: int) -> list[tuple[str, float, int]]:
    return [(f"auroc/{s.split}/{s.model}/{s.task}", s.auroc, step) for s in scores]


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the numbers and words of a plan under dotted keys; not its long lists."""
    for key, value in values.items():
        if key == "tasks":
            for task in value:
                yield from _flat(task, f"tasks.{task['name']}.")
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        elif not isinstance(value, list):
            yield f"{above}{key}", value


# Hooks are functions of a module; these are bound to the one observer, which holds no run yet.
_observer = MlflowObserver()
ark_run_started = _observer.ark_run_started
ark_steps_flushed = _observer.ark_steps_flushed
ark_task_finished = _observer.ark_task_finished
ark_cycle_finished = _observer.ark_cycle_finished
ark_run_finished = _observer.ark_run_finished
