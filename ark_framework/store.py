"""Packed films: one uint8 array per dataset, decoded once, read by memory map.

``<folder>/<dataset>-<fingerprint>/`` holds ``images.npy`` ``(N, C + B, S, S)`` uint8, each film's
channels and then the bits of its mask, so that the two cannot part; ``table.npz`` (image names,
bytes, times, which are readable) and ``manifest.json``, which says what the two others hold, so
that files of two stores are not taken for one.  The fingerprint covers relative paths and
sizes, side, fit, channels and reader version, the options of a dataset that draws its own images,
and of one with masks their number and the options, which may say where masks lie; file times are
left to ``verify``, and with many films most sizes (:func:`find_store`).  ``packing`` writes stores.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ark_framework import jsonfile, masks
from ark_framework.arrays import open_map, refuse_compressed
from ark_framework.errors import DataError
from ark_framework.specs import DatasetSpec
from ark_framework.wording import explain

# Change it when packing begins to give other pixels.
STORE_VERSION = 1
# Files whose sizes are compared where a store has more films.
LOOKED_AT = 10_000
# Films whose pixels are compared whenever a store is opened: few, for they may come over a network.
SAMPLED = 16
# Bytes of a file that are read at once.
READ = 2**24
Fit = Literal["squash", "pad", "crop"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a store is packed from: a dataset's images and how they become squares."""

    spec: DatasetSpec
    options: Any
    images: tuple[str, ...]
    size: int
    fit: Fit
    structures: int = 0

    @property
    def planes(self) -> int:
        """Stored planes of a film: its channels, and those of its mask's bits."""
        return self.spec.channels + masks.planes(self.structures)

    @property
    def root(self) -> Path | None:
        """The folder that image paths are below; ``None`` where films are not files."""
        root = getattr(self.options, "root", None)
        return None if root is None else Path(root)

    def stats(self) -> tuple[np.ndarray, np.ndarray]:
        """Return bytes and modification times ``(N,)`` int64; -1 where a file is missing."""
        absent = -1 if self.spec.read_image is None else 0  # such an image need not be a file
        sizes = np.full(len(self.images), absent if self.root else 0, dtype=np.int64)
        times = sizes.copy()
        if self.root is None:
            return sizes, times
        base = str(self.root)
        for index, image in enumerate(self.images):
            with suppress(OSError):
                found = os.stat(f"{base}/{image}")  # noqa: PTH116 - a Path per film costs 3x
                sizes[index], times[index] = found.st_size, found.st_mtime_ns
        return sizes, times

    def fingerprint(self, sizes: np.ndarray) -> str:
        """Return 16 hexadecimal digits that name the store's content."""
        films = sorted(zip(self.images, sizes.tolist(), strict=True))
        return self._digest("".join(f"\0{image}\0{size}" for image, size in films))

    def _digest(self, films: str) -> str:
        # Options of a dataset of plain films choose rows and labels, never pixels.
        drawn = self.spec.read_image is not None or self.structures > 0
        options = self.options.model_dump(mode="json", exclude={"root"}) if drawn else {}
        spec = self.spec
        head = [STORE_VERSION, spec.name, spec.reader_version, spec.channels]
        head += [self.size, self.fit, options]
        head += [self.structures] if self.structures else []  # names of other stores stay
        text = json.dumps(head, sort_keys=True) + films
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def key(self) -> str:
        """Return the like without file sizes: it tells which films these are."""
        return self._digest("\0".join(sorted(self.images)))


