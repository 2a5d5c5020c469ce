"""Scores for what no head was trained on: outputs of trained heads, or means of them.

``vindr:Tuberculosis`` is one output; ``tb=vindr:Tuberculosis+shenzhen:TB`` the mean of two, named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from ark_framework.blueprint import TaskHead
from ark_framework.errors import ConfigError, did_you_mean


class Part(NamedTuple):
    """One output of one head."""

    task: str
    label: str

    def __str__(self) -> str:
        return f"{self.task}:{self.label}"


@dataclass(frozen=True, kw_only=True)
class Score:
    """A named mean over outputs."""

    name: str
    parts: tuple[Part, ...]


def parse_score(text: str, tasks: Iterable[TaskHead]) -> Score:
    """Read ``[NAME=]TASK:LABEL[+TASK:LABEL...]``.

    A label may hold any of the signs: the longest one that fits is meant.

    Raises:
        ConfigError: an unknown task or label, or no name before ``=``.
    """
    known = {task.name: task.labels for task in tasks}
    name, equals, rest = text.partition("=")
    if not equals or _head(text, known):  # the sign belongs to a label
        name, rest = text, text
    if not name.strip():
        raise ConfigError(f"score {text!r}: no name before '='")
    parts = []
    while True:
        parts.append(_part(rest, text, known))
        rest = rest.strip()[len(str(parts[-1])) :].strip()
        if not rest:
            return Score(name=name.strip(), parts=tuple(parts))
        rest = rest.removeprefix("+")


def score(predictions: Mapping[str, pd.DataFrame], wanted: Score) -> pd.Series[float]:
    """Return a score per film ``(n,)``: the mean of its parts, missing where a part is.

    Args:
        predictions: Probabilities ``(n, labels)`` by task, as ``predict`` gives them.
        wanted: From :func:`parse_score`.
    """
    columns = [predictions[part.task][part.label] for part in wanted.parts]
    return pd.concat(columns, axis=1).mean(axis=1, skipna=False).rename(wanted.name)


def _head(text: str, known: Mapping[str, tuple[str, ...]]) -> Part | None:
    """Return the longest output that a text begins with."""
    text = text.strip()
    parts = (Part(task, label) for task, labels in known.items() for label in labels)
    fitting = [
        part for part in parts
        if text.startswith(str(part)) and text[len(str(part)) :].lstrip()[:1] in ("", "+")
    ]  # fmt: skip
    return max(fitting, key=lambda part: len(part.label), default=None)


def _part(text: str, whole: str, known: Mapping[str, tuple[str, ...]]) -> Part:
    if found := _head(text, known):
        return found
    word = text.partition("+")[0].strip()
    task, colon, label = word.partition(":")
    if not colon:
        raise ConfigError(f"score {whole!r}: {word!r} is not TASK:LABEL")
    if task not in known:
        near = did_you_mean(task, known) or f"; there are {', '.join(known)}"
        raise ConfigError(f"score {whole!r}: no task {task!r}{near}")
    near = did_you_mean(label, known[task]) or f"; there are {', '.join(known[task])}"
    raise ConfigError(f"score {whole!r}: {task} has no label {label!r}{near}")
