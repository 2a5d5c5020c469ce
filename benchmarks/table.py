"""CheXpert's train.csv read into a validated table, beside ``pandas.read_csv`` alone on it.

python benchmarks/table.py --root FOLDER   (with train.csv and valid.csv; drawn ones without)
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import pandas as pd

from ark_framework import registry
from ark_framework.annotations import validate

ROWS = 223_414


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        root = given.root or drawn(Path(folder))
        print(json.dumps(measure(root, given.repeats), indent=1))


def measure(root: Path, repeats: int) -> dict[str, object]:
    plugins = registry.load(["ark-chexpert"])
    spec = plugins.dataset("chexpert")
    options = spec.options.model_validate({"root": root})
    schema = plugins.schema_of(spec, options)
    path = root / "train.csv"
    alone, whole = [], []
    for _ in range(repeats):  # in turn, so that a noisy machine is noisy for both
        alone.append(seconds(lambda: pd.read_csv(path)))
        whole.append(
            seconds(lambda: validate(spec.read(options), dataset=spec.name, schema=schema))
        )
    return {
        "rows": len(spec.read(options)),
        "pandas.read_csv seconds": round(median(alone), 3),
        "validated table seconds": round(median(whole), 3),
        "ratio": round(median(a / b for a, b in zip(whole, alone, strict=True)), 2),
    }


def seconds(work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began


def drawn(folder: Path) -> Path:
    """Write the miniature's train.csv again and again, to the real one's length."""
    registry.load(["ark-chexpert"]).dataset("chexpert").fixture(folder)
    path = next(folder.rglob("train.csv"))
    header, *lines = path.read_text("utf-8").splitlines()
    more = [
        line.replace("/patient", f"/patient{number}", 1)
        for number in range(ROWS // len(lines) + 1)
        for line in lines
    ]
    path.write_text("\n".join([header, *more[:ROWS]]) + "\n", encoding="utf-8")
    return path.parent


if __name__ == "__main__":
    main()
