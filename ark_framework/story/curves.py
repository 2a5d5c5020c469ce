"""Curves of runs: scores by task with what was forgotten, losses, rates and speed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ark_framework.report import chart
from ark_framework.report.lines import Point, Shade, lines
from ark_framework.story.parts import Panel
from ark_framework.story.runs import Run
from ark_framework.transfer.cells import Sheet, cells, number

MODELS = ("student", "teacher")
BINS = 150  # points of a line of steps; each is a mean
CYCLES = "cycles"
Styles = dict[str, dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One model's validation AUROC of a task: where in the run, and after a visit to which task."""

    cycle: float
    auroc: float
    best: float
    after: str


def styles(runs: Sequence[Run]) -> Styles:
    """Return how the lines of student and teacher, or of each run's, are drawn."""
    names = [_line(run, model, runs) for run in runs for model in MODELS]
    return {name: chart.style(index) for index, name in enumerate(names)}


def validation(runs: Sequence[Run], drawn: Styles) -> list[Panel]:
    """Return a chart for each task: AUROC, and the shade between it and the best so far."""
    made = []
    for task in _tasks(runs):
        given: dict[str, list[Point]] = {}
        shades: dict[str, list[Shade]] = {}
        for run in runs:
            for model in MODELS:
                found = scores(run, task, model)
                if found:
                    name = _line(run, model, runs)
                    given[name] = [_point(each) for each in found]
                    shades[name] = _lost(found)
        if given:
            made.append(_panel(f"{task}: mean AUROC on validation films", given, drawn, shades))
    return made


def scores(run: Run, task: str, model: str) -> list[Score]:
    """Return a model's scores on a task in the order in which they were taken."""
    found: list[Score] = []
    best = -math.inf
    for event in run.log.visits:
        if event["event"] == "run":
            continue
        for each in event["scores"]:
            if (each["task"], each["model"]) == (task, model) and each["auroc"] is not None:
                best = max(best, each["auroc"])
                after = event["task"] if event["event"] == "task" else "the cycle"
                cycle = _cycle(run, event["step"])
                found.append(Score(cycle=cycle, auroc=each["auroc"], best=best, after=after))
    return found


def forgetting(runs: Sequence[Run]) -> Sheet | None:
    """Return how far scores fell below their best while other tasks were trained."""
    rows = []
    for task in _tasks(runs):
        for run in runs:
            for model in MODELS:
                lost = [*_measured(run, task, model)]
                if not lost:
                    continue
                of = f"{run.name}, {model}" if len(runs) > 1 else model
                texts = (number(max(lost)), number(float(np.mean(lost))), number(lost[-1]))
                rows.append(cells(task, of, *texts, str(len(lost))))
    if not rows:
        return None
    return Sheet(
        title="Forgetting",
        columns=("task", "model", "largest", "mean", "at the last visit", "times measured"),
        rows=tuple(rows),
        notes=(
            "Best validation AUROC so far minus the one after each visit to another task, in the "
            "cycles that measure it (eval.forgetting_every).",
        ),
    )


def losses(runs: Sequence[Run], drawn: Styles) -> list[Panel]:
    """Return, for each task, the task's loss and the consistency loss by step."""
    made = []
    # Concurrent steps are of all tasks at once, which are one name in the log.
    for task in dict.fromkeys(task for run in runs for task in run.log.tasks):
        for column, title in (("task_loss", "task loss"), ("consistency_loss", "consistency loss")):
            given = {run.name: _steps(run, column, task) for run in runs}
            given = {name: line for name, line in given.items() if line}
            if given:
                made.append(_panel(f"{task}: {title}", given, drawn, zero=True))
    return made


def schedules(runs: Sequence[Run], drawn: Styles) -> list[Panel]:
    """Return the learning rate as it was applied, the consistency weight and the momentum."""
    made = []
    for title, column in (
        ("learning rate, as applied", "lr"),
        ("consistency weight", "consistency_weight"),
    ):
        given = {run.name: _steps(run, column) for run in runs}
        given = {name: line for name, line in given.items() if line}
        if given:
            made.append(_panel(title, given, drawn, zero=True))
    given = {run.name: _momentum(run) for run in runs}
    given = {name: line for name, line in given.items() if line}
    return [*made, *([_panel("teacher's momentum", given, drawn)] if given else [])]


