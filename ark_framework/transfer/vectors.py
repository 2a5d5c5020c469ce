"""A table of embeddings made elsewhere: a vector for each film, by the film's name.

NPZ: arrays ``ids`` ``(n,)`` of text and ``features`` ``(n, D)``, or one vector per name.
CSV: a header, the name first, then a column for each number.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from ark_framework.annotations import AnnotationTable
from ark_framework.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """``ids`` of films and ``features`` ``(n, D)`` float32."""

    path: Path
    ids: tuple[str, ...]
    features: np.ndarray

    @classmethod
    def read(cls, path: Path) -> Vectors:
        """Read a table.

        Raises:
            DataError: it cannot be read, a name stands twice, or a number is missing.
        """
        try:
            ids, features = _csv(path) if path.suffix.lower() == ".csv" else _npz(path)
        except Exception as error:  # a damaged file raises many kinds
            why = " ".join(str(error).split())[:160]
            raise DataError(f"{path}: not a table of embeddings ({why})") from error
        if features.ndim != 2 or len(ids) != len(features) or not features.size:
            raise DataError(
                f"{path}: {len(ids)} names and vectors {features.shape}; give a vector each"
            )
        if len(set(ids)) != len(ids):
            twice = pd.Series(ids)[pd.Series(ids).duplicated()].iloc[0]
            raise DataError(f"{path}: {twice!r} stands there twice")
        wrong = ~np.isfinite(features).all(axis=1)
        if wrong.any():
            raise DataError(f"{path}: the vector of {ids[int(wrong.argmax())]!r} is not finite")
        return cls(path=path, ids=tuple(ids), features=features)

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits that name the content."""
        digest = hashlib.sha256("\0".join(self.ids).encode())
        digest.update(np.ascontiguousarray(self.features).tobytes())
        return digest.hexdigest()[:16]

    def of(self, table: AnnotationTable, rows: np.ndarray) -> np.ndarray:
        """Return the vectors ``(n, D)`` of a table's rows.

        A film is found by its path, its declared identity, or its file's name with or without the
        suffix; whichever way, the same for all of them.

        Raises:
            DataError: some film has no vector, by any of these names.
        """
        frame = table.frame.iloc[rows]
        images = frame["image"].astype(str)
        ways = {
            "path": images,
            "identity": frame["source_id"].astype("object").fillna(""),
            "file name": images.map(lambda name: PurePosixPath(name).name),
            "name without suffix": images.map(lambda name: PurePosixPath(name).stem),
        }
        index = dict(zip(self.ids, range(len(self.ids)), strict=True))
        found = {
            way: np.fromiter((index.get(name, -1) for name in names), np.int64, len(names))
            for way, names in ways.items()
            if way == "path" or not names.duplicated().any()
        }
        best = max(found, key=lambda way: int((found[way] >= 0).sum()))
        lost = found[best] < 0
        if lost.any():
            raise DataError(
                f"{self.path}: no vector for {int(lost.sum())} of {len(rows)} films of "
                f"{table.dataset}, such as {images.iloc[int(lost.argmax())]!r}"
            )
        return self.features[found[best]]


def _npz(path: Path) -> tuple[list[str], np.ndarray]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        if {"ids", "features"} <= set(arrays.files):
            ids, features = arrays["ids"], arrays["features"]
            return [str(each) for each in ids], _real(features)
        names = list(arrays.files)
        vectors = [_real(arrays[name]).reshape(-1) for name in names]
    return names, np.stack(vectors)


def _real(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"numbers are wanted, not {array.dtype}")
    return np.asarray(array, dtype=np.float32)


def _csv(path: Path) -> tuple[list[str], np.ndarray]:
    frame = pd.read_csv(path, dtype={0: str})
    ids = frame.iloc[:, 0].astype(str).tolist()
    return ids, frame.iloc[:, 1:].to_numpy(dtype=np.float32)
