"""A model's own heads on a dataset: which of its outputs answer which label, and how well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from ark_framework.blueprint import TaskHead
from ark_framework.corpus import Corpus, Progress, scored_targets
from ark_framework.errors import ConfigError
from ark_framework.exposure import Answer
from ark_framework.runtime import Runtime
from ark_framework.transfer.candidate import Candidate
from ark_framework.transfer.intervals import interval_table
from ark_framework.transfer.outcome import Outcome, outcome
from ark_framework.transfer.tencrop import probabilities, views_of
from ark_framework.transfer.zeroshot import Score, parse_score, score

Answers = Mapping[str, Score]
"""By label of a dataset: the model's outputs whose mean answers it."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What came out.

    Attributes:
        outcome: Scores and counts.
        table: Scores with intervals; see :func:`interval_table`.
        unseen: The outcome on the test films alone whose patients the model is known not to have
            been trained on; ``None`` where that is all of them, or none.
        predictions: A row per film: image, patient, the labels, ``p:<label>``, ``trained_on``.
    """

    outcome: Outcome
    table: pd.DataFrame
    unseen: Outcome | None
    predictions: pd.DataFrame


def answers(
    tasks: Sequence[TaskHead], corpus: Corpus, *, head: str | None = None, given: Sequence[str] = ()
) -> Answers:
    """Say which outputs answer a dataset's labels.

    Args:
        tasks: The model's heads.
        corpus: Whose labels.
        head: The head to take; the one of the dataset's name, or the only one with all of its
            scored labels, when absent.
        given: ``LABEL=task:label+task:label`` for labels that are answered otherwise, or alone.

    Raises:
        ConfigError: nothing answers them, or it is not said what.
    """
    found: dict[str, Score] = {}
    for text in given:
        made = parse_score(text, tasks)
        if made.name not in corpus.schema.labels:
            raise ConfigError(
                f"--score {text!r}: {corpus.name} has no label {made.name!r}; it has "
                f"{', '.join(corpus.schema.labels)}"
            )
        found[made.name] = made
    if found and head is None:
        return found
    task = _head(tasks, corpus, head)
    for label in corpus.schema.labels:
        if label in task.labels and label not in found:
            found[label] = parse_score(f"{label}={task.name}:{label}", tasks)
    if not found:
        raise ConfigError(f"head {task.name!r} has none of the labels of {corpus.name}")
    return found


def _head(tasks: Sequence[TaskHead], corpus: Corpus, name: str | None) -> TaskHead:
    by_name = {task.name: task for task in tasks}
    if name is not None:
        if name not in by_name:
            known = ", ".join(by_name) or "none"
            raise ConfigError(f"--head {name}: the model's heads are {known}")
        return by_name[name]
    own = by_name.get(corpus.name)
    if own is not None and set(corpus.schema.scored) <= set(own.labels):
        return own
    serving = [task for task in tasks if set(corpus.schema.scored) <= set(task.labels)]
    if len(serving) != 1:
        which = ", ".join(task.name for task in serving or tasks) or "none"
        why = "several heads have" if serving else "no head has"
        raise ConfigError(
            f"{why} the labels of {corpus.name}: {which}; say --head NAME, or --score "
            "'LABEL=task:label' for each label"
        )
    return serving[0]


def chances(
    candidate: Candidate,
    corpus: Corpus,
    rows: np.ndarray,
    *,
    runtime: Runtime,
    tencrop: bool = False,
    batch_size: int = 64,
    tasks: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, pd.DataFrame]:
    """Return each head's probabilities ``(n, labels)`` of a corpus's rows.

    With ``tencrop`` they are means over four corners, the middle, and their mirror images.
    ``progress(dataset, done, total)`` is called after each batch.
    """
    model = candidate.model().to(runtime.device)
    heads = [task for task in candidate.plan.tasks if tasks is None or task.name in tasks]
    found: dict[str, list[np.ndarray]] = {task.name: [] for task in heads}
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            films = torch.from_numpy(corpus.images(rows[start : start + batch_size]))
            views = views_of(films.to(runtime.device), candidate.film.size, tencrop=tencrop)
            with runtime.autocast():
                seen = [model.encode(view) for view in views]
                for task in heads:
                    logits = torch.stack([model.classify(task.name, each) for each in seen])
                    found[task.name].append(probabilities(logits.cpu().double(), task.kind))
            if progress is not None:
                progress(corpus.name, min(start + batch_size, len(rows)), len(rows))
    return {
        task.name: pd.DataFrame(np.concatenate(found[task.name]), columns=list(task.labels))
        for task in heads
    }


def evaluate(
    candidate: Candidate,
    corpus: Corpus,
    split: str,
    answering: Answers,
    *,
    runtime: Runtime,
    tencrop: bool = False,
    limit: int | None = None,
    replicates: int = 1000,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model's heads on a split, and ask which of its films the model was trained on.

    Raises:
        ConfigError: the split has no films.
    """
    rows = corpus.rows(split, limit=limit)
    if not len(rows):
        raise ConfigError(f"{corpus.name} has no {split} films")
    tasks = {part.task for made in answering.values() for part in made.parts}
    outputs = chances(
        candidate,
        corpus,
        rows,
        runtime=runtime,
        tencrop=tencrop,
        tasks=sorted(tasks),
        progress=progress,
    )
    scores = np.full((len(rows), len(corpus.schema.labels)), np.nan)
    for label, made in answering.items():
        scores[:, corpus.schema.labels.index(label)] = score(outputs, made).to_numpy()
    asked = candidate.trained.of(corpus.table, corpus.store, corpus.index)
    return judge(
        scores,
        corpus,
        rows,
        answer=asked.of(rows),
        replicates=replicates,
        model=candidate.name,
        protocol="eval",
        setting={"split": split, "tencrop": tencrop},
    )


def judge(
    scores: np.ndarray,
    corpus: Corpus,
    rows: np.ndarray,
    *,
    answer: Answer,
    replicates: int,
    **about: Any,
) -> Evaluation:
    """Score predictions ``(n, C)`` of rows ``(n,)``; labels that are all NaN are not answered."""
    schema, targets = corpus.schema, answered(scores, corpus, rows)
    about["dataset"] = corpus.name
    found = outcome(scores, targets, schema, trained_on=answer.counts(), **about)
    unseen = answer.patients == "no"
    apart = 0 < unseen.sum() < len(rows)
    return Evaluation(
        outcome=found,
        table=interval_table(
            scores, targets, schema, groups=corpus.table.groups()[rows], replicates=replicates
        ),
        unseen=outcome(scores[unseen], targets[unseen], schema, **about) if apart else None,
        predictions=prediction_frame(corpus, rows, scores, answer),
    )


def answered(scores: np.ndarray, corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    """Return the targets ``(n, C)`` of rows; labels without any score are not asked about."""
    targets = scored_targets(corpus.table.targets()[rows], corpus.schema).astype(np.float64)
    targets[:, np.isnan(scores).all(axis=0)] = np.nan
    return targets


def prediction_frame(
    corpus: Corpus, rows: np.ndarray, scores: np.ndarray, answer: Answer
) -> pd.DataFrame:
    """Return a row per film: image, patient, labels, ``p:<label>``, whether it was trained on."""
    labels = list(corpus.schema.labels)
    frame = corpus.table.frame.iloc[rows][["image", "patient", *labels]].reset_index(drop=True)
    outputs = pd.DataFrame(scores, columns=[f"p:{label}" for label in labels])
    known = pd.DataFrame({"trained_on": answer.films, "patient_trained_on": answer.patients})
    return pd.concat([frame, outputs, known], axis=1)
