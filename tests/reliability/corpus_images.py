"""Pictures and files that a folder of films may hold: what is read of them, or why nothing is."""

from __future__ import annotations

import gzip
import io
import os
import re
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Make = Callable[[Path], object]

TALL, WIDE = 40, 56
# Smooth, so that JPEG keeps it, and alike in no direction.
FILM = (np.add.outer(np.arange(TALL) * 2, np.arange(WIDE) * 3) + 5).astype(np.uint8)
DEEP = FILM.astype(np.uint16) * 200 + 17
BITS = np.where(FILM > 120, 255, 0).astype(np.uint8)
POINT = np.full((1, 1), 77, np.uint8)
NOISE = np.random.default_rng(9).integers(0, 256, (TALL, WIDE), dtype=np.uint8)
KINDS = {
    "png": "PNG", "jpg": "JPEG", "tif": "TIFF", "bmp": "BMP", "gif": "GIF", "webp": "WEBP",
    "pgm": "PPM", "jp2": "JPEG2000",
}  # fmt: skip
NO_IMAGE, BROKEN, LARGE = "no image of a kind", "cannot be decoded", "too large|too many pixels"
EITHER = f"{NO_IMAGE}|{BROKEN}"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file in a folder of films.

    Attributes:
        name: Below the folder.
        make: Writes it.
        pixels: What is read of it, where it is fine.
        near: By how much each pixel may differ.
        reason: A pattern of what is said of it, where it is not.
    """

    name: str
    make: Make
    pixels: np.ndarray | None = None
    near: int = 0
    reason: str = ""

    def __str__(self) -> str:
        return self.name.encode("unicode_escape").decode()[:60]


def put(data: bytes) -> Make:
    """Write these bytes."""

    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return write


def picture(kind: str, film: np.ndarray = FILM, mode: str | None = None, **keys: Any) -> bytes:
    """Return a film in a kind of file and, where it is given, in another mode."""
    image = Image.fromarray(film)
    if mode is not None:
        image = (image.convert("RGB") if mode in ("CMYK", "YCbCr") else image).convert(mode)
    with io.BytesIO() as file:
        image.save(file, KINDS[kind], **(keys or ({"lossless": True} if kind == "webp" else {})))
        return file.getvalue()


def several(kind: str, **keys: Any) -> bytes:
    """Return three frames."""
    frames = [Image.fromarray(each) for each in (FILM, 255 - FILM, NOISE)]
    with io.BytesIO() as file:
        frames[0].save(file, KINDS[kind], save_all=True, append_images=frames[1:], **keys)
        return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    width: int, height: int, data: bytes, *more: bytes, depth: int = 8, color: int = 0
) -> bytes:
    """Return a PNG with these compressed rows and, before them, more chunks."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    parts = [b"\x89PNG\r\n\x1a\n", head, *more, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"".join(parts)


def rows(pixels: np.ndarray) -> bytes:
    """Return the compressed rows of a PNG."""
    wide = pixels.astype(f">u{pixels.itemsize}").reshape(len(pixels), -1)
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in wide))


