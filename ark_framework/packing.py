"""Packing: every film decoded once, in parallel, resumable, atomic, on one machine or many."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from ark_framework import shards
from ark_framework.arrays import Map, open_map
from ark_framework.decoding import cores, decode_all
from ark_framework.shards import Shard
from ark_framework.specs import DatasetSpec
from ark_framework.store import (
    STORE_VERSION,
    Fit,
    Source,
    Store,
    checksum,
    find_store,
    must_be_of,
    open_store,
    sample,
    write_table,
)
from ark_framework.unfinished import (
    CHUNK,
    Pack,
    bad_listing,
    begin,
    locked,
    make_folder,
    missing_files,
    need_room,
    open_partial,
    refuse,
    refuse_taken,
)

# Up to this many films a pool's start-up costs more than it brings.
ALONE = 256

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
    path = find_store(source, folder)
    if path is None:
        pack = begin(source, folder)
        path = pack.path
        if not (path / "manifest.json").is_file():
            refuse(pack.source, missing_files(pack), max_bad, listing=pack.listing)
            _pack(pack, workers, max_bad, progress, say)
    return _opened(source, path, max_bad)


def pack_shard(
    source: Source,
    shard: Shard,
    *,
    folder: Path,
    workers: int | None = None,
    max_bad: int = 0,
    progress: Progress | None = None,
    say: Callable[[str], None] = log.info,
) -> Store | None:
    """Pack one part of the films; whoever packs the last one joins them.

    The store has the same bytes as if it had been packed at once.

    Returns:
        The store, or ``None`` while parts are missing, which are named.

    Raises:
        DataError: more than ``max_bad`` of its films cannot be read.
        MachineError: as for :func:`ensure`, or another process packs the same part.
    """
    pack = begin(source, folder)
    if not (pack.path / "manifest.json").is_file():
        part = pack.part(shard)
        refuse(part.source, missing_files(part), max_bad, listing=part.listing)
        _pack_part(part, workers, max_bad, progress, say)
        if missing := shards.missing(pack.partial, shard.count):
            names = ", ".join(map(str, missing))
            say(f"{source.spec.name}: shard {shard} is packed; still missing: {names}")
            return None
        _pack(pack, workers, max_bad, progress, say)
    return _opened(source, pack.path, max_bad)


def _opened(source: Source, path: Path, max_bad: int) -> Store:
    store = open_store(path)
    must_be_of(store, source)
    refuse(source, store.bad, max_bad, listing=bad_listing(source, path.parent))
    return store


def _pack(
    pack: Pack,
    workers: int | None,
    max_bad: int,
    progress: Progress | None,
    say: Callable[[str], None],
) -> None:
    make_folder(pack.path.parent)
    refuse_taken(pack)
    with locked(pack.lock):
        if (pack.path / "manifest.json").is_file():
            return  # another process packed it while this one waited
        need_room(pack)
        films, done = open_partial(pack)
        _join(pack, films, done)
        _announce(pack, done, say)
        bad = _fill(pack, films, done, workers, progress)
        refuse(pack.source, bad, max_bad, listing=pack.listing)
        _finish(pack, bad)


def _pack_part(
    part: Pack,
    workers: int | None,
    max_bad: int,
    progress: Progress | None,
    say: Callable[[str], None],
) -> None:
    make_folder(part.path.parent)
    refuse_taken(part)
    with locked(part.lock, refused=f"shard {part.shard}"):
        if not part.source.images:  # more shards than chunks
            part.partial.mkdir(exist_ok=True)
        else:
            _fill_part(part, workers, max_bad, progress, say)
        (part.partial / shards.COMPLETE).touch()


def _fill_part(
    part: Pack,
    workers: int | None,
    max_bad: int,
    progress: Progress | None,
    say: Callable[[str], None],
) -> None:
    need_room(part)
    films, done = open_partial(part)
    _announce(part, done, say)
    bad = _fill(part, films, done, workers, progress)
    refuse(part.source, bad, max_bad, listing=part.listing)
    part.listing.unlink(missing_ok=True)


def _join(pack: Pack, films: Map, done: Map) -> None:
    """Take over what shards have done, chunk by chunk; name those that are not whole.

    Raises:
        MachineError: one is being packed.
    """
    for count in sorted({shard.count for shard in shards.begun(pack.partial)}):
        if missing := shards.missing(pack.partial, count):
            names = ", ".join(map(str, missing))
            name = pack.source.spec.name
            log.warning("%s: missing of its shards: %s; packed here instead", name, names)
    for shard in shards.begun(pack.partial):
        part = pack.part(shard)
        refused = None if shard.complete(pack.partial) else f"shard {shard}"
        if (part.partial / "names").is_file():  # else nothing is in it
            with locked(part.lock, refused=refused):
                _take(part, films, done, first=shard.chunks(len(done)).start)


def _take(part: Pack, films: Map, done: Map, *, first: int) -> None:
    """Copy a shard's chunks into the whole, where its own begin at chunk ``first``."""
    theirs, ready = open_partial(part)
    for chunk in np.flatnonzero(ready & (done[first : first + len(ready)] == 0)).tolist():
        array = theirs[chunk * CHUNK : (chunk + 1) * CHUNK]
        start = (first + chunk) * CHUNK
        films[start : start + len(array)] = array
        films.flush()
        done[first + chunk] = 1


def _announce(pack: Pack, done: Map, say: Callable[[str], None]) -> None:
    left = int((done == 0).sum())
    gigabytes = int(np.prod(pack.shape)) / 1e9
    resumed = "" if left == len(done) else f", {1 - left / len(done):.0%} of it done before"
    part = f" as shard {pack.shard}" if pack.shard else ""
    say(
        f"{pack.source.spec.name}: packing {len(pack.source.images):,} films{part}, "
        f"{gigabytes:.2f} GB, into {pack.path}{resumed}"
    )


def _fill(
    pack: Pack, films: Map, done: Map, workers: int | None, progress: Progress | None
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


def _finish(pack: Pack, bad: dict[str, str]) -> None:
    source, partial = pack.source, pack.partial
    write_table(partial, source, pack.sizes, pack.times)
    manifest = {
        "version": STORE_VERSION,
        "dataset": source.spec.name,
        "reader": source.spec.reader_version,
        "fingerprint": pack.path.name.rpartition("-")[2],
        "key": source.key(),
        "films": len(source.images),
        "size": source.size,
        "channels": source.spec.channels,
        "fit": source.fit,
        "bad": bad,
        "sha256": checksum(partial / "images.npy"),
        "table": checksum(partial / "table.npz"),
        "some": sample(open_map(partial / "images.npy")),
    }
    if source.structures:
        manifest["structures"] = source.structures
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    for name in ("done.npy", "names", "files.npy"):
        (partial / name).unlink()
    if pack.path.is_dir():
        shutil.rmtree(pack.path)  # without a manifest it is no store
    partial.replace(pack.path)
    pack.listing.unlink(missing_ok=True)
    for shard in shards.begun(partial):
        shutil.rmtree(shard.folder(partial))
        shard.folder(partial).with_suffix(".lock").unlink(missing_ok=True)
