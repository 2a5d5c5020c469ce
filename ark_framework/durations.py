"""Seconds as people say them."""

from __future__ import annotations

# The least of a unit that is worth saying in it, the unit, and its seconds.
UNITS = ((2 * 86_400, "days", 86_400), (2 * 3600, "h", 3600), (120, "min", 60), (0, "s", 1))


def spoken(seconds: float) -> str:
    """Return ``40 s``, ``3 min``, ``5 h`` or ``2 days``; nothing is said to a false precision."""
    least = max(seconds, 0.0)
    unit, size = next((unit, size) for start, unit, size in UNITS if least >= start)
    return f"{round(least / size)} {unit}"


def left(done: int, total: int, *, seconds: float) -> str:
    """Return ``, about 3 min left`` for work that took ``seconds`` so far; empty at its ends."""
    if not 0 < done < total:
        return ""
    return f", about {spoken(seconds / done * (total - done))} left"
