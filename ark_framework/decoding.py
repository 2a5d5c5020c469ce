"""Many films decoded at once, in worker processes where that pays."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ark_framework.errors import ArkError, DataError, MachineError, PluginError
from ark_framework.images import fit_square, read_color, read_image, resolve_below

# (n, C, S, S) uint8, black where a film is unreadable; and image -> reason.
Decoded = tuple[np.ndarray, dict[str, str]]


class Row(NamedTuple):
    """What a dataset's ``read_image`` is given."""

    image: str


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How a dataset's films become squares; no more, so that a worker can be handed it.

    Attributes:
        root: The folder that images are below; may be ``None`` where ``read`` is given.
        read: The plugin's ``read_image(row, options)``, else the core reads files.
    """

    root: Path | None
    channels: int
    size: int
    fit: str
    read: Callable[[Any, Any], np.ndarray] | None = None
    options: Any = None

    def __post_init__(self) -> None:
        if self.read is None and self.root is None:
            raise PluginError("a dataset without read_image needs an option 'root'")

    def decode(self, images: Sequence[str]) -> Decoded:
        """Decode some films; a film that cannot be read is named with its reason."""
        films = np.zeros((len(images), self.channels, self.size, self.size), dtype=np.uint8)
        failed: dict[str, str] = {}
        for row, image in enumerate(images):
            try:
                films[row] = fit_square(self._pixels(image), self.size, self.fit)
            except MachineError:
                raise
            except ArkError as error:
                failed[image] = str(error).removeprefix(f"{self.root}/{image}: ")
            except Exception as error:  # a plugin's reader raises what it likes
                failed[image] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        return films, failed

    def _pixels(self, image: str) -> np.ndarray:
        if self.read is not None:
            return self._checked(self.read(Row(image), self.options))
        assert self.root is not None
        path = resolve_below(self.root, image)
        return read_color(path) if self.channels == 3 else read_image(path)

    def _checked(self, pixels: np.ndarray) -> np.ndarray:
        shape: tuple[int, ...] = getattr(pixels, "shape", ())
        dtype = getattr(pixels, "dtype", None)
        grey = len(shape) == 2
        color = len(shape) == 3 and shape[2] == 3 and self.channels == 3
        if dtype not in (np.uint8, np.uint16) or not (grey or color) or 0 in shape:
            wanted = "(H, W)" if self.channels == 1 else "(H, W) or (H, W, 3)"
            raise DataError(f"read_image gave {dtype} {shape}, not uint8 or uint16 {wanted}")
        return pixels


def cores() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def decode_all(
    reader: Reader, chunks: Sequence[Sequence[str]], *, workers: int
) -> Generator[Decoded, None, None]:
    """Decode chunks of films and give the results in order.

    Args:
        reader: How.
        chunks: What.
        workers: 1 decodes here; more start processes, or threads where the plugin's reader cannot
            be handed to another process.

    Raises:
        MachineError: a codec is missing, or a worker died.
    """
    if workers == 1:
        yield from map(reader.decode, chunks)
        return
    payload = _portable(reader)
    if payload is None:
        with ThreadPoolExecutor(workers) as threads:
            yield from threads.map(reader.decode, chunks)
        return
    # forkserver: a fork of a process that runs threads, as torch does, can deadlock.
    context = get_context("forkserver")
    try:
        with ProcessPoolExecutor(
            workers, mp_context=context, initializer=_begin, initargs=(payload,)
        ) as pool:
            yield from _submit(pool, chunks)
    except BrokenProcessPool as error:
        raise MachineError(
            "a packing process died, perhaps for want of memory; what is done is kept: run again "
            "with fewer store.workers"
        ) from error


def _portable(reader: Reader) -> bytes | None:
    try:
        payload = pickle.dumps(reader)
    except Exception:  # pickle raises several kinds for a lambda or an open file
        return None
    return None if b"__main__" in payload else payload


def _submit(pool: Executor, chunks: Sequence[Sequence[str]]) -> Iterator[Decoded]:
    with _no_script():
        return pool.map(_decode, chunks)


@contextmanager
def _no_script() -> Iterator[None]:
    """Keep new workers from running the user's script again: it may have no main guard."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


_reader: list[Reader] = []


def _begin(payload: bytes) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    Thread(target=_leave_with_parent, daemon=True).start()
    _reader[:] = [pickle.loads(payload)]


def _leave_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _decode(images: Sequence[str]) -> Decoded:
    return _reader[0].decode(images)
