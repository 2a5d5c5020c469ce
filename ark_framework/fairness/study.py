"""Models audited on datasets, one after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ark_framework.corpus import Corpus, Progress, read_split
from ark_framework.errors import DataError
from ark_framework.fairness.answering import predictions, way
from ark_framework.fairness.audit import Audit, audit
from ark_framework.fairness.exclusive import Exclusive, exclusive
from ark_framework.fairness.folds import Fold, dealt
from ark_framework.fairness.groupings import check
from ark_framework.fairness.predictions import Predictions, is_file, judged, read
from ark_framework.fairness.published_folds import published_folds
from ark_framework.fairness.results import TABLES, Findings
from ark_framework.fairness.settings import FairnessConfig
from ark_framework.fairness.training import training
from ark_framework.runtime import open_runtime
from ark_framework.transfer.candidate import Candidate, open_candidate
from ark_framework.transfer.datasets import Datasets
from ark_framework.transfer.embed import Extractor, folder_of
from ark_framework.transfer.settings import ModelEntry, reading

Dealt = tuple[tuple[Fold, ...], np.ndarray | None]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One model on one dataset: every film's answers, and what came of them.

    ``exclusive`` is ``None`` where nothing was trained on one sex.
    """

    predictions: Predictions
    audit: Audit
    exclusive: Exclusive | None = None
    trained_any: Mapping[str, int] = field(default_factory=dict)


@dataclass(kw_only=True)
class Study:
    """Runs an audit.

    Attributes:
        config: What to do.
        roots: Of datasets, over those of the configuration.
        progress: ``progress(dataset, done, total)`` while films are packed.
        embedding: Likewise while they are embedded, or answered by a model's own heads.
        say: Called with one-line notices.
        stop: Set it to stop; embeddings that are finished are kept.
    """

    config: FairnessConfig
    roots: Mapping[str, Path] = field(default_factory=dict)
    progress: Progress | None = None
    embedding: Progress | None = None
    say: Callable[[str], None] = lambda _: None
    stop: threading.Event = field(default_factory=threading.Event)
    notes: list[str] = field(default_factory=list, init=False)
    _dealt: dict[str, Dealt | None] = field(default_factory=dict, init=False)

    def run(self) -> Iterator[Subject]:
        """Yield a subject for each dataset and model, in order.

        Raises:
            Interrupted: ``stop`` was set.
            ArkError: with the exit code of its class.
        """
        self.runtime = open_runtime(self.config.runtime)
        self.extractor = Extractor(
            folder=folder_of(self.config.store.folder),
            runtime=self.runtime,
            features=self.config.probe.features,
            progress=self.embedding,
            stop=self.stop,
        )
        self.datasets = Datasets(
            config=reading(self.config),
            roots=self.roots,
            progress=self.progress if self.runtime.ranks.first else None,
            say=self.say,
            ranks=self.runtime.ranks,
        )
        models = {name: self._opened(name, entry) for name, entry in self.config.models.items()}
        candidates = [each for each in models.values() if not isinstance(each, str)]
        for dataset in self.datasets.names():
            corpora = [self.datasets.open(dataset, each) for each in candidates]
            for corpus in corpora:  # before hours of embedding
                check(self.config.by or (), corpus.table.groupings)
                by = self.config.cuts.by
                check([by] if by else (), corpus.table.groupings, option="--cuts-by")
            how = way(candidates, corpora, self.config)
            for name, model in models.items():
                self.say(f"{dataset}: auditing {name}")
                if isinstance(model, str):
                    yield self._of_file(name, model, dataset)
                else:
                    yield self._of_model(model, dataset, how)

    def _opened(self, name: str, entry: str | ModelEntry) -> Candidate | str:
        """Return a model, or where its predictions are."""
        told = ModelEntry(source=entry) if isinstance(entry, str) else entry
        if is_file(told.source):
            return told.source
        return open_candidate(told.source, name=name, size=told.size, resize=told.resize)

    def _of_file(self, name: str, source: str, dataset: str) -> Subject:
        registry = self.datasets.registry
        table, _, _ = read_split(
            registry.dataset(dataset), registry, self.datasets.config, roots=self.roots
        )
        labels = judged(table.schema, self.config.labels, self.config.normal)
        answers = read(source, model=name, table=table, labels=labels)
        if self.config.exclusive.folds:
            self._note(f"{name}: predictions alone; training on one sex takes embeddings")
        return Subject(predictions=answers, audit=self._audited(answers))

    def _of_model(self, candidate: Candidate, dataset: str, how: str) -> Subject:
        corpus = self.datasets.open(dataset, candidate)
        answers = predictions(
            candidate,
            corpus,
            self.config,
            how=how,
            runtime=self.runtime,
            extractor=self.extractor,
        )
        found = self._audited(answers)
        dealing = self._folds(corpus)
        if dealing is None:
            return Subject(predictions=answers, audit=found)
        folds, targets = dealing
        rows = np.unique(np.concatenate([fold.rows for fold in folds]))
        trained = exclusive(
            self.extractor.embed(candidate, corpus, rows),
            rows,
            corpus,
            folds,
            c=self.config.exclusive.c,
            device=self.runtime.device,
            targets=targets,
        )
        asked = candidate.trained.of(corpus.table, corpus.store, corpus.index).of(rows)
        return Subject(
            predictions=answers,
            audit=found,
            exclusive=trained,
            trained_any=asked.counts()["films"],
        )

    def _audited(self, answers: Predictions) -> Audit:
        found = audit(answers, self.config)
        for line in found.notes:
            self._note(line)
        return found

    def _folds(self, corpus: Corpus) -> Dealt | None:
        """Return the dealings of a dataset, the same for every model; ``None`` without."""
        told = self.config.exclusive
        if corpus.name not in self._dealt:
            self._dealt[corpus.name] = None
            if told.files is not None:
                self._dealt[corpus.name] = published_folds(Path(told.files), corpus)
            elif told.folds:
                try:
                    self._dealt[corpus.name] = self._deal(corpus), None
                except DataError as error:  # the rest is reported
                    self._note(str(error))
        return self._dealt[corpus.name]

    def _deal(self, corpus: Corpus) -> tuple[Fold, ...]:
        told = self.config.exclusive
        used = corpus.table.frame["split"].notna().to_numpy(dtype=bool) & (corpus.index >= 0)
        rows = np.flatnonzero(used)
        if self.config.limit is not None:
            splits = ("train", "val", "test")
            kept = [corpus.rows(name, limit=self.config.limit) for name in splits]
            rows = np.sort(np.concatenate(kept))
        return dealt(corpus, rows, folds=told.folds, shares=told.shares, seed=told.seed)

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)
            self.say(line)


