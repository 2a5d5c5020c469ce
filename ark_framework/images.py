"""One radiograph file → 2-D grey array.

Eight-bit pixels come back as they are stored, so that a film re-encoded without loss stays the
same film.  Deeper pixels come back as uint16.  DICOM: modality LUT, then VOI LUT, and only then
the inversion of MONOCHROME1; windowed values are spread over 0..65535.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ark_framework.errors import DataError, MachineError

# Larger than any detector (about 6,000 x 6,000) by a wide margin; refused before decoding.
MAX_PIXELS = 2**28
_DEEP = ("I", "F", "I;16", "I;16L", "I;16B")


def resolve_below(root: Path, image: str) -> Path:
    """Return ``root / image``, refusing what leaves the root, symbolic links included.

    Raises:
        DataError: the path leaves the root.
    """
    path = root / image
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{image!r} leads out of {root}; every image must lie below the root")
    return path


def read_image(path: Path) -> np.ndarray:
    """Read a grey film.

    Returns:
        ``(H, W)``, uint8 or uint16.

    Raises:
        DataError: absent, empty, truncated, several frames, too large or no image.
        MachineError: a DICOM, and pydicom or its codec is not installed.
    """
    if _is_dicom(path):
        return _read_dicom(path)
    image = _open(path)
    if image.mode in _DEEP:
        return _deep(np.asarray(image), path)
    return np.asarray(_flat(image).convert("L"))


def read_color(path: Path) -> np.ndarray:
    """Read a three-channel image ``(H, W, 3)`` uint8; raises as :func:`read_image`."""
    if _is_dicom(path):
        return np.repeat(to_uint8(_read_dicom(path))[..., None], 3, axis=2)
    image = _open(path)
    if image.mode in _DEEP:
        return np.repeat(to_uint8(_deep(np.asarray(image), path))[..., None], 3, axis=2)
    return np.asarray(_flat(image).convert("RGB"))


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """Return 8-bit pixels: uint8 unchanged, uint16 spread linearly from its own range."""
    if pixels.dtype == np.uint8:
        return pixels
    low, high = int(pixels.min()), int(pixels.max())
    if high == low:
        return np.zeros(pixels.shape, dtype=np.uint8)
    scaled = (pixels.astype(np.float32) - low) * (255.0 / (high - low))
    return np.rint(scaled).astype(np.uint8)


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


def _open(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{path}: {image.width} x {image.height} pixels is too large")
            if getattr(image, "n_frames", 1) > 1:
                raise DataError(f"{path}: has {image.n_frames} frames; a film has one")
            image.load()
    except DataError:
        raise
    except Exception as error:  # Pillow raises many kinds for a broken file
        reason = " ".join(str(error).split())[:160].replace(str(path), "the file")
        raise DataError(f"{path}: cannot be decoded: {reason}") from error
    return image


def _flat(image: Image.Image) -> Image.Image:
    """Resolve palettes; drop transparency, which has no meaning in a film."""
    if image.mode in ("P", "PA"):
        return image.convert("RGB")
    return image.convert("L") if image.mode == "LA" else image


def _deep(pixels: np.ndarray, path: Path) -> np.ndarray:
    if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 65535:
        raise DataError(f"{path}: its pixels do not fit 16 bits")
    return pixels.astype(np.uint16)


def _read_dicom(path: Path) -> np.ndarray:
    try:
        import pydicom
        from pydicom.pixels import apply_modality_lut, apply_voi_lut
    except ImportError as error:
        raise MachineError(f"{path} is a DICOM: pip install 'ark-framework[dicom]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
            _check_dicom(dataset, path)
            stored = dataset.pixel_array
            if stored.dtype == np.uint8 and not _has_lut(dataset):
                pixels = stored
            else:
                values = apply_voi_lut(apply_modality_lut(stored, dataset), dataset)
                pixels = _spread(np.asarray(values, dtype=np.float64))
    except (DataError, MachineError):
        raise
    except Exception as error:  # pydicom and its codecs raise many kinds
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: cannot be decoded as DICOM: {reason}") from error
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        pixels = np.iinfo(pixels.dtype).max - pixels
    return np.ascontiguousarray(pixels)


def _check_dicom(dataset: Any, path: Path) -> None:
    if "PixelData" not in dataset:
        raise DataError(f"{path}: the DICOM holds no pixel data")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise DataError(f"{path}: the DICOM has {dataset.NumberOfFrames} frames; a film has one")
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise DataError(f"{path}: the DICOM is in color; a film is grey")
    if int(dataset.Rows) * int(dataset.Columns) > MAX_PIXELS:
        raise DataError(f"{path}: {dataset.Columns} x {dataset.Rows} pixels is too large")


def _has_lut(dataset: Any) -> bool:
    tags = ("ModalityLUTSequence", "VOILUTSequence", "WindowCenter")
    rescaled = float(dataset.get("RescaleSlope") or 1) != 1 or float(
        dataset.get("RescaleIntercept") or 0
    )
    return bool(rescaled) or any(tag in dataset for tag in tags)


def _spread(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    if high == low:
        return np.zeros(values.shape, dtype=np.uint16)
    return np.rint((values - low) * (65535.0 / (high - low))).astype(np.uint16)
