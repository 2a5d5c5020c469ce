"""Embeddings of a dataset's films, computed once and kept: named by weights, films and view."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from ark_framework.arrays import new_map, open_map
from ark_framework.corpus import Corpus
from ark_framework.errors import DataError, Interrupted, MachineError
from ark_framework.model import ArkModel
from ark_framework.run import write_text
from ark_framework.runtime import Runtime
from ark_framework.store import default_folder
from ark_framework.transfer.candidate import Candidate
from ark_framework.views import center

Features = Literal["projected", "pooled"]
Progress = Callable[[str, int, int], None]
# Films between two notes of how far an extraction has come.
NOTED = 2048


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """Turns films into embeddings.

    Attributes:
        folder: Where they are kept.
        features: The projection, as for probing, or the pooled features before it.
        progress: ``progress(dataset, done, total)``.
        stop: Set it to stop after the batch under way.
    """

    folder: Path
    runtime: Runtime
    features: Features = "projected"
    batch_size: int = 64
    progress: Progress | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def embed(
        self, candidate: Candidate, corpus: Corpus, rows: np.ndarray, *, seed: int = 0
    ) -> np.ndarray:
        """Return embeddings ``(n, D)`` float32 of a corpus's rows.

        All films of the store are embedded at the first call, and read back at the next; one that
        was interrupted goes on.  A table of embeddings gives its own.

        Raises:
            Interrupted: ``stop`` was set; call again to go on.
            DataError: films of another side than the model's, or a film without a vector.
            MachineError: the disk refuses.
        """
        if candidate.vectors is not None:
            return candidate.vectors.of(corpus.table, rows)
        _must_fit(candidate, corpus)
        path = self.folder / f"{corpus.name}-{self._digest(candidate, corpus, seed)}.npy"
        if not path.is_file():
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._extract(candidate, corpus, path, seed)
            except OSError as error:
                raise MachineError(f"cannot write {path}: {error.strerror}") from error
            self.runtime.ranks.wait()
        try:
            kept = open_map(path, dtype=np.float32)
            if kept.ndim != 2 or len(kept) != len(corpus.store.images):
                raise ValueError(f"{path.name} holds {kept.shape}: not a row for each film")
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is damaged ({error}); delete it to embed again") from error
        return np.asarray(kept[corpus.index[rows]], dtype=np.float32)

    def _digest(self, candidate: Candidate, corpus: Corpus, seed: int) -> str:
        what = [candidate.key(seed=seed), corpus.store.fingerprint]
        what += [self.features, self.runtime.precision]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]

    def _extract(self, candidate: Candidate, corpus: Corpus, path: Path, seed: int) -> None:
        model = candidate.model(seed=seed).to(self.runtime.device)
        total, width = len(corpus.store.images), model.widths[self.features]
        part, note = path.with_suffix(".part.npy"), path.with_suffix(".part.json")
        ranks = self.runtime.ranks
        done = int(ranks.tell(str(_begun(part, note, (total, width)))))
        kept = None
        if ranks.first:
            shape = (total, width)
            kept = (
                open_map(part, mode="r+", dtype=np.float32, shape=shape)
                if done
                else new_map(part, dtype=np.float32, shape=shape)
            )
        step = self.batch_size * ranks.world
        with torch.inference_mode():
            for start in range(done, total, step):
                end = min(start + step, total)
                features = ranks.gather(self._batch(model, candidate, corpus, start, end))
                stopping = ranks.any([self.stop.is_set()])[0]
                if kept is not None:
                    kept[start:end] = features
                    if end == total or end // NOTED > start // NOTED or stopping:
                        kept.flush()
                        write_text(note, json.dumps(end))
                        if self.progress is not None:
                            self.progress(corpus.name, end, total)
                if stopping and end < total:
                    ranks.wait()
                    raise Interrupted(
                        f"stopped at {end} of {total} films; the same command goes on from there"
                    )
        if kept is not None:
            part.replace(path)
            note.unlink()

    def _batch(
        self, model: ArkModel, candidate: Candidate, corpus: Corpus, start: int, end: int
    ) -> list[np.ndarray]:
        """Return this rank's embeddings of a store's films from ``start`` to ``end``."""
        mine = start + self.runtime.ranks.mine(end - start)
        if not len(mine):
            return []
        films = torch.from_numpy(np.array(corpus.store.images[mine]))
        views = center(films.to(self.runtime.device), candidate.film.size)
        with self.runtime.autocast():
            features = model.encode(views)
        return [getattr(features, self.features).float().cpu().numpy()]


def folder_of(stores: str | None) -> Path:
    """Return where embeddings are kept: beside the stores."""
    return (Path(stores) if stores else default_folder()) / "embeddings"


def write(out: Path, corpus: Corpus, rows: np.ndarray, features: np.ndarray) -> None:
    """Write vectors ``(n, D)`` of a corpus's rows with the films' names: ``.npz`` or ``.csv``.

    Raises:
        MachineError: the disk refuses.
    """
    frame = corpus.table.frame.iloc[rows]
    ids, splits = (frame[name].fillna("").to_numpy(dtype=str) for name in ("image", "split"))
    write_table(out, ids, features, split=splits)


def write_table(out: Path, ids: np.ndarray, features: np.ndarray, **more: np.ndarray) -> None:
    """Write names and vectors ``(n, D)``: ``.csv``, or ``.npz`` with ``more`` arrays beside.

    Raises:
        MachineError: the disk refuses.
    """
    beside = out.with_name(f".{out.name}.part")
    arrays: dict[str, Any] = {"ids": ids, "features": features, **more}
    try:
        with beside.open("wb") as file:
            if out.suffix.lower() == ".csv":
                pd.DataFrame(features, index=pd.Index(ids, name="id")).to_csv(file)
            else:
                np.savez(file, **arrays)
        beside.replace(out)
    except OSError as error:
        raise MachineError(f"cannot write {out}: {error.strerror}") from error


def _begun(part: Path, note: Path, shape: tuple[int, int]) -> int:
    """Return how many films an interrupted extraction has done."""
    try:
        done = int(json.loads(note.read_text("utf-8")))
        open_map(part, dtype=np.float32, shape=shape)
    except (OSError, ValueError, TypeError, RecursionError):
        return 0
    return done if 0 <= done <= shape[0] else 0


def _must_fit(candidate: Candidate, corpus: Corpus) -> None:
    film, store = candidate.film, corpus.store
    if (store.size, store.fit) != (film.resize, film.fit):
        raise DataError(
            f"{corpus.name}: films are packed at {store.size} pixels by {store.fit}, and "
            f"{candidate.name} sees {film.resize} by {film.fit}; pack them so"
        )
