"""Test scores with intervals by patient, computed anew from a run's saved predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ark_framework.errors import DataError
from ark_framework.report.bars import Bar
from ark_framework.report.dots import dots
from ark_framework.specs import LabelSchema
from ark_framework.statistics import FEW
from ark_framework.story.parts import Panel
from ark_framework.story.runs import Run
from ark_framework.transfer.cells import Cell, Sheet, bounds, cells, number
from ark_framework.transfer.intervals import MEAN, interval_table

MODELS = ("student", "teacher")
AGREE = 1e-6  # what separates a recorded score from one that the predictions do not give
SEXES = {"F": "women", "M": "men"}
METRICS = {"auroc": "AUROC", "average_precision": "average precision", "accuracy": "accuracy"}
COUNTS = ("positives", "negatives")
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One model's scores on a task's test films.

    Attributes:
        table: Of :func:`ark_framework.transfer.intervals.interval_table`.
        file: Where the predictions are, below the run's folder.
        recorded: The mean AUROC that the run wrote down; NaN where it wrote none.
        group: Whose films they are; empty for all.
    """

    run: str
    task: str
    model: str
    table: pd.DataFrame
    films: int
    patients: int
    file: str
    recorded: float = math.nan
    group: str = ""

    def row(self, label: str, metric: str = "auroc") -> Mapping[str, Any] | None:
        """Return one score: value, low, high, positives, negatives, note."""
        found = self.table[(self.table["label"] == label) & (self.table["metric"] == metric)]
        return None if found.empty else dict(found.iloc[0])

    @property
    def mean(self) -> float:
        """The mean AUROC."""
        row = self.row(MEAN)
        return float(row["value"]) if row else math.nan

    @property
    def labels(self) -> list[str]:
        """The labels that are scored."""
        return [each for each in dict.fromkeys(self.table["label"]) if each != MEAN]

    @property
    def agrees(self) -> bool:
        """Whether the predictions give what the run wrote down."""
        return not math.isfinite(self.recorded) or abs(self.mean - self.recorded) < AGREE


@dataclass(frozen=True, kw_only=True)
class Films:
    """A task's saved predictions, read; targets as scores read them."""

    task: Mapping[str, Any]
    file: str
    frame: pd.DataFrame
    targets: np.ndarray
    groups: np.ndarray

    def scores(self, model: str) -> np.ndarray | None:
        """Return a model's probabilities ``(n, C)``; ``None`` where they were not saved."""
        columns = [f"{model}:{label}" for label in self.task["labels"]]
        if not set(columns) <= set(self.frame):
            return None
        return self.frame[columns].to_numpy(dtype=np.float64)


def films(run: Run, task: Mapping[str, Any]) -> Films | None:
    """Read the predictions of a task's test films; ``None`` where none were saved.

    Raises:
        DataError: the file is damaged.
    """
    file = f"predictions/{task['name']}-test.csv"
    path = run.path / file
    if not path.is_file():
        return None
    try:
        frame = pd.read_csv(path, dtype={"image": str, "patient": str})
        targets = frame[list(task["labels"])].to_numpy(dtype=np.float64)
        # A film without a patient is its own.
        known = frame["patient"].where(frame["patient"].notna(), "\0" + frame["image"].astype(str))
        groups = np.asarray(pd.factorize(known)[0])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    if run.datasets.get(task["dataset"], {}).get("blank") == "zeros":
        targets = np.where(np.isnan(targets), 0.0, targets)
    return Films(task=task, file=file, frame=frame, targets=targets, groups=groups)


def scored(run: Run, *, models: Sequence[str] = MODELS, say: Say | None = None) -> list[Scored]:
    """Score every task's test films, label by label."""
    found = []
    for task in run.plan["tasks"]:
        read = films(run, task)
        if read is None:
            continue
        for model in models:
            if say is not None:
                say(f"{run.name}: scoring {model} on {task['name']}")
            made = _scored(run, read, model, np.ones(len(read.frame), dtype=bool))
            found += [made] if made else []
    return found


def by_sex(run: Run, *, model: str = "teacher") -> list[Scored]:
    """Score women's and men's test films apart, where both are among a task's."""
    found = []
    for task in run.plan["tasks"]:
        read = films(run, task)
        if read is None or not {*SEXES} <= set(read.frame.get("sex", ())):
            continue
        for sex, people in SEXES.items():
            made = _scored(run, read, model, (read.frame["sex"] == sex).to_numpy(), group=people)
            found += [made] if made else []
    return found


