"""Grouped bars with intervals, a row per name: where each lies, for the templates to draw."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from ark_framework.report import rows

SCALE = (0.0, 1.0, 0.25)


class Bar(NamedTuple):
    """A share, its interval, NaN where there is none, and why the share is NaN."""

    value: float
    low: float = math.nan
    high: float = math.nan
    note: str = ""


def bars(
    given: Mapping[str, Sequence[Bar]], *, groups: Sequence[str], strong: Collection[str] = ()
) -> dict[str, Any]:
    """Lay out a row for each name, with a bar for each group from top to bottom.

    Args:
        given: By name; as many bars as there are groups, of shares 0 to 1.
        groups: What the bars of a row are.
        strong: Names that stand out.
    """
    made = []
    for number, (name, row) in enumerate(given.items()):
        lanes = [
            rows.lane(number, len(groups), place) | _bar(bar, f"{name}, {group}")
            for place, (bar, group) in enumerate(zip(row, groups, strict=True))
        ]
        made.append(rows.row(name, number, lanes) | {"strong": name in strong})
    return rows.chart(made, len(groups), SCALE)


def _bar(bar: Bar, name: str) -> dict[str, Any]:
    made: dict[str, Any] = {"bar": None, "whisker": None}
    if not math.isfinite(bar.value):
        return made | {"text": rows.why(bar.note), "title": f"{name}: {bar.note or 'not scored'}"}
    end = rows.place(bar.value, SCALE)
    told = f"{name}: {bar.value:.3f}"
    if math.isfinite(bar.low) and math.isfinite(bar.high):
        made["whisker"] = (rows.place(bar.low, SCALE), rows.place(bar.high, SCALE))
        told += f" [{bar.low:.3f}, {bar.high:.3f}]"
    elif end == rows.LEFT:
        made["text"] = "0"  # without width and whisker it would look like nothing scored
    return made | {"bar": (rows.LEFT, round(end - rows.LEFT, 2)), "title": told}
