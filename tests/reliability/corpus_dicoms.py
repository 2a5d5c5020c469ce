"""DICOMs that a folder of films may hold: what is read of them, or why nothing is.

They are written byte by byte, since no library writes what is wrong.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from corpus_images import DEEP, FILM, NOISE, TALL, WIDE, Case, nothing, patched, picture, put
from pydicom.datadict import dictionary_VR, tag_for_keyword

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
JPEG, LOSSLESS = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"
JPEG2000, RLE = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"
LONG = ("OB", "OW", "OF", "SQ", "UT", "UN", "UC", "UR")
FILM12 = DEEP // 16
BROKEN = "cannot be decoded as DICOM"


class Raw(bytes):
    """Bytes whose length is not said, but marked at their end."""


class Lying(bytes):
    """Bytes that are said to be 4 GB."""


def element(tag: int, vr: str, value: bytes, order: str = "<", *, implicit: bool = False) -> bytes:
    """Return one element."""
    if len(value) % 2:
        value += b" " if vr not in ("OB", "OW", "UN", "UI") else b"\0"
    length = 0xFFFFFFFF if isinstance(value, Raw) else len(value)
    length = 0xFFFFFFF0 if isinstance(value, Lying) else length
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return head + struct.pack(f"{order}I", length) + value
    if vr in LONG:
        return head + vr.encode() + bytes(2) + struct.pack(f"{order}I", length) + value
    return head + vr.encode() + struct.pack(f"{order}H", length & 0xFFFF) + value


def item(data: bytes, order: str = "<") -> bytes:
    """Return an item of a sequence, or a fragment of compressed pixels."""
    return struct.pack(f"{order}HHI", 0xFFFE, 0xE000, len(data)) + data


END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def fragments(*parts: bytes, offsets: bytes = b"", end: bytes = END) -> Raw:
    """Return compressed pixels in fragments, behind a table of their places."""
    even = [part + b"\0" * (len(part) % 2) for part in parts]
    return Raw(item(offsets) + b"".join(map(item, even)) + end)


def encoded(value: Any, vr: str, order: str) -> bytes:
    """Return a value in bytes: a number, several, or text; bytes are as they are."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    values = value if isinstance(value, Sequence) else [value]
    if vr in ("US", "SS"):
        return b"".join(struct.pack(order + "H", each & 0xFFFF) for each in values)
    return "\\".join(map(str, values)).encode()


def dicom(
    pixels: np.ndarray = FILM,
    *,
    syntax: str | None = EXPLICIT,
    bits: int | None = None,
    preamble: bytes = bytes(128) + b"DICM",
    without: Sequence[str] = (),
    more: bytes = b"",
    cut: float = 1,
    **tags: Any,
) -> bytes:
    """Return a DICOM; tags are named, and ``more`` are elements before the pixels."""
    order, depth = ">" if syntax == BIG else "<", pixels.itemsize * 8
    stored = bits or depth
    values: dict[str, Any] = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7",
        "SOPInstanceUID": "1.2.3",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": depth,
        "BitsStored": stored,
        "HighBit": stored - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.astype(pixels.dtype.newbyteorder(order)).tobytes(),
    }
    values = {name: value for name, value in (values | tags).items() if name not in without}
    data = values.pop("PixelData", None)
    body = b"".join(
        _element(name, value, order, implicit=syntax in (IMPLICIT, None))
        for name, value in sorted(
            values.items(), key=lambda entry: int(tag_for_keyword(entry[0]) or 0)
        )
    )
    body += more
    if data is not None:
        vr = "OB" if isinstance(data, Raw) else "OW"
        body += element(0x7FE00010, vr, data, order, implicit=syntax in (IMPLICIT, None))
    if syntax == DEFLATED:
        packer = zlib.compressobj(9, wbits=-15)
        body = packer.compress(body) + packer.flush()
    whole = preamble + _meta(syntax) + body
    return whole[: int(len(whole) * cut)]


