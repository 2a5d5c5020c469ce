"""Scores that know unlabelled entries: NaN and -1 in a target are left out, label by label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ark_framework.events import Forgetting, TaskScore
from ark_framework.specs import LabelSchema


def known(targets: np.ndarray) -> np.ndarray:
    """Return which entries ``(N, C)`` are annotated and certain."""
    return np.asarray((targets == 0) | (targets == 1))


def auroc(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve of each label.

    Args:
        scores: ``(N, C)``, higher = more likely.
        targets: ``(N, C)`` with 1, 0, NaN and -1.

    Returns:
        ``(C,)`` float64 by the Mann-Whitney statistic with midranks; NaN where the annotated
        entries hold one class only.
    """
    mask = known(targets)
    columns = range(targets.shape[1])
    return np.array(
        [_auroc(scores[mask[:, c], c], targets[mask[:, c], c] == 1) for c in columns],
        dtype=np.float64,
    )


def average_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the average precision of each label, ``(C,)``; NaN without a positive."""
    mask = known(targets)
    columns = range(targets.shape[1])
    return np.array(
        [_precision(scores[mask[:, c], c], targets[mask[:, c], c] == 1) for c in columns],
        dtype=np.float64,
    )


def accuracy(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return the share of annotated rows whose highest score is their class; NaN without any."""
    rows = known(targets).all(axis=1)
    if not rows.any():
        return float("nan")
    return float((scores[rows].argmax(axis=1) == targets[rows].argmax(axis=1)).mean())


def macro(values: np.ndarray) -> tuple[float, int]:
    """Return the mean over scorable labels and how many there are."""
    scorable = np.isfinite(values)
    count = int(scorable.sum())
    return (float(values[scorable].mean()) if count else float("nan")), count


def score(
    *,
    task: str,
    model: str,
    split: str,
    scores: np.ndarray,
    targets: np.ndarray,
    schema: LabelSchema,
) -> TaskScore:
    """Score one model on one task, on the labels that the schema reports."""
    values = dict(zip(schema.labels, auroc(scores, targets).tolist(), strict=True))
    reported = {label: values[label] for label in schema.scored}
    mean, _ = macro(np.array(list(reported.values())))
    return TaskScore(
        task=task, model=model, split=split, auroc=mean, labels=reported, images=len(targets)
    )


def forgetting(
    best: Mapping[str, Mapping[str, float]], now: Sequence[TaskScore]
) -> tuple[Forgetting, ...]:
    """Return what each model has lost on each task: its best so far (model, task) and now."""
    found = []
    for each in now:
        before = best.get(each.model, {}).get(each.task)
        if before is not None and np.isfinite(each.auroc):
            found.append(
                Forgetting(
                    task=each.task, model=each.model, best=max(before, each.auroc), now=each.auroc
                )
            )
    return tuple(found)


def _auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    count = int(positive.sum())
    others = len(positive) - count
    if not count or not others or not np.isfinite(scores).all():
        return float("nan")
    _, inverse, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    ranks = (last - (sizes - 1) / 2.0)[inverse]
    return float((ranks[positive].sum() - count * (count + 1) / 2.0) / (count * others))


def _precision(scores: np.ndarray, positive: np.ndarray) -> float:
    count = int(positive.sum())
    if not count:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order])
    taken = np.arange(1, len(order) + 1)
    last = np.append(np.diff(scores[order]) != 0, [True])  # one point per distinct threshold
    recall, precision = hits[last] / count, hits[last] / taken[last]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))