def speed(runs: Sequence[Run], drawn: Styles) -> list[Panel]:
    """Return images a second, the share of time spent waiting for batches, and memory."""
    made = []
    for title, column, factor in (
        ("images a second", "images_per_second", 1.0),
        ("waiting for batches, % of the time", "wait_share", 100.0),
        ("memory of the process, GB", "memory", 1e-9),
        ("most memory of the GPU, GB", "device_memory", 1e-9),
    ):
        given = {run.name: _binned(run, run.log.speed, column, factor) for run in runs}
        given = {name: line for name, line in given.items() if line}
        if given:
            made.append(_panel(title, given, drawn, zero=True))
    return made


def speeds(runs: Sequence[Run]) -> Sheet | None:
    """Return the means of what the charts of speed show."""
    rows = [cells(run.name, *_means(run)) for run in runs if len(run.log.speed["step"])]
    heads = ("images a second", "waiting", "largest memory", "largest memory of the GPU")
    notes = ("Over all steps; scoring and saving are not in it.",)
    return (
        Sheet(title="Speed", columns=("run", *heads), rows=tuple(rows), notes=notes)
        if rows
        else None
    )


def run_styles(runs: Sequence[Run]) -> Styles:
    """Return how the line of each run is drawn."""
    return {run.name: chart.style(index) for index, run in enumerate(runs)}


def _means(run: Run) -> Iterator[str]:
    found = run.log.speed
    time = found["seconds"]
    total = max(float(time.sum()), 1e-9)
    yield f"{float((found['images_per_second'] * time).sum()) / total:,.0f}"
    yield f"{float((found['wait_share'] * time).sum()) / total:.1%}"
    for name in ("memory", "device_memory"):
        known = found[name][np.isfinite(found[name])]
        yield f"{known.max() / 1e9:.2f} GB" if len(known) and known.max() else "-"


def _panel(
    title: str,
    given: Mapping[str, Sequence[Point]],
    drawn: Styles,
    shades: Mapping[str, Sequence[Shade]] | None = None,
    *,
    zero: bool = False,
) -> Panel:
    made = lines(given, drawn, shades=shades, span=(0.0,), zero=zero)
    return Panel(kind="lines", title=title, chart=made, across=CYCLES)


def _point(score: Score) -> Point:
    below = f", {score.best - score.auroc:.3f} below its best" if score.auroc < score.best else ""
    text = f"{score.cycle:.2f} cycles, after {score.after}: {score.auroc:.3f}{below}"
    return Point(score.cycle, score.auroc, text)


def _lost(found: Sequence[Score]) -> list[Shade]:
    """Return the areas between the score and the best so far."""
    areas: list[list[tuple[float, float, float]]] = [[]]
    for each in found:
        areas[-1].append((each.cycle, each.auroc, each.best))
        if each.auroc == each.best:
            areas.append([(each.cycle, each.auroc, each.best)])
    return [area for area in areas if any(low < high for _, low, high in area)]


def _measured(run: Run, task: str, model: str) -> Iterator[float]:
    for event in run.log.visits:
        # After a visit to the task itself nothing of it can have been forgotten.
        if event["event"] != "task" or task in event["task"].split("+"):
            continue
        for each in event["forgetting"]:
            if (each["task"], each["model"]) == (task, model):
                yield each["best"] - each["now"]


def _steps(run: Run, column: str, task: str | None = None) -> list[Point]:
    found: Mapping[str, Any] = run.log.steps
    if task is not None:
        if task not in run.log.tasks:
            return []
        rows = found["task"] == run.log.tasks.index(task)
        found = {name: values[rows] for name, values in found.items()}
    return _binned(run, found, column)


def _binned(
    run: Run, found: Mapping[str, np.ndarray], column: str, factor: float = 1.0
) -> list[Point]:
    """Return means over as many steps as leave at most ``BINS`` points."""
    known = np.isfinite(found[column])
    values, at = found[column][known] * factor, found["step"][known]
    if not len(values) or not np.any(values):
        return []
    pieces = np.array_split(np.arange(len(values)), min(BINS, len(values)))
    return [
        Point(_cycle(run, float(at[piece].mean())), float(values[piece].mean())) for piece in pieces
    ]


def _momentum(run: Run) -> list[Point]:
    events = [event for event in run.log.visits if event["event"] == "task"]
    every = max(1, len(events) // BINS)
    return [Point(_cycle(run, event["step"]), event["momentum"]) for event in events[::every]]


def _cycle(run: Run, step: float) -> float:
    """Return how many cycles' worth of steps have been taken."""
    return step / int(run.plan["total_steps"]) * int(run.plan["cycles"])


def _tasks(runs: Sequence[Run]) -> list[str]:
    return [*dict.fromkeys(task["name"] for run in runs for task in run.plan["tasks"])]


def _line(run: Run, model: str, runs: Sequence[Run]) -> str:
    return f"{run.name}, {model}" if len(runs) > 1 else model
