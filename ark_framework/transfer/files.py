"""What a comparison leaves for others: long tables as CSV, and the tables of a page as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from ark_framework.exposure import NO, UNKNOWN, YES
from ark_framework.statistics import Difference
from ark_framework.text import markdown as plain
from ark_framework.transfer.arms import Arm, mean_sd
from ark_framework.transfer.cells import Cell, Sheet
from ark_framework.transfer.compare import Comparison
from ark_framework.transfer.outcome import Outcome

MEAN = "mean"
TRAINING = {"films": "training_films"}  # where "films" are those of the test


def outcome_frame(outcomes: Iterable[Outcome]) -> pd.DataFrame:
    """Return a row for each outcome and label, and one for its mean; settings are columns.

    ``label`` is empty on the row of the mean, which ``row`` calls ``mean``.
    """
    rows: list[dict[str, Any]] = []
    for each in outcomes:
        about: dict[str, Any] = {"protocol": each.protocol, "dataset": each.dataset}
        told = {TRAINING.get(name, name): value for name, value in each.setting.items()}
        about |= {"model": each.model, **told, "films": each.films}
        counts = _counts(each.trained_on)
        mean = {"row": MEAN, "label": "", "auroc": each.auroc, "accuracy": each.accuracy}
        mean |= {"dice": each.dice}
        rows.append({**about, **mean, **counts})
        for label, scores in each.labels.items():
            rows.append({**about, "row": "label", "label": label, **scores, **counts})
    return pd.DataFrame(rows)


def table_frame(found: Comparison) -> pd.DataFrame:
    """Return a row for each model, dataset, protocol and condition that a table or chart shows.

    Differences are the best's score minus the model's, gains the model's minus the first model's.
    """
    rows: list[dict[str, Any]] = []
    for column in found.columns:
        for each in column.standings:
            mean, sd, count = mean_sd(each.arm.values)
            told = {"mean": mean, "sd": sd, "count": count, "marks": "; ".join(each.marks)}
            told |= {"best": column.best.model, "method": column.method if each.difference else ""}
            told |= _numbers("difference", each.difference) | {"p_holm": each.p}
            told |= _numbers("published", each.published)
            rows.append({"table": "scores", **_about(found, each.arm), **told})
    for curve in found.curves:
        for point in (point for line in curve.lines.values() for point in line):
            told = {"mean": point.mean, "sd": point.sd, "count": point.draws}
            told |= {"low": point.low, "high": point.high} | _numbers("gain", point.gain)
            rows.append({"table": "curve", **_about(found, point.arm), **told})
    for arm in found.external:
        mean, _, count = mean_sd([arm.first.auroc])
        rows.append({"table": "external", **_about(found, arm), "mean": mean, "count": count})
    return pd.DataFrame(rows)


def markdown(heading: str, lines: Sequence[str], sheets: Iterable[Sheet]) -> str:
    """Return tables as Markdown, below a heading and some lines."""
    parts = [f"# {plain(heading)}", "", *(f"{plain(line)}  " for line in lines), ""]
    for sheet in sheets:
        parts += [f"## {plain(sheet.title)}", "", _row(map(plain, sheet.columns))]
        parts += [
            _row("---" for _ in sheet.columns),
            *(_row(map(_cell, row)) for row in sheet.rows),
        ]
        parts += ["", *(f"{plain(note)}  " for note in sheet.notes), ""]
    return "\n".join(parts)


def _about(found: Comparison, arm: Arm) -> dict[str, Any]:
    over, x = arm.condition
    external = arm.protocol == "external"
    return {
        "protocol": arm.protocol,
        "dataset": arm.dataset,
        "model": arm.model,
        **({TRAINING.get(over, over): x} if over else {}),
        "metric": "mean AUROC" if external else arm.metric,
        "labels": found.shared(arm),
        "films": arm.films,
        **_counts(arm.exposure()),
    }


def _counts(trained_on: Any) -> dict[str, int | None]:
    return {
        f"{what}_trained_on_{word}": trained_on.get(what, {}).get(word)
        for what in ("films", "patients")
        for word in (YES, NO, UNKNOWN)
    }


def _numbers(name: str, difference: Difference | None) -> dict[str, Any]:
    if difference is None:
        return {}
    return {
        name: difference.value,
        f"{name}_low": difference.low,
        f"{name}_high": difference.high,
        f"{name}_p": difference.p,
        f"{name}_note": difference.reason,
    }


def _row(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _cell(cell: Cell) -> str:
    left, right = {"best": ("**", "**"), "second": ("<u>", "</u>")}.get(cell.place, ("", ""))
    return f"{left}{plain(cell.text)}{right}"