def findings(subjects: list[Subject], notes: list[str], settings: Mapping[str, str]) -> Findings:
    """Put the subjects' tables together."""
    frames = {
        name: [getattr(each.audit, name) for each in subjects]
        for name in {item.name for item in fields(Audit)} & set(TABLES)
    }
    folds = []
    for each in subjects:
        if each.exclusive is not None:
            judged = each.exclusive.folds
            judged = judged[judged["label"].isin(each.predictions.schema.scored)]
            folds.append(judged.assign(**_subject(each)))
    tables = {name: _joined(each) for name, each in frames.items()}
    tables["counts"] = tables["counts"].drop_duplicates()
    if folds:
        tables["folds"] = _joined(folds)
        tables["training"] = training(tables["folds"])
    return Findings(
        **tables,
        about={
            (each.predictions.model, each.predictions.dataset): _about(each) for each in subjects
        },
        notes=tuple(notes),
        settings=settings,
    )


def _joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(frames, ignore_index=True)


def _subject(each: Subject) -> dict[str, str]:
    return {"model": each.predictions.model, "dataset": each.predictions.dataset}


def _about(each: Subject) -> dict[str, Any]:
    return {
        "answers": each.predictions.answers,
        "exposure": each.predictions.exposure,
        "underdiagnosis": each.audit.underdiagnosis,
        **({"trained_any": each.trained_any} if each.trained_any else {}),
    }
