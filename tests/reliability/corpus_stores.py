"""Broken stores: an edit is given a store's folder and that of another store of its shape."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from corpus_checkpoints import Planted

Edit = Callable[[Path, Path], object]
IMAGES, TABLE, MANIFEST = "images.npy", "table.npz", "manifest.json"


def file(name: str, change: Callable[[bytes], bytes]) -> Edit:
    """Change the bytes of one file."""
    return lambda store, _: (store / name).write_bytes(change((store / name).read_bytes()))


def gone(name: str) -> Edit:
    """Delete one file."""
    return lambda store, _: (store / name).unlink()


def placed(name: str, make: Callable[[Path], object]) -> Edit:
    """Put something else in a file's place."""

    def edit(store: Path, _: Path) -> None:
        (store / name).unlink()
        make(store / name)

    return edit


def swapped(*names: str) -> Edit:
    """Take files of the other store."""
    return lambda store, other: [shutil.copy(other / name, store / name) for name in names]


def array(change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    """Write the films otherwise."""

    def edit(store: Path, _: Path) -> None:
        films = np.load(store / IMAGES)
        np.save(store / IMAGES, change(films))

    return edit


def header(change: Callable[[bytes], bytes]) -> Edit:
    """Change the text of the header of the films, keeping its length."""

    def edit(store: Path, _: Path) -> None:
        content = (store / IMAGES).read_bytes()
        length = struct.unpack("<H", content[8:10])[0]
        text = change(content[10 : 10 + length].rstrip())
        (store / IMAGES).write_bytes(
            content[:10] + text.ljust(length - 1) + b"\n" + content[10 + length :]
        )

    return edit


def table(change: Callable[[dict[str, np.ndarray]], object]) -> Edit:
    """Change the arrays of the table."""

    def edit(store: Path, _: Path) -> None:
        with np.load(store / TABLE) as held:
            values = dict(held)
        change(values)
        np.savez(store / TABLE, **values)

    return edit


def names(change: Callable[[list[str]], list[str]]) -> Edit:
    """Change the names of the table."""

    def edit(values: dict[str, Any]) -> None:
        held = values["images"].tobytes().decode().split("\0")
        values["images"] = np.frombuffer("\0".join(change(held)).encode(), np.uint8)

    return table(edit)


def manifest(change: Callable[[dict[str, Any]], object]) -> Edit:
    """Change the values of the manifest."""

    def edit(store: Path, _: Path) -> None:
        values = json.loads((store / MANIFEST).read_text())
        change(values)
        (store / MANIFEST).write_text(json.dumps(values))

    return edit


def told(**values: Any) -> Edit:
    """Put values into the manifest."""
    return manifest(lambda held: held.update(values))


def objects(path: Path) -> None:
    """Write films that are objects, one of which is a command."""
    np.save(path, np.array([Planted()], dtype=object), allow_pickle=True)


def table_of_objects(path: Path) -> None:
    """Write a table of objects."""
    np.savez(path, images=np.array([Planted()], dtype=object))


def compressed(store: Path, _: Path) -> None:
    """Write the same table, compressed."""
    with np.load(store / TABLE) as held:
        np.savez_compressed(store / TABLE, **held)


def of_both(store: Path, other: Path) -> None:
    """Give one store the other's name: two folders that claim one fingerprint."""
    shutil.rmtree(store)
    shutil.copytree(other, store)


def _first_film(value: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:128] + bytes([content[128] ^ value]) + content[129:]


# Noticed whenever a store is opened: nothing is trained on it.
BROKEN: dict[str, Edit] = {
    "films: empty": file(IMAGES, lambda _: b""),
    "films: half": file(IMAGES, lambda old: old[: len(old) // 2]),
    "films: without the last byte": file(IMAGES, lambda old: old[:-1]),
    "films: a byte more": file(IMAGES, lambda old: old + b"\0"),
    "films: a megabyte more": file(IMAGES, lambda old: old + bytes(2**20)),
    "films: text": file(IMAGES, lambda _: b"films"),
    "films: gone": gone(IMAGES),
    "films: a folder": placed(IMAGES, Path.mkdir),
    "films: a pipe": placed(IMAGES, os.mkfifo),
    "films: a link to nothing": placed(IMAGES, lambda path: path.symlink_to("nowhere")),
    "films: an archive": placed(
        IMAGES, lambda path: zipfile.ZipFile(path, "w").writestr("images.npy", b"x")
    ),
    "films: objects": placed(IMAGES, objects),
    "films: 16 bits": array(lambda old: old.astype(np.uint16)),
    "films: signed": array(lambda old: old.astype(np.int8)),
    "films: floats": array(lambda old: old.astype(np.float32)),
    "films: one fewer": array(lambda old: old[:-1]),
    "films: one more": array(lambda old: np.concatenate([old, old[:1]])),
    "films: smaller": array(lambda old: old[..., :16, :16]),
    "films: two channels": array(lambda old: np.repeat(old, 2, axis=1)),
    "films: without channels": array(lambda old: old[:, 0]),
    "films: in another order": array(np.asfortranarray),
    "films: backwards": array(lambda old: old[::-1].copy()),
    "films: black": array(np.zeros_like),
    "films: the other store's": swapped(IMAGES),
    "header: order turned": header(lambda text: text.replace(b"False", b"True ")),
    "header: an expression": header(lambda _: b"{'descr': __import__('os').system('x')}"),
    "header: nested": header(lambda _: b"(" * 100),
    "header: a quote": header(lambda _: b"'''"),
    "header: a shape below zero": header(lambda text: text.replace(b"(", b"(-")),
    "header: a shape of text": header(lambda text: text.replace(b"(", b"('a', ")),
    "header: bytes": header(lambda _: bytes(range(128, 200))),
    "header: a length beyond the file": file(
        IMAGES, lambda old: old[:8] + b"\xff\xff" + old[10:200]
    ),
    "header: a later version": file(IMAGES, lambda old: old[:6] + b"\x09\x00" + old[8:]),
    "header: 10^15 films": header(lambda text: text.replace(b"(", b"(10000000000000")),
    "table: empty": file(TABLE, lambda _: b""),
    "table: half": file(TABLE, lambda old: old[: len(old) // 2]),
    "table: text": file(TABLE, lambda _: b"films"),
    "table: gone": gone(TABLE),
    "table: a folder": placed(TABLE, Path.mkdir),
    "table: objects": placed(TABLE, table_of_objects),
    "table: compressed": compressed,
    "table: a bit turned": file(TABLE, lambda old: old[:200] + bytes([old[200] ^ 1]) + old[201:]),
    "table: without names": table(lambda held: held.pop("images")),
    "table: without sizes": table(lambda held: held.pop("bytes")),
    "table: sizes of fewer films": table(lambda held: held.update(bytes=held["bytes"][:3])),
    "table: names of numbers": table(lambda held: held.update(images=np.arange(9.0))),
    "table: a name twice": names(lambda old: [*old[:-1], old[0]]),
    "table: a name fewer": names(lambda old: old[:-1]),
    "table: a name more": names(lambda old: [*old, "new.png"]),
    "table: another name": names(lambda old: [*old[:-1], "new.png"]),
    "table: names in another order": names(lambda old: old[::-1]),
    "manifest: empty": file(MANIFEST, lambda _: b""),
    "manifest: half": file(MANIFEST, lambda old: old[: len(old) // 2]),
    "manifest: binary": file(MANIFEST, lambda _: bytes(range(256))),
    "manifest: deep": file(MANIFEST, lambda _: b'{"a":' * 100_000),
    "manifest: a list": file(MANIFEST, lambda _: b"[]"),
    "manifest: without size": manifest(lambda held: held.pop("size")),
    "manifest: without fingerprint": manifest(lambda held: held.pop("fingerprint")),
    "manifest: without broken films": manifest(lambda held: held.pop("bad")),
    "manifest: without a checksum": manifest(lambda held: held.pop("sha256")),
    "manifest: another size": told(size=16),
    "manifest: a size of text": told(size="32"),
    "manifest: a size below zero": told(size=-32),
    "manifest: a size of 10^12": told(size=10**12),
    "manifest: three channels": told(channels=3),
    "manifest: channels of true": told(channels=True),
    "manifest: another fit": told(fit="pad"),
    "manifest: an unknown fit": told(fit="stretch"),
    "manifest: another fingerprint": told(fingerprint="0123456789abcdef"),
    "manifest: a path as fingerprint": told(fingerprint="../../x"),
    "manifest: another dataset": told(dataset="rsna"),
    "manifest: another version": told(version=2),
    "manifest: fewer films": told(films=3),
    "manifest: broken films of text": told(bad="none"),
    "manifest: a list of broken films": told(bad=["a.png"]),
    "manifest: a broken film from elsewhere": told(bad={"elsewhere.png": "broken"}),
    "manifest: structures": told(structures=3),
    "manifest: the other store's": swapped(MANIFEST),
    "films and table: the other store's": swapped(IMAGES, TABLE),
    "films and manifest: the other store's": swapped(IMAGES, MANIFEST),
    "table and manifest: the other store's": swapped(TABLE, MANIFEST),
    "all of it: the other store's": of_both,
    "the folder: a file": lambda store, _: (shutil.rmtree(store), store.write_text("years")),
    "the folder: a link to nothing": lambda store, _: (
        shutil.rmtree(store),
        store.symlink_to("nowhere"),
    ),
}

# No store any more, or only things beside it: it is packed again, or opened, as it was.
MENDED: dict[str, Edit] = {
    "the folder gone": lambda store, _: shutil.rmtree(store),
    "the folder empty": lambda store, _: (shutil.rmtree(store), store.mkdir()),
    "the manifest gone": gone(MANIFEST),
    "a lock left": lambda store, _: [
        path.write_text("process 1 on nowhere\n") for path in store.parent.glob(".*.lock")
    ],
    "a strange file in it": lambda store, _: (store / "letter.txt").write_text("dear reader"),
    "a strange file beside it": lambda store, _: (store.parent / "letter.txt").write_text("x"),
    "a part of a file left": lambda store, _: (store / ".manifest.json.part").write_text("{"),
    "hashes of noise": lambda store, _: _hashes(store, b"noise"),
    "hashes of the other store": lambda store, other: _hashes(
        store, (other / "prints-1.npy").read_bytes()
    ),
    "twins of noise": lambda store, _: [
        path.write_bytes(b"noise") for path in store.glob("twins-*.npy")
    ],
    "twins beyond the store": lambda store, _: [
        np.save(path, np.full((2, 2), 10**9)) for path in store.glob("twins-*.npy")
    ],
}

# A film or two are not as they were: the whole is read by ``ark data verify`` alone.
HIDDEN: dict[str, Edit] = {
    "a bit of a film turned": lambda store, _: _turn(store, 5),
    "a film black": lambda store, _: _turn(store, 7, black=True),
}

Partial = Callable[[Path], object]
# A pack that was stopped half-way, and then was damaged: it begins anew.
PARTIAL: dict[str, Partial] = {
    "films half": lambda path: _cut(path / IMAGES),
    "films gone": lambda path: (path / IMAGES).unlink(),
    "films of another shape": lambda path: np.save(path / IMAGES, np.zeros((3, 1, 8, 8), np.uint8)),
    "films of text": lambda path: (path / IMAGES).write_text("films"),
    "films that are an archive": lambda path: _archive(path / IMAGES),
    "marks half": lambda path: _cut(path / "done.npy"),
    "marks gone": lambda path: (path / "done.npy").unlink(),
    "marks of floats": lambda path: np.save(path / "done.npy", np.ones(1)),
    "marks of more films": lambda path: np.save(path / "done.npy", np.ones(99, np.uint8)),
    "files half": lambda path: _cut(path / "files.npy"),
    "files of objects": lambda path: np.save(
        path / "files.npy", np.array([Planted()], dtype=object), allow_pickle=True
    ),
    "files of fewer films": lambda path: np.save(path / "files.npy", np.zeros((2, 1), np.int64)),
    "names half": lambda path: _cut(path / "names"),
    "names binary": lambda path: (path / "names").write_bytes(bytes(range(256))),
    "empty": lambda path: [each.unlink() for each in path.iterdir()],
}


def _hashes(store: Path, content: bytes) -> None:
    (store / "prints-1.npy").write_bytes(content)
    for kept in store.glob("twins-*.npy"):  # made of them, and asked first
        kept.unlink()


def _turn(store: Path, film: int, *, black: bool = False) -> None:
    films = np.load(store / IMAGES, mmap_mode="r+")
    films[film] = (
        0 if black else films[film] ^ (np.arange(films[film].size) == 9).reshape(films[film].shape)
    )
    films.flush()


def _archive(path: Path) -> None:
    with path.open("wb") as held:
        np.savez(held, a=np.ones(3))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
