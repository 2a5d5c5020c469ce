"""One radiograph file → 2-D grey array → a square of stored pixels.

Eight-bit pixels come back as they are stored, so that a film re-encoded without loss stays the
same film.  Deeper pixels come back as uint16 and become 8-bit in :func:`to_uint8`, spread linearly
over the film's own range.  DICOM: modality LUT, then VOI LUT or window (which maps to 0..255, so
that two films under one window stay comparable), and only then the inversion of MONOCHROME1.
Orientation tags and transparency are ignored: they have no meaning in a film.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ark_framework.errors import DataError, MachineError

# Detectors reach about 6,000 x 6,000; what is larger is refused before it is decoded.
MAX_PIXELS = 2**27
# Named, because Pillow would also open formats that start other programs (EPS).
FORMATS = ("PNG", "JPEG", "JPEG2000", "TIFF", "BMP", "GIF", "WEBP", "PPM")
# TIFF tag 262 and its value for "zero is white".
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0


def resolve_below(root: Path, image: str) -> Path:
    """Return ``root / image``, refusing what leaves the root, symbolic links included.

    Raises:
        DataError: the path leaves the root.
    """
    path = root / image
    real = path.resolve()
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
    return _read_dicom(path) if _is_dicom(path) else _read_file(path, "L")


def read_color(path: Path) -> np.ndarray:
    """Read a three-channel image ``(H, W, 3)`` uint8; raises as :func:`read_image`."""
    pixels = _read_dicom(path) if _is_dicom(path) else _read_file(path, "RGB")
    if pixels.ndim == 3:
        return pixels
    return np.repeat(to_uint8(pixels)[..., None], 3, axis=2)


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """Return 8-bit pixels: uint8 unchanged, uint16 spread linearly from its own range."""
    return pixels if pixels.dtype == np.uint8 else _spread(pixels, np.uint8)


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
        with path.open("rb") as file:
            head = file.read(132)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    if not head:
        raise DataError(f"{path}: the file is empty")
    return head[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom")


def _read_file(path: Path, mode: str) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                _check_size(image.width, image.height, path)
                if (frames := getattr(image, "n_frames", 1)) > 1:
                    raise DataError(f"{path}: has {frames} frames; a film has one")
                if image.mode[0] in "IF":
                    return _deep(image, path)
                # Through RGB: Pillow turns palettes and print colors to grey only from there.
                flat = image if image.mode in ("1", "L", "LA", "RGB") else image.convert("RGB")
                return np.asarray(flat.convert(mode))
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: is no image of a kind that is read") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: has too many pixels for a film") from error
    except Exception as error:  # Pillow raises many kinds for a broken file
        raise DataError(f"{path}: cannot be decoded: {_why(error)}") from error


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


def _read_dicom(path: Path) -> np.ndarray:
    try:
        import pydicom
    except ImportError as error:
        raise MachineError(
            f'{path}: is a DICOM, which needs: pip install "ark-framework[dicom]"'
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
            _check_dicom(dataset, path)
            pixels = _shown(dataset)
    except DataError:
        raise
    except pydicom.errors.InvalidDicomError as error:
        raise DataError(f"{path}: is not a DICOM file") from error
    except Exception as error:  # pydicom and its codecs raise many kinds
        if "missing dependencies" in str(error):
            syntax = dataset.file_meta.TransferSyntaxUID.name
            raise MachineError(
                f"{path}: no codec for {syntax} is installed; pip install python-gdcm"
            ) from error
        raise DataError(f"{path}: cannot be decoded as DICOM: {_why(error)}") from error
    return np.ascontiguousarray(pixels)


def _check_dicom(dataset: Any, path: Path) -> None:
    if "PixelData" not in dataset:
        raise DataError(f"{path}: the DICOM holds no pixel data")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise DataError(f"{path}: the DICOM has {dataset.NumberOfFrames} frames; a film has one")
    kind = dataset.get("PhotometricInterpretation") or "MONOCHROME2"
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise DataError(f"{path}: the DICOM is in color ({kind}); a film is grey")
    _check_size(int(dataset.Columns), int(dataset.Rows), path)


def _check_size(width: int, height: int, path: Path) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(f"{path}: {width} x {height} pixels is too large for a film")


def _shown(dataset: Any) -> np.ndarray:
    """Return a DICOM's pixels as a viewer shows them, uint8 or uint16."""
    from pydicom.pixels.processing import apply_modality_lut

    pixels = dataset.pixel_array
    values = pixels
    if not _plain(dataset):
        values = np.asarray(apply_modality_lut(pixels, dataset))
    if dataset.get("VOILUTSequence"):
        shown = _through_lut(values, dataset)
    elif None not in (dataset.get("WindowCenter"), dataset.get("WindowWidth")):
        shown = _through_window(values, dataset)
    elif values.dtype == np.uint8 and dataset.BitsStored == 8:
        shown = values
    else:
        shown = _spread(values, np.uint16)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        shown = np.iinfo(shown.dtype).max - shown
    return shown


def _plain(dataset: Any) -> bool:
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    return not dataset.get("ModalityLUTSequence") and (
        slope is None or intercept is None or (float(slope), float(intercept)) == (1.0, 0.0)
    )


def _through_window(values: np.ndarray, dataset: Any) -> np.ndarray:
    from pydicom.pixels.processing import apply_windowing

    # What lies far below and above the window gives the ends of the window's own output range.
    ends = apply_windowing(np.array([-1e12, 1e12]), dataset)
    shown = (apply_windowing(values, dataset) - ends[0]) * (255.0 / (ends[1] - ends[0]))
    return np.asarray(np.rint(shown), dtype=np.uint8)


def _through_lut(values: np.ndarray, dataset: Any) -> np.ndarray:
    from pydicom.pixels.processing import apply_voi

    count, first = dataset.VOILUTSequence[0].LUTDescriptor[:2]
    last = first + (count or 2**16) - 1
    # The table's own range: many state 16 bits and use 12, which would come out nearly black.
    table = _spread(apply_voi(np.arange(first, last + 1), dataset), np.uint8)
    index = np.clip(np.rint(values), first, last).astype(np.int64) - first
    return np.asarray(table[index])


def _spread(values: np.ndarray, dtype: type[np.uint8] | type[np.uint16]) -> np.ndarray:
    """Map the array's own minimum..maximum to the whole range of ``dtype``, linearly."""
    low, high = float(values.min()), float(values.max())
    if high == low:
        return np.zeros(values.shape, dtype=dtype)
    scale = np.iinfo(dtype).max / (high - low)
    return np.rint((values.astype(np.float64) - low) * scale).astype(dtype)


def _why(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
