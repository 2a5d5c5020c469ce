"""Embeddings of films that are files, of no dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from ark_framework.pretrained import BATCH, Pretrained
from ark_framework.transfer.films import decoded
from ark_framework.views import center


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Vectors ``features`` ``(n, D)`` of the readable films ``ids``; the others' ``problems``."""

    ids: tuple[str, ...]
    features: np.ndarray
    problems: dict[str, str]


def embed_films(
    model: Pretrained,
    names: Iterable[str],
    *,
    projected: bool,
    report: Callable[[int], None] = lambda _: None,
) -> Embedded:
    """Return a vector of each readable film, in the films' order.

    Args:
        model: The model.
        names: Files.
        projected: Whether the projection is wanted, or the pooled features before it.
        report: ``report(done)`` after each batch.

    Raises:
        MachineError: a codec is missing, or a worker died.
    """
    film = model.blueprint.preprocessing
    ids: list[str] = []
    vectors = [model.embed([], projected=projected)]
    problems: dict[str, str] = {}
    done = 0
    for films in decoded(names, film, batch=BATCH):
        readable = np.array([name not in films.problems for name in films.names], dtype=bool)
        ids += [name for name in films.names if name not in films.problems]
        problems |= films.problems
        views = center(torch.from_numpy(films.pixels[readable]), film.size)
        vectors.append(model.embed(views, projected=projected))
        done += len(films.names)
        report(done)
    return Embedded(ids=tuple(ids), features=np.concatenate(vectors), problems=problems)
