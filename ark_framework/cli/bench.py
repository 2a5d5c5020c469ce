"""``ark bench``: how fast this machine decodes, reads, makes views and trains."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from ark_framework.cli.plain import echo
from ark_framework.errors import DataError
from ark_framework.events import StepsFlushed
from ark_framework.hooks import hookimpl

if TYPE_CHECKING:
    from ark_framework.preparation import Prepared
    from ark_framework.runtime import Runtime

DATASET = "phantom-north"
FILMS = 256  # drawn for the store
DRAWN, DRAWN_SIDE = 16, 1024  # drawn to be decoded, where no films are given
DECODED = 64  # at most, of those that are given
READ = 200  # films of a batch that is read alone
WARM_UP = 5  # steps that are not counted
PATIENCE = 1.0  # seconds for what is measured again and again
ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".dcm", ".dicom"})
SWIN = "swin_base_patch4_window7_224"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the table."""

    name: str
    value: float
    unit: str
    about: str


@click.command("bench")
@click.option(
    "--films",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of your films, to be decoded; drawn ones by default.",
)
@click.option(
    "--backbone",
    metavar="NAME",
    help="tiny, or a timm model; by default Swin-B on a GPU, tiny on a CPU.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    help="Of the forward pass; by default bf16 on a GPU, fp32 on a CPU.",
)
@click.option("--device", metavar="NAME", help="By default the GPU if there is one.")
@click.option("--size", type=click.IntRange(min=16), default=224, help="Side of the views.")
@click.option("--batch", type=click.IntRange(min=1), default=64, help="Films in a step.")
@click.option("--steps", type=click.IntRange(min=1), default=20, help="Steps that are timed.")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def bench(
    films: Path | None,
    backbone: str | None,
    precision: str | None,
    device: str | None,
    size: int,
    batch: int,
    steps: int,
    as_json: bool,
) -> int:
    """Print how fast this machine decodes, reads, makes views and trains.

    \b
    ark bench
    ark bench --films films/ --backbone convnext_base --precision bf16
    """
    import torch

    gpu = (device or ("cuda" if torch.cuda.is_available() else "cpu")) != "cpu"
    values = settings(
        backbone or (SWIN if gpu else "tiny"),
        precision=precision or ("bf16" if gpu else "fp32"),
        device=device,
        size=size,
        batch=batch,
        steps=steps,
    )
    with TemporaryDirectory(prefix="ark-bench-") as folder:
        lines = measured(values, Path(folder), films)
        if as_json:
            echo(json.dumps([asdict(line) for line in lines], indent=1))
            return 0
        for line in lines:  # said as it is measured
            digits = 0 if line.value >= 100 else 3 if line.value < 1 else 1
            echo(f"{line.name:<13} {line.value:>10,.{digits}f} {line.unit:<9} {line.about}")
    return 0


def settings(
    backbone: str, *, precision: str, device: str | None, size: int, batch: int, steps: int
) -> dict[str, Any]:
    """Return the configuration of the run that is timed."""
    tiny = backbone == "tiny"
    stored = round(size * 256 / 224)
    return {
        "plugins": ["ark-phantom"],
        "tasks": [{"dataset": DATASET, "steps": WARM_UP + steps}],
        "leaks": "allow",
        "data": {DATASET: {"films": FILMS, "size": max(32, min(stored, 1024))}},
        "cycles": 1,
        "batch_size": batch,
        "store": {"size": stored},
        "views": {"size": size},
        "model": {
            "backbone": "tiny" if tiny else "timm",
            "options": {} if tiny else {"name": backbone},
            "init": "random",
        },
        "optim": {"lr": 0.001},
        "eval": {"every": 0, "test": False},
        "log": {"every": WARM_UP, "tensorboard": False},
        "runtime": {"device": device, "precision": precision},
    }


def measured(values: dict[str, Any], folder: Path, films: Path | None) -> Iterator[Line]:
    """Measure one thing after the other; all but decoding from the store of a training run."""
    from ark_framework import config as configuration
    from ark_framework.launch import train
    from ark_framework.runtime import open_runtime

    yield decoding(films, folder / "films", side=values["store"]["size"])
    watch = Watch()
    config = configuration.merge(values, {"store": {"folder": str(folder / "stores")}})
    prepared = train(config, out=folder / "run", watching=(watch,)).prepared
    runtime = open_runtime(prepared.config.runtime)
    yield reading(prepared)
    yield viewing(prepared, runtime)
    yield from training(prepared, runtime, watch.flushed[1:])


class Watch:
    """An observer that keeps what is said of steps."""

    def __init__(self) -> None:
        self.flushed: list[StepsFlushed] = []

    @hookimpl
    def ark_steps_flushed(self, event: StepsFlushed) -> None:
        """Keep it."""
        self.flushed.append(event)


