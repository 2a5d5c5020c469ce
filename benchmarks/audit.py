"""Planted twins among a million hashes: all found, in how long and in how much memory.

Every hash is a real film's with 20 to 60 bits changed towards another film's; 10,000 are
copies of others with 0 to 6 bits changed.  The baseline is comparing every pair, measured on a part
and scaled.

python benchmarks/audit.py --films FOLDER   (any folder of films; the phantom world without)
"""

from __future__ import annotations

import argparse
import json
import resource
from pathlib import Path
from time import perf_counter

import numpy as np

from ark_framework import prints
from ark_framework.builtin.phantom.case import HOSPITALS, make_case
from ark_framework.builtin.phantom.film import draw
from ark_framework.images import fit_square, read_image

PART = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=Path)
    parser.add_argument("--hashes", type=int, default=1_000_000)
    parser.add_argument("--twins", type=int, default=10_000)
    given = parser.parse_args()
    real = np.unpackbits(prints.hashes(some_films(given.films))[:, 0], axis=1)
    rng = np.random.default_rng(0)
    hashes, originals = world(real, given.hashes, given.twins, rng)
    began = perf_counter()
    found = np.zeros(given.twins, dtype=bool)
    pairs, strangers = 0, given.hashes - given.twins
    for rows, columns in prints.near(hashes, hashes):
        twin = columns >= strangers
        right = twin & (rows == originals[np.where(twin, columns - strangers, 0)])
        found[columns[right] - strangers] = True
        pairs += len(rows)
    seconds = perf_counter() - began
    began = perf_counter()
    for _ in prints.near(hashes[:PART], hashes[:PART]):
        pass
    every = (perf_counter() - began) * (given.hashes / PART) ** 2
    result = {
        "real films": len(real),
        "hashes": given.hashes,
        "planted": given.twins,
        "found": int(found.sum()),
        "candidate pairs": prints.candidate_count(hashes, hashes),
        "pairs within the radius": pairs,
        "seconds": round(seconds, 1),
        "peak GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "every pair would take seconds": round(every),
        "ratio": round(every / seconds, 1),
    }
    print(json.dumps(result, indent=1))


def some_films(folder: Path | None) -> np.ndarray:
    if folder is None:
        return np.stack([draw(make_case(HOSPITALS["north"], film), 64) for film in range(800)])
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return np.stack([fit_square(read_image(path), 64, "squash")[0] for path in files])


def world(
    real: np.ndarray, count: int, twins: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes ``(count, 32)``, the twins last, and the row that each is a copy of."""
    hashes = np.empty((count, prints.BITS // 8), dtype=np.uint8)
    strangers = count - twins
    for start in range(0, strangers, 10_000):
        size = min(10_000, strangers - start)
        one, other = real[rng.integers(len(real), size=(2, size))]
        order = np.where(one != other, rng.random(one.shape), 2.0).argsort(axis=1).argsort(axis=1)
        changed = order < rng.integers(20, 61, size)[:, None]
        hashes[start : start + size] = np.packbits(one ^ changed, axis=1)
    originals = rng.choice(strangers, twins, replace=False)
    bits = np.unpackbits(hashes[originals], axis=1)
    order = rng.random(bits.shape).argsort(axis=1)
    hashes[strangers:] = np.packbits(bits ^ (order < rng.integers(0, 7, twins)[:, None]), axis=1)
    return hashes, originals


if __name__ == "__main__":
    main()
