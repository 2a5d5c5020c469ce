"""What the protocols of a study share: each piece of work computed once, judged and kept."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ark_framework.corpus import Corpus
from ark_framework.errors import Interrupted
from ark_framework.exposure import Answer
from ark_framework.run import write_text
from ark_framework.runtime import Runtime
from ark_framework.text import file_stem
from ark_framework.transfer.candidate import Candidate
from ark_framework.transfer.datasets import Datasets, digest
from ark_framework.transfer.ledger import Ledger
from ark_framework.transfer.outcome import Outcome
from ark_framework.transfer.settings import StudyConfig
from ark_framework.transfer.splits import Split, folds, official


@dataclass(kw_only=True)
class Pieces:
    """A study's finished work and what it is done with.

    Attributes:
        config: The study.
        out: ``pieces/`` holds finished work, ``predictions/`` every film's.
        datasets: Where corpora come from.
        runtime: Device and precision.
        say: Called with one-line notices.
        stop: Set it to stop before the next piece.
    """

    config: StudyConfig
    out: Path
    datasets: Datasets
    runtime: Runtime
    say: Callable[[str], None]
    stop: threading.Event
    _answers: dict[tuple[str, str, str], Answer] = field(default_factory=dict, init=False)

    @property
    def ledger(self) -> Ledger:
        """Where finished pieces are."""
        return Ledger(folder=self.out / "pieces", writes=self.runtime.ranks.first)

    def splits(self, corpus: Corpus) -> list[Split]:
        """Return a dataset's own splits, or the folds that the study asks for."""
        told = self.config.folds
        if told is None:
            return [official(corpus, limit=self.config.limit)]
        return list(folds(corpus, told.count, repeats=told.repeats, seed=told.seed))

    def answer(self, candidate: Candidate, corpus: Corpus) -> Answer:
        """Say which of a corpus's films and patients a candidate was trained on."""
        where = (candidate.name, corpus.name, corpus.store.fingerprint)
        if where not in self._answers:
            self._answers[where] = candidate.trained.of(corpus.table, corpus.store, corpus.index)
        return self._answers[where]

    def kept(
        self, key: Mapping[str, Any], compute: Callable[[], list[dict[str, Any]]]
    ) -> list[Outcome]:
        """Return the outcomes of a piece; compute it where it is not there.

        Raises:
            Interrupted: ``stop`` was set.
        """
        if self.runtime.ranks.any([self.stop.is_set()])[0]:
            raise Interrupted(f"stopped; the same command goes on with what is in {self.out}")
        fresh = not self.ledger.path(key, ".json").is_file()
        found = [Outcome.from_json(each) for each in self.ledger.get(key, compute)]
        if fresh and found:
            self.say(_line(found))
        return found

    def forget(self, folder: Path) -> None:
        """Delete a folder of work, once every process has what it led to."""
        self.runtime.ranks.wait()
        if self.runtime.ranks.first:
            shutil.rmtree(folder, ignore_errors=True)

    def with_predictions(
        self, found: Outcome, key: Mapping[str, Any], frame: pd.DataFrame
    ) -> Outcome:
        """Write a row per test film, and return the outcome that names the file."""
        found = replace(found, predictions=_file_of(found, self.ledger.path(key).name))
        if not self.runtime.ranks.first:
            return found
        path = predictions_of(self.out, found)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, frame.to_csv(index=False))
        return found

    def key(
        self,
        protocol: str,
        candidate: Candidate,
        corpus: Corpus,
        seed: int,
        settings: Mapping[str, Any],
        rows: Sequence[np.ndarray],
    ) -> dict[str, Any]:
        """Return all that a piece depends on."""
        return {
            "protocol": protocol,
            "model": candidate.name,
            "weights": candidate.key(seed=seed),
            "dataset": corpus.name,
            "films": "" if candidate.vectors is not None else corpus.store.fingerprint,
            "labels and rows": digest(corpus, *rows),
            "seed": seed,
            "precision": self.runtime.precision,
            "settings": dict(settings),
        }


def predictions_of(out: Path, found: Outcome) -> Path:
    """Return where an outcome's predictions are: a row per test film."""
    return out / "predictions" / found.predictions


def _file_of(found: Outcome, key: str) -> str:
    """Name a file by what people look for, and by the piece that it belongs to."""
    words = [found.model, found.dataset, found.protocol]
    words += [
        f"{name}-{found.setting[name]}"
        for name in ("split", "seed", "films", "fraction", "draw", "head")
        if name in found.setting
    ]
    return f"{file_stem(*words)}_{key}.csv"


def _line(found: Sequence[Outcome]) -> str:
    first = found[0]
    scores = np.array([each.score for each in found])
    known = scores[np.isfinite(scores)]
    what = "accuracy" if np.isfinite(first.accuracy) else "AUROC"
    what = "Dice" if np.isfinite(first.dice) else what
    mean = f"{known.mean():.3f}" if len(known) else "not scorable"
    several = f", {len(found)} results" if len(found) > 1 else ""
    where = f"{first.dataset}, {first.model}, {first.protocol}"
    return f"{where}, seed {first.setting['seed']}: {what} {mean}{several}"
