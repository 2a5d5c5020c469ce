"""The table at the end of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table

from ark_framework.cli.console import sheet
from ark_framework.events import TaskScore


def table(scores: Sequence[TaskScore], baseline: Mapping[str, float] | None = None) -> Table:
    """Return mean AUROC per task for student and teacher, and beside it a baseline's if given."""
    title = "mean AUROC, " + (scores[0].split if scores else "no test films")
    made = sheet("task", "films", "labels scored", "student", "teacher", title=title)
    if baseline is not None:
        made.add_column("pixels, logistic")
    by_task: dict[str, dict[str, TaskScore]] = {}
    for each in scores:
        by_task.setdefault(each.task, {})[each.model] = each
    for task, models in by_task.items():
        one = next(iter(models.values()))
        scored = sum(math.isfinite(value) for value in one.labels.values())
        row = [task, str(one.images), f"{scored} of {len(one.labels)}"]
        row += [
            _number(models[name].auroc) if name in models else "-"
            for name in ("student", "teacher")
        ]
        if baseline is not None:
            row.append(_number(baseline.get(task, math.nan)))
        made.add_row(*row)
    return made


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "n/a"
