"""Predictions on films of a store: of the middle of each, or the mean over ten crops."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ark_framework.corpus import Corpus
from ark_framework.model import ArkModel
from ark_framework.runtime import Runtime
from ark_framework.specs import Kind
from ark_framework.views import center


def ten_crops(films: Tensor, size: int) -> Iterator[Tensor]:
    """Yield ten views ``(B, C, size, size)``, float32 in 0..1, of films ``(B, C, S, S)`` uint8.

    Four corners and the middle, then those of the mirror image: the published test views.
    """
    far = films.shape[-1] - size
    middle = far // 2
    for whole in (films, films.flip(-1)):
        for y, x in ((0, 0), (0, far), (far, 0), (far, far), (middle, middle)):
            yield whole[..., y : y + size, x : x + size].to(torch.float32).div_(255.0)


def views_of(films: Tensor, size: int, *, tencrop: bool) -> Iterator[Tensor]:
    """Yield the views that are scored: the middle of each film, or its ten crops."""
    return ten_crops(films, size) if tencrop else iter((center(films, size),))


def logits(
    model: ArkModel,
    task: str,
    corpus: Corpus,
    rows: np.ndarray,
    *,
    size: int,
    tencrop: bool,
    batch_size: int,
    runtime: Runtime,
) -> Tensor:
    """Return logits ``(1 or 10, n, C)`` float64 on the CPU, by view; ``model`` is left in eval.

    Ranks share the films.
    """
    model.eval()
    mine = rows[runtime.ranks.mine(len(rows))]
    found = []
    with torch.no_grad():
        for start in range(0, len(mine), batch_size):
            films = torch.from_numpy(corpus.images(mine[start : start + batch_size]))
            films = films.to(runtime.device)
            with runtime.autocast():
                views = views_of(films, size, tencrop=tencrop)
                logits = torch.stack([model(view, task).float() for view in views])
                found.append(logits.transpose(0, 1).cpu().numpy())
    whole = runtime.ranks.gather(found)
    return torch.from_numpy(whole).transpose(0, 1).double()


def probabilities(logits: Tensor, kind: Kind) -> np.ndarray:
    """Return the mean over views ``(n, C)`` of the probabilities of ``logits`` ``(V, n, C)``."""
    each = logits.softmax(dim=-1) if kind == "multiclass" else logits.sigmoid()
    mean: np.ndarray = each.mean(dim=0).numpy()
    return mean
