"""The way of a film to the model: from the store, and from its file as `baseline.py` goes it.

- read: films of a batch read and collated, by the store 200 at a time; the baseline decodes.
- views: the whole way to two finished float views on the CPU, also normalized in three channels
  as the model takes them, which the baseline's views are.
- wait: the share of a real run's time, of the tiny model, that its loop waits for batches.
- device: with a GPU, views a second on it, from stores that stay on the device and that do not.

All on the CPU is in one thread, so rates are per core; what the baseline's workers do in parallel,
each core does for the store as well.

python benchmarks/pipeline.py --films FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import baseline
import numpy as np
import torch
from measuring import Seconds, in_turns, parser, ratio, report, rounded

from ark_framework import config as configuration
from ark_framework.batches import StoreBatches
from ark_framework.cli.bench import DATASET, Watch, settings
from ark_framework.corpus import Corpus
from ark_framework.films import Mapped
from ark_framework.launch import train
from ark_framework.model import IMAGENET_MEAN, IMAGENET_STD
from ark_framework.preparation import Prepared, prepare
from ark_framework.runtime import open_runtime
from ark_framework.speed import synchronize

READ = 200
MANY = 4000
FEW = 10  # films that the baseline decodes in a turn


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--films", type=Path, required=True, help="folder of PNG or JPEG films")
    made.add_argument("--batch", type=int, default=64)
    made.add_argument("--steps", type=int, default=40, help="of the run whose waiting is measured")
    made.add_argument("--name", default="pipeline", help="of the result")
    given = made.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as name:
        values = configuration.merge(
            settings("tiny", precision="fp32", device=None, size=224, batch=given.batch, steps=100),
            {"store": {"folder": str(Path(name) / "stores")}, "runtime": {"threads": 1}},
        )
        prepared = prepare(configuration.parse(values))
        data = films(given.films)
        result: dict[str, Any] = {"films": len(data)}
        result |= reading(given, many(prepared.corpora[DATASET], Path(name)), data)
        result |= viewing(given, prepared, data)
        result |= waiting(given, values, Path(name))
        if torch.cuda.is_available():
            result["device"] = on_device(prepared)
    report(given.name, given, result)


def films(folder: Path) -> baseline.FilmDataset:
    """Return the baseline's dataset of a folder; targets are drawn."""
    endings = {".png", ".jpg", ".jpeg"}
    files = sorted(each for each in folder.rglob("*") if each.suffix.lower() in endings)
    targets = np.random.default_rng(0).integers(0, 2, (len(files), 14)).astype(np.float32)
    return baseline.FilmDataset(files, targets)


def some(data: baseline.FilmDataset) -> Callable[[], list[int]]:
    """Return what gives other indices every time, in turn."""
    state = iter(range(10**9))
    return lambda: [next(state) % len(data) for _ in range(FEW)]


def many(corpus: Corpus, folder: Path) -> Corpus:
    """Return a corpus of more films than a processor's cache holds, on the disk."""
    shape = (MANY, *corpus.store.images.shape[1:])
    films = np.lib.format.open_memmap(folder / "many.npy", mode="w+", dtype=np.uint8, shape=shape)
    films[:] = np.random.default_rng(0).integers(0, 256, shape[1:], dtype=np.uint8)
    films.flush()
    mapped = np.load(folder / "many.npy", mmap_mode="r")
    return replace(corpus, store=replace(corpus.store, images=mapped), index=np.arange(MANY))


def reading(
    given: argparse.Namespace, corpus: Corpus, data: baseline.FilmDataset
) -> dict[str, Any]:
    next_films = some(data)
    store = Mapped({DATASET: corpus}, torch.device("cpu"), reuse=True)
    rng = np.random.default_rng(0)

    def read() -> None:
        store.read([(DATASET, rng.choice(MANY, READ, replace=False))])()

    found = in_turns(
        {"baseline": lambda: baseline.decoded_batch(data, next_films()), "store": read},
        given.turns,
    )
    return {"read": compared(found, "store", READ, goal=1000)}


def viewing(
    given: argparse.Namespace, prepared: Prepared, data: baseline.FilmDataset
) -> dict[str, Any]:
    next_films = some(data)
    runtime = replace(open_runtime(prepared.config.runtime), device=torch.device("cpu"))
    batches = StoreBatches(
        prepared.plan,
        prepared.corpora,
        rows=prepared.rows,
        config=prepared.config,
        runtime=runtime,
    )
    visit = prepared.plan.visits[0]
    steps = iter(range(10**9))
    mean, std = (torch.tensor(each)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))

    def store(*, normalized: bool) -> None:
        views = next(batches(visit, next(steps) % visit.steps))
        if normalized:
            for each in (views.student, views.teacher):
                (each - mean).div_(std)

    found = in_turns(
        {
            "baseline": lambda: baseline.whole_batch(data, next_films()),
            "store": lambda: store(normalized=False),
            "store, normalized": lambda: store(normalized=True),
        },
        given.turns,
    )
    return {
        "views": compared(found, "store", given.batch, goal=8),
        "views, normalized": compared(found, "store, normalized", given.batch, goal=8),
    }


def compared(found: dict[str, Seconds], name: str, count: int, *, goal: float) -> dict[str, Any]:
    """Return both rates in images a second and core, and how many times the baseline's ours is."""
    times = ratio(found["baseline"], found[name], scale=count / FEW)
    return {
        "baseline": found["baseline"].per(FEW),
        "store": found[name].per(count),
        "times": times,
        "goal": goal,
        "met": times["processor"] >= goal,
    }


def waiting(given: argparse.Namespace, values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train the tiny model as a user does, and say how long it waited."""
    watch = Watch()
    tasks = [{"dataset": DATASET, "steps": given.steps}]
    train(configuration.merge(values, {"tasks": tasks}), out=folder / "run", watching=(watch,))
    flushed = watch.flushed[1:]
    seconds = sum(each.seconds for each in flushed)
    share = sum(each.wait_seconds for each in flushed) / seconds
    images = sum(step.images for each in flushed for step in each.steps)
    rate = rounded(images / seconds)
    return {"wait": {"share": rounded(share), "images per second": rate, "met": share < 0.05}}


def on_device(prepared: Prepared) -> dict[str, float]:
    """Return images a second to both views on the GPU."""
    return {
        name: views_rate(prepared, resident=resident)
        for name, resident in (("resident", True), ("mapped", False))
    }


def views_rate(prepared: Prepared, *, resident: bool) -> float:
    store = prepared.config.store.model_copy(update={"resident": resident})
    config = prepared.config.model_copy(update={"store": store})
    runtime, visit, spent = open_runtime(config.runtime), prepared.plan.visits[0], Seconds()
    batches = StoreBatches(
        prepared.plan, prepared.corpora, rows=prepared.rows, config=config, runtime=runtime
    )

    def make() -> None:
        for _ in batches(visit, 0):
            pass
        synchronize(runtime.device)

    make()
    spent.add(make)
    return spent.per(visit.steps * config.batch_size)["clock"]


if __name__ == "__main__":
    main()