def _element(name: str, value: Any, order: str, *, implicit: bool) -> bytes:
    tag = int(tag_for_keyword(name) or 0)
    vr = dictionary_VR(tag).split(" ")[0]
    given = value if isinstance(value, (Raw, Lying)) else encoded(value, vr, order)
    return element(tag, vr, given, order, implicit=implicit)


def _meta(syntax: str | None) -> bytes:
    parts = element(0x00020001, "OB", b"\0\1")
    parts += element(0x00020002, "UI", b"1.2.840.10008.5.1.4.1.1.7")
    parts += element(0x00020003, "UI", b"1.2.3")
    parts += element(0x00020010, "UI", syntax.encode()) if syntax else b""
    return element(0x00020000, "UL", struct.pack("<I", len(parts))) + parts


def lut(entries: int, first: int, bits: int, data: bytes, *, count: int | None = None) -> bytes:
    """Return an item of a sequence of tables of values."""
    told = struct.pack("<HHH", entries if count is None else count, first, bits)
    return item(element(0x00283002, "US", told) + element(0x00283006, "OW", data))


def spread(values: np.ndarray) -> np.ndarray:
    """Return values over all 16 bits, from their least to their greatest."""
    low, high = float(values.min()), float(values.max())
    return np.rint((values - low) * (65535 / (high - low))).astype(np.uint16)


def nested(depth: int) -> bytes:
    """Return sequences in one another, without an end."""
    head = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    return (head + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)) * depth


