"""What every speed benchmark shares: turns, medians, where it ran, and the written result."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch

from ark_framework.decoding import cores

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("ark-framework", "torch", "torchvision", "timm", "numpy", "pandas", "pillow")


def parser(text: str | None) -> argparse.ArgumentParser:
    """Return a parser with ``--out`` and ``--turns``, described by a module's docstring."""
    made = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--out", action="store_true", help="also write it into benchmarks/results")
    made.add_argument("--turns", type=int, default=10, help="times that each is measured")
    return made


@dataclass
class Seconds:
    """What each turn of a piece of work took: on the clock, and of this process's processor time.

    On a busy machine the processor's tells more, where all work is in one thread.
    """

    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def add(self, work: Callable[[], object]) -> None:
        """Do the work and note what it took."""
        began = perf_counter(), process_time()
        work()
        self.clock.append(perf_counter() - began[0])
        self.processor.append(process_time() - began[1])

    def per(self, count: int) -> dict[str, float]:
        """Return the median rates, for work that does ``count`` of something."""
        return {name: rounded(count / median(each)) for name, each in vars(self).items()}


def in_turns(works: Mapping[str, Callable[[], object]], turns: int) -> dict[str, Seconds]:
    """Measure each in turn, so that a noisy machine is noisy for all; every other turn backwards.

    Each is run once before, unmeasured.
    """
    for work in works.values():
        work()
    found = {name: Seconds() for name in works}
    for turn in range(turns):
        for name in list(works)[:: 1 if turn % 2 == 0 else -1]:
            found[name].add(works[name])
    return found


def spread(one: Seconds, other: Seconds, clock: str) -> list[float]:
    """Return the second least and second largest ratio of one's seconds over the other's.

    Of ten turns the median of all turns lies between them with 98 %, of more turns with more.
    """
    pairs = zip(vars(one)[clock], vars(other)[clock], strict=True)
    inner = sorted(a / b for a, b in pairs)[1:-1]
    return [rounded(each, 4) for each in (inner[0], inner[-1])] if inner else []


def ratio(one: Seconds, other: Seconds, *, scale: float = 1.0) -> dict[str, float]:
    """Return the median over turns of one's seconds over the other's, by both clocks."""
    return {
        name: rounded(
            scale * median(a / b for a, b in zip(mine, vars(other)[name], strict=True)), 4
        )
        for name, mine in vars(one).items()
    }


def report(name: str, given: argparse.Namespace, result: Mapping[str, Any]) -> None:
    """Print a result with where and how it was measured, and write it where asked."""
    told = {key: value for key, value in vars(given).items() if key not in ("out", "films")}
    text = json.dumps({**about(), "given": told, **result}, indent=1, default=str) + "\n"
    print(text, end="")
    if given.out:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(text, encoding="utf-8")


def about() -> dict[str, Any]:
    """Return the date, the machine, how busy it was, and versions."""
    cuda = torch.cuda.is_available()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "python": platform.python_version(),
        "versions": {package: metadata.version(package) for package in PACKAGES},
    }


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies in bf16; else torch emulates it, at a tenth of the speed."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def processor_name() -> str:
    """Return what the system calls the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def rounded(value: float, digits: int = 3) -> float:
    """Return a number with so many significant digits."""
    return float(f"{value:.{digits}g}")
