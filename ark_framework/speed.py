"""What a run holds and how well it uses its machine: memory, FLOPs of a step, the matmul rate."""

from __future__ import annotations

import os
import resource
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from ark_framework.events import StepRecord, StepsFlushed
from ark_framework.model import ArkModel
from ark_framework.runtime import Runtime

# Side of the square matrices whose product is timed, and seconds that this may take.
SIDES = {"cuda": 8192, "cpu": 1024}
PATIENCE = 0.2
TRIES = 4


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """Measures what steps cost; without a ``rate`` the share of it is not known.

    Attributes:
        runtime: Where it runs.
        flops: FLOPs of a step per film, see :func:`film_flops`.
        rate: FLOP/s of a matrix product on one device, see :func:`matmul_rate`.
    """

    runtime: Runtime
    flops: float = 0.0
    rate: float | None = None

    @classmethod
    def open(cls, model: ArkModel, task: str, size: int, runtime: Runtime) -> Gauge:
        """Measure a GPU's matmul rate, which takes a moment; a CPU's is not asked for."""
        if runtime.device.type != "cuda" or not runtime.ranks.first:
            return cls(runtime=runtime)
        flops = film_flops(model, task, size, compiled=runtime.compiled)
        return cls(runtime=runtime, flops=flops, rate=matmul_rate(runtime))

    def flushed(self, steps: tuple[StepRecord, ...], seconds: float, waited: float) -> StepsFlushed:
        """Return the event on steps that took ``seconds``, ``waited`` of them for batches."""
        images = sum(each.images for each in steps)
        return StepsFlushed(
            steps=steps,
            seconds=seconds,
            wait_seconds=waited,
            memory=memory(),
            device_memory=device_memory(self.runtime.device),
            matmul_share=self.share(images / max(seconds, 1e-9)),
        )

    def share(self, images_per_second: float) -> float | None:
        """Return the share of the matmul rate that a run's speed is, over all its processes."""
        if self.rate is None:
            return None
        return images_per_second * self.flops / (self.rate * self.runtime.ranks.world)


def film_flops(model: ArkModel, task: str, size: int, *, compiled: bool = False) -> float:
    """Return the FLOPs of a step per film, a product and a sum being two.

    The student's forward and its backward, which is twice that, and the teacher's forward: four
    times what torch counts of one forward.  What is computed again to save memory is no work.

    Args:
        model: In eval mode; it is left as it is.
        task: Any of its heads.
        size: Side of the views in pixels.
        compiled: Whether the model is compiled; the count is made without.
    """
    from torch.utils.flop_counter import FlopCounterMode

    film = torch.zeros(1, 1, size, size, device=next(model.parameters()).device)
    # Asking for the stance imports the compiler, which takes seconds.
    eager: Any = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    with eager, torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(film, task)
    return float(4.0 * counter.get_total_flops())


def matmul_rate(runtime: Runtime) -> float:
    """Return the FLOP/s of a large square product in the precision of a run."""
    side = SIDES.get(runtime.device.type, SIDES["cpu"])
    dtype = torch.bfloat16 if runtime.precision == "bf16" else torch.float32
    left, right = (torch.randn(side, side, device=runtime.device, dtype=dtype) for _ in range(2))

    def timed(turns: int) -> float:
        synchronize(runtime.device)
        began = perf_counter()
        for _ in range(turns):
            left @ right
        synchronize(runtime.device)
        return perf_counter() - began

    timed(2)  # the first ones choose a kernel
    turns = max(1, int(PATIENCE / TRIES / timed(2) * 2))
    # The best of a few tries: other work on the machine is not what is asked for.
    return float(2.0 * side**3 * turns / min(timed(turns) for _ in range(TRIES)))


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was told; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_memory(device: torch.device) -> int | None:
    """Return the most bytes that tensors took on a GPU so far; ``None`` on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def memory() -> int:
    """Return the bytes of this process in main memory, without the mapped films.

    What is mapped the system takes back when it needs it.  Where it does not tell the two apart,
    this is the peak of both.
    """
    try:
        pages = Path("/proc/self/statm").read_text("ascii").split()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE")
