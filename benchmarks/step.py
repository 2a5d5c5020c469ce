"""The engine's step beside the loops of `baseline.py`: same model, batches, views and losses.

The engine does all that a run does: films from the store, two views, teacher and student,
schedules, seeds, the check for losses that are not finite, and every few steps the flush into
`metrics.jsonl` and `train.log`.  All loops are handed the engine's own batches of views, which are
made anew in each, so that the loops alone differ; `pipeline.py` compares the way to the views.
Each turn is so many steps of one loop and the teacher's move at their end; turns alternate.
A GPU's share of its matmul rate is that of :mod:`ark_framework.speed`.

python benchmarks/step.py                                    (the tiny model on a CPU)
python benchmarks/step.py --backbone swin_base_patch4_window7_224 --precision bf16 --batch 128
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import baseline
import torch
from measuring import Seconds, cpu_has_bf16, in_turns, parser, ratio, report, rounded, spread
from timm.utils.model_ema import ModelEmaV3
from torch.autograd.profiler_util import DeviceType  # type: ignore[attr-defined]

from ark_framework import config as configuration
from ark_framework import observers
from ark_framework.badsteps import BadSteps
from ark_framework.batches import StoreBatches
from ark_framework.cli.bench import DATASET, settings
from ark_framework.plan import Visit
from ark_framework.preparation import Prepared, build_student, make_losses, prepare
from ark_framework.pretrain import State, drain, flush_check, make_optimizer, pretrain
from ark_framework.runtime import Runtime, open_runtime
from ark_framework.speed import Gauge, device_memory, film_flops, matmul_rate, memory, synchronize
from ark_framework.teacher import Teacher


def main() -> None:
    given = arguments()
    with TemporaryDirectory() as folder:
        rig = make_rig(given, Path(folder))
        works = {
            "engine": rig.engine(Path(folder)),
            "lean": rig.lean(),
            "script": rig.script(),
            "timm": rig.timm(),
        }
        chosen = {name: works[name] for name in ("engine", *given.against)}
        found = in_turns(chosen, given.turns)
        profiled(given, rig, works["engine"])
        report(given.name, given, summary(given, rig, found))


def arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--backbone", default="tiny", help="'tiny' or any timm model name")
    made.add_argument("--size", type=int, default=224, help="side of the views")
    made.add_argument("--batch", type=int, default=16)
    made.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    made.add_argument("--device")
    made.add_argument("--threads", type=int)
    made.add_argument("--compile", action="store_true", help="of the engine alone")
    made.add_argument("--steps", type=int, default=4, help="of a turn")
    made.add_argument("--against", nargs="*", default=["lean", "script", "timm"])
    made.add_argument("--name", default="step", help="of the result")
    made.add_argument("--profile", action="store_true", help="add the ten costliest kernels")
    made.add_argument("--set", action="append", default=[], help="more settings of the engine")
    return made.parse_args()


@dataclass
class Rig:
    """A prepared run, whose loops can be run again and again."""

    prepared: Prepared
    runtime: Runtime
    steps: int
    waited: float = 0.0  # by the engine, of these seconds
    seconds: float = 0.0
    kernels: list[dict[str, Any]] | None = None

    def state(self) -> State:
        """Build the run's first state; its weights are always the same."""
        student = build_student(self.prepared).to(self.runtime.device).train()
        return State(
            student=student,
            teacher=Teacher(student),
            optimizer=make_optimizer(student, self.prepared.config.optim),
            bad=BadSteps(student),
        )

    def batches(self) -> StoreBatches:
        """Return the run's batches."""
        prepared = self.prepared
        return StoreBatches(
            prepared.plan,
            prepared.corpora,
            rows=prepared.rows,
            config=prepared.config,
            runtime=self.runtime,
        )

    def engine(self, folder: Path) -> Callable[[], None]:
        """Return a turn of the engine."""
        watcher = Watcher(self, folder)
        state, losses = self.state(), make_losses(self.prepared, self.runtime.device)

        def turn() -> None:
            state.visit = state.visit_step = state.step = 0
            watcher.clock = perf_counter()
            pretrain(
                self.prepared.plan,
                state,
                watcher.batches,
                losses=losses,
                runtime=self.runtime,
                clip=self.prepared.config.optim.clip,
                watcher=watcher,
            )
            synchronize(self.runtime.device)

        return turn

    def views(self, batches: StoreBatches) -> Iterator[baseline.Batch]:
        """Yield the batches of a turn as scripts take them."""
        for views in batches(self.prepared.plan.visits[0], 0):
            yield views.student, views.teacher, views.parts[0].target

    def lean(self) -> Callable[[], None]:
        """Return a turn of the lean loop, with the engine's fused optimizer."""
        batches, state = self.batches(), self.state()
        student, teacher = self._scripts(state)

        def turn() -> None:
            baseline.lean_loop(
                student,
                teacher,
                state.optimizer,
                self.views(batches),
                autocast=self.runtime.autocast,
            )
            synchronize(self.runtime.device)

        return turn

    def script(self) -> Callable[[], None]:
        """Return a turn of the script: fp32, torch's defaults."""
        batches, state = self.batches(), self.state()
        student, teacher = self._scripts(state)
        optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9, nesterov=True)

        def turn() -> None:
            with torch_defaults():
                baseline.script_loop(student, teacher, optimizer, self.views(batches))
            synchronize(self.runtime.device)

        return turn

    def timm(self) -> Callable[[], None]:
        """Return a turn of timm's train script."""
        batches, state = self.batches(), self.state()
        student, _ = self._scripts(state)
        average = ModelEmaV3(student, decay=0.999)
        optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9, nesterov=True)

        def turn() -> None:
            views = self.views(batches)
            baseline.timm_loop(student, average, optimizer, views, autocast=self.runtime.autocast)
            synchronize(self.runtime.device)

        return turn

    def _scripts(self, state: State) -> tuple[baseline.TwoHeads, baseline.TwoHeads]:
        teacher = deepcopy(state.teacher.model)
        for model in (state.student, teacher):
            model.compiled = False
        return baseline.TwoHeads(state.student, DATASET), baseline.TwoHeads(teacher, DATASET)


