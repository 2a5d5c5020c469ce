"""A store in the making: its folder, its lock, and which of its chunks are done.

It lies in ``.<dataset>-<key>.partial`` beside the stores, a shard of it in a folder of its own.
The key leaves out file sizes, so that a pack that stopped over broken films goes on, once they are
mended, with those alone.
"""

from __future__ import annotations

import csv
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ark_framework import locks
from ark_framework.arrays import Map, new_map, open_map
from ark_framework.decoding import Reader
from ark_framework.errors import DataError, MachineError
from ark_framework.shards import Shard
from ark_framework.store import Source

# Films per job: long enough that hand-over costs nothing, short enough to resume well.
CHUNK = 64
# Room left on the disk for everybody else.
MARGIN = 64 * 2**20

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pack:
    """One store in the making, or a shard of it."""

    source: Source
    path: Path
    sizes: np.ndarray
    times: np.ndarray
    partial: Path
    shard: Shard | None = None

    def part(self, shard: Shard) -> Pack:
        """Return a shard of this pack."""
        chunks = shard.chunks(-(-len(self.source.images) // CHUNK))
        rows = slice(chunks.start * CHUNK, chunks.stop * CHUNK)
        return replace(
            self,
            source=replace(self.source, images=self.source.images[rows]),
            sizes=self.sizes[rows],
            times=self.times[rows],
            partial=shard.folder(self.partial),
            shard=shard,
        )

    @property
    def lock(self) -> Path:
        """The file that says who packs it; beside it, since the folder may be begun anew."""
        return self.partial.with_suffix(".lock")

    @property
    def listing(self) -> Path:
        """The file that names its films that cannot be read."""
        return bad_listing(self.source, self.path.parent, shard=self.shard)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Films, stored planes and side twice."""
        source = self.source
        return len(source.images), source.planes, source.size, source.size

    @property
    def reader(self) -> Reader:
        """How its films are decoded."""
        source, spec = self.source, self.source.spec
        return Reader(
            root=source.root,
            channels=spec.channels,
            size=source.size,
            fit=source.fit,
            read=spec.read_image,
            read_mask=spec.read_mask if source.structures else None,
            structures=source.structures,
            options=source.options if spec.read_image or source.structures else None,
        )


def begin(source: Source, folder: Path) -> Pack:
    """Look at a source's files, and return the pack that makes their store in ``folder``."""
    sizes, times = source.stats()
    path = folder / f"{source.spec.name}-{source.fingerprint(sizes)}"
    partial = folder / f".{source.spec.name}-{source.key()}.partial"
    return Pack(source, path, sizes, times, partial)


def open_partial(pack: Pack) -> tuple[Map, Map]:
    """Return the films and, per chunk, whether it is done and its files are as they were."""
    partial, count = pack.partial, -(-len(pack.source.images) // CHUNK)
    files = np.stack([pack.sizes, pack.times])
    names = "\0".join(pack.source.images)
    try:
        if (partial / "names").read_text("utf-8") != names:
            raise ValueError("other films")
        before = np.array(open_map(partial / "files.npy", dtype=files.dtype, shape=files.shape))
        films, done = _open(pack, count)
    except (OSError, ValueError):  # absent, damaged or another pack's
        before = None
        _begin_partial(pack, count)
        films, done = _open(pack, count)
    if before is not None:
        changed = np.flatnonzero((before != files).any(axis=0)) // CHUNK
        done[changed] = 0
        done.flush()
    np.save(partial / "files.npy", files)
    if before is None:
        (partial / "names").write_text(names, encoding="utf-8")  # last: it vouches for the rest
    return films, done


def _open(pack: Pack, count: int) -> tuple[Map, Map]:
    films = open_map(pack.partial / "images.npy", mode="r+", dtype=np.uint8, shape=pack.shape)
    return films, open_map(pack.partial / "done.npy", mode="r+", dtype=np.uint8, shape=(count,))


def _begin_partial(pack: Pack, count: int) -> None:
    partial = pack.partial
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    np.save(partial / "done.npy", np.zeros(count, dtype=np.uint8))
    try:
        new_map(partial / "images.npy", dtype=np.uint8, shape=pack.shape)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        gigabytes = int(np.prod(pack.shape)) / 1e9
        raise MachineError(
            f"{pack.source.spec.name}: cannot take {gigabytes:.2f} GB of {partial.parent}: "
            f"{error.strerror}; make room, or choose another folder with --store"
        ) from error


def missing_files(pack: Pack) -> dict[str, str]:
    """Return the films that have no file, and say so of each."""
    return {pack.source.images[row]: "no such file" for row in np.flatnonzero(pack.sizes == -1)}


def bad_listing(source: Source, folder: Path, *, shard: Shard | None = None) -> Path:
    """Return the file that names the films that cannot be read."""
    part = f"-shard-{shard.name}" if shard else ""
    return folder / f"{source.spec.name}{part}-bad.csv"


def refuse(source: Source, bad: Mapping[str, str], max_bad: int, *, listing: Path) -> None:
    """Raise DataError if more films are bad than allowed, with a list of them in a file."""
    if len(bad) <= max_bad:
        return
    make_folder(listing.parent)
    with listing.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "reason"), *sorted(bad.items())])
    image, reason = min(bad.items())
    raise DataError(
        f"{source.spec.name}: {len(bad)} of {len(source.images)} films cannot be read, the first "
        f"{image!r}: {reason}; all are listed in {listing}; mend them, or allow so many with "
        "--max-bad"
    )


def refuse_taken(pack: Pack) -> None:
    """Refuse to begin where something lies that is no folder.

    Raises:
        MachineError: naming it.
    """
    for path in (pack.path, pack.partial):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise MachineError(f"{path} is in the way of a store; move or delete it")


def need_room(pack: Pack) -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        MachineError: saying how much is needed.
    """
    need = int(np.prod(pack.shape)) + MARGIN
    with suppress(OSError):  # what an interrupted pack has taken is not needed again
        need -= (pack.partial / "images.npy").stat().st_blocks * 512
    folder = pack.path.parent
    free = shutil.disk_usage(folder).free
    if free < need:
        raise MachineError(
            f"{pack.source.spec.name}: the store needs {need / 1e9:.2f} GB and {folder} has "
            f"{free / 1e9:.2f} GB free; make room, or choose another folder with --store"
        )


def make_folder(folder: Path) -> None:
    """Make the folder of stores.

    Raises:
        MachineError: the disk refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(
            f"cannot make the store folder {folder}: {error.strerror}; choose another with --store"
        ) from error


@contextmanager
def locked(path: Path, *, refused: str | None = None) -> Iterator[None]:
    """Hold the lock; wait, and say for whom, while another process has it, or refuse to.

    Raises:
        MachineError: another process has it, and ``refused`` says what for.
    """
    with locks.open_lock(path) as file:
        if (who := locks.take(file)) is not None:
            if refused is not None:
                raise MachineError(
                    f"{refused} is being packed by {who}; run again when that has ended"
                )
            log.warning("waiting for %s, which is packing the same films", who)
            locks.wait(file)
        yield
