"""How groups, counts and numbers are said."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ark_framework.fairness.groupings import ALL, OTHERS
from ark_framework.transfer.cells import p_value

CROSSED = re.compile(r"[+*]")  # between the names of groupings that are crossed
SEXES = {"F": "women", "M": "men"}
MEASURES = {
    "auroc": "AUROC",
    "fnr": "FNR",
    "fpr": "FPR",
    "ppv": "PPV",
    "ece": "calibration error",
    "bias": "calibration bias",
}
MEANINGS = (
    "FNR: share of films with the finding that are not called; FPR: share of films without it that "
    "are called; PPV: share of called films that have it. Calibration error: expected calibration "
    "error (ECE); calibration bias: mean predicted probability minus the share that has it."
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A sentence or two; an alarm is a gap that is distinguished from none."""

    text: str
    tone: Literal["", "alarm", "caution"] = ""


def people(attribute: str, group: str) -> str:
    """Return what a sentence calls a group: ``women``, ``patients aged 60-79``, ``PA films``."""
    if group == OTHERS:
        return "the others"
    if group == ALL:
        return "everybody"
    if attribute == "sex":
        return SEXES.get(group, f"sex {group}")
    if attribute == "age":
        return f"patients aged {group}"
    if attribute == "view":
        return f"{group} films"
    return f"the group {group}" if CROSSED.search(attribute) else f"{attribute} {group}"


def named(attribute: str) -> str:
    """Return ``sex and age`` for a crossing."""
    return CROSSED.sub(" and ", attribute)


def many(number: float, one: str, more: str = "") -> str:
    """Return ``1 film`` or ``1,234 films``."""
    return f"{number:,.0f} {one if number == 1 else more or f'{one}s'}"


def listed(names: Sequence[str]) -> str:
    """Return ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def few(names: Iterable[str], most: int = 8) -> str:
    """Return ``a, b and 5 more``."""
    every = list(names)
    more = [f"{len(every) - most} more"] if len(every) > most else []
    return listed([*every[:most], *more])


def interval(low: float, high: float) -> str:
    """Return `` (0.09 to 0.33)``, or an empty string where there is none."""
    return f" ({low:.2f} to {high:.2f})" if math.isfinite(low + high) else ""


def holm(p: float) -> str:
    """Return ``Holm's p 0.004``."""
    return f"Holm's p {p_value(p)}"


def reason(note: str) -> str:
    """Return why, without what the sentence around it says already."""
    for known in ("not estimable: ", "not scored: "):
        note = note.removeprefix(known)
    return note or "no reason is given"
