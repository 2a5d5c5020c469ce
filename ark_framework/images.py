"""One radiograph file → 2-D grey array → a square of stored pixels.

Eight-bit pixels come back as they are stored, so that a film re-encoded without loss stays the
same film.  Deeper pixels come back as uint16 and become 8-bit in :func:`to_uint8`, spread linearly
over the film's own range.  Orientation tags and transparency are ignored: they have no meaning in a
film.
"""

from __future__ import annotations

import logging
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image, UnidentifiedImageError

from ark_framework.dicoms import read_dicom, why
from ark_framework.errors import DataError
from ark_framework.pixels import MAX_BYTES, check_size, spread

# Named, because Pillow would also open formats that start other programs (EPS).
FORMATS = ("PNG", "JPEG", "JPEG2000", "TIFF", "BMP", "GIF", "WEBP", "PPM")
# Modes that Pillow turns to grey as they are.
DIRECT = ("1", "L", "LA", "RGB", "RGBA")
# TIFF tag 262 and its value for "zero is white".
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0

# Pillow logs what it then raises; without a handler that would be a second line.
logging.getLogger("PIL").addHandler(logging.NullHandler())
_hearing = Lock()  # of standard error, which the whole process has in common


def resolve_below(root: Path, image: str) -> Path:
    """Return ``root / image``, refusing what leaves the root, symbolic links included.

    Raises:
        DataError: the path leaves the root, or is none.
    """
    path = root / image
    try:
        real = path.resolve()
    except (OSError, RuntimeError) as error:  # before Python 3.13 a loop is a RuntimeError
        raise DataError(f"{path}: its symbolic links lead in a loop") from error
    except ValueError as error:
        raise DataError(f"{path}: is no path") from error
    if not real.is_relative_to(root.resolve()):
        raise DataError(f"{path}: leads out of the root, to {real}; every film must lie below it")
    return path


def read_image(path: Path) -> np.ndarray:
    """Read a grey film; color is turned to grey.

    Returns:
        ``(H, W)``, uint8 or uint16.

    Raises:
        DataError: absent, empty, truncated, several frames, too large or no image.
        MachineError: a DICOM, and pydicom or its codec is not installed.
    """
    return read_dicom(path) if _is_dicom(path) else _read_file(path, "L")


def read_color(path: Path) -> np.ndarray:
    """Read a three-channel image ``(H, W, 3)`` uint8; raises as :func:`read_image`."""
    pixels = read_dicom(path) if _is_dicom(path) else _read_file(path, "RGB")
    if pixels.ndim == 3:
        return pixels
    return np.repeat(to_uint8(pixels)[..., None], 3, axis=2)


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """Return 8-bit pixels: uint8 unchanged, uint16 spread linearly from its own range."""
    return pixels if pixels.dtype == np.uint8 else spread(pixels, np.uint8)


def fit_square(pixels: np.ndarray, size: int, fit: str) -> np.ndarray:
    """Fit a film to the square.

    Args:
        pixels: ``(H, W)`` or ``(H, W, 3)``, uint8 or uint16.
        size: Side in pixels.
        fit: ``squash`` (aspect is lost, as published), ``pad`` (black) or ``crop`` (the middle).

    Returns:
        ``(C, size, size)`` uint8.  Pillow's bilinear filter, whose support widens as the film
        shrinks: every source pixel counts, so fine structure does not alias.
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


def _is_dicom(path: Path) -> bool:
    try:
        _check_file(path)
        with path.open("rb") as file:
            head = file.read(132)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}: is no path") from error
    if not head:
        raise DataError(f"{path}: the file is empty")
    return head[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom")


def _check_file(path: Path) -> None:
    """Refuse what is no file: a pipe would be waited for, a device has no end."""
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise DataError(f"{path}: is a directory")
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path}: is no regular file")
    if found.st_size > MAX_BYTES:
        raise DataError(f"{path}: {found.st_size / 1e9:.1f} GB is too large for a film")


def _read_file(path: Path, mode: str) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                check_size(image.width, image.height, path)
                _check_frames(image, path)
                with _unheard() if image.format == "TIFF" else nullcontext():
                    image.load()
                if image.mode[0] in "IF":
                    return _deep(image, path)
                # Through RGB: Pillow turns palettes and print colors to grey only from there.
                flat = image if image.mode in DIRECT else image.convert("RGB")
                return np.asarray(flat.convert(mode))
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: is no image of a kind that is read") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: has too many pixels for a film") from error
    except Exception as error:  # Pillow raises many kinds for a broken file
        raise DataError(f"{path}: cannot be decoded: {why(error)}") from error


@contextmanager
def _unheard() -> Iterator[None]:
    """Let a library in C not write to standard error what Pillow then raises."""
    with _hearing:
        try:
            kept = os.dup(2)
        except OSError:  # there is none
            yield
            return
        try:
            with Path(os.devnull).open("wb") as nothing:
                os.dup2(nothing.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _check_frames(image: Image.Image, path: Path) -> None:
    try:
        image.seek(1)  # to count them, Pillow would go through them all
    except EOFError:
        return
    raise DataError(f"{path}: has more than one frame; a film has one")


def _deep(image: Image.Image, path: Path) -> np.ndarray:
    if image.mode == "F":
        raise DataError(f"{path}: its pixels are floats; a film has 8 or 16 bits")
    pixels = np.asarray(image)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise DataError(f"{path}: its pixels do not fit 16 bits")
    pixels = pixels.astype(np.uint16)
    # Pillow inverts such a TIFF at 8 bits and leaves it at 16.
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:
        pixels = 65535 - pixels
    return pixels
