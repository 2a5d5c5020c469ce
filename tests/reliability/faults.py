"""Faults, and commands in processes of their own that stop at a point to be hurt there."""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from ark_framework import cli

# What a process may take to come to a point or to its end; far more than any does.
PATIENCE = 240.0
_context = get_context("forkserver")
# Imported once, by the process that all others are forked from.
_context.set_forkserver_preload(
    ["ark_framework.launch", "ark_framework.cli.train", "ark_framework.builtin.tiny"]
)


_started: list[Command] = []


@dataclass(frozen=True, kw_only=True)
class Point:
    """Before a call of a function.

    Attributes:
        at: ``module:name``.
        call: Which call, from 1.
    """

    at: str
    call: int = 1


def replaced(at: str, wrap: Any) -> None:
    """Replace a function, named ``module:name``, by what ``wrap`` makes of it."""
    module, _, name = at.partition(":")
    owner: Any = importlib.import_module(module)
    *above, last = name.split(".")
    for each in above:
        owner = getattr(owner, each)
    function = getattr(owner, last)
    setattr(owner, last, functools.wraps(function)(wrap(function)))


def hold_at(point: Point, folder: Path) -> None:
    """Make this process say, at a point, that it is there, and wait until it is told to go on."""

    def wrap(function: Any) -> Any:
        calls = itertools.count(1)

        def held(*args: Any, **keys: Any) -> Any:
            if next(calls) == point.call:
                (folder / "reached").write_text(str(os.getpid()))
                begun = time.monotonic()
                while not (folder / "go").exists():
                    if time.monotonic() - begun > PATIENCE:
                        os._exit(99)  # nobody will tell it to go on
                    time.sleep(0.01)
            return function(*args, **keys)

        return held

    replaced(point.at, wrap)


def slow_down(at: str, seconds: float) -> None:
    """Make every call of a function take longer."""

    def wrap(function: Any) -> Any:
        def slow(*args: Any, **keys: Any) -> Any:
            time.sleep(seconds)
            return function(*args, **keys)

        return slow

    replaced(at, wrap)


def _begin(words: Sequence[str], folder: Path, point: Point | None, slow: dict[str, float]) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    for at, seconds in slow.items():
        slow_down(at, seconds)
    if point is not None:
        hold_at(point, folder)
    cli.main(words)


class Command:
    """``ark`` with some words, in a process of its own."""

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        *,
        point: Point | None = None,
        slow: dict[str, float] | None = None,
    ) -> None:
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        given = (list(words), folder, point, slow or {})
        # No daemon: those may not have workers.  end_all ends what a test leaves behind.
        self.process = _context.Process(target=_begin, args=given)
        self.process.start()
        _started.append(self)

    def reached(self) -> None:
        """Wait until it is at its point."""
        until(lambda: (self.folder / "reached").exists() or not self.process.is_alive())
        assert (self.folder / "reached").exists(), f"it ended before its point: {self.err}"

    def go(self) -> None:
        """Let it go on from its point."""
        (self.folder / "go").touch()

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def end(self) -> int:
        """Wait for its end; return its exit code, or the signal that ended it as minus that."""
        self.process.join(PATIENCE)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            raise AssertionError(f"it did not end: {self.err}")
        return code

    @property
    def out(self) -> str:
        """What it said on standard output."""
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        """What it said on standard error."""
        return (self.folder / "err").read_text()

    @property
    def error(self) -> str:
        """The one line that it said on standard error."""
        (line,) = filter(None, self.err.splitlines())  # click ends the line of a ^C
        return line


def end_all() -> None:
    """Kill what a test has left behind: nobody will tell it to go on."""
    while _started:
        process = _started.pop().process
        process.kill()
        process.join()


def until(true: Any) -> None:
    """Wait until something is true."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < PATIENCE, "nothing happened"
        time.sleep(0.02)


def killed_at(point: Point, words: Sequence[str], folder: Path) -> bool:
    """Run a command that is killed at a point; whether it came there, and did not end before."""
    command = Command(words, folder, point=point)
    until(lambda: (folder / "reached").exists() or not command.process.is_alive())
    reached = (folder / "reached").exists()
    if reached:
        command.send(signal.SIGKILL)
    code = command.end()
    assert code == (-signal.SIGKILL if reached else 0), command.err
    return reached


# Disks ----------------------------------------------------------------------------------------


def _mount(*words: str) -> None:
    try:
        subprocess.run(["mount", *words], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this user cannot mount: {error}")


def _unmount(path: Path) -> None:
    subprocess.run(["umount", "--lazy", str(path)], check=True, capture_output=True)


@contextmanager
def small_disk(path: Path, *, size: str) -> Iterator[Path]:
    """Mount a small disk; the test is skipped where that is not allowed."""
    path.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path))
    try:
        yield path
    finally:
        _unmount(path)


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Fill what is left of a disk, to the last byte."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1024))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Let nobody write below a folder; files that are open stay so."""
    _mount("--bind", str(path), str(path))
    try:
        _mount("-o", "remount,bind,ro", str(path))
        yield
    finally:
        _unmount(path)


def truncate(path: Path, share: float) -> None:
    """Keep the first part of a file alone."""
    os.truncate(path, int(path.stat().st_size * share))
