"""Files of arrays: opened without running what they may carry, and only as large as they say."""

from __future__ import annotations

import errno
import os
import zipfile
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

Map: TypeAlias = "np.memmap[Any, np.dtype[Any]]"
MAGIC = b"\x93NUMPY"


def open_map(
    path: Path,
    *,
    mode: Literal["r", "r+"] = "r",
    dtype: Any = None,
    shape: tuple[int, ...] | None = None,
) -> Map:
    """Open an ``.npy`` by memory map.

    Raises:
        OSError: it is absent or cannot be read.
        ValueError: it is damaged, or of another ``dtype`` or ``shape``.
    """
    if path.exists() and not path.is_file():  # a pipe would never end
        raise ValueError(f"{path.name} is no file")
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{path.name} is no array")
    try:
        array = np.lib.format.open_memmap(path, "r")
    except OSError:
        raise
    except Exception as error:  # a damaged header raises many kinds
        raise ValueError(f"{path.name} is damaged: {error}") from error
    found = f"{path.name} holds {array.dtype} {array.shape}"
    if dtype is not None and array.dtype != dtype:
        raise ValueError(f"{found}, not {np.dtype(dtype)}")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{found}, not {shape}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{found} in another order of axes")
    if path.stat().st_size != array.offset + array.nbytes:
        raise ValueError(f"{found} and then something else")
    # Only now: opened for writing, numpy would make a file that was cut whole, with zeros.
    return array if mode == "r" else np.lib.format.open_memmap(path, mode)


def new_map(path: Path, *, dtype: Any, shape: tuple[int, ...]) -> Map:
    """Make an ``.npy`` of zeros by memory map, with its room on the disk taken.

    A map that finds the disk full later would kill the process.

    Raises:
        OSError: the disk refuses or has no room; no file is left.
    """
    made = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if not hasattr(os, "posix_fallocate"):
        return made
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, made.offset + made.nbytes)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # else a file system that cannot reserve
            path.unlink()
            raise
    return made


def refuse_compressed(path: Path) -> None:
    """Refuse an archive that would grow when it is read; neither torch nor numpy makes one here.

    Raises:
        ValueError: an entry is compressed, and may be of any size.
        BadZipFile: it is no archive.
    """
    with zipfile.ZipFile(path) as archive:
        if any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist()):
            raise ValueError("it is compressed, as none written here is, and may be of any size")
