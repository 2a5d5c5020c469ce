"""What a run leaves behind: JSON lines, TensorBoard, a log; and who may watch it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ark_framework.errors import Interrupted
from ark_framework.events import CycleFinished, RunFinished, RunStarted, StepsFlushed, TaskFinished
from ark_framework.hooks import hookimpl
from ark_framework.launch import train

Small = Callable[..., dict[str, Any]]


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """A real server on a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port),
         "--host", "127.0.0.1", "--load_fast", "false", "--reload_interval", "1",
         "--samples_per_plugin", "scalars=100000"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def fetch(url: str, *, ready: Callable[[Any], bool], seconds: float = 60.0) -> Any:
    """Ask until the answer is ready: the server reads its files in the background."""
    end = time.monotonic() + seconds
    answer = None
    while time.monotonic() < end:
        with suppress(urllib.error.URLError, ConnectionError):
            with urllib.request.urlopen(url, timeout=10) as reply:  # noqa: S310 - of this test
                answer = json.load(reply)
            if ready(answer):
                return answer
        time.sleep(0.3)
    raise AssertionError(f"{url} answered {str(answer)[:200]}")


@pytest.mark.slow
def test_tensorboard_says_what_the_json_lines_say(small: Small, tmp_path: Path) -> None:
    """Over HTTP, after an interruption and a resume: every scalar, each step once."""
    run = tmp_path / "run"
    config = small(
        log={"tensorboard": True, "every": 3},
        eval={"forgetting_every": 1},
        checkpoint={"every": 4},
    )
    with pytest.raises(Interrupted):
        train(config, out=run, watching=(_StopAfter(10),))
    train(out=run, resume=True)
    expected = scalars(run / "metrics.jsonl")
    assert len(expected) > 20
    with tensorboard(run / "tb") as server:
        base = f"{server}/data/plugin/scalars"
        last = max(step for values in expected.values() for step in values)
        done = urllib.parse.quote("auroc/test/teacher/phantom-east", safe="")
        fetch(
            f"{base}/scalars?run=.&tag={done}",
            ready=lambda points: bool(points) and points[-1][1] == last,
        )
        tags = fetch(f"{base}/tags", ready=bool)["."]
        assert set(tags) == set(expected)
        for tag, values in expected.items():
            points = fetch(
                f"{base}/scalars?run=.&tag={urllib.parse.quote(tag, safe='')}", ready=bool
            )
            assert [step for _, step, _ in points] == sorted(values), tag
            # TensorBoard keeps single precision.
            for _, step, value in points:
                assert value == pytest.approx(values[step], rel=1e-6, abs=1e-9)


def scalars(path: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard should show, from the JSON lines alone."""
    found: dict[str, dict[int, float]] = {}

    def put(tag: str, step: int, value: float) -> None:
        found.setdefault(tag, {})[step] = value

    for line in map(json.loads, path.read_text().splitlines()):
        step = line["step"]
        if line["event"] == "step":
            for name in ("loss", "task_loss", "consistency_loss"):
                put(f"{name}/{line['task']}", step, line[name])
            put("lr", step, line["lr"])
            put("consistency_weight", step, line["consistency_weight"])
        elif line["event"] == "task":
            put("momentum", step, line["momentum"])
            for lost in line["forgetting"]:
                tag = f"forgetting/{lost['model']}/{lost['task']}"
                put(tag, step, lost["best"] - lost["now"])
        elif line["event"] in ("cycle", "run"):
            for each in line["scores"]:
                tag = f"auroc/{each['split']}/{each['model']}/{each['task']}"
                put(tag, step, each["auroc"])
    return found


class _StopAfter:
    def __init__(self, step: int) -> None:
        self.step = step

    @hookimpl
    def ark_steps_flushed(self, event: StepsFlushed) -> None:
        import os
        import signal

        if event.steps[-1].step >= self.step:
            os.kill(os.getpid(), signal.SIGTERM)


class _Everything:
    def __init__(self) -> None:
        self.seen: list[object] = []

    @hookimpl
    def ark_run_started(self, event: RunStarted) -> None:
        self.seen.append(event)

    @hookimpl
    def ark_steps_flushed(self, event: StepsFlushed) -> None:
        self.seen.append(event)

    @hookimpl
    def ark_task_finished(self, event: TaskFinished) -> None:
        self.seen.append(event)

    @hookimpl
    def ark_cycle_finished(self, event: CycleFinished) -> None:
        self.seen.append(event)

    @hookimpl
    def ark_run_finished(self, event: RunFinished) -> None:
        self.seen.append(event)


def test_an_observer_hears_everything_in_order(small: Small, tmp_path: Path) -> None:
    """Start, steps, tasks, cycles, end; each step once; forgetting where it is measured."""
    ear = _Everything()
    config = small(eval={"forgetting_every": 2, "every": 3})
    result = train(config, out=tmp_path / "run", watching=(ear,))
    kinds = [type(event).__name__ for event in ear.seen]
    assert kinds[0] == "RunStarted"
    assert kinds[-1] == "RunFinished"
    assert kinds.count("TaskFinished") == 9
    assert kinds.count("CycleFinished") == 3
    flushed = [event for event in ear.seen if isinstance(event, StepsFlushed)]
    steps = [record.step for event in flushed for record in event.steps]
    assert steps == list(range(result.prepared.plan.total_steps))
    assert all(0 <= event.wait_seconds <= event.seconds for event in flushed)
    tasks = [event for event in ear.seen if isinstance(event, TaskFinished)]
    assert [bool(event.scores) for event in tasks] == [False] * 3 + [True] * 3 + [False] * 3
    # The first look at a task has nothing to compare with; later ones do.
    assert [len(event.forgetting) for event in tasks] == [0, 0, 0, 0, 6, 6, 0, 0, 0]
    for event in tasks:
        assert all(lost.best >= lost.now for lost in event.forgetting)
    cycles = [event for event in ear.seen if isinstance(event, CycleFinished)]
    assert [bool(event.scores) for event in cycles] == [False, False, True]


def test_the_log_is_for_people(small: Small, tmp_path: Path) -> None:
    """Start, steps, scores and end stand in train.log, and no film or patient."""
    train(small(cycles=1), out=tmp_path / "run")
    text = (tmp_path / "run" / "train.log").read_text()
    for part in ("started: 1 cycles", "loss ", "validation AUROC", "finished at step"):
        assert part in text
    assert "/p0" not in text
