"""One DICOM → 2-D grey array.

Modality LUT, then VOI LUT or window (which maps to 0..255, so that two films under one window stay
comparable), and only then the inversion of MONOCHROME1.
"""

from __future__ import annotations

import io
import re
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ark_framework.errors import DataError, MachineError
from ark_framework.pixels import MAX_PIXELS, PART, by_parts, check_size, spread

# What a file may unpack to: pixels of 16 bits, and whatever else it says.
MAX_UNPACKED = 2 * MAX_PIXELS + 2**24
# How the pixels of JPEG 2000 begin; height and width follow, less an offset.
STREAM = b"\xff\x4f\xff\x51"


def read_dicom(path: Path) -> np.ndarray:
    """Read a grey film.

    Returns:
        ``(H, W)``, uint8 or uint16.

    Raises:
        DataError: broken, without pixels, several frames, in color or too large.
        MachineError: pydicom or a codec is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise MachineError(
            f'{path}: is a DICOM, which needs: pip install "ark-framework[dicom]"'
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = _opened(path)
            _check(dataset, path)
            return np.ascontiguousarray(_shown(dataset, path))
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
        raise DataError(f"{path}: cannot be decoded as DICOM: {why(error)}") from error


def why(error: Exception) -> str:
    """Return what a library says of a broken file, on one line."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def _opened(path: Path) -> Any:
    from pydicom.filereader import dcmread, read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        return _unpacked(path)
    return dcmread(path)


def _unpacked(path: Path) -> Any:
    """Read a file that is deflated as a whole: pydicom would unpack whatever it holds."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.filereader import read_dataset, read_preamble

    with path.open("rb") as file:
        read_preamble(file, False)  # noqa: FBT003 - pydicom's own
        meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)  # noqa: FBT003
        data = _inflated(file.read(), path)
    return FileDataset(
        path,
        read_dataset(data, False, True),  # noqa: FBT003
        file_meta=FileMetaDataset(meta),
        is_implicit_VR=False,
        is_little_endian=True,
    )


def _inflated(packed: bytes, path: Path) -> io.BytesIO:
    unpacker, data = zlib.decompressobj(-zlib.MAX_WBITS), io.BytesIO()
    while not unpacker.eof:
        part = unpacker.decompress(packed, PART)
        packed = unpacker.unconsumed_tail
        if not part and not packed:
            raise DataError(f"{path}: cannot be decoded as DICOM: it is truncated")
        data.write(part)
        if data.tell() > MAX_UNPACKED:
            raise DataError(f"{path}: unpacks to more than {MAX_UNPACKED / 1e6:.0f} MB")
    data.seek(0)
    return data


def _check(dataset: Any, path: Path) -> None:
    if "PixelData" not in dataset:
        raise DataError(f"{path}: the DICOM holds no pixel data")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise DataError(f"{path}: the DICOM has {dataset.NumberOfFrames} frames; a film has one")
    kind = dataset.get("PhotometricInterpretation") or "MONOCHROME2"
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise DataError(f"{path}: the DICOM is in color ({str(kind)[:20]!r}); a film is grey")
    sides = dataset.get("Columns"), dataset.get("Rows")
    if None in sides:
        raise DataError(f"{path}: the DICOM lacks {'Rows' if sides[1] is None else 'Columns'}")
    check_size(int(sides[0]), int(sides[1]), path)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        for size in _compressed(dataset):
            if size != sides:
                raise DataError(
                    f"{path}: its compressed pixels are {size[0]} x {size[1]}, the DICOM says "
                    f"{sides[0]} x {sides[1]}"
                )


def _compressed(dataset: Any) -> Iterator[tuple[int, int]]:
    """Yield the width and height that compressed pixels claim: codecs make room for as many."""
    from pydicom.encaps import generate_frames

    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    # Behind another start the stream may be anywhere.
    found = [0] if frame.startswith(STREAM) else [m.start() for m in re.finditer(STREAM, frame)]
    for at in found:
        right, low, left, top = np.frombuffer(frame, ">u4", count=4, offset=at + 8).tolist()
        yield right - left, low - top
    try:
        with Image.open(io.BytesIO(frame), formats=("JPEG",)) as image:
            yield image.size
    except UnidentifiedImageError:
        pass  # another codec, which compares for itself


def _shown(dataset: Any, path: Path) -> np.ndarray:
    """Return a DICOM's pixels as a viewer shows them, uint8 or uint16."""
    pixels = dataset.pixel_array
    if pixels.shape != (dataset.Rows, dataset.Columns):
        raise DataError(
            f"{path}: the DICOM says {dataset.Columns} x {dataset.Rows} and holds more pixel data"
        )
    if dataset.get("VOILUTSequence"):
        shown = _through_lut(pixels, dataset, path)
    elif None not in (dataset.get("WindowCenter"), dataset.get("WindowWidth")):
        shown = _through_window(pixels, dataset, path)
    elif not _plain(dataset):
        values = by_parts(pixels, lambda part: _rescaled(part, dataset, path), np.float64)
        shown = spread(values, np.uint16)
    elif pixels.dtype == np.uint8 and dataset.BitsStored == 8:
        shown = pixels
    else:
        shown = spread(pixels, np.uint16)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        shown = np.iinfo(shown.dtype).max - shown
    return shown


def _plain(dataset: Any) -> bool:
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    return not dataset.get("ModalityLUTSequence") and (
        slope is None or intercept is None or (float(slope), float(intercept)) == (1.0, 0.0)
    )


def _rescaled(pixels: np.ndarray, dataset: Any, path: Path) -> np.ndarray:
    from pydicom.pixels.processing import apply_modality_lut

    if _plain(dataset):
        return pixels
    values = np.asarray(apply_modality_lut(pixels, dataset))
    if not dataset.get("ModalityLUTSequence") and float(dataset.RescaleSlope) == 0:
        raise DataError(f"{path}: its rescale slope is 0, so nothing is on it")
    if not np.isfinite(values).all():
        raise DataError(
            f"{path}: its rescale ({dataset.RescaleSlope}, {dataset.RescaleIntercept}) gives no "
            "numbers"
        )
    return values


def _through_window(pixels: np.ndarray, dataset: Any, path: Path) -> np.ndarray:
    from pydicom.pixels.processing import apply_windowing

    # What lies far below and above the window gives the ends of the window's own output range.
    low, high = apply_windowing(np.array([-1e12, 1e12]), dataset).tolist()
    if low == high or not np.isfinite(high - low):
        window = f"{dataset.WindowCenter}, {dataset.WindowWidth}"
        raise DataError(f"{path}: its window ({window[:40]}) shows nothing")

    def shown(part: np.ndarray) -> np.ndarray:
        values = apply_windowing(_rescaled(part, dataset, path), dataset)
        return np.asarray(np.rint((values - low) * (255.0 / (high - low))))

    return by_parts(pixels, shown, np.uint8)


def _through_lut(pixels: np.ndarray, dataset: Any, path: Path) -> np.ndarray:
    from pydicom.pixels.processing import apply_voi

    count, first = dataset.VOILUTSequence[0].LUTDescriptor[:2]
    last = first + (count or 2**16) - 1
    # The table's own range: many state 16 bits and use 12, which would come out nearly black.
    table = spread(apply_voi(np.arange(first, last + 1), dataset), np.uint8)

    def shown(part: np.ndarray) -> np.ndarray:
        values = np.clip(np.rint(_rescaled(part, dataset, path)), first, last)
        return np.asarray(table[values.astype(np.int64) - first])

    return by_parts(pixels, shown, np.uint8)
