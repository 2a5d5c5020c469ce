"""A run's folder as data: what was asked, planned and dropped, and what its logs say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ark_framework.errors import DataError

FILES = ("config.yaml", "run.json", "plan.json")
STEP = ("step", "lr", "loss", "task_loss", "consistency_loss", "consistency_weight", "images")
SPEED = ("step", "images_per_second", "seconds", "wait_share", "memory", "device_memory")
ACCESS = ("open", "registered", "credentialed")  # from free to strict


@dataclass(frozen=True, kw_only=True)
class Log:
    """``metrics.jsonl``: steps and speeds as columns ``(n,)``, tasks and cycles as events.

    Attributes:
        steps: By name of ``STEP``, and ``task``: the index of the task.
        tasks: The names of the tasks in order of their first step.
        visits: The events ``task``, ``cycle`` and ``run``, in order.
    """

    steps: Mapping[str, np.ndarray]
    speed: Mapping[str, np.ndarray]
    tasks: tuple[str, ...]
    visits: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run's folder."""

    name: str
    path: Path
    config: Mapping[str, Any]
    about: Mapping[str, Any]
    plan: Mapping[str, Any]

    @cached_property
    def leaks(self) -> Mapping[str, Any] | None:
        """The audit without the names of films; ``None`` where there was none."""
        found: Mapping[str, Any] | None = self.about.get("leaks")
        return found

    @cached_property
    def log(self) -> Log:
        """What was logged."""
        path = self.path / "metrics.jsonl"
        return _log(path) if path.is_file() else _columns([], [], [])

    @property
    def datasets(self) -> dict[str, Mapping[str, Any]]:
        """What is known of each dataset that it was trained on."""
        return dict(self.about.get("data", {}))

    @property
    def access(self) -> str:
        """The strictest terms of all datasets; those that are not known count as strictest."""
        found = [each.get("access", ACCESS[-1]) for each in self.datasets.values()]
        return max(found, key=ACCESS.index, default=ACCESS[-1])

    @property
    def tested(self) -> list[Mapping[str, Any]]:
        """The scores on test films that the run took at its end."""
        return [
            score
            for event in self.log.visits
            if event["event"] == "run"
            for score in event.get("scores", ())
        ]


def is_run(path: Path) -> bool:
    """Whether a folder is a run's."""
    return all((path / name).is_file() for name in FILES)


def read(path: Path, name: str) -> Run:
    """Read a run's folder.

    Raises:
        DataError: a file of it is damaged.
    """
    config, about, plan = (_read(path / file) for file in FILES)
    return Run(name=name, path=path, config=config, about=about, plan=plan)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
        values = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("it is no mapping")
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    return values


def _log(path: Path) -> Log:
    steps, speed, visits = [], [], []
    for event in _events(path):
        kind = event.get("event")
        if kind == "step":
            steps.append(event)
        elif kind == "speed":
            speed.append(event)
        elif kind in ("task", "cycle", "run"):
            visits.append(event)
    return _columns(steps, speed, visits)


def _events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines; the last one may be half written, for the run may still go on."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                return
            try:
                event = json.loads(line)
                assert isinstance(event, dict)
            except (ValueError, AssertionError) as error:
                raise DataError(f"{path} line {number} is damaged; no report can trust it") from (
                    error
                )
            yield event


def _columns(
    steps: list[dict[str, Any]], speed: list[dict[str, Any]], visits: list[dict[str, Any]]
) -> Log:
    tasks = list(dict.fromkeys(each["task"] for each in steps))
    index = {name: number for number, name in enumerate(tasks)}
    columns = {name: _numbers(steps, name) for name in STEP}
    columns["task"] = np.array([index[each["task"]] for each in steps], dtype=np.int64)
    return Log(
        steps=columns,
        speed={name: _numbers(speed, name) for name in SPEED},
        tasks=tuple(tasks),
        visits=tuple(visits),
    )


def _numbers(events: list[dict[str, Any]], name: str) -> np.ndarray:
    """Return a column; what JSON could not say is NaN."""
    return np.array([each.get(name) for each in events], dtype=np.float64)