class Watcher:
    """What a run does around its steps: flush into its files."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self._rig, self.batches, self.clock = rig, rig.batches(), perf_counter()
        self._every = rig.prepared.config.log.every
        self._gauge = Gauge(runtime=rig.runtime)
        self._lines = observers.JsonLines(folder / "metrics.jsonl")
        self._log = observers.TrainLog(folder / "train.log")

    def stepped(self, state: State, visit: Visit) -> None:
        if state.step % self._every == 0:
            self._flush(state)

    def visited(self, state: State, visit: Visit) -> None:
        self._flush(state)

    def cycled(self, state: State, cycle: int) -> None: ...

    def _flush(self, state: State) -> None:
        flush_check(state)
        if records := drain(state):
            now = perf_counter()
            event = self._gauge.flushed(records, now - self.clock, self.batches.waited())
            self._rig.waited += event.wait_seconds
            self._rig.seconds += event.seconds
            self._lines.ark_steps_flushed(event)
            self._log.ark_steps_flushed(event)
            self.clock = now


def make_rig(given: argparse.Namespace, folder: Path) -> Rig:
    values = settings(
        given.backbone,
        precision=given.precision,
        device=given.device,
        size=given.size,
        batch=given.batch,
        steps=given.steps,
    )
    more = {
        "tasks": [{"dataset": DATASET, "steps": given.steps}],
        "store": {"folder": str(folder / "stores")},
        "log": {"every": 20},
        "optim": {"lr": 0.01},
        "runtime": {"threads": given.threads, "compile": given.compile},
    }
    assigned = map(configuration.assignment, given.set)
    config = configuration.parse(configuration.merge(values, more, *assigned))
    return Rig(prepare(config), open_runtime(config.runtime), given.steps)


@contextmanager
def torch_defaults() -> Iterator[None]:
    """Round fp32 on GPUs as torch does for who sets nothing."""
    kept = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(kept[0])
        torch.backends.cudnn.allow_tf32 = kept[1]


def profiled(given: argparse.Namespace, rig: Rig, turn: Callable[[], None]) -> None:
    """Keep the ten operations or kernels that take the most of a turn of the engine."""
    if not given.profile:
        return
    cuda = rig.runtime.device.type == "cuda"
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if cuda else []
    with torch.profiler.profile(activities=kinds) as profile:
        turn()
    spent = "self_device_time_total" if cuda else "self_cpu_time_total"
    events = sorted(profile.key_averages(), key=lambda each: -getattr(each, spent))
    if cuda:  # kernels alone: an operation's own entry counts them once more
        events = [each for each in events if each.device_type == DeviceType.CUDA]
    whole = sum(getattr(each, spent) for each in events)
    rig.kernels = [
        {
            "name": each.key[:120],
            "share": rounded(getattr(each, spent) / whole),
            "calls": each.count,
        }
        for each in events[:10]
    ]


def summary(given: argparse.Namespace, rig: Rig, found: dict[str, Seconds]) -> dict[str, Any]:
    rates = {name: each.per(given.batch * given.steps) for name, each in found.items()}
    model = build_student(rig.prepared).to(rig.runtime.device).eval()
    flops = film_flops(model, DATASET, given.size, compiled=rig.runtime.compiled)
    gauge = Gauge(runtime=rig.runtime, flops=flops, rate=matmul_rate(rig.runtime))
    result: dict[str, Any] = {
        "device": str(rig.runtime.device),
        "images per second": rates,
        "GFLOP an image": rounded(flops / 1e9),
        "matmul TFLOP/s": rounded((gauge.rate or 0.0) / 1e12),
        "share of matmul rate": rounded(gauge.share(rates["engine"]["clock"]) or 0.0),
        "memory GB": rounded((device_memory(rig.runtime.device) or memory()) / 1e9),
        "data wait": rounded(rig.waited / max(rig.seconds, 1e-9)),
        **goals(given, rig, found),
    }
    if rig.kernels:
        result["costliest"] = rig.kernels
    return result


def goals(given: argparse.Namespace, rig: Rig, found: dict[str, Seconds]) -> dict[str, Any]:
    """Compare the engine to the loops, turn by turn."""
    cuda, bf16 = rig.runtime.device.type == "cuda", given.precision == "bf16"
    clock = "clock" if cuda else "processor"  # a GPU works while the processor waits
    over: dict[str, dict[str, Any]] = {
        name: {**ratio(found["engine"], each), "between": spread(found["engine"], each, clock)}
        for name, each in found.items()
        if name != "engine"
    }
    result: dict[str, Any] = {"engine's seconds over": over}
    if "lean" in over:
        result["at most 3 % slower than the lean loop"] = over["lean"][clock] <= 1.03
    if "script" in over:
        least = 1.0 if not bf16 else 5.0 if cuda else 1.8
        result[f"at least {least} times the script"] = 1 / over["script"][clock] >= least
    if bf16 and not cuda:
        result["the CPU has bf16"] = cpu_has_bf16()  # else the goal does not hold
    return result


if __name__ == "__main__":
    main()
