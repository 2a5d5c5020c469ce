"""What charts with a row per name have in common: names on the left, a scale below."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from typing import Any

WIDTH, LEFT, RIGHT = 360, 142, 348
TOP, FOOT = 6, 24
BAR, PAD = 11, 4  # a bar's or box's share of a row, and what is left free above and below
LINE = 13  # between the lines of a name
STEPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25)
SIZE, NOTE = 12, 10  # of the letters of a name, and of a reason
DASH = "- "
Scale = tuple[float, float, float]
"""Where an axis begins and ends, and its step."""


def axis(values: Iterable[float]) -> Scale:
    """Return where a scale begins and ends, and its step: at most six ticks, within 0 to 1."""
    found = [value for value in values if math.isfinite(value)]
    low, high = max(min(found, default=0.0), 0.0), min(max(found, default=1.0), 1.0)
    step = next((step for step in STEPS if (high - low) / step <= 4), STEPS[-1])
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return start * step, max(end, start + 1) * step, step


def place(value: float, scale: Scale) -> float:
    """Return a value's x; beyond the scale is at its end."""
    low, high, _ = scale
    share = (min(max(value, low), high) - low) / (high - low)
    return round(LEFT + share * (RIGHT - LEFT), 2)


def ticks(scale: Scale) -> list[dict[str, Any]]:
    """Return a scale's marks."""
    low, high, step = scale
    values = [low + i * step for i in range(round((high - low) / step) + 1)]
    return [{"at": place(value, scale), "text": f"{value:.3g}"} for value in values]


def lane(number: int, count: int, place: int) -> dict[str, Any]:
    """Return where a bar or box lies: its place among ``count`` of them in a row of this number."""
    y = top_of(number, count) + (height_of(count) - count * BAR) / 2 + place * BAR
    middle = round(y + BAR / 2, 2)
    return {"place": place, "y": round(y + 1, 2), "middle": middle, "height": BAR - 2, "text": ""}


def row(name: str, number: int, lanes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a row; a reason for which nothing is drawn in all its lanes is said once."""
    top, height = top_of(number, len(lanes)), height_of(len(lanes))
    middle = round(top + height / 2, 2)
    texts = {lane["text"] for lane in lanes}
    if len(texts) == 1 and all(text.startswith(DASH) for text in texts):
        lanes = [
            lanes[0] | {"middle": middle},
            *(each | {"text": "", "title": ""} for each in lanes[1:]),
        ]
    return {"name": name, "lines": _name(name, middle), "lanes": lanes, "middle": middle}


def chart(made: list[dict[str, Any]], count: int, scale: Scale) -> dict[str, Any]:
    """Return a chart of rows with ``count`` lanes each."""
    bottom = top_of(len(made), count)
    size = {"width": WIDTH, "height": bottom + FOOT, "bottom": bottom}
    return {**size, "rows": made, "x": ticks(scale)}


def why(note: str) -> str:
    """Return what stands where nothing is drawn: a dash and the reason, up to its first comma."""
    return fitted(f"{DASH}{note.partition(', ')[0] or 'not scored'}", RIGHT - LEFT - 4, NOTE)


def fitted(text: str, width: float, size: float = SIZE) -> str:
    """Return a text, or what of it fits into a width, with an ellipsis."""
    if _width(text, size) <= width:
        return text
    kept = text
    while kept and _width(f"{kept}…", size) > width:
        kept = kept[:-1]
    return f"{kept.rstrip()}…"


def height_of(bars: int) -> float:
    """Return how high a row is: room for its bars, and for two lines of its name."""
    return max(bars * BAR + 2 * PAD, 2 * LINE + PAD)


def top_of(number: int, count: int) -> float:
    """Return where a row begins."""
    return TOP + number * height_of(count)


def _name(text: str, middle: float) -> list[dict[str, Any]]:
    """Return a name's lines, one or two of them, around the middle of a row beside the scale."""
    lines = _lines(text, LEFT - 10)
    first = middle + 0.35 * SIZE - (len(lines) - 1) * LINE / 2
    return [{"y": round(first + i * LINE, 2), "text": line} for i, line in enumerate(lines)]


def _lines(text: str, width: float) -> list[str]:
    if _width(text, SIZE) <= width:
        return [text]
    words, first = text.split(), ""
    while words and _width(f"{first} {words[0]}".strip(), SIZE) <= width:
        first = f"{first} {words.pop(0)}".strip()
    return [first, fitted(" ".join(words), width)] if first else [fitted(text, width)]


def _width(text: str, size: float) -> float:
    """Estimate how wide a text is in a sans-serif font, rather too wide than too narrow."""
    return size * sum(_advance(each) for each in text)


def _advance(letter: str) -> float:
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.05
    if letter in "MW@%—…":
        return 0.95
    return 0.72 if letter.isupper() else 0.36 if letter in " ilj.,:;|!'()[]" else 0.6
