"""Box plots, a row per name with stars at its end: where each lies, for the templates to draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ark_framework.report import rows

STARS = 42  # the width of the column at the right
REACH = 1.5  # of the interquartile range; what lies farther out is a dot (Tukey)


class Row(NamedTuple):
    """What is drawn beside a name: a box for each group, and what stands at the right."""

    values: Sequence[np.ndarray]
    stars: str = ""
    strong: bool = False
    note: str = ""


class Summary(NamedTuple):
    """The five numbers of a box, and the values beyond its whiskers."""

    low: float
    first: float
    median: float
    third: float
    high: float
    outliers: tuple[float, ...]


def summary(values: np.ndarray) -> Summary:
    """Return a box of one value or more: quartiles, and whiskers to the last value in reach."""
    first, median, third = (float(each) for each in np.percentile(values, [25, 50, 75]))
    reach = REACH * (third - first)
    inside = values[(values >= first - reach) & (values <= third + reach)]
    outliers = np.sort(values[(values < first - reach) | (values > third + reach)])
    low, high = float(inside.min()), float(inside.max())
    return Summary(low, first, median, third, high, tuple(outliers.tolist()))


def boxes(given: Mapping[str, Row], *, groups: Sequence[str], scale: rows.Scale) -> dict[str, Any]:
    """Lay out a row for each name, with a box for each group from top to bottom.

    Args:
        given: By name; values ``(n,)`` for each group, of which NaN are left out.
        groups: What the boxes of a row are.
        scale: Of :func:`axis`, so that several charts can share one.
    """
    made = []
    for number, (name, row) in enumerate(given.items()):
        lanes = [
            rows.lane(number, len(groups), place) | _box(values, f"{name}, {group}", row, scale)
            for place, (values, group) in enumerate(zip(row.values, groups, strict=True))
        ]
        stars = {"stars": row.stars, "strong": row.strong}
        made.append(rows.row(name, number, lanes) | stars)
    return rows.chart(made, len(groups), scale) | {"width": rows.WIDTH + STARS}


def axis(given: Iterable[Row]) -> rows.Scale:
    """Return a scale for all that is drawn in some charts."""
    return rows.axis(float(v) for row in given for values in row.values for v in values)


def _box(values: np.ndarray, name: str, row: Row, scale: rows.Scale) -> dict[str, Any]:
    values = values[np.isfinite(values)]
    if not len(values):
        note = row.note or "not scored"
        return {"box": None, "text": rows.why(note), "title": f"{name}: {note}"}
    found = summary(values)
    told = f"median {found.median:.3f}, quartiles {found.first:.3f} and {found.third:.3f}"
    return {
        "box": [rows.place(each, scale) for each in found[:5]],
        "outliers": [rows.place(each, scale) for each in found.outliers],
        "title": f"{name}: {told}, {len(values)} fold{'s' if len(values) > 1 else ''}",
    }
