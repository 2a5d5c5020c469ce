"""Figure 2's charts: means over draws, by films."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ark_framework.report import chart
from ark_framework.transfer.cells import bounds, number
from ark_framework.transfer.compare import Comparison, Curve
from ark_framework.transfer.sheets import UNITS, tick, title


def styles(found: Comparison) -> dict[str, dict[str, str]]:
    """Return how each model's line is drawn, the same in every chart."""
    drawn = {model: None for curve in found.curves for model in curve.lines}
    return {model: chart.style(index) for index, model in enumerate(drawn)}


def chart_of(curve: Curve, drawn: Mapping[str, dict[str, str]]) -> dict[str, Any]:
    """Lay one chart out; ``drawn`` are :func:`styles`."""
    lines = {
        model: [chart.Mean(p.x, p.mean, p.low, p.high) for p in points]
        for model, points in curve.lines.items()
    }
    made = chart.chart(lines, drawn)
    for each in made["x"]:
        each["text"] = tick(curve.over, each["value"])
    for line in made["lines"]:
        for point in line["points"]:
            mean = point["of"]
            told = f"{tick(curve.over, mean.x)}: {number(mean.mean)} {bounds(mean.low, mean.high)}"
            point["text"] = told.strip()
    size = {"width": chart.WIDTH, "height": chart.HEIGHT}
    return {
        "title": title(curve),
        "metric": curve.first.metric,
        "axis": UNITS[curve.over],
        **made,
        **size,
    }
