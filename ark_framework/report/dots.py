"""Dots with intervals, a row per name: where each lies, for the templates to draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ark_framework.report import rows
from ark_framework.report.bars import Bar


def dots(given: Mapping[str, Sequence[Bar]], *, groups: Sequence[str]) -> dict[str, Any]:
    """Lay out a row for each name, with a dot for each group from top to bottom.

    Args:
        given: By name; as many values as there are groups.
        groups: What the dots of a row are.
    """
    shown = [v for row in given.values() for each in row for v in each[:3]]
    scale = rows.axis([0.5, *shown])  # of chance, so that every chart has it
    made = []
    for number, (name, row) in enumerate(given.items()):
        lanes = [
            rows.lane(number, len(groups), place) | _dot(each, f"{name}, {group}", scale)
            for place, (each, group) in enumerate(zip(row, groups, strict=True))
        ]
        made.append(rows.row(name, number, lanes) | {"strong": False})
    return rows.chart(made, len(groups), scale) | {"chance": rows.place(0.5, scale)}


def _dot(value: Bar, name: str, scale: rows.Scale) -> dict[str, Any]:
    made: dict[str, Any] = {"dot": None, "whisker": None}
    if not math.isfinite(value.value):
        return made | {"text": rows.why(value.note), "title": f"{name}: {value.note}"}
    told = f"{name}: {value.value:.3f}"
    if math.isfinite(value.low) and math.isfinite(value.high):
        made["whisker"] = (rows.place(value.low, scale), rows.place(value.high, scale))
        told += f" [{value.low:.3f}, {value.high:.3f}]"
    return made | {"dot": rows.place(value.value, scale), "title": told}
