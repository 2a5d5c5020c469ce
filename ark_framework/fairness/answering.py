"""Where a model's answers come from: its own heads, or a probe on its embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ark_framework.corpus import Corpus, Progress
from ark_framework.errors import ConfigError, DataError
from ark_framework.fairness.predictions import TEST, VAL, Predictions, film_frame, judged
from ark_framework.fairness.settings import FairnessConfig
from ark_framework.runtime import Runtime
from ark_framework.transfer.candidate import Candidate
from ark_framework.transfer.embed import Extractor
from ark_framework.transfer.evaluate import answers, chances
from ark_framework.transfer.probe import Probe
from ark_framework.transfer.splits import Split
from ark_framework.transfer.zeroshot import score


def way(candidates: Sequence[Candidate], corpora: Sequence[Corpus], config: FairnessConfig) -> str:
    """Return how models answer a dataset, all in one way: ``heads`` if each has one, or ``probe``.

    Args:
        candidates: The models.
        corpora: The dataset as each of them sees it.
        config: Which may say it.

    Raises:
        ConfigError: heads are asked for, and a model has none.
    """
    if config.answers == "probe":
        return config.answers
    for candidate, corpus in zip(candidates, corpora, strict=True):
        if _has_head(candidate, corpus, config):
            continue
        if config.answers == "heads":
            raise ConfigError(
                f"--answers heads: {candidate.name} has no one head with the labels of "
                f"{corpus.name}; give --head NAME, or --answers probe"
            )
        return "probe"
    return "heads"


def predictions(
    candidate: Candidate,
    corpus: Corpus,
    config: FairnessConfig,
    *,
    how: str,
    runtime: Runtime,
    extractor: Extractor,
) -> Predictions:
    """Let a model answer a dataset's validation and test films, as :func:`way` says.

    Raises:
        DataError: there are no test films, or a probe has nothing to be trained on.
    """
    split = _split(corpus, config)
    rows = np.concatenate([split.val, split.test])
    if how == "heads":
        scores = _by_heads(candidate, corpus, rows, config, runtime, extractor.progress)
    else:
        scores = _by_probe(candidate, corpus, split, rows, config, runtime, extractor)
    asked = candidate.trained.of(corpus.table, corpus.store, corpus.index)
    labels = judged(corpus.schema, config.labels, config.normal)
    frame = film_frame(corpus.table, rows, scores, labels, asked.of(rows).films)
    return Predictions(
        model=candidate.name,
        dataset=corpus.name,
        schema=corpus.schema,
        labels=tuple(label for label in labels if label in frame),
        frame=frame,
        answers=how,
        exposure=asked.of(split.test).counts(),
    )


def _split(corpus: Corpus, config: FairnessConfig) -> Split:
    train, val, test = (corpus.rows(name, limit=config.limit) for name in ("train", VAL, TEST))
    if not len(test):
        raise DataError(f"{corpus.name}: no {TEST} films to audit a model on")
    return Split(name="official", train=train, val=val, test=test)


def _has_head(candidate: Candidate, corpus: Corpus, config: FairnessConfig) -> bool:
    if candidate.blueprint is None or not candidate.plan.tasks or candidate.random:
        return False
    try:
        answers(candidate.plan.tasks, corpus, head=config.head)
    except ConfigError:
        if config.head is not None:
            raise
        return False
    return True


def _by_heads(
    candidate: Candidate,
    corpus: Corpus,
    rows: np.ndarray,
    config: FairnessConfig,
    runtime: Runtime,
    progress: Progress | None,
) -> np.ndarray:
    answering = answers(candidate.plan.tasks, corpus, head=config.head)
    tasks = {part.task for made in answering.values() for part in made.parts}
    outputs = chances(
        candidate, corpus, rows, runtime=runtime, tasks=sorted(tasks), progress=progress
    )
    scores = np.full((len(rows), len(corpus.schema.labels)), np.nan)
    for label, made in answering.items():
        scores[:, corpus.schema.labels.index(label)] = score(outputs, made).to_numpy()
    return scores


def _by_probe(
    candidate: Candidate,
    corpus: Corpus,
    split: Split,
    rows: np.ndarray,
    config: FairnessConfig,
    runtime: Runtime,
    extractor: Extractor,
) -> np.ndarray:
    if not len(split.train):
        raise DataError(f"{corpus.name}: no training films to fit a probe on")
    every = np.unique(np.concatenate([split.train, rows]))
    features = extractor.embed(candidate, corpus, every)
    # Validation films choose among regularizations, and are scored beside the test films.
    both = Split(name=split.name, train=split.train, val=split.val, test=rows)
    full = config.probe.model_copy(update={"fractions": (1.0,)})
    probe = Probe(features, corpus, every, [both], full, runtime)
    return next(iter(probe.full())).scores
