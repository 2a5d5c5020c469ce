"""Locks that end with the process that holds them, however it ends."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import IO

from ark_framework.errors import MachineError

# What a file system says that has no locks.
WITHOUT = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
log = logging.getLogger(__name__)


def open_lock(path: Path) -> IO[str]:
    """Open a lock; never through a link, which others who write here may have put in its place.

    Raises:
        MachineError: it cannot be opened.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    try:
        return os.fdopen(os.open(path, flags, 0o666), "r+", encoding="utf-8")
    except OSError as error:
        raise MachineError(f"cannot lock {path}: {error.strerror}") from error


def take(file: IO[str]) -> str | None:
    """Take an opened lock until it is closed; return who has it, where another process does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        return file.read().strip() or "another process"
    except OSError as error:
        if error.errno not in WITHOUT:
            raise MachineError(f"cannot lock {file.name}: {error.strerror}") from error
        log.warning("%s cannot be locked here; see that nobody else writes beside it", file.name)
    _sign(file)
    return None


def wait(file: IO[str]) -> None:
    """Take an opened lock once nobody else has it."""
    fcntl.flock(file, fcntl.LOCK_EX)
    _sign(file)


def _sign(file: IO[str]) -> None:
    with suppress(OSError):  # a full disk: the lock holds without a name
        os.ftruncate(file.fileno(), 0)
        os.pwrite(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
