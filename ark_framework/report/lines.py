"""Line charts on linear axes of any range: where each line and shade lies, for the templates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ark_framework.report.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH

TICKS = 5  # steps of an axis, at most
NICE = (1.0, 2.0, 2.5, 5.0, 10.0)


class Point(NamedTuple):
    """Where, how high, NaN for a gap, and what is said of it; a silent one has no mark."""

    x: float
    y: float
    text: str = ""


Shade = Sequence[tuple[float, float, float]]
"""What is shaded between two heights: ``(x, low, high)``, ascending in x."""


def lines(
    given: Mapping[str, Sequence[Point]],
    styles: Mapping[str, dict[str, str]],
    *,
    shades: Mapping[str, Sequence[Shade]] | None = None,
    span: Sequence[float] = (),
    zero: bool = False,
) -> dict[str, Any]:
    """Lay a chart out in a box of ``WIDTH`` x ``HEIGHT``.

    Args:
        given: By name; points ascending in x.
        styles: By name, of :func:`ark_framework.report.chart.style`.
        shades: By name, in the color of the line of that name.
        span: Values that the horizontal axis has in any case.
        zero: Begin the vertical axis at 0.
    """
    points = [point for line in given.values() for point in line if math.isfinite(point.y)]
    across = scale([*span, *(point.x for point in points)])
    up = scale([point.y for point in points] + ([0.0] if zero else []))

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            round(LEFT + share(x, across) * (RIGHT - LEFT), 2),
            round(BOTTOM - share(y, up) * (BOTTOM - TOP), 2),
        )

    made = []
    for name, line in given.items():
        marks = [(at(p.x, p.y), p.text) for p in line if p.text and math.isfinite(p.y)]
        made.append(
            {
                "name": name,
                "paths": [_text(at(p.x, p.y) for p in piece) for piece in _pieces(line)],
                "shades": [_around(each, at) for each in (shades or {}).get(name, ())],
                "points": [{"x": x, "y": y, "text": text} for (x, y), text in marks],
                **styles[name],
            }
        )
    return {
        "lines": made,
        "x": [{"at": at(each, up[0])[0], "text": _number(each)} for each in ticks(across)],
        "y": [{"at": at(across[0], each)[1], "text": _number(each)} for each in ticks(up)],
        "width": WIDTH,
        "height": HEIGHT,
    }


def scale(values: Sequence[float]) -> tuple[float, float, float]:
    """Return where an axis begins and ends, and its step: 1, 2, 2.5 or 5 by a power of ten."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high <= low:
        reach = abs(low) or 1.0
        low, high = low - (0 if low == 0 else reach / 2), high + reach / 2
    power = 10.0 ** math.floor(math.log10((high - low) / TICKS))
    step = power * next(each for each in NICE if (high - low) / (power * each) <= TICKS)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, step


def ticks(axis: tuple[float, float, float]) -> list[float]:
    """Return the values of an axis that are marked."""
    low, high, step = axis
    return [low + i * step for i in range(round((high - low) / step) + 1)]


def share(value: float, axis: tuple[float, float, float]) -> float:
    """Return how far along an axis a value lies, 0 to 1."""
    low, high, _ = axis
    return (min(max(value, low), high) - low) / (high - low)


def _pieces(line: Sequence[Point]) -> list[list[Point]]:
    """Return a line's pieces between gaps."""
    pieces: list[list[Point]] = [[]]
    for point in line:
        if math.isfinite(point.y):
            pieces[-1].append(point)
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _around(shade: Shade, at: Any) -> str:
    top = [at(x, high) for x, _, high in shade]
    return _text(top + [at(x, low) for x, low, _ in reversed(shade)])


def _text(points: Any) -> str:
    return " ".join(f"{x},{y}" for x, y in points)


def _number(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:.4g}k"
    return f"{0.0 if abs(value) < 1e-12 else value:.4g}"
