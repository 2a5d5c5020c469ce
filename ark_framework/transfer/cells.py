"""Tables of text and the numbers in them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ark_framework.statistics import Difference

GLUE = "\u00a0"  # a space at which no line ends


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Text, and how it stands out."""

    text: str
    place: Literal["", "best", "second"] = ""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table: the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def cells(*texts: str) -> tuple[Cell, ...]:
    """Return plain cells."""
    return tuple(Cell(text=text) for text in texts)


def number(value: float) -> str:
    """Return a score with three decimals."""
    return f"{value:.3f}" if math.isfinite(value) else "n/a"


def bounds(low: float, high: float) -> str:
    """Return an interval, or an empty string where there is none."""
    return f"[{low:.3f},{GLUE}{high:.3f}]" if math.isfinite(low) else ""


def gain(difference: Difference | None) -> str:
    """Return a difference with its sign and interval."""
    if difference is None or not math.isfinite(difference.value):
        return "n/a"
    return f"{difference.value:+.3f} {bounds(difference.low, difference.high)}".strip()


def p_value(p: float) -> str:
    """Return a p-value; one that there is not is a dash."""
    if not math.isfinite(p):
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"
