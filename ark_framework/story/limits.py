"""What a reader of a run's scores must know: overlaps that remain, and confounds of test films."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ark_framework.statistics import FEW
from ark_framework.story.runs import Run
from ark_framework.story.scores import Films, films

APART = 0.2  # how far women's shares among films with and without a label may lie apart, unsaid
MOST = 0.5  # the share of a label's films that one patient may have, unsaid


def limits(run: Run) -> Iterator[str]:
    """Yield a sentence for each overlap and confound that was found."""
    yield from _overlaps(run)
    for task in run.plan["tasks"]:
        read = films(run, task)
        if read is not None:
            yield from _confounds(read)


def _overlaps(run: Run) -> Iterator[str]:
    found = run.leaks
    if found is None:
        yield "Whether training films are held out somewhere was not looked at."
        return
    if found["policy"] == "allow" and found["films"]:
        yield (
            f"{found['films']:,} training films are held out for validation or test in one of "
            "these datasets: scores there are partly of films seen in training."
        )
    if found["policy"] != "drop-patients" and found["patients"] > found["films"]:
        yield (
            f"Before films were left out, {found['patients']:,} training films were of patients "
            "of whom films are held out somewhere; other films of such patients were trained on."
        )


def _confounds(read: Films) -> Iterator[str]:
    """Yield labels that go with sex, or that are mostly one patient's."""
    women = (read.frame["sex"] == "F").to_numpy() if "sex" in read.frame else None
    known = read.frame["sex"].isin(["F", "M"]).to_numpy() if "sex" in read.frame else None
    where = f"In the test films of {read.task['name']}"
    for column, label in enumerate(read.task["labels"]):
        target = read.targets[:, column]
        has = target == 1
        counts = np.bincount(read.groups[has], minlength=1) if has.any() else np.zeros(1)
        if has.sum() >= FEW and counts.max() > MOST * has.sum():
            share = counts.max() / has.sum()
            yield f"{where}, {share:.0%} of those with {label} are of one patient."
        if women is None or known is None:
            continue
        with_, without = women[has & known], women[(target == 0) & known]
        if min(len(with_), len(without)) < FEW or abs(with_.mean() - without.mean()) <= APART:
            continue
        yield (
            f"{where}, {with_.mean():.0%} of those with {label} are of women, and "
            f"{without.mean():.0%} of those without: a model can answer by sex."
        )
