"""What one process does for ``test_ranks.py``: alone when called, else one of several."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from ark_framework import config, pretrain
from ark_framework.errors import ArkError, DataError, Interrupted
from ark_framework.events import StepsFlushed
from ark_framework.hooks import hookimpl
from ark_framework.launch import train
from ark_framework.ranks import open_ranks

# Steps whose gradients are kept.
KEPT = 20
# The step at which a run stops, to go on with another number of processes.
HALF = 7
CONCURRENT = {"strategy": "concurrent", "batch_size": 3, "model": {"features": 8}}


class Stop:
    """Asks its own process alone to stop, after some steps."""

    @hookimpl
    def ark_steps_flushed(self, event: StepsFlushed) -> None:
        """Send the signal."""
        if event.steps[-1].step == HALF - 1:
            os.kill(os.getpid(), signal.SIGTERM)


def record(values: dict[str, Any], out: Path, **keys: Any) -> dict[str, np.ndarray]:
    """Train; return each step's films of this rank, by the means of both views, and gradients."""
    counts: list[int] = []
    views: list[np.ndarray] = []
    gradients: list[np.ndarray] = []
    step, move = pretrain._step, pretrain._move

    def watched(plan: Any, state: Any, visit: Any, batch: Any, *rest: Any) -> Any:
        both = (batch.student, batch.teacher)
        views.append(np.stack([each.mean((1, 2, 3)).numpy() for each in both], axis=1))
        counts.append(len(batch.student))
        return step(plan, state, visit, batch, *rest)

    def moved(state: Any, *rest: Any) -> None:
        if len(gradients) < KEPT:
            every = [
                np.zeros(p.numel(), np.float32) if p.grad is None else p.grad.numpy().ravel()
                for p in state.student.parameters()
            ]
            gradients.append(np.concatenate(every))
        move(state, *rest)

    with patch.object(pretrain, "_step", watched), patch.object(pretrain, "_move", moved):
        train(values, out=out, **keys)
    return {
        "counts": np.array(counts),
        "views": np.concatenate(views),
        "gradients": np.stack(gradients),
    }


def both(folder: Path, values: dict[str, Any]) -> None:
    """Train in turns and at once, and leave what was recorded beside the runs."""
    ranks = open_ranks()
    for name, changes in (("cyclic", {}), ("concurrent", CONCURRENT)):
        out = folder / f"{name}-{ranks.world}"
        found = record(config.merge(values, changes), out)
        np.savez(folder / f"{name}-{ranks.world}-{ranks.rank}.npz", **found)


def half(folder: Path, values: dict[str, Any]) -> None:
    """Begin a run that stops, one rank alone being asked."""
    world = open_ranks().world
    try:
        train(values, out=folder / f"half-{world}", watching=(Stop(),))
    except Interrupted:
        return
    raise AssertionError("it did not stop")


def batch_norm(folder: Path, values: dict[str, Any]) -> list[str]:
    """Train a step of a model with batch norm; return what was said."""
    said: list[str] = []
    model = {"backbone": "timm", "options": {"name": "test_efficientnet", "in_chans": 1}}
    changes = {"model": model, "cycles": 1, "limit": 8, "eval": {"test": False, "every": 0}}
    values = {key: each for key, each in values.items() if key != "model"}
    train(config.merge(values, changes), out=folder / "normed", say=said.append)
    return said


def failing_first() -> list[str]:
    """Return what each rank gets of a block that fails on the first, and that they go on."""
    ranks = open_ranks()
    try:
        with ranks.first_alone():
            if ranks.first:
                raise DataError("a film is broken")
    except ArkError as error:
        found = [type(error).__name__]
    return [*found, ranks.tell(f"rank {ranks.rank} goes on")]


def main(folder: Path) -> None:
    """Do all of it, and leave a report of each rank."""
    values = json.loads((folder / "values.json").read_text())
    ranks, wrote = open_ranks(), []
    runs = tuple(str(folder / each) for each in ("cyclic-", "concurrent-", "half-", "normed"))

    def audit(event: str, given: tuple[Any, ...]) -> None:
        writes = event == "open" and (
            given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if given[1] is None else
            set(str(given[1])) & set("wax+")
        )  # fmt: skip
        if writes or event in ("os.mkdir", "os.rename", "os.remove"):
            wrote.append(str(given[0]))

    sys.addaudithook(audit)
    both(folder, values)
    report: dict[str, Any] = {}
    if ranks.world == 2:
        train(values, out=folder / "half-1", resume=True)
        half(folder, values)
        report["said"] = batch_norm(folder, values)
        report["failed"] = failing_first()
    report["wrote"] = [each for each in wrote if each.startswith(runs) and ".npz" not in each]
    (folder / f"report-{ranks.world}-{ranks.rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