def right() -> Iterator[Case]:
    """Yield DICOMs that are read as a viewer shows them."""

    def fine(name: str, data: bytes, pixels: np.ndarray = FILM, near: int = 0) -> Case:
        return Case(name=f"{name}.dcm", make=put(data), pixels=pixels, near=near)

    yield fine("plain", dicom())
    yield Case(name="a DICOM.png", make=put(dicom()), pixels=FILM)
    yield Case(name="a DICOM", make=put(dicom()), pixels=FILM)
    yield fine("no rescale", dicom(FILM12, bits=12), spread(FILM12))
    yield fine("implicit", dicom(syntax=IMPLICIT))
    yield fine("implicit, 12 bits", dicom(FILM12, bits=12, syntax=IMPLICIT), spread(FILM12))
    yield fine("big-endian", dicom(FILM12, bits=12, syntax=BIG), spread(FILM12))
    yield fine("deflated", dicom(syntax=DEFLATED))
    yield fine("MONOCHROME1", dicom(PhotometricInterpretation="MONOCHROME1"), 255 - FILM)
    both = {"PhotometricInterpretation": "MONOCHROME1", "bits": 12}
    yield fine("MONOCHROME1, 12 bits", dicom(FILM12, **both), 65535 - spread(FILM12))
    yield fine("16 bits", dicom(DEEP), spread(DEEP))
    signed = DEEP.astype(np.int32) - 20_000
    yield fine("16 bits, signed", dicom(signed.astype(np.int16)), spread(signed))
    yield fine("8 bits, signed", dicom((FILM - 128.0).astype(np.int8)), spread(FILM))
    few = FILM12.astype(np.int16) - 2000
    yield fine("12 bits, signed", dicom(few & 0xFFF, bits=12, PixelRepresentation=1), spread(few))
    yield fine("10 bits", dicom(FILM12 // 4, bits=10), spread(FILM12 // 4))
    yield fine("32 bits", dicom(DEEP.astype(np.uint32) * 60_000), spread(DEEP))
    yield fine("a bit", dicom(np.packbits(FILM > 120, bitorder="little").reshape(1, -1), **_bit()),
               np.where(FILM > 120, 65535, 0).astype(np.uint16))  # fmt: skip
    high = FILM12 | np.uint16(0xF000)
    yield fine("noise above the bits", dicom(high, bits=12), spread(FILM12))
    turned = {"RescaleSlope": -1, "RescaleIntercept": 4095}
    yield fine("falling rescale", dicom(FILM12, bits=12, **turned), 65535 - spread(FILM12))
    yield fine("half a rescale", dicom(RescaleSlope=2))
    whole = {"WindowCenter": 128, "WindowWidth": 256}
    yield fine("the whole window", dicom(**whole))
    two = {"WindowCenter": [128, 9], "WindowWidth": [256, 2]}
    yield fine("two windows", dicom(**two))
    yield fine("no window", dicom(WindowCenter="", WindowWidth=""))
    yield fine("a window's center alone", dicom(WindowCenter=3))
    falling = np.arange(255, -1, -1).astype("<u2").tobytes()
    yield fine("a table", dicom(VOILUTSequence=lut(256, 0, 8, falling)), 255 - FILM)
    yield fine("no table", dicom(VOILUTSequence=b""))
    yield fine("JPEG", dicom(syntax=JPEG, PixelData=fragments(picture("jpg"))), near=2)
    stream = picture("jp2", no_jp2=True)
    yield fine("JPEG 2000", dicom(syntax=JPEG2000, PixelData=fragments(stream)))
    half = len(stream) // 2
    yield fine("JPEG 2000 in two", dicom(
        syntax=JPEG2000, PixelData=fragments(stream[: half // 2 * 2], stream[half // 2 * 2 :])
    ))  # fmt: skip
    deep = picture("jp2", DEEP, no_jp2=True)
    yield fine(
        "JPEG 2000, 16 bits", dicom(DEEP, syntax=JPEG2000, PixelData=fragments(deep)), spread(DEEP)
    )
    yield fine("RLE", dicom(syntax=RLE, PixelData=fragments(_run_lengths(FILM))))
    private = element(0x00091001, "UN", b"secret") + element(0x00110010, "LO", b"MAKER")
    much = fragments(struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 2**17)
    yield fine("RLE, too much", dicom(syntax=RLE, PixelData=much), np.zeros_like(FILM))
    yield fine("private tags", dicom(more=private))
    yield fine("one frame", dicom(NumberOfFrames="1"))
    yield fine("no frames", dicom(NumberOfFrames="0"))
    yield fine("a byte more", dicom(PixelData=FILM.tobytes() + b"\0"))
    yield fine("pixels of 4 GB", dicom(PixelData=Lying(FILM.tobytes())))
    yield fine("padding", dicom(PixelData=FILM.tobytes() + bytes(100)))
    yield fine("text that is no text", dicom(PatientName=b"\xff\xfe\x80", SpecificCharacterSet="x"))
    yield fine("an age of words", dicom(PatientAge="very old", PatientBirthDate="then"))
    yield fine("noise after it", dicom() + b"\xfc\xff\xfc\xff" + b"OB\0\0\4\0\0\0noise")
    yield fine("a million characters", dicom(ImageComments="x" * 60_000))
    sequence = Raw(item(element(0x00081150, "UI", b"1.2")) + END)
    yield fine("a sequence", dicom(ReferencedImageSequence=sequence))
    group = 0x00021010
    yield fine("strange start", patched(dicom(), 0, "<I", group))


def _bit() -> dict[str, Any]:
    return {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "Rows": TALL, "Columns": WIDE}


def _run_lengths(film: np.ndarray) -> bytes:
    """Return one segment of literal runs."""
    data = film.tobytes()
    runs = b"".join(
        struct.pack("b", len(data[at : at + 128]) - 1) + data[at : at + 128]
        for at in range(0, len(data), 128)
    )
    return struct.pack("<16I", 1, 64, *[0] * 14) + runs


def wrong() -> Iterator[Case]:
    """Yield DICOMs that are refused."""

    def bad(name: str, data: bytes, reason: str = BROKEN) -> Case:
        return Case(name=f"{name}.dcm", make=put(data), reason=reason)

    noise = dicom(NOISE)
    compressed = dicom(NOISE, syntax=JPEG, PixelData=fragments(picture("jpg", NOISE)))
    for share in (10, 50, 95):
        yield bad(
            f"{share} percent", noise[: len(noise) * share // 100], f"{BROKEN}|no pixel data|lacks"
        )
        cut = compressed[: len(compressed) * share // 100]
        yield bad(f"{share} percent of JPEG", cut, f"{BROKEN}|no pixel data|lacks")
    yield bad("no syntax said", dicom(syntax=None))
    yield bad("no pixels", dicom(without=["PixelData"]), "no pixel data")
    yield bad("empty pixels", dicom(PixelData=b""))
    yield bad("empty", b"", "the file is empty")
    yield bad("no preamble", dicom(preamble=b""), "not a DICOM")
    yield bad("text", b"not found", "not a DICOM")
    yield bad("a PNG", picture("png"), "not a DICOM")
    yield bad("the start alone", bytes(128) + b"DICM", f"{BROKEN}|no pixel data")
    yield bad(
        "noise after the start", bytes(128) + b"DICM" + NOISE.tobytes(), f"{BROKEN}|no pixel data"
    )
    lacks = f"lacks|{BROKEN}: Missing"
    for name in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation"):
        yield bad(f"no {name}", dicom(without=[name]), lacks)
        yield bad(f"{name} of text", dicom(**{name: b"tall"}))
        yield bad(f"{name} empty", dicom(**{name: b""}), lacks)
    for name in ("SamplesPerPixel", "PhotometricInterpretation"):
        yield bad(f"no {name}", dicom(without=[name]), lacks)
    for frames in ("2", "1000000000"):
        yield bad(f"{frames} frames", dicom(NumberOfFrames=frames), "frames; a film has one")
    for frames in ("-1", "two", "1.5", "1e9"):
        yield bad(f"{frames} frames", dicom(NumberOfFrames=frames), f"{BROKEN}|frames")
    for kind in ("RGB", "PALETTE COLOR", "YBR_FULL", "ARGB", "monochrome", "X" * 60):
        name = kind.lower()[:20]
        yield bad(f"in {name}", dicom(PhotometricInterpretation=kind), "in color")
    yield bad("three samples", dicom(SamplesPerPixel=3))
    yield bad("Rows too many", dicom(Rows=TALL + 1))
    yield bad("Rows 0", dicom(Rows=0), "no pixels")
    yield bad("Columns 0", dicom(Columns=0), "no pixels")
    yield bad("both 65535", dicom(Rows=65535, Columns=65535), "too large")
    yield bad("a line of 65535", dicom(Rows=1, Columns=65535), "too large")
    yield bad("more bits than there are", dicom(BitsStored=12, HighBit=11))
    yield bad("7 bits allocated", dicom(BitsAllocated=7))
    yield bad("0 bits stored", dicom(BitsStored=0))
    yield bad("half of the pixels", dicom(PixelData=FILM.tobytes()[: FILM.size // 2]))
    yield bad("twice the pixels", dicom(PixelData=FILM.tobytes() * 2), "more pixel data")
    yield bad(
        "another depth", dicom(FILM12, BitsAllocated=8, BitsStored=8, HighBit=7), "more pixel data"
    )
    for width in ("0", "-5", "nan", "inf", "wide", "1e400"):
        window = {"WindowCenter": "9", "WindowWidth": width}
        yield bad(f"window {width}", dicom(**window), f"{BROKEN}|[Ww]indow")
    yield bad("window around nan", dicom(WindowCenter="nan", WindowWidth="9"), "window")
    for slope in ("0", "nan", "inf", "steep", "1e400"):
        rescale = {"RescaleSlope": slope, "RescaleIntercept": "1"}
        yield bad(f"slope {slope}", dicom(**rescale), f"{BROKEN}|[Rr]escale")
    yield bad("intercept nan", dicom(RescaleSlope="1", RescaleIntercept="nan"), "rescale")
    yield bad("slopes", dicom(RescaleSlope="1\\2", RescaleIntercept="0"))
    yield bad("a table that is short", dicom(VOILUTSequence=lut(256, 0, 8, bytes(9))))
    yield bad("a table that lies", dicom(VOILUTSequence=lut(0, 0, 16, bytes(512), count=60_000)))
    yield bad("a table of 99 bits", dicom(VOILUTSequence=lut(256, 0, 99, bytes(512))))
    yield bad("a table of nothing", dicom(VOILUTSequence=item(b"")))
    yield bad("a table of text", dicom(VOILUTSequence=item(element(0x00283002, "US", b"ab"))))
    yield from _compressed()
    deep = "recursion|no pixel data|cannot be decoded"
    yield bad("nested deeply", dicom(more=nested(50_000)), deep)
    yield bad("a flood, deflated", dicom(syntax=DEFLATED, cut=0.99), BROKEN)
    start = dicom(syntax=DEFLATED, PixelData=b"")
    flood = start[: start.index(b"1.2.1.99") + 8] + nothing(2000)[2:]
    yield bad("bomb, deflated", flood, "too large|unpacks")


def _compressed() -> Iterator[Case]:
    """Yield DICOMs whose compressed pixels are wrong."""

    def bad(name: str, data: bytes, reason: str = BROKEN) -> Case:
        return Case(name=f"{name}.dcm", make=put(data), reason=reason)

    jpeg, stream = picture("jpg", NOISE), picture("jp2", NOISE, no_jp2=True)
    for name, syntax, data in (("JPEG", JPEG, jpeg), ("JPEG 2000", JPEG2000, stream)):
        half = fragments(data[: len(data) // 2])
        yield bad(f"{name}, half", dicom(syntax=syntax, PixelData=half))
        yield bad(f"{name}, none", dicom(syntax=syntax, PixelData=fragments()))
        yield bad(f"{name}, empty", dicom(syntax=syntax, PixelData=fragments(b"")))
        yield bad(f"{name}, noise", dicom(syntax=syntax, PixelData=fragments(NOISE.tobytes())))
        yield bad(f"{name}, no fragments", dicom(syntax=syntax, PixelData=data))
        endless = fragments(data, end=b"")
        yield bad(
            f"{name}, no end", dicom(syntax=syntax, PixelData=endless), f"{BROKEN}|no pixel data"
        )
        offsets = struct.pack("<I", 2**31)
        far = dicom(syntax=syntax, PixelData=fragments(data[:99], offsets=offsets))
        yield bad(f"{name}, places beyond", far)
        small = dicom(Rows=TALL + 2, syntax=syntax, PixelData=fragments(data))
        yield bad(f"{name}, another size", small, f"{BROKEN}|compressed")
        frames = {"NumberOfFrames": "2", "PixelData": fragments(data, data)}
        yield bad(f"{name}, two frames", dicom(syntax=syntax, **frames), "2 frames")
    color = fragments(picture("jpg", mode="RGB"))
    yield bad("JPEG in color", dicom(syntax=JPEG, PixelData=color))
    for side in (12_000, 60_000):
        at = jpeg.index(b"\xff\xc0") + 5
        large = fragments(patched(jpeg, at, ">HH", side, side))
        yield bad(f"JPEG of {side}", dicom(syntax=JPEG, PixelData=large), f"{BROKEN}|compressed")
        large = fragments(patched(stream, 8, ">II", side, side))
        yield bad(
            f"JPEG 2000 of {side}", dicom(syntax=JPEG2000, PixelData=large), f"{BROKEN}|compressed"
        )
    runs = struct.pack("<16I", 1, 64, *[0] * 14)
    yield bad("RLE, short", dicom(syntax=RLE, PixelData=fragments(runs + b"\x7f")))
    yield bad(
        "RLE, 99 segments", dicom(syntax=RLE, PixelData=fragments(struct.pack("<I", 99) * 16))
    )
    yield bad("uncompressed as JPEG", dicom(syntax=JPEG))
    yield bad("JPEG as uncompressed", dicom(PixelData=fragments(jpeg)))
    for syntax in ("1.2.3.4.5", "1.2.840.10008.1.2.4.100", "", "text", "9" * 60):
        yield bad(f"syntax {syntax[:24]}", dicom(syntax=syntax or " ", PixelData=fragments(jpeg)),
                  f"{BROKEN}|transfer syntax")  # fmt: skip


def cases() -> list[Case]:
    """Return them all."""
    return [*right(), *wrong()]
