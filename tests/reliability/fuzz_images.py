"""What reads a film, given bytes: for a fuzzer, with or without knowledge of what they reach.

``python fuzz_images.py FOLDER [options of libFuzzer]`` runs atheris, whose seeds are in FOLDER.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from random import Random

SHARED = Path("/dev/shm")  # noqa: S108 - a folder of the memory, in which one of ours is made
# Of a film here: what is larger is refused before it is decoded, and would only take time.
PIXELS = 2**18


class Target:
    """Reads bytes as films.

    Args:
        folder: Where the one file is that is written again and again.
    """

    def __init__(self, folder: Path) -> None:
        from ark_framework import pixels
        from ark_framework.errors import DataError, MachineError
        from ark_framework.images import fit_square, read_color, read_image

        pixels.MAX_PIXELS, pixels.MAX_SIDE = PIXELS, 2**12
        self.refusals = (DataError, MachineError)
        self.read, self.fit = (read_image, read_color), fit_square
        self.path = folder / "film"

    def __call__(self, data: bytes) -> str:
        """Read a film, grey or in color; return how it ended.

        Raises:
            Exception: any but ours, or ours in other words than one line.
        """
        self.path.write_bytes(data)
        try:
            pixels = self.read[len(data) % 2](self.path)
        except self.refusals as error:
            said = str(error)
            assert said.startswith(f"{self.path}: "), said
            assert len(said.splitlines()) == 1, repr(said)
            return "refused"
        assert pixels.ndim == 2 + len(data) % 2
        assert pixels.dtype in ("uint8", "uint16")
        assert 0 < pixels.size <= 3 * PIXELS
        self.fit(pixels, 16, "pad")
        return "read"


def seeds() -> list[bytes]:
    """Return small files of every kind, right and wrong ones."""
    import corpus_dicoms
    import corpus_images

    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film"
        for corpus in (corpus_images, corpus_dicoms):
            for case in (*corpus.right(), *corpus.wrong()):
                case.make(path)
                found.append(path.read_bytes())
    return sorted({data for data in found if len(data) < 10_000})


def changed(data: bytes, others: list[bytes], draw: Random) -> bytes:
    """Return bytes after a few changes at random places."""
    made = bytearray(data)
    for _ in range(draw.randint(1, 6)):
        at, kind = draw.randrange(len(made) + 1), draw.randrange(6)
        size = draw.choice((1, 2, 4, 16, 200))
        if kind == 0:
            made[at : at + 1] = draw.randbytes(1)
        elif kind == 1:
            made[at : at + size] = draw.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * size
        elif kind == 2:
            del made[at : at + size]
        elif kind == 3:
            made[at:at] = made[at : at + size]
        elif kind == 4:
            other = draw.choice(others)
            start = draw.randrange(len(other) + 1)
            made[at : at + size] = other[start : start + size]
        else:
            del made[at if draw.random() < 0.3 else len(made) :]
    return bytes(made)


def main() -> None:
    """Run atheris."""
    import atheris

    with atheris.instrument_imports(include=["PIL", "pydicom", "ark_framework"]):
        import PIL.Image
        import pydicom.pixels  # noqa: F401

        PIL.Image.init()
        shared = SHARED if os.access(SHARED, os.W_OK) else None
        with tempfile.TemporaryDirectory(dir=shared) as folder:
            target = Target(Path(folder))
            atheris.Setup(sys.argv, lambda data: target(data) and None)
            atheris.Fuzz()


if __name__ == "__main__":
    main()
