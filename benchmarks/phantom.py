"""Films drawn per second on one core, beside the same films decoded from PNG by Pillow.

python benchmarks/phantom.py --size 128
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable
from time import perf_counter

import numpy as np
from PIL import Image

from ark_framework.builtin.phantom import VERSION, generator_hash
from ark_framework.builtin.phantom.case import HOSPITALS, make_case
from ark_framework.builtin.phantom.film import draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--films", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    cases = [make_case(HOSPITALS["north"], film) for film in range(given.films)]
    files = [png(draw(case, given.size)) for case in cases]
    drawn = rate(lambda: [draw(case, given.size) for case in cases], given)
    decoded = rate(lambda: [np.asarray(Image.open(io.BytesIO(file))) for file in files], given)
    result = {
        "generator": f"{VERSION}-{generator_hash()}",
        "size": given.size,
        "drawn_per_second": round(drawn),
        "png_decoded_per_second": round(decoded),
        "ratio": round(drawn / decoded, 3),
    }
    print(json.dumps(result, indent=1))


def png(film: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(film).save(buffer, "png")
    return buffer.getvalue()


def rate(work: Callable[[], object], given: argparse.Namespace) -> float:
    best = float("inf")
    for _ in range(given.repeats):
        began = perf_counter()
        work()
        best = min(best, perf_counter() - began)
    return float(given.films / best)


if __name__ == "__main__":
    main()
