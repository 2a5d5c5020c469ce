"""The built-in observers of a run: JSON lines, TensorBoard, and a log for people."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ark_framework.errors import MachineError
from ark_framework.events import (
    CycleFinished,
    Forgetting,
    RunFinished,
    RunStarted,
    StepsFlushed,
    TaskFinished,
    TaskScore,
)
from ark_framework.hooks import hookimpl


class JsonLines:
    """One JSON object a line in ``metrics.jsonl``.

    ``event`` says which: ``step``, ``task``, ``cycle``, ``run``, or ``speed``, whose lines alone
    hold what a clock says; every other line is a function of the run's configuration and data.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab")

    @staticmethod
    def truncate(path: Path, offset: int) -> int:
        """Cut everything after ``offset`` bytes: what a resumed run will write again.

        Returns:
            How many of these bytes are missing.
        """
        with path.open("a+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size > offset:
                file.truncate(offset)
                file.flush()
                os.fsync(file.fileno())
        return max(offset - size, 0)

    def offset(self) -> int:
        """Return the length in bytes, all of it durable.

        Raises:
            MachineError: the disk refuses what was written.
        """
        self._flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file; what the disk refuses, it has refused before."""
        with suppress(OSError):
            self._file.close()

    def _write(self, event: str, values: Mapping[str, Any]) -> None:
        line = json.dumps(_finite({"event": event, **values}), allow_nan=False)
        with self._refusals():
            self._file.write(line.encode() + b"\n")

    def _flush(self) -> None:
        with self._refusals():
            self._file.flush()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise MachineError(
                f"cannot write {self._path}: {error.strerror}; mend that and go on with --resume"
            ) from error

    @hookimpl
    def ark_steps_flushed(self, event: StepsFlushed) -> None:
        """Write a line per step, and one for the speed of them all."""
        for record in event.steps:
            self._write("step", asdict(record))
        self._write(
            "speed",
            {
                "step": event.steps[-1].step,
                **_speed(event),
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )
        self._flush()

    @hookimpl
    def ark_task_finished(self, event: TaskFinished) -> None:
        """Write the momentum, and what was measured."""
        self._write("task", asdict(event))

    @hookimpl
    def ark_cycle_finished(self, event: CycleFinished) -> None:
        """Write the scores."""
        self._write("cycle", asdict(event))

    @hookimpl
    def ark_run_finished(self, event: RunFinished) -> None:
        """Write the test scores."""
        self._write("run", asdict(event))
        self._flush()


class TensorBoard:
    """Scalars for TensorBoard; ``purge_step`` hides what an interrupted run wrote beyond it."""

    def __init__(self, folder: Path, *, purge_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def _scalar(self, tag: str, value: float, step: int) -> None:
        self._writer.add_scalar(tag, value, step)

    @hookimpl
    def ark_steps_flushed(self, event: StepsFlushed) -> None:
        """Write losses by task, the consistency weight, the learning rate."""
        for record in event.steps:
            for name in ("loss", "task_loss", "consistency_loss"):
                self._scalar(f"{name}/{record.task}", getattr(record, name), record.step)
            self._scalar("consistency_weight", record.consistency_weight, record.step)
            self._scalar("lr", record.lr, record.step)

    @hookimpl
    def ark_task_finished(self, event: TaskFinished) -> None:
        """Write the momentum, and forgetting where it was measured."""
        self._scalar("momentum", event.momentum, event.step)
        self._forgetting(event.forgetting, event.step)

    @hookimpl
    def ark_cycle_finished(self, event: CycleFinished) -> None:
        """Write validation scores."""
        self._scores(event.scores, event.step)

    @hookimpl
    def ark_run_finished(self, event: RunFinished) -> None:
        """Write test scores."""
        self._scores(event.scores, event.step)

    def close(self) -> None:
        """Write what is buffered and close the file, if the disk lets it."""
        with suppress(OSError):  # by then the run has come to its end, in every other file
            self._writer.close()

    def _scores(self, scores: Sequence[TaskScore], step: int) -> None:
        for each in scores:
            self._scalar(f"auroc/{each.split}/{each.model}/{each.task}", each.auroc, step)

    def _forgetting(self, lost: Sequence[Forgetting], step: int) -> None:
        for each in lost:
            self._scalar(f"forgetting/{each.model}/{each.task}", each.best - each.now, step)


class TrainLog:
    """``train.log``: a line per flush and per scored cycle."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = Lines()

    def _add(self, text: str) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{now} {text}\n")

    @hookimpl
    def ark_run_started(self, event: RunStarted) -> None:
        """Say where the run starts."""
        self._add(self._lines.started(event))

    @hookimpl
    def ark_steps_flushed(self, event: StepsFlushed) -> None:
        """Say how the last steps went."""
        self._add(self._lines.steps(event))

    @hookimpl
    def ark_cycle_finished(self, event: CycleFinished) -> None:
        """Say the validation scores."""
        if event.scores:
            self._add(self._lines.scores(event.scores, event.cycle))

    @hookimpl
    def ark_run_finished(self, event: RunFinished) -> None:
        """Say how it ended."""
        self._add(f"{event.status} at step {event.step}")


class Lines:
    """The words for people, shared by the log and the plain progress."""

    def __init__(self) -> None:
        self.total = 0
        self.cycles = 0

    def started(self, event: RunStarted) -> str:
        """Return the first line of a run."""
        self.total, self.cycles = event.total_steps, int(event.plan["cycles"])
        begun = f"resumed at step {event.step}" if event.step else "started"
        return f"{begun}: {self.cycles} cycles, {self.total} steps"

    def steps(self, event: StepsFlushed) -> str:
        """Return a line on the steps since the last flush: the last one, and their speed."""
        last = event.steps[-1]
        left = (self.total - last.step - 1) * event.seconds / max(len(event.steps), 1)
        skipped = sum(each.skipped for each in event.steps)
        return (
            f"cycle {last.cycle + 1}/{self.cycles} {last.task} step {last.step + 1}/{self.total} "
            f"loss {last.loss:.4f} (task {last.task_loss:.4f} consistency "
            f"{last.consistency_loss:.4f}) lr {last.lr:.2e} "
            f"{self.speed(event)} eta {_duration(left)}" + f" skipped {skipped}" * bool(skipped)
        )

    def speed(self, event: StepsFlushed) -> str:
        """Return images a second, the share of waiting for batches, memory, use of the GPU."""
        values = _speed(event)
        parts = [
            f"{values['images_per_second']:.0f} img/s",
            f"wait {values['wait_share']:.0%}",
            f"mem {event.memory / 1e9:.1f} GB",
        ]
        if event.device_memory is not None:
            parts.append(f"gpu {event.device_memory / 1e9:.1f} GB")
        if event.matmul_share is not None:
            parts.append(f"matmul {event.matmul_share:.0%}")
        return " ".join(parts)

    def scores(self, scores: Sequence[TaskScore], cycle: int) -> str:
        """Return a line with every task's validation AUROC."""
        parts = [f"{s.task} {s.model} {s.auroc:.3f}" for s in scores]
        return f"cycle {cycle + 1}/{self.cycles} validation AUROC: " + ", ".join(parts)


def _speed(event: StepsFlushed) -> dict[str, Any]:
    images = sum(record.images for record in event.steps)
    seconds = max(event.seconds, 1e-9)
    return {
        "images_per_second": images / seconds,
        "seconds": event.seconds,
        "wait_share": event.wait_seconds / seconds,
        "memory": event.memory,
        "device_memory": event.device_memory,
        "matmul_share": event.matmul_share,
    }


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"


def _finite(value: Any) -> Any:
    """Replace what JSON cannot say by null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
