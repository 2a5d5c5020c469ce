"""Was this film or this patient trained on?  What a model remembers of its training data.

A run keeps, for every film and patient that it trained on, a hash keyed with a number drawn for
that run, and the film's perceptual hash.  Whoever scores the model later asks with a table (and
a store, if there is one) and is told ``yes``, ``no`` or ``unknown``.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from ark_framework import prints
from ark_framework.annotations import AnnotationTable
from ark_framework.arrays import refuse_compressed
from ark_framework.audit import film_keys, patient_keys
from ark_framework.corpus import Corpus
from ark_framework.errors import CheckpointError, MachineError
from ark_framework.specs import Access
from ark_framework.store import Store

FILE = "trained_on.npz"
VERSION = 2  # of the hashes; those of version 1 are known by their longer key
YES, NO, UNKNOWN = "yes", "no", "unknown"
# Without pixels to confirm them, only hashes this near count as one film: of 1.7 million pairs of
# strangers none were within 52 bits, and re-encoded or resized films are within 10.
RADIUS = 24
KEY = 8  # bytes


@dataclass(frozen=True, kw_only=True)
class Part:
    """One dataset's part: ``films``, ``patients`` ``(n,)`` uint64, ``prints`` ``(n, 32)`` uint8.

    ``spaces``: the namespaces that its films' and patients' identities are in (``nih``, or the
    dataset's own name); in them, and in no other, an absent identity means "not trained on".
    """

    dataset: str
    access: str
    key: bytes
    films: np.ndarray
    patients: np.ndarray
    prints: np.ndarray
    film_spaces: tuple[str, ...]
    patient_spaces: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """All that a model was trained on; ``complete`` is false where some of it is not known."""

    parts: tuple[Part, ...] = ()
    complete: bool = False

    def of(
        self, table: AnnotationTable, store: Store | None = None, index: np.ndarray | None = None
    ) -> Answer:
        """Return whether each film of a table, and its patient, was trained on.

        Args:
            table: ``N`` rows.
            store: Its packed films; without it only declared identities are compared.
            index: ``(N,)`` the store row of each table row, -1 where a film is unreadable.
        """
        films, patients = film_keys(table), patient_keys(table)
        film_yes, patient_yes = np.zeros((2, len(table)), dtype=bool)
        film_known, patient_known = np.full((2, len(table)), self.complete)
        seen = np.zeros(len(table), dtype=bool)
        if store is not None and index is not None:
            seen = index >= 0
            hashes = prints.store_hashes(store)[index[seen]]
        for part in self.parts:
            film_yes |= np.isin(_hashed(films, part.key), part.films)
            patient_yes |= np.isin(_hashed(patients, part.key), part.patients)
            comparable = seen & bool(len(part.prints))
            if comparable.any():
                film_yes[seen] |= _near(hashes, part.prints)
            film_known &= comparable | _within(films, part.film_spaces)
            patient_known &= _within(patients, part.patient_spaces)
        return Answer(
            films=_words(film_yes, film_known),
            # The patient of a film that was trained on was trained on.
            patients=_words(patient_yes | film_yes, patient_known),
        )

    def shareable(self) -> Exposure:
        """Return what may leave the house: nothing of a dataset under a data-use agreement."""
        kept = tuple(part for part in self.parts if part.access != "credentialed")
        return replace(self, parts=kept, complete=self.complete and len(kept) == len(self.parts))

    def with_earlier(self, earlier: Exposure) -> Exposure:
        """Return this and what the weights that it started from had been trained on."""
        return Exposure(
            parts=(*earlier.parts, *self.parts), complete=self.complete and earlier.complete
        )

    def save(self, path: Path) -> None:
        """Write one file, whole or not at all.

        Raises:
            MachineError: the disk refuses.
        """
        arrays: dict[str, np.ndarray] = {}
        about = []
        for number, part in enumerate(self.parts):
            for name in ("films", "patients", "prints"):
                arrays[f"{number}/{name}"] = getattr(part, name)
            about.append(
                {
                    "dataset": part.dataset,
                    "access": part.access,
                    "key": part.key.hex(),
                    "film_spaces": part.film_spaces,
                    "patient_spaces": part.patient_spaces,
                }
            )
        text = json.dumps({"version": VERSION, "complete": self.complete, "parts": about})
        beside = path.with_name(f".{path.name}.part")
        about_it = np.frombuffer(text.encode(), np.uint8)
        try:
            with beside.open("wb") as file:
                np.savez(file, about=about_it, **arrays)  # type: ignore[arg-type]
            beside.replace(path)
        except OSError as error:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise MachineError(f"cannot write {path}: {error.strerror}") from error


@dataclass(frozen=True, kw_only=True)
class Answer:
    """``yes``, ``no`` or ``unknown`` for each row: its film, and its patient, ``(N,)`` str."""

    films: np.ndarray
    patients: np.ndarray

    def of(self, rows: np.ndarray) -> Answer:
        """Return the answers for some rows."""
        return Answer(films=self.films[rows], patients=self.patients[rows])

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many films and patients' films got each answer."""
        return {
            what: {word: int((answers == word).sum()) for word in (YES, NO, UNKNOWN)}
            for what, answers in (("films", self.films), ("patients", self.patients))
        }


def trained_on(
    model: Path, table: AnnotationTable, store: Store | None = None, index: np.ndarray | None = None
) -> Answer:
    """Ask a model's folder, a run or an export, which films of a table it was trained on.

    All is ``unknown`` where the folder keeps no record, as for imported weights.
    """
    return load(model).of(table, store, index)


def load(folder: Path) -> Exposure:
    """Read a folder's record; an empty, incomplete one where there is none.

    Raises:
        CheckpointError: the record is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return Exposure()
    try:
        refuse_compressed(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            if about["version"] not in (1, VERSION):
                raise ValueError(f"it is of version {about['version']}, not {VERSION}")
            parts = tuple(_part(arrays, number, each) for number, each in enumerate(about["parts"]))
        return Exposure(parts=parts, complete=bool(about["complete"]))
    except Exception as error:  # a damaged archive raises many kinds
        why = " ".join(str(error).split())
        raise CheckpointError(f"{path} is damaged: {why[:160]}") from error


def record(corpora: Mapping[str, Corpus], rows: Mapping[str, Sequence[np.ndarray]]) -> Exposure:
    """Return the record of training on ``rows`` of each dataset."""
    parts = []
    for name, corpus in corpora.items():
        chosen = np.zeros(len(corpus.table), dtype=bool)
        for each in rows.get(name, ()):
            chosen[each] = True
        trained = np.flatnonzero(chosen)
        if not len(trained):
            continue
        key = secrets.token_bytes(KEY)
        films, patients = film_keys(corpus.table), patient_keys(corpus.table)
        hashes = prints.store_hashes(corpus.store)[corpus.index[trained], 0]
        parts.append(
            Part(
                dataset=name,
                access=corpus.spec.card.access,
                key=key,
                # Sorted, so that no row of one tells a row of another.
                films=_distinct(_hashed(films.iloc[trained], key)),
                patients=_distinct(_hashed(patients.iloc[trained], key)),
                prints=_shuffled(hashes),
                film_spaces=_spaces(films, corpus.table, "source_id"),
                patient_spaces=_spaces(patients, corpus.table, "source_patient"),
            )
        )
    return Exposure(parts=tuple(parts), complete=True)


def _part(arrays: Any, number: int, about: Mapping[str, Any]) -> Part:
    if about["access"] not in get_args(Access):
        raise ValueError(f"access {about['access']!r}")  # what may be shared goes by it
    return Part(
        dataset=str(about["dataset"]),
        access=about["access"],
        key=bytes.fromhex(about["key"]),
        films=_numbers(arrays[f"{number}/films"], np.uint64, ()),
        patients=_numbers(arrays[f"{number}/patients"], np.uint64, ()),
        prints=_numbers(arrays[f"{number}/prints"], np.uint8, (32,)),
        film_spaces=tuple(about["film_spaces"]),
        patient_spaces=tuple(about["patient_spaces"]),
    )


def _numbers(array: np.ndarray, dtype: type, row: tuple[int, ...]) -> np.ndarray:
    if array.dtype != dtype or array.shape[1:] != row or not array.ndim:
        raise ValueError(f"it holds {array.dtype} {array.shape}, not {dtype.__name__} rows {row}")
    return array


def _hashed(keys: pd.Series, key: bytes) -> np.ndarray:
    # 64 bits: a stranger among a million is taken for one of a million once in 10^7 models.
    if len(key) == KEY:
        values = keys.to_numpy(dtype=object)
        # SipHash-2-4: it is in pandas, and of a million names takes a tenth of blake2b's time.
        return pd.util.hash_array(values, hash_key=key.hex(), categorize=False)
    digests = (blake2b(text.encode(), key=key, digest_size=8).digest() for text in keys)
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def _spaces(keys: pd.Series, table: AnnotationTable, column: str) -> tuple[str, ...]:
    """Return the namespaces in which *every* film of a dataset has its identity."""
    if table.frame[column].isna().all():
        return (table.dataset,)
    found = {key.partition(":")[0] if ":" in key else "" for key in keys}
    # Without a colon an identity is all that it is, and nobody's business.
    return tuple(found) if len(found) == 1 and found != {""} else ()


def _distinct(hashes: np.ndarray) -> np.ndarray:
    """Return distinct hashes ``(n,)``, sorted; numpy's ``unique`` takes twenty times as long."""
    ordered = np.sort(hashes)
    distinct: np.ndarray = ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])]
    return distinct


def _shuffled(hashes: np.ndarray) -> np.ndarray:
    """Return distinct hashes ``(n, 32)`` in an order that is drawn."""
    words = np.ascontiguousarray(hashes).view(np.uint64)
    order = np.argsort(words @ np.frombuffer(secrets.token_bytes(32), np.uint64))
    words = np.take(words, order, axis=0)
    new = np.concatenate([[True], (words[1:] != words[:-1]).any(axis=1)])
    distinct: np.ndarray = words[new].view(np.uint8)
    return distinct


def _within(keys: pd.Series, spaces: Sequence[str]) -> np.ndarray:
    found = (key.partition(":")[0] in spaces for key in keys)
    return np.fromiter(found, dtype=bool, count=len(keys))


def _near(hashes: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """Whether a film, or a crop of it ``(N, 12, 32)``, is near a trained one ``(M, 32)``."""
    found = np.zeros(len(hashes), dtype=bool)
    for window in range(hashes.shape[1]):
        for rows, _ in prints.near(hashes[:, window], trained, radius=RADIUS):
            found[rows] = True
    return found


def _words(yes: np.ndarray, known: np.ndarray) -> np.ndarray:
    return np.where(yes, YES, np.where(known, NO, UNKNOWN))
