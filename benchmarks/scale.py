"""What a table's rows cost as they grow in number, and whether a long run's memory stays.

Seconds and bytes per row, for tables of 10^5, 10^6 and 10^7 rows, each in a process of its own: to
validate, to set patients aside for validation, to open a packed store and find every film in it, to
resolve the plan, and to lay out a pass (its order and its first batches).  Bytes are what the
process holds more afterwards, without mapped films; beside them is its peak.  Linear is what takes
at most twice as long per row on the largest table as on the smallest.

Then the tiny model is trained for 2,000 steps of tiny films, and its memory is noted.

python benchmarks/scale.py --rows 100000 1000000 10000000
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from measuring import parser, report, rounded
from startup import SIDE, make_store

from ark_framework import LabelSchema, registry, store
from ark_framework import config as configuration
from ark_framework.annotations import validate, with_validation
from ark_framework.batches import StoreBatches
from ark_framework.builtin.table import SPEC
from ark_framework.cli.bench import DATASET, Watch, settings
from ark_framework.config import RunConfig, StoreConfig, TaskConfig, ViewsConfig
from ark_framework.corpus import Corpus
from ark_framework.launch import train
from ark_framework.plan import resolve, train_rows
from ark_framework.runtime import open_runtime
from ark_framework.speed import memory

SCHEMA = LabelSchema(name="many", kind="multilabel", labels=tuple(f"f{n}" for n in range(14)))
STEADY = 0.02  # of the memory, between the second and the last quarter of the steps
LINEAR = 2.0
Made = TypeVar("Made")


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    made.add_argument("--steps", type=int, default=2000)
    made.add_argument("--one", type=int, help="measure one table and say it as JSON")
    given = made.parse_args()
    if given.one:
        print(json.dumps(measure(given.one)))
        return
    tables = {str(rows): apart(rows) for rows in sorted(given.rows)}
    first, last = (tables[str(each(given.rows))]["microseconds a row"] for each in (min, max))
    growth = {name: rounded(last[name] / first[name]) for name in first}
    report(
        "scale",
        given,
        {
            "tables": tables,
            "time per row, largest over smallest": growth,
            "linear": growth["all"] <= LINEAR,
            "memory": steady(given.steps),
        },
    )


def apart(rows: int) -> dict[str, Any]:
    """Measure one table in a process of its own."""
    words = [sys.executable, __file__, "--one", str(rows)]
    said = subprocess.run(words, check=True, text=True, stdout=subprocess.PIPE).stdout
    found: dict[str, Any] = json.loads(said)
    return found


class Costs:
    """Processor seconds and bytes of one thing after the other, per row."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.seconds: dict[str, float] = {}
        self.bytes: dict[str, float] = {}

    def of(self, name: str, work: Callable[[], Made]) -> Made:
        """Do the work, and note what it took and what it left."""
        gc.collect()
        held, began = memory(), process_time()
        made = work()
        self.seconds[name] = process_time() - began
        gc.collect()
        self.bytes[name] = memory() - held
        return made

    def told(self) -> dict[str, Any]:
        """Return them, with their sums."""
        seconds = {**self.seconds, "all": sum(self.seconds.values())}
        size = {**self.bytes, "all": sum(self.bytes.values())}
        return {
            "seconds": rounded(seconds["all"]),
            "microseconds a row": {k: rounded(1e6 * v / self.rows) for k, v in seconds.items()},
            "bytes a row": {k: rounded(v / self.rows) for k, v in size.items()},
        }


def measure(rows: int) -> dict[str, Any]:
    """Take one table all the way to its first batches."""
    costs = Costs(rows)
    config = RunConfig(store=StoreConfig(size=SIDE), views=ViewsConfig(size=SIDE))
    with TemporaryDirectory() as name:
        frames = [costs.of("the plugin's table", lambda: drawn(rows))]
        table = costs.of("validate", lambda: validate(frames.pop(), dataset="table", schema=SCHEMA))
        options = SPEC.options.model_validate({"root": Path(name), "labels": SCHEMA.labels})
        source = store.Source(
            spec=SPEC, options=options, images=tuple(table.films), size=SIDE, fit="squash"
        )
        path = make_store(source, Path(name), np.zeros(rows, np.int64), np.zeros(rows, np.int64))
        del source
        table, _ = costs.of("split", lambda: with_validation(table, fraction=0.1, seed=0))
        opened = costs.of("open the store", lambda: store.open_store(path))
        index = costs.of("index", lambda: opened.rows(table.frame["image"].tolist()))
        corpus = Corpus(spec=SPEC, schema=SCHEMA, table=table, store=opened, index=index)
        corpora, task = {"table": corpus}, TaskConfig(dataset="table")
        plan = costs.of("plan", lambda: resolve(config, registry.load([]), [task], corpora))
        runtime = open_runtime(config.runtime)

        def begin() -> StoreBatches:
            batches = StoreBatches(
                plan,
                corpora,
                rows={"table": train_rows(corpus, task, config)},
                config=config,
                runtime=runtime,
            )
            made = batches(plan.visits[0], 0)
            for _ in range(10):
                next(made)
            return batches

        costs.of("order and ten batches", begin)
    return {**costs.told(), "peak bytes a row": rounded(peak() / rows)}


def drawn(rows: int) -> pd.DataFrame:
    """Return a table as a plugin gives it."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, (rows, len(SCHEMA.labels))).astype(np.float32)
    frame = pd.DataFrame(values, columns=list(SCHEMA.labels))
    frame["image"] = [f"{row // 1000:05d}/{row % 1000:05d}.png" for row in range(rows)]
    frame["split"] = np.where(np.arange(rows) % 10, "train", "test")
    frame["patient"] = [f"p{row // 3}" for row in range(rows)]
    return frame


def peak() -> int:
    """Return the most bytes that the process held."""
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def steady(steps: int) -> dict[str, Any]:
    """Train for so many steps, and compare what the process held early and late."""
    watch, began = Watch(), perf_counter()
    values = settings("tiny", precision="fp32", device="cpu", size=32, batch=8, steps=steps)
    with TemporaryDirectory() as name:
        more = {
            "data": {DATASET: {"films": 64}},
            "tasks": [{"dataset": DATASET, "steps": steps}],
            "store": {"folder": str(Path(name) / "stores")},
            "model": {"options": {"width": 4}, "features": 8},
            "log": {"every": 20},
        }
        train(configuration.merge(values, more), out=Path(name) / "run", watching=(watch,))
    held = [event.memory for event in watch.flushed]
    quarter = max(1, len(held) // 4)
    early, late = median(held[quarter : 2 * quarter]), median(held[-quarter:])
    return {
        "steps": steps,
        "seconds": rounded(perf_counter() - began),
        "MB in the second quarter": rounded(early / 1e6, 4),
        "MB in the last": rounded(late / 1e6, 4),
        "steady": abs(late / early - 1) < STEADY,
    }


if __name__ == "__main__":
    main()
