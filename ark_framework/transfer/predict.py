"""A model's answers for any number of films: batch after batch, one row of a table per film."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ark_framework.blueprint import TaskHead
from ark_framework.errors import ConfigError, did_you_mean
from ark_framework.pretrained import BATCH, Pretrained
from ark_framework.transfer.films import decoded
from ark_framework.transfer.zeroshot import Score, score
from ark_framework.views import center

IMAGE, PICTURE, PROBLEM = "image", "saliency", "problem"


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """Some films and what a model says of them.

    Attributes:
        names: The films, as they were named.
        readable: ``(n,)`` bool.
        views: ``(readable, C, S, S)`` floats in 0..1: what the model saw.
        tables: By task, probabilities ``(n, labels)``; missing where a film cannot be read.
        problems: Why not, by name.
    """

    names: tuple[str, ...]
    readable: np.ndarray
    views: Tensor
    tables: dict[str, pd.DataFrame]
    problems: dict[str, str]


def predict(
    model: Pretrained, names: Iterable[str], *, workers: int | None = None
) -> Iterator[Predicted]:
    """Yield predictions in the films' order; a film that cannot be read loses no other.

    Args:
        model: The model.
        names: Files.
        workers: Processes that decode; all cores when ``None``.

    Raises:
        MachineError: a codec is missing, or a worker died.
    """
    film = model.blueprint.preprocessing
    for films in decoded(names, film, batch=BATCH, workers=workers):
        readable = np.array([name not in films.problems for name in films.names], dtype=bool)
        views = center(torch.from_numpy(films.pixels[readable]), film.size)
        rows = np.flatnonzero(readable)
        tables = {
            task: table.set_axis(rows, axis=0).reindex(range(len(readable)))
            for task, table in model.predict(views).items()
        }
        yield Predicted(
            names=films.names,
            readable=readable,
            views=views,
            tables=tables,
            problems=films.problems,
        )


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The columns of a table: ``image``, ``task:label``…, scores…, ``saliency``, ``problem``.

    Attributes:
        tasks: The heads that are shown.
        scores: Columns made of their outputs or of others'.
        pictures: Whether there is a column for pictures.

    Raises:
        ConfigError: a score has the name of another column.
    """

    tasks: tuple[TaskHead, ...]
    scores: tuple[Score, ...] = ()
    pictures: bool = False

    def __post_init__(self) -> None:
        taken = {IMAGE, PICTURE, PROBLEM}
        shown = {f"{task.name}:{label}" for task in self.tasks for label in task.labels}
        for each in self.scores:
            itself = [str(part) for part in each.parts] == [each.name]  # the same numbers
            if each.name in taken or (each.name in shown and not itself):
                raise ConfigError(f"score {each.name!r}: another column has this name")
            taken.add(each.name)

    def rows(self, found: Predicted, pictures: Sequence[str | None] = ()) -> pd.DataFrame:
        """Return one row per film."""
        columns: dict[str, object] = {IMAGE: list(found.names)}
        for task in self.tasks:
            table = found.tables[task.name]
            columns |= {f"{task.name}:{label}": table[label] for label in task.labels}
        columns |= {each.name: score(found.tables, each) for each in self.scores}
        if self.pictures:
            columns[PICTURE] = list(pictures)
        columns[PROBLEM] = [found.problems.get(name) for name in found.names]
        return pd.DataFrame(columns)


def choose(model: Pretrained, wanted: Sequence[str]) -> tuple[TaskHead, ...]:
    """Return the heads of these names, in the order asked; all of them where none is.

    Raises:
        ConfigError: the model has no heads, or none of this name.
    """
    known = {task.name: task for task in model.tasks}
    if not known:
        raise ConfigError("the model has no heads, so there is nothing to predict; see: ark probe")
    for name in wanted:
        if name not in known:
            near = did_you_mean(name, known) or f"; there are {', '.join(known)}"
            raise ConfigError(f"--tasks: the model has no head {name!r}{near}")
    return tuple(known[name] for name in dict.fromkeys(wanted or known))
