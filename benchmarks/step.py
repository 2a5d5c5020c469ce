"""Images per second of one full pretraining step, and its share of the measured matmul rate.

A full step is the engine's own: two views from stored uint8 films, teacher forward, student
forward and backward, task loss, consistency loss, optimizer, and the flush.  Any device, any timm
backbone, one command:

    python benchmarks/step.py --backbone swin_base_patch4_window7_224 --precision bf16

The matmul rate is measured in the same process and precision; FLOPs are counted by torch, three
forwards' worth for the student and one for the teacher.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from time import perf_counter

import numpy as np
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from ark_framework import LabelSchema, schedule
from ark_framework.builtin import backbones, heads, losses
from ark_framework.config import ModelConfig, OptimConfig, RuntimeConfig, ViewsConfig
from ark_framework.model import ArkModel, HeadPlan
from ark_framework.plan import RunPlan, TaskPlan, Visit
from ark_framework.pretrain import Losses, State, drain, flush_check, make_optimizer, pretrain
from ark_framework.runtime import Runtime, open_runtime
from ark_framework.teacher import Teacher
from ark_framework.views import Views, draw, make_views, part

LABELS = tuple(f"finding {index}" for index in range(14))


def main() -> None:
    given = arguments()
    config = RuntimeConfig(device=given.device, precision=given.precision, threads=given.threads)
    runtime = open_runtime(config)
    state = make_state(given, runtime)
    flops = step_flops(state.student, given.size, given.batch)
    matmul = matmul_rate(runtime)
    seconds = time_steps(given, runtime, state)
    rate = given.batch / seconds
    print(
        json.dumps(
            {
                "date": datetime.now(UTC).date().isoformat(),
                "device": device_name(runtime.device),
                "python": platform.python_version(),
                "torch": torch.__version__,
                "timm": timm.__version__,
                "backbone": given.backbone,
                "size": given.size,
                "batch": given.batch,
                "precision": given.precision,
                "threads": torch.get_num_threads(),
                "images_per_second": round(rate, 2),
                "milliseconds_per_step": round(1000 * seconds, 2),
                "gflop_per_image": round(flops / given.batch / 1e9, 3),
                "matmul_tflops": round(matmul / 1e12, 3),
                "share_of_matmul_rate": round(flops / seconds / matmul, 4),
                "peak_memory_gb": peak_memory(runtime.device),
            },
            indent=1,
        )
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="tiny", help="'tiny' or any timm model name")
    parser.add_argument("--size", type=int, default=224, help="side of the views")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=5)
    return parser.parse_args()


def make_state(given: argparse.Namespace, runtime: Runtime) -> State:
    schema = LabelSchema(name="bench", kind="multilabel", labels=LABELS)
    plans = {"bench": HeadPlan(spec=heads.SPECS[0], schema=schema)}
    if given.backbone == "tiny":
        encoder = backbones.SPECS[1].build(backbones.TinyOptions())
    else:
        encoder = backbones.SPECS[0].build(backbones.TimmOptions(name=given.backbone))
    student = ArkModel(encoder, plans, config=ModelConfig(), size=given.size)
    student = student.to(runtime.device).train()
    return State(
        student=student,
        teacher=Teacher(student),
        optimizer=make_optimizer(student, OptimConfig(lr=0.003)),
        broken=torch.zeros((), device=runtime.device),
    )


def time_steps(given: argparse.Namespace, runtime: Runtime, state: State) -> float:
    """Return seconds per step after the warm-up, device drained at both ends."""
    views = ViewsConfig(size=given.size)
    rng = np.random.default_rng(0)
    side = given.size + 32
    store = rng.integers(0, 256, (256, 1, side, side), dtype=np.uint8)
    targets = torch.from_numpy(rng.integers(0, 2, (given.batch, len(LABELS))).astype(np.float32))

    def batches(visit: Visit, start: int) -> Iterator[Views]:
        for step in range(start, visit.steps):
            order = np.random.default_rng(step)
            films = torch.from_numpy(store[order.integers(0, len(store), given.batch)])
            student, teacher = make_views(
                films.to(runtime.device), draw(given.batch, views, order), views
            )
            yield Views(
                student=student,
                teacher=teacher,
                parts=(part("bench", targets, device=runtime.device),),
            )

    loss = Losses(
        tasks={"bench": losses.SPECS[0].build(None)}, consistency=losses.SPECS[2].build(None)
    )
    watcher = Clock(given.warmup, runtime.device)
    pretrain(
        make_plan(given.warmup + given.steps),
        state,
        batches,
        losses=loss,
        runtime=runtime,
        watcher=watcher,
    )
    return float(watcher.seconds / given.steps)


class Clock:
    """Starts when the warm-up is over, flushes as a run would, stops at the task's end."""

    def __init__(self, warmup: int, device: torch.device) -> None:
        self._warmup, self._device = warmup, device
        self.seconds = 0.0

    def stepped(self, state: State, visit: Visit) -> None:
        if state.step == self._warmup:
            synchronize(self._device)
            self._began = perf_counter()
        elif state.step % 20 == 0:
            flush_check(state)
            drain(state)

    def visited(self, state: State, visit: Visit) -> None:
        drain(state)
        synchronize(self._device)
        self.seconds = perf_counter() - self._began

    def cycled(self, state: State, cycle: int) -> None: ...


def make_plan(steps: int) -> RunPlan:
    task = TaskPlan(
        name="bench",
        dataset="bench",
        kind="multilabel",
        labels=LABELS,
        head="linear",
        loss="bce",
        weight=1.0,
        class_weights=None,
        rows=0,
        val_rows=0,
        test_rows=0,
        batch_size=0,
        steps=steps,
        whole_passes=True,
        store="",
    )
    rate = schedule.LearningRate(
        kind="constant",
        unit="step",
        peak=0.003,
        start=0.0,
        end=0.0,
        warmup=0.0,
        length=1.0,
        prefix=True,
        first_cycle=None,
    )
    visit = Visit(index=0, cycle=0, tasks=(0,), passes=0, first_step=0, steps=steps)
    return RunPlan(
        strategy="cyclic",
        cycles=1,
        tasks=(task,),
        visits=(visit,),
        learning_rate=rate,
        ema="task",
        first_momentum=0.9,
        consistency_peak=0.5,
        seed=0,
    )


def step_flops(model: ArkModel, size: int, batch: int) -> float:
    """Return FLOPs of a step: student forward and backward (3 forwards), teacher forward."""
    films = torch.zeros(1, 1, size, size, device=next(model.parameters()).device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(films, "bench")
    return float(4.0 * batch * counter.get_total_flops())


def matmul_rate(runtime: Runtime) -> float:
    """Return FLOP/s of a large square product in the step's precision."""
    cuda = runtime.device.type == "cuda"
    side, turns = (8192, 50) if cuda else (2048, 5)
    dtype = torch.bfloat16 if runtime.precision == "bf16" else torch.float32
    left = torch.randn(side, side, device=runtime.device, dtype=dtype)
    right = torch.randn(side, side, device=runtime.device, dtype=dtype)
    for _ in range(3):
        left @ right
    synchronize(runtime.device)
    began = perf_counter()
    for _ in range(turns):
        left @ right
    synchronize(runtime.device)
    return 2.0 * side**3 * turns / (perf_counter() - began)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def peak_memory(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    return round(torch.cuda.max_memory_allocated(device) / 2**30, 2)


if __name__ == "__main__":
    main()
