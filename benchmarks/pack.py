"""Packing beside decoding alone with the same decoder, in films a second.

In one process packing is compared to reading the same files and doing nothing with them; what it
adds is the square, the store and its checksum.  On all cores it is compared to decoding into
squares by the same worker processes.  The folder's files are copied, again and again.

python benchmarks/pack.py --films FOLDER
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measuring import in_turns, parser, ratio, report

from ark_framework.builtin.table import SPEC
from ark_framework.decoding import Reader, cores, decode_all
from ark_framework.images import read_image
from ark_framework.packing import ALONE, ensure
from ark_framework.unfinished import CHUNK

SIDE = 256
GOAL = 0.8


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--films", type=Path, required=True, help="folder of films")
    made.add_argument("--count", type=int, default=192, help="films in one process")
    made.add_argument("--many", type=int, default=512, help="films on all cores")
    given = made.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        one, many = (
            copied(given.films, folder / str(count), count) for count in (given.count, given.many)
        )
        alone = in_turns(
            {
                "reading": lambda: [read_image(folder / str(given.count) / each) for each in one],
                "packing": packing(folder, one, workers=1),
            },
            given.turns,
        )
        result: dict[str, Any] = {
            "one process": {
                "films per second": {name: each.per(len(one)) for name, each in alone.items()},
                "share": (share := ratio(alone["reading"], alone["packing"])),
                "goal": GOAL,
                "met": share["processor"] >= GOAL,
            }
        }
        if given.many > ALONE:
            result["all cores"] = on_all(folder, many, given.turns)
    report("pack", given, result)


def on_all(folder: Path, films: list[str], turns: int) -> dict[str, Any]:
    reader = Reader(root=folder / str(len(films)), channels=1, size=SIDE, fit="squash")
    chunks = [films[start : start + CHUNK] for start in range(0, len(films), CHUNK)]

    def decode() -> None:
        for _ in decode_all(reader, chunks, workers=cores()):
            pass

    found = in_turns({"decoding": decode, "packing": packing(folder, films, workers=None)}, turns)
    share = ratio(found["decoding"], found["packing"])["clock"]  # the work is in other processes
    return {
        "films per second": {name: each.per(len(films))["clock"] for name, each in found.items()},
        "share": share,
        "goal": GOAL,
        "met": share >= GOAL,
    }


def copied(films: Path, folder: Path, count: int) -> list[str]:
    """Copy files again and again; return the copies' names."""
    endings = {".png", ".jpg", ".jpeg"}
    files = sorted(each for each in films.rglob("*") if each.suffix.lower() in endings)
    folder.mkdir()
    names = []
    for number in range(count):
        file = files[number % len(files)].resolve()
        names.append(f"{number:05d}{file.suffix}")
        shutil.copyfile(file, folder / names[-1])  # a film's path may not lead out of its root
    return names


def packing(folder: Path, films: list[str], *, workers: int | None) -> Callable[[], None]:
    """Return what packs the films anew."""
    options = SPEC.options.model_validate({"root": folder / str(len(films)), "labels": ["any"]})

    def pack() -> None:
        stores = folder / "stores"
        ensure(SPEC, options, films, folder=stores, size=SIDE, fit="squash", workers=workers)
        shutil.rmtree(stores)

    return pack


if __name__ == "__main__":
    main()
