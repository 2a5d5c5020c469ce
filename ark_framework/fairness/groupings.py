"""Into which subgroups films fall: by sex, band of age, view, a plugin's columns, and crossings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from ark_framework.annotations import GROUP
from ark_framework.errors import ConfigError, did_you_mean

ALL, OTHERS, MISSING = "all", "others", "missing"
CROSS = "+"  # between groupings that are crossed
OWN = ("sex", "age", "view")  # columns of every annotation table
MANY = 40  # groups of one grouping; more are names or numbers, not groups


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """One way to tell films apart.

    Attributes:
        name: Such as ``sex``, or ``sex+age``.
        groups: Their names, in the order of tables.
        of: Each film's group ``(n,)`` as its place in ``groups``; -1 where nobody says.
    """

    name: str
    groups: tuple[str, ...]
    of: np.ndarray

    def members(self) -> np.ndarray:
        """Return who is in which group, ``(n, K)`` bool."""
        return np.asarray(self.of[:, None] == np.arange(len(self.groups)))

    def names(self) -> np.ndarray:
        """Return each film's group by name ``(n,)``; ``missing`` where nobody says."""
        return np.asarray(np.array([*self.groups, MISSING], dtype=object)[self.of])


def groupings(
    frame: pd.DataFrame, wanted: Sequence[str] | None, *, ages: Sequence[float]
) -> tuple[list[Grouping], list[str]]:
    """Return the groupings of films, and a line for each that there is not.

    Args:
        frame: Films with ``sex``, ``age``, ``view`` and any ``group:`` columns.
        wanted: Names; every column and every crossing of two, if ``None``.
        ages: Where bands of age begin.

    Raises:
        ConfigError: a name that is no column.
    """
    more = [str(name).removeprefix(GROUP) for name in frame if str(name).startswith(GROUP)]
    known = check(wanted or (), more)
    singles, notes = {}, []
    for name in known:
        made = _single(frame, name, ages)
        if isinstance(made, Grouping):
            singles[name] = made
        elif wanted is None or any(name in each.split(CROSS) for each in wanted):
            notes.append(made)
    if wanted is None:
        crossed = (CROSS.join(each) for each in combinations(singles, 2))
        wanted = [*singles, *crossed]
    found = []
    for name in dict.fromkeys(wanted):
        parts = name.split(CROSS)
        if all(part in singles for part in parts):
            found.append(_crossed(name, [singles[part] for part in parts]))
    return found, notes


def check(wanted: Iterable[str], more: Iterable[str], *, option: str = "--by") -> list[str]:
    """Return the columns that films can be told apart by: every table's, and ``more``.

    Raises:
        ConfigError: a part of a wanted name is none of them.
    """
    known = [*OWN, *more]
    for name in wanted:
        for part in name.split(CROSS):
            if part not in known:
                near = did_you_mean(part, known) or f"; there are {', '.join(known)}"
                raise ConfigError(f"{option} {name}: no grouping {part!r}{near}")
    return known


def _single(frame: pd.DataFrame, name: str, ages: Sequence[float]) -> Grouping | str:
    """Return a grouping by one column, or why there is none."""
    column = frame[name if name in OWN else f"{GROUP}{name}"]
    if not column.notna().any():
        return f"{name}: no film says it, so nothing is told apart by it"
    if name == "age":
        years = column.to_numpy(dtype=np.float64)
        of = np.where(np.isnan(years), -1, np.searchsorted(ages, years, side="right"))
        made = _present(name, _bands(ages), of)
    else:
        text = column.map(str, na_action="ignore")
        values = sorted(text.dropna().unique())
        if len(values) > MANY:
            return f"{name}: {len(values)} values are too many for groups, at most {MANY} are"
        place = {value: number for number, value in enumerate(values)}
        made = _present(name, values, text.map(place).fillna(-1).to_numpy(dtype=np.int64))
    if len(made.groups) == 1:
        return f"{name}: every film that says it is {made.groups[0]}, so nothing can be compared"
    return made


def _bands(ages: Sequence[float]) -> list[str]:
    starts = [0, *ages]
    closed = [f"{low:g}-{high - 1:g}" for low, high in zip(starts, ages, strict=False)]
    return [*closed, f"{ages[-1]:g}+"]


def _present(name: str, groups: Sequence[str], of: np.ndarray) -> Grouping:
    """Leave out groups without films."""
    used = [number for number in range(len(groups)) if (of == number).any()]
    place = np.full(len(groups) + 1, -1, dtype=np.int64)
    place[used] = np.arange(len(used))
    return Grouping(name=name, groups=tuple(groups[number] for number in used), of=place[of])


def _crossed(name: str, parts: Sequence[Grouping]) -> Grouping:
    first, *rest = parts
    groups, of = list(first.groups), first.of
    for other in rest:
        width = len(other.groups)
        of = np.where((of < 0) | (other.of < 0), -1, of * width + other.of)
        groups = [f"{one}, {two}" for one in groups for two in other.groups]
    return _present(name, groups, of)
