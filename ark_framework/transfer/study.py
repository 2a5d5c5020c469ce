"""Models by datasets by protocols: every result computed once, in a folder that can go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ark_framework.corpus import Corpus, Progress
from ark_framework.errors import ConfigError
from ark_framework.runtime import open_runtime
from ark_framework.transfer.candidate import Candidate, open_candidate
from ark_framework.transfer.datasets import Datasets
from ark_framework.transfer.embed import Extractor, folder_of
from ark_framework.transfer.evaluate import answered, chances, prediction_frame
from ark_framework.transfer.finetune import finetune
from ark_framework.transfer.outcome import Outcome, outcome
from ark_framework.transfer.pieces import Pieces
from ark_framework.transfer.probe import Fitted, Probe
from ark_framework.transfer.segment_study import SEGMENT, segmentations
from ark_framework.transfer.settings import ModelEntry, Protocol, StudyConfig, reading
from ark_framework.transfer.splits import Split

FEW_SHOT = "few-shot"


@dataclass(kw_only=True)
class Study:
    """Runs a study, or what is left of it.

    Attributes:
        config: What to do.
        out: ``pieces/`` holds finished work, ``predictions/`` every film's.
        roots: Of datasets, over those of the configuration.
        progress: ``progress(dataset, done, total)`` while films are packed.
        embedding: Likewise while they are embedded, or answered by a model's own heads.
        say: Called with one-line notices.
        stop: Set it to stop after the step under way; the same study goes on from there.
    """

    config: StudyConfig
    out: Path
    roots: Mapping[str, Path] = field(default_factory=dict)
    progress: Progress | None = None
    embedding: Progress | None = None
    say: Callable[[str], None] = lambda _: None
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> tuple[Outcome, ...]:
        """Return every outcome: datasets in order, models in order, protocols in order.

        Raises:
            Interrupted: ``stop`` was set.
            ConfigError: among much else, no model is of a kind that a protocol takes.
            ArkError: with the exit code of its class.
        """
        config = self.config
        candidates = [_open(name, entry) for name, entry in config.models.items()]
        runtime = open_runtime(config.runtime)
        datasets = Datasets(
            config=reading(config),
            roots=self.roots,
            progress=self.progress if runtime.ranks.first else None,
            say=self.say,
            ranks=runtime.ranks,
        )
        self.pieces = Pieces(
            config=config,
            out=self.out,
            datasets=datasets,
            runtime=runtime,
            say=self.say,
            stop=self.stop,
        )
        labels = [each for each in config.protocols if each != SEGMENT]
        masks = len(labels) < len(config.protocols)
        found: list[Outcome] = []
        for name in datasets.names(mixed=masks) if labels else ():
            for candidate in candidates:
                corpus = datasets.open(name, candidate)
                for protocol in labels:
                    found += self._outcomes(protocol, candidate, corpus)
        if masks:
            found += segmentations(self.pieces, candidates, mixed=bool(labels))
        if not found:
            raise ConfigError("nothing to do: none of these models is taken by these protocols")
        return tuple(found)

    def _outcomes(
        self, protocol: Protocol, candidate: Candidate, corpus: Corpus
    ) -> Iterator[Outcome]:
        if protocol == "external":
            if candidate.blueprint is not None and not candidate.random:
                yield from self._external(candidate, corpus)
            return
        if protocol == "finetune" and candidate.vectors is not None:
            self.say(f"{candidate.name}: a table of embeddings is not fine-tuned")
            return
        splits = self.pieces.splits(corpus)
        # Nothing else in a probe is drawn by the seed: fractions and shots have their own.
        drawn = protocol == "finetune" or candidate.random
        for seed in range(self.config.seeds if drawn else 1):
            if protocol == "finetune":
                for split in splits:
                    yield from self._finetuned(candidate, corpus, split, seed)
            else:
                yield from self._probed(protocol, candidate, corpus, splits, seed)

    def _probed(
        self,
        protocol: Protocol,
        candidate: Candidate,
        corpus: Corpus,
        splits: Sequence[Split],
        seed: int,
    ) -> list[Outcome]:
        config = self.config.probe
        rows = [rows for split in splits for rows in (split.train, split.val, split.test)]
        key = self.pieces.key(
            protocol, candidate, corpus, seed, config.model_dump(mode="json"), rows
        )

        def compute() -> list[dict[str, Any]]:
            every = np.unique(np.concatenate(rows))
            extractor = Extractor(
                folder=folder_of(self.config.store.folder),
                runtime=self.pieces.runtime,
                features=config.features,
                progress=self.embedding,
                stop=self.stop,
            )
            features = extractor.embed(candidate, corpus, every, seed=seed)
            probe = Probe(features, corpus, every, splits, config, self.pieces.runtime)
            fitted = {"probe": probe.full, FEW_SHOT: probe.few_shot, "knn": probe.nearest}
            return [
                self._judged(each, candidate, corpus, key).to_json() for each in fitted[protocol]()
            ]

        return self.pieces.kept(key, compute)

    def _finetuned(
        self, candidate: Candidate, corpus: Corpus, split: Split, seed: int
    ) -> list[Outcome]:
        views = self.config.finetune.views.model_copy(update={"size": candidate.film.size})
        config = self.config.finetune.model_copy(update={"views": views})
        rows = [split.train, split.val, split.test]
        key = self.pieces.key(
            "finetune", candidate, corpus, seed, config.model_dump(mode="json"), rows
        )
        folder = self.pieces.ledger.path(key)

        def compute() -> list[dict[str, Any]]:
            done = finetune(
                candidate.for_task(corpus.schema, seed=seed),
                corpus,
                split,
                config,
                seed=seed,
                folder=folder,
                runtime=self.pieces.runtime,
                say=self.say,
                stop=self.stop,
            )
            setting = {"epoch": done.best_epoch, "steps": done.steps}
            fitted = Fitted(split=split, scores=done.probabilities, setting=setting)
            return [self._judged(fitted, candidate, corpus, key).to_json()]

        found = self.pieces.kept(key, compute)
        if not config.keep:  # its predictions are kept, and it is not asked again
            self.pieces.forget(folder)
        return found

    def _external(self, candidate: Candidate, corpus: Corpus) -> list[Outcome]:
        """Score each head on the labels that it shares with a dataset, by name."""
        rows = corpus.rows("test", limit=self.config.limit)
        split = "test"
        if not len(rows):
            rows, split = np.flatnonzero(corpus.index >= 0), "all"
        own = {label.casefold(): c for c, label in enumerate(corpus.schema.labels)}
        key = self.pieces.key("external", candidate, corpus, 0, {}, [rows])

        def compute() -> list[dict[str, Any]]:
            outputs = chances(
                candidate, corpus, rows, runtime=self.pieces.runtime, progress=self.embedding
            )
            found = []
            for head, table in outputs.items():
                shared = [str(label) for label in table if str(label).casefold() in own]
                if not shared:
                    continue
                scores = np.full((len(rows), len(own)), np.nan)
                scores[:, [own[label.casefold()] for label in shared]] = table[shared]
                whole = Split(name=split, train=rows[:0], val=rows[:0], test=rows)
                fitted = Fitted(split=whole, scores=scores, setting={"head": head})
                found.append(self._judged(fitted, candidate, corpus, key).to_json())
            return found

        return self.pieces.kept(key, compute)

    def _judged(
        self, fitted: Fitted, candidate: Candidate, corpus: Corpus, key: Mapping[str, Any]
    ) -> Outcome:
        rows = fitted.split.test
        asked = self.pieces.answer(candidate, corpus).of(rows)
        found = outcome(
            fitted.scores,
            answered(fitted.scores, corpus, rows),
            corpus.schema,
            model=candidate.name,
            dataset=corpus.name,
            protocol=key["protocol"],
            setting={"seed": key["seed"], "split": fitted.split.name, **fitted.setting},
            trained_on=asked.counts(),
        )
        if key["protocol"] == FEW_SHOT:  # of which there are hundreds
            return found
        frame = prediction_frame(corpus, rows, fitted.scores, asked)
        return self.pieces.with_predictions(found, key, frame)


def _open(name: str, entry: str | ModelEntry) -> Candidate:
    told = ModelEntry(source=entry) if isinstance(entry, str) else entry
    return open_candidate(told.source, name=name, size=told.size, resize=told.resize)