class Manifest(BaseModel):
    """What a store's folder says of it; ``table`` and ``some`` came later than the rest."""

    model_config = ConfigDict(strict=True, frozen=True)

    version: int
    dataset: str
    reader: str
    fingerprint: str = Field(pattern=r"^[0-9a-f]{16}$")
    key: str | None = None
    films: int = Field(ge=0)
    size: int = Field(ge=1, le=8192)
    channels: int = Field(ge=1, le=3)
    fit: Fit
    bad: dict[str, str]
    sha256: str
    table: str | None = None
    some: str | None = None
    structures: int = Field(default=0, ge=0, le=4096)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Films, stored planes and side twice."""
        return self.films, self.channels + masks.planes(self.structures), self.size, self.size


@dataclass(frozen=True, kw_only=True)
class Store:
    """An opened store.

    Attributes:
        images: Memory map ``(N, C, S, S)`` uint8.
        masks: Memory map ``(N, B, S, S)`` uint8 of the bits of masks (see
            :mod:`ark_framework.masks`); ``B`` is 0 without them.
        structures: How many structures a mask has.
        names: Image names, row by row.
        bad: Unreadable images and the reasons; their rows are black.
    """

    folder: Path
    images: np.ndarray
    masks: np.ndarray
    names: tuple[str, ...]
    fingerprint: str
    size: int
    channels: int
    structures: int
    fit: str
    bad: Mapping[str, str]

    def rows(self, images: Sequence[str]) -> np.ndarray:
        """Return the row of each image, ``(n,)`` int64; -1 where it is not here or unreadable."""
        if not self.bad and self.names == tuple(images):  # as a rule; the rest takes a second
            return np.arange(len(images))
        index = self._index
        return np.fromiter((index.get(image, -1) for image in images), np.int64, len(images))

    @cached_property
    def _index(self) -> dict[str, int]:
        return dict(zip(self.names, range(len(self.names)), strict=True)) | dict.fromkeys(
            self.bad, -1
        )


def default_folder() -> Path:
    """Return ``$ARK_STORE``, else the user's cache folder."""
    told = os.environ.get("ARK_STORE")
    return Path(told) if told else platformdirs.user_cache_path("ark") / "stores"


def open_store(path: Path) -> Store:
    """Open a packed store by its own folder.

    Raises:
        DataError: its files do not belong together.
    """
    try:
        manifest = read_manifest(path)
        names = _table(path)[0]
        whole = open_map(path / "images.npy", dtype=np.uint8, shape=manifest.shape)
        _must_belong(path, manifest, names, whole)
    except Exception as error:  # a damaged file raises many kinds
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"store {path} is damaged ({reason}); delete that folder and it is packed again"
        ) from error
    return Store(
        folder=path,
        images=whole[:, : manifest.channels],
        masks=whole[:, manifest.channels :],
        names=names,
        fingerprint=manifest.fingerprint,
        size=manifest.size,
        channels=manifest.channels,
        structures=manifest.structures,
        fit=manifest.fit,
        bad=manifest.bad,
    )


def read_manifest(path: Path) -> Manifest:
    """Read what a store's folder says of it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """
    try:
        return Manifest.model_validate(jsonfile.read(path / "manifest.json"))
    except ValidationError as error:
        raise ValueError(explain(error, Manifest, where="manifest.json")) from error


def _must_belong(path: Path, manifest: Manifest, names: tuple[str, ...], films: np.ndarray) -> None:
    """Refuse files that were put together from more than one store.

    Raises:
        ValueError: saying which file does not belong here.
    """
    if manifest.version != STORE_VERSION:
        raise ValueError(f"it is of version {manifest.version}, not {STORE_VERSION}")
    if path.resolve().name != f"{manifest.dataset}-{manifest.fingerprint}":
        raise ValueError(f"manifest.json is of {manifest.dataset}-{manifest.fingerprint}")
    if len(names) != manifest.films:
        raise ValueError(f"table.npz has {len(names)} films, the manifest {manifest.films}")
    if manifest.table is not None and manifest.table != checksum(path / "table.npz"):
        raise ValueError("table.npz is another store's, or damaged")
    if manifest.table is None or manifest.bad:  # else it is known by its sum, and takes a while
        known = set(names)
        if len(known) < len(names):
            raise ValueError(f"table.npz has {len(known)} films, the manifest {manifest.films}")
        if not manifest.bad.keys() <= known:
            raise ValueError("manifest.json names a film that is not in table.npz")
    if manifest.some is not None and manifest.some != sample(films):
        raise ValueError("images.npy is another store's, or damaged")


def sample(films: np.ndarray) -> str:
    """Return the sha256 of :data:`SAMPLED` films, evenly spread, which a store is known by."""
    rows = np.linspace(0, len(films) - 1, min(len(films), SAMPLED)).astype(np.int64)
    return hashlib.sha256(films[rows].tobytes()).hexdigest()


