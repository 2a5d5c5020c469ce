"""Packing: every film decoded once, in parallel, resumable, atomic.

A pack is built in ``.<dataset>-<key>.partial`` beside the stores.  The key leaves out file sizes,
so that a pack that stopped over broken films goes on, once they are mended, with those alone.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import json
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ark_framework.decoding import Reader, cores, decode_all
from ark_framework.errors import DataError, MachineError
from ark_framework.specs import DatasetSpec
from ark_framework.store import (
    STORE_VERSION,
    Fit,
    Source,
    Store,
    checksum,
    open_store,
    write_table,
)

# Films per job: long enough that hand-over costs nothing, short enough to resume well.
CHUNK = 64
# Up to this many films a pool's start-up costs more than it brings.
ALONE = 256
# Room left on the disk for everybody else.
MARGIN = 64 * 2**20

Progress = Callable[[int, int], None]
log = logging.getLogger(__name__)


def ensure(
    spec: DatasetSpec,
    options: Any,
    images: Sequence[str],
    *,
    folder: Path,
    size: int,
    fit: Fit,
    structures: int = 0,
    workers: int | None = None,
    max_bad: int = 0,
    progress: Progress | None = None,
    say: Callable[[str], None] = log.info,
) -> Store:
    """Open the store of these films, or pack it.

    Args:
        spec: The dataset.
        options: Its checked options.
        images: Its images, as in the annotation table.
        folder: Where stores are.
        size: Side of the square in pixels.
        fit: How a film becomes a square.
        structures: How many structures its masks have, which are packed beside the films; 0 for
            films alone.
        workers: Processes; all cores when ``None``.  Few films are decoded in this one.
        max_bad: Unreadable films to put up with.
        progress: Called with films done and films in all.
        say: Told what will be packed and how large it is, once, before it begins.

    Raises:
        DataError: more than ``max_bad`` films cannot be read; a list of them is written.
        MachineError: no room on the disk, a codec is missing, or a worker died.
    """
    source = Source(
        spec=spec, options=options, images=tuple(images), size=size, fit=fit, structures=structures
    )
    sizes, times = source.stats()
    path = folder / f"{spec.name}-{source.fingerprint(sizes)}"
    if not (path / "manifest.json").is_file():
        _refuse(source, folder, _missing(source, sizes), max_bad)
        _pack(_Pack(source, path, sizes, times), workers, max_bad, progress, say)
    store = open_store(path)
    _refuse(source, folder, store.bad, max_bad)
    return store


@dataclass(frozen=True)
class _Pack:
    """One store in the making."""

    source: Source
    path: Path
    sizes: np.ndarray
    times: np.ndarray

    @property
    def partial(self) -> Path:
        key = self.source.fingerprint(np.zeros_like(self.sizes))
        return self.path.with_name(f".{self.source.spec.name}-{key}.partial")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        source = self.source
        return len(source.images), source.planes, source.size, source.size

    @property
    def reader(self) -> Reader:
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


def _pack(
    pack: _Pack,
    workers: int | None,
    max_bad: int,
    progress: Progress | None,
    say: Callable[[str], None],
) -> None:
    partial, source = pack.partial, pack.source
    _make_folder(partial.parent)
    with _locked(partial.with_suffix(".lock")):
        if (pack.path / "manifest.json").is_file():
            return  # another process packed it while this one waited
        _need_room(pack)
        films, done = _open_partial(pack)
        left = int((done == 0).sum())
        gigabytes = int(np.prod(pack.shape)) / 1e9
        resumed = "" if left == len(done) else f", {1 - left / len(done):.0%} of it done before"
        say(
            f"{source.spec.name}: packing {len(source.images):,} films, {gigabytes:.2f} GB, into "
            f"{pack.path}{resumed}"
        )
        bad = _fill(pack, films, done, workers, progress)
        _refuse(source, partial.parent, bad, max_bad)
        _finish(pack, bad)


def _fill(
    pack: _Pack,
    films: np.memmap[Any, np.dtype[np.uint8]],
    done: np.memmap[Any, np.dtype[np.uint8]],
    workers: int | None,
    progress: Progress | None,
) -> dict[str, str]:
    """Decode the chunks that are not done and return the films that cannot be read."""
    images, total = pack.source.images, len(pack.source.images)
    open_chunks = np.flatnonzero(done == 0).tolist()
    chunks = [images[chunk * CHUNK : (chunk + 1) * CHUNK] for chunk in open_chunks]
    finished = total - sum(map(len, chunks))
    count = 1 if total - finished <= ALONE else min(workers or cores(), len(chunks))
    bad: dict[str, str] = {}
    with closing(decode_all(pack.reader, chunks, workers=count)) as results:
        for chunk, (array, failed) in zip(open_chunks, results, strict=True):
            films[chunk * CHUNK : chunk * CHUNK + len(array)] = array
            films.flush()  # before the mark, or a power cut could leave a black film marked done
            bad.update(failed)
            done[chunk] = not failed  # a chunk with a broken film is read again next time
            finished += len(array)
            if progress is not None:
                progress(finished, total)
    return bad


def _open_partial(
    pack: _Pack,
) -> tuple[np.memmap[Any, np.dtype[np.uint8]], np.memmap[Any, np.dtype[np.uint8]]]:
    """Return the films and, per chunk, whether it is done and its files are as they were."""
    partial, count = pack.partial, -(-len(pack.source.images) // CHUNK)
    files = np.stack([pack.sizes, pack.times])
    names = "\0".join(pack.source.images)
    try:
        same = (partial / "names").read_text("utf-8") == names
        before = np.load(partial / "files.npy", allow_pickle=False) if same else None
    except (OSError, ValueError, EOFError):
        before = None
    if before is None:
        _begin_partial(pack, count)
    films = np.load(partial / "images.npy", mmap_mode="r+")
    done = np.load(partial / "done.npy", mmap_mode="r+")
    if before is not None:
        changed = np.flatnonzero((before != files).any(axis=0)) // CHUNK
        done[changed] = 0
        done.flush()
    np.save(partial / "files.npy", files)
    if before is None:
        (partial / "names").write_text(names, encoding="utf-8")  # last: it vouches for the rest
    return films, done


def _begin_partial(pack: _Pack, count: int) -> None:
    partial = pack.partial
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    np.save(partial / "done.npy", np.zeros(count, dtype=np.uint8))
    films = np.lib.format.open_memmap(
        partial / "images.npy", mode="w+", dtype=np.uint8, shape=pack.shape
    )
    if not hasattr(os, "posix_fallocate"):
        return
    try:  # now, because a memory map that finds the disk full kills the process
        with (partial / "images.npy").open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, films.offset + films.nbytes)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            return  # a file system that cannot reserve
        shutil.rmtree(partial, ignore_errors=True)
        raise MachineError(
            f"{pack.source.spec.name}: {partial.parent} has no room for {films.nbytes / 1e9:.2f} GB"
        ) from error


def _finish(pack: _Pack, bad: dict[str, str]) -> None:
    source, partial = pack.source, pack.partial
    write_table(partial, source, pack.sizes, pack.times)
    manifest = {
        "version": STORE_VERSION,
        "dataset": source.spec.name,
        "reader": source.spec.reader_version,
        "fingerprint": pack.path.name.rpartition("-")[2],
        "films": len(source.images),
        "size": source.size,
        "channels": source.spec.channels,
        "fit": source.fit,
        "bad": bad,
        "sha256": checksum(partial / "images.npy"),
    }
    if source.structures:
        manifest["structures"] = source.structures
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    for name in ("done.npy", "names", "files.npy"):
        (partial / name).unlink()
    if pack.path.exists():
        shutil.rmtree(pack.path)  # without a manifest it is no store
    partial.replace(pack.path)
    _listing(source, pack.path.parent).unlink(missing_ok=True)


def _missing(source: Source, sizes: np.ndarray) -> dict[str, str]:
    return {source.images[row]: "no such file" for row in np.flatnonzero(sizes == -1)}


def _listing(source: Source, folder: Path) -> Path:
    return folder / f"{source.spec.name}-bad.csv"


def _refuse(source: Source, folder: Path, bad: Any, max_bad: int) -> None:
    """Raise DataError if more films are bad than allowed, with a list of them in a file."""
    if len(bad) <= max_bad:
        return
    _make_folder(folder)
    listing = _listing(source, folder)
    with listing.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "reason"), *sorted(bad.items())])
    image, reason = min(bad.items())
    raise DataError(
        f"{source.spec.name}: {len(bad)} of {len(source.images)} films cannot be read, the first "
        f"{image!r}: {reason}; all are listed in {listing}; mend them, or allow so many with "
        "--max-bad"
    )


def _need_room(pack: _Pack) -> None:
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


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(
            f"cannot make the store folder {folder}: {error.strerror}; choose another with --store"
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock; wait, and say for whom, while another process has it."""
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            log.warning("waiting for %s, which is packing the same films", file.read().strip())
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
