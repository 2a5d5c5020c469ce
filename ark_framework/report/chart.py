"""Line charts with bands: where each mark lies, for the templates to draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

WIDTH, HEIGHT = 340, 230
LEFT, RIGHT, TOP, BOTTOM = 44, 328, 10, 190
# Okabe and Ito's colors, which the color-blind tell apart; dashes and marks serve in grey.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
DASHES = ("", "6 3", "2 3", "9 3 2 3")
MARKS = (
    "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
    "m-3 -3h6v6h-6z",
    "m0 -4l4 7h-8z",
    "m0 -4.5l4 4.5l-4 4.5l-4 -4.5z",
    "m0 4l4 -7h-8z",
)
STEPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


class Mean(NamedTuple):
    """A point: where, how high, and its interval, NaN where there is none."""

    x: float
    mean: float
    low: float
    high: float


def style(index: int) -> dict[str, str]:
    """Return the color, dash and mark of the line of this number; no two of the first 35 agree."""
    dash = DASHES[index % len(DASHES)]
    return {
        "color": COLORS[index % len(COLORS)],
        "dash": dash,
        "mark": MARKS[index % len(MARKS)],
    }


def chart(
    lines: Mapping[str, Sequence[Mean]], styles: Mapping[str, dict[str, str]]
) -> dict[str, Any]:
    """Lay a chart out in a box of ``WIDTH`` x ``HEIGHT``; x grows by its logarithm.

    Args:
        lines: By name; points ascending in x, which is above 0.
        styles: By name, of :func:`style`.
    """
    points = [p for line in lines.values() for p in line if math.isfinite(p.mean)]
    ticks = sorted({p.x for line in lines.values() for p in line})
    low, high, step = _range([v for p in points for v in p[1:] if math.isfinite(v)])

    def x(value: float) -> float:
        start, width = math.log2(ticks[0]), math.log2(ticks[-1] / ticks[0])
        share = (math.log2(value) - start) / width if width else 0.5
        return round(LEFT + 10 + share * (RIGHT - LEFT - 20), 2)

    def y(value: float) -> float:
        return round(BOTTOM - (min(max(value, low), high) - low) / (high - low) * (BOTTOM - TOP), 2)

    made = []
    for name, line in lines.items():
        seen = [p for p in line if math.isfinite(p.mean)]
        edge = [p for p in seen if math.isfinite(p.low)]
        around = [(x(p.x), y(p.high)) for p in edge] + [(x(p.x), y(p.low)) for p in reversed(edge)]
        made.append(
            {
                "name": name,
                "path": _text((x(p.x), y(p.mean)) for p in seen),
                "band": _text(around) if len(edge) > 1 else "",
                "points": [{"x": x(p.x), "y": y(p.mean), "of": p} for p in seen],
                **styles[name],
            }
        )
    count = round((high - low) / step)
    return {
        "lines": made,
        "x": [{"at": x(each), "value": each} for each in ticks],
        "y": [{"at": y(low + i * step), "text": f"{low + i * step:.3g}"} for i in range(count + 1)],
    }


def _range(values: Sequence[float]) -> tuple[float, float, float]:
    """Return where an axis begins and ends, and its step: at most seven ticks, within 0 to 1."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    low, high = max(low, 0.0), min(high, 1.0)
    step = next((step for step in STEPS if (high - low) / step <= 5), STEPS[-1])
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return start * step, max(end, start + 1) * step, step


def _text(points: Any) -> str:
    return " ".join(f"{x},{y}" for x, y in points)