def must_be_of(store: Store, source: Source) -> None:
    """Refuse a store of other films, or of films packed otherwise, whatever its name says.

    Raises:
        DataError: naming what differs.
    """
    if wrong := _other(store, source):
        raise DataError(
            f"store {store.folder} has other {wrong} than its name says; delete that folder and it "
            "is packed again"
        )


def _other(store: Store, source: Source) -> str:
    """Return what of a store is not the source's, in words."""
    same = {
        "films": store.names == source.images or set(store.names) == set(source.images),
        "size": store.size == source.size,
        "fit": store.fit == source.fit,
        "channels": store.channels == source.spec.channels,
        "structures": store.structures == source.structures,
    }
    return ", ".join(name for name, equal in same.items() if not equal)


def find_store(source: Source, folder: Path) -> Path | None:
    """Return the store of many films without asking for each file's size, if it is here.

    Of a million files that alone takes seconds, and minutes over a network.  The names are
    compared and the sizes of :data:`LOOKED_AT` files, evenly spread; all sizes are where this
    returns ``None``, and in ``verify``.
    """
    if len(source.images) <= LOOKED_AT:
        return None
    key = source.key()
    for manifest in sorted(folder.glob(f"{source.spec.name}-*/manifest.json")):
        with suppress(OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile):
            if jsonfile.read(manifest).get("key") != key:
                continue
            names, sizes, _ = _table(manifest.parent)
            rows = np.linspace(0, len(names) - 1, LOOKED_AT).astype(np.int64)
            some = replace(source, images=tuple(names[row] for row in rows))
            if np.array_equal(some.stats()[0], sizes[rows]):
                return manifest.parent
    return None


def verify(
    store: Store, source: Source, *, progress: Callable[[int, int], None] = lambda *_: None
) -> list[str]:
    """Compare a store with its source; return what differs, a line each, empty if nothing.

    ``progress(done, total)`` is called in MB as its films are read.
    """
    names, old_sizes, old_times = _table(store.folder)
    known = dict(zip(names, zip(old_sizes.tolist(), old_times.tolist(), strict=True), strict=True))
    sizes, times = source.stats()
    found = []
    for image, size, time in zip(source.images, sizes.tolist(), times.tolist(), strict=True):
        if image not in known:
            found.append(f"{image}: not in the store")
        elif (size, time) != known[image]:
            change = "the file is gone" if size == -1 else "changed since it was packed"
            found.append(f"{image}: {change}")
    if not found and (wrong := _other(store, source)):
        found.append(f"it has other {wrong} than its name says")
    if read_manifest(store.folder).sha256 != checksum(store.folder / "images.npy", progress):
        found.append("images.npy: its checksum is not the manifest's; delete the store")
    return found


def write_table(path: Path, source: Source, sizes: np.ndarray, times: np.ndarray) -> None:
    """Write ``table.npz``: names as one NUL-joined text, a quarter of a fixed-width array."""
    names = np.frombuffer("\0".join(source.images).encode(), dtype=np.uint8)
    np.savez(path / "table.npz", images=names, bytes=sizes, mtime_ns=times)


def _table(path: Path) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    refuse_compressed(path / "table.npz")
    # Opened here, because numpy leaves the file of a damaged archive open.
    with (path / "table.npz").open("rb") as file, np.load(file, allow_pickle=False) as table:
        names = tuple(table["images"].tobytes().decode().split("\0"))
        sizes, times = table["bytes"], table["mtime_ns"]
    for each in (sizes, times):
        if each.dtype != np.int64 or each.shape != (len(names),):
            raise ValueError(f"table.npz holds {each.dtype} {each.shape} for {len(names)} films")
    return names, sizes, times


def checksum(path: Path, progress: Callable[[int, int], None] = lambda *_: None) -> str:
    """Return a file's sha256; ``progress(done, total)`` is called in MB."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while piece := file.read(READ):
            digest.update(piece)
            done += len(piece)
            progress(done // 10**6, total // 10**6)
    return digest.hexdigest()