def sheets(found: Sequence[Scored]) -> Iterator[tuple[str, Sheet, tuple[str, ...]]]:
    """Yield a table for each task, its rows by label; and the files of its columns' runs.

    Films are counted once where all columns are of the same, else beside each column.
    """
    for task, of in _by_task(found):
        labels = list(dict.fromkeys(label for each in of for label in each.labels))
        same = all(_counted(each, labels) == _counted(of[0], labels) for each in of)
        heads = [*(COUNTS if same else ())]
        for each in of:
            name = _column(each, of)
            heads += [*([] if same else [f"{name}: {what}" for what in COUNTS])]
            heads.append(f"{name}: {METRICS['auroc']} [95 %]")
        rows = [_row(of, label, "auroc", same=same) for label in labels]
        rows.append(_row(of, MEAN, "auroc", same=same))
        if any(each.row(MEAN, "accuracy") for each in of):
            rows.append(_row(of, MEAN, "accuracy", same=same))
        sizes = dict.fromkeys(
            f"{each.films:,} test films of {each.patients:,} patients" for each in of
        )
        yield (
            task,
            Sheet(
                title=f"{task}: {'; '.join(sizes)}",
                columns=("label", *heads),
                rows=tuple(rows),
                notes=_notes(of),
            ),
            tuple(f"{each.run}\n{each.file}" for each in of),
        )


def foot(sheet: Sheet) -> int:
    """Return how many rows of a table are means of the others."""
    return sum(row[1].text == "" for row in sheet.rows)


def panels(found: Sequence[Scored]) -> Iterator[Panel]:
    """Yield a chart for each task: a dot and its interval by label."""
    for task, of in _by_task(found):
        labels = [*dict.fromkeys(label for each in of for label in each.labels), MEAN]
        given = {label: [_bar(each.row(label)) for each in of] for label in labels}
        groups = [_column(each, of) for each in of]
        drawn = dots(given, groups=groups)
        title = f"{task}: AUROC on test films"
        yield Panel(kind="dots", title=title, chart=drawn, groups=groups)


def _scored(
    run: Run, read: Films, model: str, rows: np.ndarray, *, group: str = ""
) -> Scored | None:
    probabilities = read.scores(model)
    if probabilities is None or not rows.any():
        return None
    task = read.task
    recorded = [s for s in run.tested if (s["task"], s["model"]) == (task["name"], model)]
    labels = tuple(task["labels"])
    report = tuple(each for each in labels if each in recorded[0]["labels"]) if recorded else None
    schema = LabelSchema(name="read", kind=task["kind"], labels=labels, report=report)
    told = recorded[0]["auroc"] if recorded and not group else None
    return Scored(
        run=run.name,
        task=task["name"],
        model=model,
        table=interval_table(
            probabilities[rows], read.targets[rows], schema, groups=read.groups[rows]
        ),
        films=int(rows.sum()),
        patients=len(np.unique(read.groups[rows])),
        file=read.file,
        recorded=math.nan if told is None else told,
        group=group,
    )


def _by_task(found: Sequence[Scored]) -> Iterator[tuple[str, list[Scored]]]:
    for task in dict.fromkeys(each.task for each in found):
        yield task, [each for each in found if each.task == task]


def _column(each: Scored, of: Sequence[Scored]) -> str:
    several = len({other.run for other in of}) > 1
    return ", ".join(filter(None, (each.run if several else "", each.group or each.model)))


def _row(of: Sequence[Scored], label: str, metric: str, *, same: bool) -> tuple[Cell, ...]:
    name = "accuracy" if metric == "accuracy" else label
    counts = [("", "") if label == MEAN else _counts(each, label) for each in of]
    texts: list[str] = [*(counts[0] if same else ())]
    for each, count in zip(of, counts, strict=True):
        texts += [*(() if same else count), _area(each, label, metric)]
    return cells(name, *texts)


def _counted(each: Scored, labels: Sequence[str]) -> list[tuple[str, str]]:
    return [_counts(each, label) for label in labels]


def _counts(each: Scored, label: str) -> tuple[str, str]:
    row = each.row(label)
    if row is None:
        return "-", "-"
    return _count(row["positives"]), _count(row["negatives"])


def _count(value: float | None) -> str:
    """Return a count; a table of intervals leaves 0 out."""
    return f"{value:,.0f}" if value is not None and math.isfinite(value) else "0"


def _area(each: Scored, label: str, metric: str = "auroc") -> str:
    row = each.row(label, metric)
    if row is None:
        return "-"
    return f"{number(row['value'])} {bounds(row['low'], row['high'])}".strip()


def _bar(row: Mapping[str, Any] | None) -> Bar:
    if row is None:
        return Bar(math.nan, note="not scored")
    note = str(row["note"]).removeprefix("not estimable: ") or "not scored"
    return Bar(float(row["value"]), float(row["low"]), float(row["high"]), note)


def _notes(of: Sequence[Scored]) -> tuple[str, ...]:
    methods = ", ".join(dict.fromkeys(of[0].table["method"]))
    notes = [
        f"95 % intervals: {methods}. There is none (a hollow dot) where fewer than {FEW} films, or "
        "patients with such films, are of a class."
    ]
    if any(each.row(MEAN, "accuracy") for each in of):
        notes.append(
            "Classes exclude one another: accuracy is the share whose highest score is theirs."
        )
    notes += [
        f"{each.run}, {each.model}: the run wrote down {each.recorded:.6f}, these predictions give "
        f"{each.mean:.6f}: one of the files has been changed."
        for each in of
        if not each.agrees
    ]
    return tuple(notes)