def nothing(megabytes: int) -> bytes:
    """Return so much of nothing, compressed: one block, again and again."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = struct.pack(">HH", (megabytes * 2**20) % 65521, 1)
    return b"\x78\xda" + block * megabytes + b"\x03\x00" + checksum


def tiff(
    tags: dict[int, tuple[int, int, int]], data: bytes = b"", *, next_at: int = 0, at: int = 8
) -> bytes:
    """Return a TIFF of one directory: by tag a type, a count and a value; ``data`` lies behind."""
    entries = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(tags.items()))
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", next_at)
    return struct.pack("<2sHI", b"II", 42, at) + directory + data


def plain_tiff(**changes: Any) -> dict[int, tuple[int, int, int]]:
    """Return the tags of a grey TIFF of 4 x 4 whose pixels lie behind its directory."""
    tags = {
        "width": (256, 3, 1, 4), "height": (257, 3, 1, 4), "bits": (258, 3, 1, 8),
        "packed": (259, 3, 1, 1), "zero": (262, 3, 1, 1), "strips": (273, 4, 1, 122),
        "samples": (277, 3, 1, 1), "rows": (278, 3, 1, 4), "bytes": (279, 4, 1, 16),
    }  # fmt: skip
    tags |= changes
    return {tag: entry for tag, *entry in tags.values() if entry}  # type: ignore[misc]


def patched(data: bytes, at: int, form: str, *values: int) -> bytes:
    """Return bytes with others at a place."""
    new = struct.pack(form, *values)
    return data[:at] + new + data[at + len(new) :]


def giants(side: int) -> Iterator[tuple[str, bytes]]:
    """Yield a file of each kind that claims so many pixels a side and holds a few."""
    yield "png", png(side, side, rows(FILM))
    data = picture("jpg")
    yield "jpg", patched(data, data.index(b"\xff\xc0") + 5, ">HH", side, side)
    whole = plain_tiff(width=(256, 4, 1, side), height=(257, 4, 1, side), rows=(278, 4, 1, side))
    yield "tif", tiff(whole, bytes(16))
    yield "bmp", patched(picture("bmp"), 18, "<ii", side, side)
    data = picture("gif")
    data = patched(data, 6, "<HH", side, side)
    yield "gif", patched(data, data.index(b"\x2c\0\0\0\0") + 5, "<HH", side, side)
    canvas = struct.pack("<I", side - 1)[:3] * 2
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + canvas + picture("webp")[12:]
    yield "webp", b"RIFF" + struct.pack("<I", len(body)) + body
    yield "pgm", b"P5 %d %d 255\n" % (side, side) + bytes(99)
    data = picture("jp2")
    data = patched(data, data.index(b"ihdr") + 4, ">II", side, side)
    yield "jp2", patched(data, data.index(b"\xff\x4f\xff\x51") + 8, ">II", side, side)


def bombs() -> Iterator[tuple[str, bytes, str]]:
    """Yield small files that grow, with the reason why they are refused; "" where they are not."""
    flood = nothing(2000)
    yield "rows beyond the header.png", png(16, 16, flood), ""
    yield "as large as its header.png", png(40_000, 40_000, flood), LARGE
    yield "as large, 16 bits.png", png(20_000, 20_000, flood, depth=16), LARGE
    yield "as large, color.png", png(20_000, 20_000, flood, color=6), LARGE
    yield "a line.png", png(2**26, 1, nothing(65)), LARGE
    yield "a column.png", png(1, 2**26, nothing(140)), LARGE
    yield "a long line.png", png(60_000, 40, nothing(10)), LARGE
    text = chunk(b"zTXt", b"note\0\0" + flood)
    yield "text.png", png(WIDE, TALL, rows(FILM), text), BROKEN
    inter = chunk(b"iTXt", b"note\0\1\0\0\0" + flood)
    yield "international text.png", png(WIDE, TALL, rows(FILM), inter), BROKEN
    profile = chunk(b"iCCP", b"note\0\0" + flood)
    yield "profile.png", png(WIDE, TALL, rows(FILM), profile), BROKEN
    note = zlib.compress(bytes(2**20 - 9))
    many = [chunk(b"zTXt", b"n%d\0\0" % each + note) for each in range(99)]
    yield "many texts.png", png(WIDE, TALL, rows(FILM), *many), BROKEN
    square = {"width": (256, 3, 1, 16), "height": (257, 3, 1, 16), "rows": (278, 3, 1, 16)}
    strip = square | {"packed": (259, 3, 1, 8), "bytes": (279, 4, 1, len(flood))}
    yield "a strip.tif", tiff(plain_tiff(**strip), flood), ""
    sides = {"width": (256, 4, 1, 2**16), "height": (257, 4, 1, 2**16), "rows": (278, 4, 1, 2**16)}
    more = {"packed": (259, 3, 1, 8), "bytes": (279, 4, 1, len(flood))}
    yield "many strips.tif", tiff(plain_tiff(**sides, **more), flood), LARGE
    tiles = {"rows": (322, 4, 1, 2**20), "bytes": (323, 4, 1, 2**20), "strips": (324, 4, 1, 122)}
    sizes = {"sizes": (325, 4, 1, len(flood)), "packed": (259, 3, 1, 8)}
    yield "a tile.tif", tiff(plain_tiff(**tiles, **sizes), flood), EITHER


def _frames_of_gif(count: int) -> bytes:
    data = picture("gif", POINT)
    start = data.index(b"\x2c")
    return data[:start] + data[start:-1] * count + b"\x3b"


def _animated_png() -> bytes:
    control = chunk(b"acTL", struct.pack(">II", 2, 0))
    frame = struct.pack(">IIIIHHBB", WIDE, TALL, 0, 0, 1, 10, 0, 0)
    frames = (
        chunk(b"fcTL", struct.pack(">I", 0) + frame),
        chunk(b"fcTL", struct.pack(">I", 1) + frame),
    )
    second = chunk(b"fdAT", struct.pack(">I", 2) + rows(NOISE))
    whole = png(WIDE, TALL, rows(FILM), control, frames[0])
    return whole[:-12] + frames[1] + second + whole[-12:]


def right() -> Iterator[Case]:
    """Yield pictures that are read as they are."""

    def fine(name: str, data: bytes, pixels: np.ndarray = FILM, near: int = 0) -> Case:
        return Case(name=name, make=put(data), pixels=pixels, near=near)

    for kind in KINDS:
        yield fine(f"grey.{kind}", picture(kind), near=2 if kind == "jpg" else 0)
        yield fine(f"one pixel.{kind}", picture(kind, POINT), POINT, near=1)
    for mode in ("1", "P", "LA", "RGB", "RGBA"):
        bits = mode == "1"
        yield fine(
            f"{mode}.png", picture("png", BITS if bits else FILM, mode), BITS if bits else FILM
        )
    for mode in ("1", "P", "LA", "RGB", "RGBA", "CMYK", "PA"):
        bits = mode == "1"
        data = picture("tif", BITS if bits else FILM, mode)
        yield fine(f"{mode}.tif", data, BITS if bits else FILM, near=1)
    yield fine("YCbCr.tif", picture("tif", mode="YCbCr"), near=2)
    yield fine("CMYK.jpg", picture("jpg", mode="CMYK"), near=4)
    yield fine("RGB.jpg", picture("jpg", mode="RGB"), near=3)
    yield fine("RGB.bmp", picture("bmp", mode="RGB"))
    yield fine("P.bmp", picture("bmp", mode="P"))
    yield fine("RGB.ppm", picture("pgm", mode="RGB"))
    yield fine("1.pbm", picture("pgm", BITS, "1"), BITS)
    yield fine("RGB.jp2", picture("jp2", mode="RGB"), near=1)
    yield fine("RGBA.webp", picture("webp", mode="RGBA"))
    yield fine("progressive.jpg", picture("jpg", progressive=True), near=6)
    yield fine("turned.jpg", picture("jpg", exif=_turned(), quality=95), near=2)
    seen = picture("png", mode="P", transparency=bytes(range(256)))
    yield fine("palette, see-through.png", seen)
    yield fine("palette, see-through.gif", picture("gif", mode="P", transparency=9))
    yield fine("16 bits.png", picture("png", DEEP), DEEP)
    yield fine("16 bits.tif", picture("tif", DEEP), DEEP)
    yield fine("16 bits.jp2", picture("jp2", DEEP), DEEP)
    yield fine("16 bits.pgm", b"P5 56 40 65535\n" + DEEP.astype(">u2").tobytes(), DEEP)
    sized = {"width": (256, 3, 1, WIDE), "height": (257, 3, 1, TALL), "rows": (278, 3, 1, TALL)}
    sized |= {"bytes": (279, 4, 1, FILM.nbytes)}
    deep = sized | {"bits": (258, 3, 1, 16), "bytes": (279, 4, 1, DEEP.nbytes)}
    yield fine("16 bits, order turned.tif", _swapped(tiff(plain_tiff(**deep)), DEEP), DEEP)
    circle = tiff(plain_tiff(**sized), FILM.tobytes(), next_at=8)
    yield fine("round in circles.tif", circle)
    behind = sized | {"rows": (278, 4, 1, 2**31), "bytes": (279, 4, 1, 2**31 - 1)}
    yield fine("strips beyond the file.tif", tiff(plain_tiff(**behind), FILM.tobytes()))
    for name, data, reason in bombs():
        if not reason:
            yield fine(f"bomb, {name}", data, np.zeros((16, 16), np.uint8))
    color = np.repeat(DEEP[..., None], 3, axis=2)
    shown = (DEEP >> 8).astype(np.uint8)
    yield fine("16 bits, color.png", png(WIDE, TALL, rows(color), depth=16, color=2), shown, near=1)
    yield fine("32 bits.tif", picture("tif", DEEP.astype(np.int32)), DEEP)
    turned = sized | {"zero": (262, 3, 1, 0)}
    yield fine("white is zero.tif", tiff(plain_tiff(**turned), (255 - FILM).tobytes()))
    yield fine("white is zero, 16 bits.tif", picture("tif", 65535 - DEEP, tiffinfo={262: 0}), DEEP)
    for packed in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield fine(f"{packed}.tif", picture("tif", compression=packed), near=2 * (packed == "jpeg"))
    yield fine("a frame of its own.png", picture("png", save_all=True))
    yield fine("noise after it.png", picture("png") + b"noise" * 99)
    yield fine("noise after it.jpg", picture("jpg") + b"noise" * 99, near=2)
    yield fine("a PNG.jpg", picture("png"))
    yield fine("a JPEG.png", picture("jpg"), near=2)
    yield fine("a TIFF.txt", picture("tif"))
    yield fine("a PNG", picture("png"))
    yield fine("LOUD.PNG", picture("png"))
    yield fine("with space, 'quotes' and #%&;$(x).png", picture("png"))
    yield fine("胸部 é 👍.png", picture("png"))
    yield fine("=1+1.png", picture("png"))
    yield fine("-rf.png", picture("png"))
    yield fine("a" * 200 + ".png", picture("png"))
    yield fine("/".join(["deep"] * 40) + "/film.png", picture("png"))


def _turned() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return exif.tobytes()


def _swapped(head: bytes, pixels: np.ndarray) -> bytes:
    """Return a TIFF of one directory with all of its bytes turned, and its pixels."""
    count = struct.unpack("<H", head[8:10])[0]
    entries = [struct.unpack("<HHII", head[10 + 12 * n : 22 + 12 * n]) for n in range(count)]
    turned = b"".join(
        struct.pack(">HHI", tag, kind, number)
        + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, number, value in entries
    )
    start = struct.pack(">2sHIH", b"MM", 42, 8, count)
    return start + turned + bytes(4) + pixels.astype(">u2").tobytes()


def wrong() -> Iterator[Case]:
    """Yield files that are refused."""

    def bad(name: str, data: bytes, reason: str) -> Case:
        return Case(name=name, make=put(data), reason=reason)

    for kind in KINDS:
        data = picture(kind, NOISE)
        for share in (2, 30, 60, 90):
            cut = data[: max(1, len(data) * share // 100)]
            yield bad(f"{share} percent.{kind}", cut, EITHER)
        yield bad(f"zeros.{kind}", bytes(4096), NO_IMAGE)
        yield bad(f"zeros after the start.{kind}", data[:12] + bytes(4096), EITHER)
    for side in (20_000, 12_000):
        for kind, data in giants(side):
            yield bad(f"{side} pixels a side.{kind}", data, f"{LARGE}|{EITHER}")
    yield bad("empty.png", b"", "the file is empty")
    yield bad("a byte.png", b"\x89", NO_IMAGE)
    yield bad("no width.png", png(0, 9, rows(FILM)), f"{NO_IMAGE}|no pixels")
    yield bad("no width.pgm", b"P5 0 9 255\n", f"{EITHER}|no pixels")
    yield bad("below zero.pgm", b"P5 -4 9 255\n" + bytes(99), EITHER)
    yield bad("below zero.bmp", patched(picture("bmp"), 18, "<i", -9), f"{EITHER}|{LARGE}")
    yield bad("floats.tif", picture("tif", FILM.astype(np.float32)), "floats")
    yield bad("floats.pfm", b"Pf\n4 4\n-1.0\n" + bytes(64), "floats")
    yield bad("32 bits, all used.tif", picture("tif", DEEP.astype(np.int32) * 70_000), "16 bits")
    yield bad("below zero.tif", picture("tif", DEEP.astype(np.int32) - 40_000), "16 bits")
    for kind in ("gif", "tif", "webp", "png"):
        yield bad(f"frames.{kind}", several(kind), "more than one frame")
    yield bad("frames by hand.png", _animated_png(), "more than one frame")
    yield bad("many frames.gif", _frames_of_gif(200_000), "more than one frame")
    yield bad("LAB.tif", picture("tif", tiffinfo={262: 8}), f"{BROKEN}|{NO_IMAGE}")
    yield bad("a directory beyond the file.tif", tiff(plain_tiff(), at=2**31), EITHER)
    yield bad("no tags.tif", tiff({}), EITHER)
    yield bad("a million samples.tif", tiff(plain_tiff(samples=(277, 4, 1, 10**6)), b"x"), EITHER)
    yield bad("a checksum off.png", patched(picture("png", NOISE), 60, "B", 7), EITHER)
    yield bad("no rows.png", png(WIDE, TALL, b""), EITHER)
    yield bad("color that is not there.png", png(WIDE, TALL, rows(FILM), color=5), EITHER)
    yield bad("a palette that is not there.png", png(WIDE, TALL, b"", color=3), EITHER)
    for name, data in _no_images():
        yield bad(name, data, NO_IMAGE)
    for name, data, reason in bombs():
        if reason:
            yield bad(f"bomb, {name}", data, reason)


def _no_images() -> Iterator[tuple[str, bytes]]:
    yield "text.png", b"not found\n"
    yield "an error page.jpg", b"<!DOCTYPE html><html><body>403 Forbidden</body></html>"
    yield "gzipped.png", gzip.compress(picture("png"))
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("film.png", picture("png"))
        yield "an archive.png", file.getvalue()
    with io.BytesIO() as file:
        Image.fromarray(FILM).save(file, "EPS")
        yield "a program.png", file.getvalue()
    with io.BytesIO() as file:
        Image.fromarray(FILM).save(file, "PDF")
        yield "a letter.png", file.getvalue()
    yield "a drawing.png", b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9"/></svg>'
    for kind in ("ICO", "TGA", "PCX", "SGI", "ICNS"):
        side = Image.fromarray(np.zeros((32, 32), np.uint8))
        with io.BytesIO() as file:
            (side.convert("RGBA") if kind in ("ICO", "ICNS") else side).save(file, kind)
            yield f"of the kind {kind}.png", file.getvalue()
    yield "an array.png", b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'shape': (3,)}"
    yield "a film in XML.png", b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "b">]><a>&b;</a>'


def strange() -> Iterator[Case]:
    """Yield what is no file, or no film of this folder."""

    def odd(name: str, make: Make, reason: str) -> Case:
        return Case(name=name, make=make, reason=reason)

    yield odd("gone.png", lambda _: None, "no such file")
    yield odd("a folder.png", Path.mkdir, "directory")
    yield odd("a pipe.png", os.mkfifo, "no regular file")
    yield odd("a pipe.dcm", os.mkfifo, "no regular file")
    yield odd("a socket.png", _socket, "no regular file")
    yield odd("a link to nothing.png", lambda path: path.symlink_to("nowhere.png"), "no such file")
    yield odd(
        "a link to itself.png", lambda path: path.symlink_to(path.name), "loop|symbolic links"
    )
    for target in ("/dev/zero", "/dev/null", "/etc/passwd", "/proc/self/environ", "/"):
        name = re.sub(r"\W", " ", target)
        yield odd(
            f"a link to{name}.png", lambda path, to=target: path.symlink_to(to), "out of the root"
        )
    yield odd("x" * 300 + ".png", lambda _: None, "too long|no such file")
    yield odd(
        "in a file/film.png", lambda path: path.parent.write_text("x"), "irectory|no such file"
    )


def _socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def cases() -> list[Case]:
    """Return them all."""
    return [*right(), *wrong(), *strange()]
