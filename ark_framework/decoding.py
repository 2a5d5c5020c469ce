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

from ark_framework import masks
from ark_framework.errors import ArkError, DataError, MachineError, PluginError
from ark_framework.images import fit_square, read_color, read_image, resolve_below

# (n, C + B, S, S) uint8, black where a film is unreadable; and image -> reason.
Decoded = tuple[np.ndarray, dict[str, str]]


class Row(NamedTuple):
    """What a dataset's ``read_image`` and ``read_mask`` are given."""

    image: str


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How a dataset's films become squares; no more, so that a worker can be handed it.

    Attributes:
        root: The folder that images are below; may be ``None`` where ``read`` is given.
        read: The plugin's ``read_image(row, options)``, else the core reads files.
        read_mask: The plugin's ``read_mask(row, options)``, where there are ``structures``.
    """

    root: Path | None
    channels: int
    size: int
    fit: str
    read: Callable[[Any, Any], np.ndarray] | None = None
    read_mask: Callable[[Any, Any], np.ndarray] | None = None
    structures: int = 0
    options: Any = None

    def __post_init__(self) -> None:
        if self.read is None and self.root is None:
            raise PluginError("a dataset without read_image needs an option 'root'")
        if self.structures and self.read_mask is None:
            raise PluginError("a dataset of masks needs read_mask")

    def decode(self, images: Sequence[str]) -> Decoded:
        """Decode some films; one that cannot be read, or its mask, is named with the reason."""
        planes = self.channels + masks.planes(self.structures)
        films = np.zeros((len(images), planes, self.size, self.size), dtype=np.uint8)
        failed: dict[str, str] = {}
        for row, image in enumerate(images):
            try:
                films[row] = self._square(image)
            except MachineError:
                raise
            except ArkError as error:
                failed[image] = str(error).removeprefix(f"{self.root}/{image}: ")
            except (Exception, SystemExit) as error:  # a plugin's reader raises what it likes
                failed[image] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        return films, failed

    def _square(self, image: str) -> np.ndarray:
        pixels = self._pixels(image)
        film = fit_square(pixels, self.size, self.fit)
        if self.read_mask is None:
            return film
        mask = self._checked_mask(self.read_mask(Row(image), self.options), pixels.shape)
        return np.concatenate([film, masks.pack(masks.fit(mask, self.size, self.fit))])

    def _pixels(self, image: str) -> np.ndarray:
        path = None if self.root is None else resolve_below(self.root, image)
        if self.read is not None:
            return self._checked(self.read(Row(image), self.options))
        assert path is not None
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

    def _checked_mask(self, mask: np.ndarray, film: tuple[int, ...]) -> np.ndarray:
        shape: tuple[int, ...] = getattr(mask, "shape", ())
        dtype = getattr(mask, "dtype", None)
        if dtype != np.bool_ or len(shape) != 3 or shape[0] != self.structures or 0 in shape:
            raise DataError(f"read_mask gave {dtype} {shape}, not bool ({self.structures}, H, W)")
        (height, width), (tall, wide) = film[:2], shape[1:]
        # A film or mask that was resized has sides that were rounded, by a pixel at the most.
        rounded = max(height + width, tall + wide)
        if abs(tall * width - wide * height) > rounded:
            raise DataError(
                f"its mask is {wide} x {tall}, another shape than the film's {width} x {height}"
            )
        return mask


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
    sys.stdout = sys.stderr  # an answer on standard output is the parent's alone
    Thread(target=_leave_with_parent, daemon=True).start()
    _reader[:] = [pickle.loads(payload)]  # noqa: S301 - from the parent, never from a file


def _leave_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _decode(images: Sequence[str]) -> Decoded:
    return _reader[0].decode(images)
