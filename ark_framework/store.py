"""Packed films: one uint8 array per dataset, decoded once, read by memory map.

``<folder>/<dataset>-<fingerprint>/`` holds ``images.npy`` ``(N, C, S, S)`` uint8, ``table.npz``
(image names, bytes, times, which are readable) and ``manifest.json``.  The fingerprint covers
relative paths and sizes, side, fit, channels, options and reader version; file times are left to
``verify``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import platformdirs

from ark_framework.errors import DataError
from ark_framework.images import resolve_below
from ark_framework.specs import DatasetSpec

# Change it when packing begins to give other pixels.
STORE_VERSION = 1
Fit = Literal["squash", "pad", "crop"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a store is packed from: a dataset's images and how they become squares."""

    spec: DatasetSpec
    options: Any
    images: tuple[str, ...]
    size: int
    fit: Fit

    @property
    def root(self) -> Path | None:
        """The folder that image paths are below; ``None`` where films are not files."""
        root = getattr(self.options, "root", None)
        return None if root is None else Path(root)

    def stats(self) -> tuple[np.ndarray, np.ndarray]:
        """Return bytes and modification times ``(N,)`` int64; -1 where a file is missing."""
        sizes = np.zeros(len(self.images), dtype=np.int64)
        times = np.zeros(len(self.images), dtype=np.int64)
        if self.root is None:
            return sizes, times
        base = str(self.root)
        for index, image in enumerate(self.images):
            try:
                found = os.stat(f"{base}/{image}")  # noqa: PTH116 - a Path per film costs 3x
                sizes[index], times[index] = found.st_size, found.st_mtime_ns
            except OSError:
                sizes[index] = times[index] = -1
        return sizes, times

    def fingerprint(self, sizes: np.ndarray) -> str:
        """Return 16 hexadecimal digits that name the store's content."""
        options = self.options.model_dump(mode="json") if self.spec.read_image else {}
        options.pop("root", None)
        head = json.dumps(
            [
                STORE_VERSION,
                self.spec.name,
                self.spec.reader_version,
                self.size,
                self.fit,
                self.spec.channels,
                options,
            ],
            sort_keys=True,
        )
        digest = hashlib.sha256(head.encode())
        for index in sorted(range(len(self.images)), key=self.images.__getitem__):
            digest.update(f"\0{self.images[index]}\0{sizes[index]}".encode())
        return digest.hexdigest()[:16]

    def path(self, image: str) -> Path:
        """Return the file of an image; DataError if it leads out of the root."""
        assert self.root is not None
        return resolve_below(self.root, image)


@dataclass(frozen=True, kw_only=True)
class Store:
    """An opened store.

    Attributes:
        images: Memory map ``(N, C, S, S)`` uint8.
        names: ``(N,)`` image names, row by row.
        bad: Unreadable images and the reasons; their rows are black.
    """

    folder: Path
    images: np.ndarray
    names: np.ndarray
    fingerprint: str
    size: int
    channels: int
    fit: str
    bad: Mapping[str, str]

    def rows(self, images: Sequence[str]) -> np.ndarray:
        """Return the row of each image, ``(n,)`` int64; -1 where it is not here or unreadable."""
        index = {name: row for row, name in enumerate(self.names.tolist())}
        for name in self.bad:
            index[name] = -1
        return np.fromiter((index.get(image, -1) for image in images), np.int64, len(images))


def default_folder() -> Path:
    """Return ``$ARK_STORE``, else the user's cache folder."""
    told = os.environ.get("ARK_STORE")
    return Path(told) if told else platformdirs.user_cache_path("ark") / "stores"


def open_store(path: Path) -> Store:
    """Open a packed store.

    Raises:
        DataError: its files do not belong together.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text("utf-8"))
        images = np.load(path / "images.npy", mmap_mode="r", allow_pickle=False)
        with np.load(path / "table.npz", allow_pickle=False) as table:
            names = table["image"]
        shape = (len(names), manifest["channels"], manifest["size"], manifest["size"])
        if images.shape != shape or images.dtype != np.uint8:
            raise ValueError(f"images.npy holds {images.dtype} {images.shape}, not uint8 {shape}")
    except (OSError, ValueError, KeyError, EOFError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"store {path} is damaged ({reason}); delete that folder and it is packed again"
        ) from error
    return Store(
        folder=path,
        images=images,
        names=names,
        fingerprint=manifest["fingerprint"],
        size=manifest["size"],
        channels=manifest["channels"],
        fit=manifest["fit"],
        bad=manifest["bad"],
    )


def verify(store: Store, source: Source) -> list[str]:
    """Compare a store with its source; return what differs, a line each, empty if nothing."""
    sizes, times = source.stats()
    with np.load(store.folder / "table.npz", allow_pickle=False) as table:
        known = {
            name: (size, time)
            for name, size, time in zip(
                table["image"].tolist(),
                table["bytes"].tolist(),
                table["mtime"].tolist(),
                strict=True,
            )
        }
    found = []
    for image, size, time in zip(source.images, sizes.tolist(), times.tolist(), strict=True):
        if image not in known:
            found.append(f"{image}: not in the store")
        elif size == -1:
            found.append(f"{image}: the file is gone")
        elif (size, time) != known[image]:
            found.append(f"{image}: changed since it was packed")
    manifest = json.loads((store.folder / "manifest.json").read_text("utf-8"))
    if manifest["sha256"] != checksum(store.folder / "images.npy"):
        found.append("images.npy: its checksum is not the manifest's; delete the store")
    return found


def checksum(path: Path) -> str:
    """Return a file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
