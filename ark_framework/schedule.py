"""Schedules as pure functions of an index: nothing here remembers anything.

Half-cosine curves without warm-up drive the teacher's momentum and the consistency weight, as in
the published code; the learning rate has a linear warm-up and a cosine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


def half_cosine(index: float, length: float, *, start: float, end: float) -> float:
    """Go from ``start`` at index 0 to ``end`` at ``length`` along half a cosine."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * index / length))


def momentum(index: int, total: int, *, first: float) -> float:
    """Teacher momentum of update ``index`` of ``total``: from ``first`` towards 1.

    ``m(i) = 1 - (1 - first) / 2 * (1 + cos(pi i / total))``.
    """
    return half_cosine(index, total, start=first, end=1.0)


def consistency_weight(index: int, total: int, *, peak: float) -> float:
    """Weight of the consistency loss at update ``index``: from 0 towards ``peak`` (0.5)."""
    return half_cosine(index, total, start=0.0, end=peak)


@dataclass(frozen=True, kw_only=True)
class LearningRate:
    """A learning rate as a formula and its parameters.

    ``kind``: ``cosine`` or ``constant``.  ``unit`` says what the index counts: ``step``, or
    ``cycle`` for a rate that stays put within a cycle (as published).  ``warmup`` and ``length``
    are in that unit.  During warm-up the rate is ``start + t (peak - start) / warmup``; then
    ``end + (peak - end) / 2 (1 + cos(pi u / L))`` with ``u = t, L = length``, or, with
    ``prefix``, ``u = t - warmup, L = length - warmup`` so that the cosine begins at ``peak``.
    ``first_cycle`` replaces the rate during cycle 0 (``ark6-as-released``).
    """

    kind: Literal["cosine", "constant"]
    unit: Literal["step", "cycle"]
    peak: float
    start: float
    end: float
    warmup: float
    length: float
    prefix: bool
    first_cycle: float | None

    def value(self, *, step: int, cycle: int) -> float:
        """Return the rate of global ``step``, which lies in ``cycle``."""
        if self.first_cycle is not None and cycle == 0:
            return self.first_cycle
        if self.kind == "constant":
            return self.peak
        index = float(step if self.unit == "step" else cycle)
        if index < self.warmup:
            return self.start + index * (self.peak - self.start) / self.warmup
        if self.prefix:
            index, length = index - self.warmup, self.length - self.warmup
        else:
            length = self.length
        return half_cosine(index, max(length, 1.0), start=self.peak, end=self.end)
