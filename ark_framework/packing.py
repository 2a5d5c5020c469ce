"""Packing: decode every film once, in parallel, resumable, atomic."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ark_framework.errors import ArkError, DataError, MachineError
from ark_framework.images import read_color, read_image, to_uint8
from ark_framework.specs import DatasetSpec
from ark_framework.store import STORE_VERSION, Fit, Source, Store, checksum, open_store

# Films per job: long enough that hand-over costs nothing, short enough to resume well.
CHUNK = 64
# Below this many films a pool's start-up costs more than it brings.
ALONE = 256
MARGIN = 64 * 2**20


class Row(NamedTuple):
    """What ``read_image`` is given."""

    image: str


def ensure(
    spec: DatasetSpec,
    options: Any,
    images: Sequence[str],
    *,
    folder: Path,
    size: int,
    fit: Fit,
    workers: int | None = None,
    max_bad: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Store:
    """Open the store of these films, or pack it.

    Raises:
        DataError: films that cannot be read, beyond ``max_bad``.
        MachineError: the disk has no room.
    """
    source = Source(spec=spec, options=options, images=tuple(images), size=size, fit=fit)
    sizes, times = source.stats()
    path = folder / f"{spec.name}-{source.fingerprint(sizes)}"
    if not (path / "manifest.json").is_file():
        pack(
            source,
            path,
            sizes=sizes,
            times=times,
            workers=workers,
            max_bad=max_bad,
            progress=progress,
        )
    store = open_store(path)
    if len(store.bad) > max_bad:
        image, reason = next(iter(store.bad.items()))
        raise DataError(
            f"{spec.name}: {len(store.bad)} films cannot be read, the first {image!r}: "
            f"{reason}; mend them, or allow them with store.max_bad"
        )
    return store


def fit_square(pixels: np.ndarray, size: int, fit: str) -> np.ndarray:
    """Fit a film to the square.

    Args:
        pixels: ``(H, W)`` or ``(H, W, 3)``, uint8 or uint16.
        size: Side in pixels.
        fit: ``squash`` (aspect is lost, as published), ``pad`` (black) or ``crop`` (the middle).

    Returns:
        ``(C, size, size)`` uint8; area-averaged when it shrinks (Pillow's antialiased bilinear).
    """
    film = Image.fromarray(to_uint8(pixels))
    width, height = film.size
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        film = film.crop((left, top, left + side, top + side))
    elif fit == "pad" and width != height:
        side = max(width, height)
        square = Image.new(film.mode, (side, side))
        square.paste(film, ((side - width) // 2, (side - height) // 2))
        film = square
    if film.size != (size, size):
        film = film.resize((size, size), Image.Resampling.BILINEAR)
    array = np.asarray(film)
    return array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0)


def pack(
    source: Source,
    path: Path,
    *,
    sizes: np.ndarray,
    times: np.ndarray,
    workers: int | None,
    max_bad: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Pack a source into ``path``; what an interrupted pack had finished is not done again.

    Raises:
        DataError: more than ``max_bad`` films cannot be read; a list of them is written.
        MachineError: the disk has no room.
    """
    _need_room(source, path.parent)
    with _locked(path):
        if (path / "manifest.json").is_file():
            return  # another process packed it while this one waited
        partial = path.with_name(f".{path.name}.partial")
        films, done, bad = _open_partial(source, partial)
        _fill(source, partial, films, done, bad, workers, progress)
        if len(bad) > max_bad:
            raise _too_bad(source, path, bad)
        _finish(source, path, partial, bad, sizes, times)


def _fill(
    source: Source,
    partial: Path,
    films: np.ndarray,
    done: np.ndarray,
    bad: dict[str, str],
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    chunks = [c for c in range(len(done)) if not done[c]]
    total = len(source.images)
    with (partial / "bad.jsonl").open("a", encoding="utf-8") as log:
        finished = int(min(total, done.sum() * CHUNK))
        for chunk, array, failed in _decoded(source, chunks, workers):
            films[chunk * CHUNK : chunk * CHUNK + len(array)] = array
            for image, reason in failed.items():
                bad[image] = reason
                log.write(json.dumps([image, reason]) + "\n")
            log.flush()
            done[chunk] = 1
            finished = min(total, finished + len(array))
            if progress is not None:
                progress(finished, total)
    films.flush()  # type: ignore[attr-defined]


def _decoded(
    source: Source, chunks: Sequence[int], workers: int | None
) -> Iterator[tuple[int, np.ndarray, dict[str, str]]]:
    count = workers or os.cpu_count() or 1
    if count == 1 or len(chunks) * CHUNK <= ALONE:
        for chunk in chunks:
            yield _decode(source, chunk)
        return
    # forkserver: a fork of a process that runs threads, as torch does, can deadlock.
    context = get_context("forkserver")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_hold, initargs=(source,)) as (
        pool
    ):
        yield from pool.map(_decode_held, chunks)


_held: list[Source] = []


def _hold(source: Source) -> None:
    _held[:] = [source]


def _decode_held(chunk: int) -> tuple[int, np.ndarray, dict[str, str]]:
    return _decode(_held[0], chunk)


def _decode(source: Source, chunk: int) -> tuple[int, np.ndarray, dict[str, str]]:
    images = source.images[chunk * CHUNK : (chunk + 1) * CHUNK]
    shape = (len(images), source.spec.channels, source.size, source.size)
    films = np.zeros(shape, dtype=np.uint8)
    failed: dict[str, str] = {}
    for row, image in enumerate(images):
        try:
            films[row] = fit_square(_read(source, image), source.size, source.fit)
        except MachineError:
            raise
        except ArkError as error:
            failed[image] = str(error).removeprefix(f"{source.root}/{image}: ")
        except Exception as error:  # a plugin's reader raises what it likes
            failed[image] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return chunk, films, failed


def _read(source: Source, image: str) -> np.ndarray:
    if source.spec.read_image is not None:
        return source.spec.read_image(Row(image), source.options)
    path = source.path(image)
    return read_color(path) if source.spec.channels == 3 else read_image(path)


def _open_partial(source: Source, partial: Path) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    shape = (len(source.images), source.spec.channels, source.size, source.size)
    count = -(-len(source.images) // CHUNK)
    names = hashable(source)
    stamp = partial / "names.txt"
    if stamp.is_file() and stamp.read_text("utf-8") != names:
        shutil.rmtree(partial)  # the table's order changed: its chunks are not ours
    fresh = not stamp.is_file()
    partial.mkdir(parents=True, exist_ok=True)
    mode = "w+" if fresh else "r+"
    films = np.lib.format.open_memmap(
        partial / "images.npy",
        mode=mode,  # type: ignore[no-untyped-call]
        dtype=np.uint8,
        shape=shape if fresh else None,
    )
    done = np.memmap(partial / "done.bin", mode=mode, dtype=np.uint8, shape=(count,))
    bad: dict[str, str] = {}
    if fresh:
        stamp.write_text(names, encoding="utf-8")
    elif (partial / "bad.jsonl").is_file():
        lines = (partial / "bad.jsonl").read_text("utf-8").splitlines()
        bad = dict(json.loads(line) for line in lines)
    return films, done, bad


def hashable(source: Source) -> str:
    """Return the images in their order, one a line."""
    return "\n".join(source.images)


def _finish(
    source: Source,
    path: Path,
    partial: Path,
    bad: dict[str, str],
    sizes: np.ndarray,
    times: np.ndarray,
) -> None:
    np.savez(
        partial / "table.npz",
        image=np.array(source.images, dtype=np.str_),
        bytes=sizes,
        mtime=times,
    )
    manifest = {
        "version": STORE_VERSION,
        "dataset": source.spec.name,
        "reader": source.spec.reader_version,
        "fingerprint": path.name.rpartition("-")[2],
        "films": len(source.images),
        "size": source.size,
        "channels": source.spec.channels,
        "fit": source.fit,
        "bad": bad,
        "sha256": checksum(partial / "images.npy"),
    }
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    for name in ("done.bin", "names.txt", "bad.jsonl"):
        (partial / name).unlink(missing_ok=True)
    partial.replace(path)


def _too_bad(source: Source, path: Path, bad: dict[str, str]) -> DataError:
    listing = path.parent / f"{source.spec.name}-bad.csv"
    lines = [
        f'"{image}","{reason}"'
        for image, reason in (
            (i.replace('"', '""'), r.replace('"', '""')) for i, r in sorted(bad.items())
        )
    ]
    listing.write_text("\n".join(["image,reason", *lines]) + "\n", encoding="utf-8")
    image, reason = sorted(bad.items())[0]
    return DataError(
        f"{source.spec.name}: {len(bad)} of {len(source.images)} films cannot be read, the first "
        f"{image!r}: {reason}; all are listed in {listing}; mend them, or allow them with "
        "store.max_bad"
    )


def _need_room(source: Source, folder: Path) -> None:
    need = len(source.images) * source.spec.channels * source.size**2 + MARGIN
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise MachineError(f"cannot make the store folder {folder}: {error.strerror}") from error
    if free < need:
        raise MachineError(
            f"{source.spec.name}: the store needs {need / 1e9:.2f} GB and {folder} has "
            f"{free / 1e9:.2f} GB free; make room, or choose another folder with --store"
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