def decoding(films: Path | None, folder: Path, *, side: int) -> Line:
    """Decode films one by one, as packing does in each of its processes.

    Raises:
        DataError: there are no films, or none that can be read.
    """
    from ark_framework.decoding import Reader

    root = films or _drawn(folder)
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in ENDINGS)
    if not files:
        raise DataError(f"--films {root}: no films; they end in {', '.join(sorted(ENDINGS))}")
    chosen = files[:: max(1, len(files) // DECODED)][:DECODED]
    names = [path.relative_to(root).as_posix() for path in chosen]
    reader = Reader(root=root, channels=1, size=side, fit="squash")
    began = perf_counter()
    failed = reader.decode(names)[1]
    seconds = perf_counter() - began
    if len(failed) == len(names):
        image, reason = next(iter(failed.items()))
        raise DataError(f"--films {root}: none can be read, the first {image!r}: {reason}")
    count = len(names) - len(failed)
    of = f"of {films}" if films else f"drawn, PNG of {DRAWN_SIDE} x {DRAWN_SIDE}"
    bad = f", {len(failed)} unreadable" if failed else ""
    return _line("decode", count / seconds, "images/s", f"one process; {count} films {of}{bad}")


def _drawn(folder: Path) -> Path:
    from PIL import Image

    from ark_framework.builtin.phantom.case import HOSPITALS, make_case
    from ark_framework.builtin.phantom.film import draw

    folder.mkdir()
    for film in range(DRAWN):
        pixels = draw(make_case(HOSPITALS["north"], film), DRAWN_SIDE)
        Image.fromarray(pixels).save(folder / f"{film:02d}.png")
    return folder


def reading(prepared: Prepared) -> Line:
    """Read batches from the store into main memory."""
    import numpy as np
    import torch

    from ark_framework.films import Mapped

    films = Mapped(prepared.corpora, torch.device("cpu"), reuse=True)
    rows = np.resize(prepared.rows[DATASET], READ)

    def read() -> None:
        films.read([(DATASET, rows)])()

    side = prepared.config.store.size
    about = f"batches of {READ} films of {side} x {side}, in memory"
    return _line("store", READ / _seconds(read), "images/s", about)


def viewing(prepared: Prepared, runtime: Runtime) -> Line:
    """Make both views of a batch that is on the device."""
    import numpy as np
    import torch

    from ark_framework.speed import synchronize
    from ark_framework.views import draw, make_views

    config, rng = prepared.config, np.random.default_rng(0)
    rows = np.resize(prepared.rows[DATASET], config.batch_size)
    films = torch.from_numpy(prepared.corpora[DATASET].images(rows)).to(runtime.device)

    def make() -> None:
        make_views(films, draw(len(films), config.views, rng), config.views)
        synchronize(runtime.device)

    side = config.views.size
    about = f"both, {side} x {side}, on {device_name(runtime)}"
    return _line("views", config.batch_size / _seconds(make), "images/s", about)


def training(
    prepared: Prepared, runtime: Runtime, flushed: Sequence[StepsFlushed]
) -> Iterator[Line]:
    """Say how the steps went, and what they are of the matmul rate."""
    from ark_framework.preparation import build_student
    from ark_framework.speed import Gauge, film_flops, matmul_rate

    config = prepared.config
    seconds = sum(event.seconds for event in flushed)
    steps = [step for event in flushed for step in event.steps]
    rate = sum(step.images for step in steps) / seconds
    name = config.model.options.get("name", config.model.backbone)
    about = f"{name}, {config.runtime.precision}, batches of {config.batch_size}"
    yield _line("step", rate, "images/s", f"{about}, {len(steps)} steps on {device_name(runtime)}")
    yield _line(
        "data wait", 100 * sum(event.wait_seconds for event in flushed) / seconds, "%",
        "of the steps' time",
    )  # fmt: skip
    model = build_student(prepared).to(runtime.device).eval()
    flops = film_flops(model, DATASET, config.views.size, compiled=runtime.compiled)
    gauge = Gauge(runtime=runtime, flops=flops, rate=matmul_rate(runtime))
    about = f"square products, {config.runtime.precision}"
    yield _line("matmul", (gauge.rate or 0.0) / 1e12, "TFLOP/s", about)
    about = f"the steps' {flops / 1e9:.3g} GFLOP an image over the matmul rate"
    yield _line("matmul share", 100 * (gauge.share(rate) or 0.0), "%", about)
    yield _line("memory", flushed[-1].memory / 1e9, "GB", "of the process, without mapped films")
    if (device := flushed[-1].device_memory) is not None:
        yield _line("gpu memory", device / 1e9, "GB", "the most that tensors took")


def device_name(runtime: Runtime) -> str:
    """Return the GPU's name, or how many threads a CPU has."""
    import torch

    if runtime.device.type == "cuda":
        return torch.cuda.get_device_name(runtime.device)
    return f"{torch.get_num_threads()} CPU threads"


def _seconds(work: Callable[[], object]) -> float:
    """Return the least seconds that work took, of as many times as patience allows."""
    least, end = float("inf"), perf_counter() + PATIENCE
    work()
    while perf_counter() < end or least == float("inf"):
        began = perf_counter()
        work()
        least = min(least, perf_counter() - began)
    return least


def _line(name: str, value: float, unit: str, about: str) -> Line:
    return Line(name=name, value=float(f"{value:.4g}"), unit=unit, about=about)
