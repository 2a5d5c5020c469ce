"""Killed at any step and resumed, a run ends with the same bytes as one that was left alone."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from runs import lines, state

from ark_framework import checkpoint, cli, exposure
from ark_framework.errors import ConfigError, Interrupted, RunError
from ark_framework.events import RunStarted, StepsFlushed
from ark_framework.hooks import hookimpl
from ark_framework.launch import train

Small = Callable[..., dict[str, Any]]
# The process kills itself in the middle of a step, as the machine might.
KILLED = """
import os, signal, sys
from ark_framework import cli, pretrain
step, take = int(sys.argv[1]), pretrain._step
def dying(plan, state, *rest):
    if state.step == step:
        os.kill(os.getpid(), signal.SIGKILL)
    return take(plan, state, *rest)
pretrain._step = dying
sys.exit(cli.run(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_killed_at_random_steps(
    small: Small, tmp_path: Path, optimizer: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Five SIGKILLs, each resumed; at most ``checkpoint.every`` steps are taken again."""
    every = 5
    config = small(
        cycles=4,
        optim={"name": optimizer, "lr": 0.01, "clip": 1.0},
        checkpoint={"every": every},
        eval={"forgetting_every": 2},
    )
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    given = ["train", "-c", str(tmp_path / "run.yaml"), "--recipe", "default"]
    assert cli.run([*given, "--out", str(whole)]) == 0
    visits = json.loads((whole / "plan.json").read_text())["visits"]
    total = sum(visit["steps"] for visit in visits)
    middles = [s for v in visits for s in range(v["first_step"] + 1, v["first_step"] + v["steps"])]
    rng = random.Random(f"{optimizer}")
    steps = sorted({*rng.sample(middles, 3), *rng.sample(range(1, total), 4)})[:5]
    assert len(steps) == 5
    assert len(set(steps) & set(middles)) >= 3
    capfd.readouterr()
    resume: list[str] = []
    for step in steps:
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, str(step), *given, "--out", str(broken), *resume],
            check=False,
            capture_output=True,
            text=True,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        last = broken / "checkpoints" / "last.pt"
        saved = torch.load(last, weights_only=True)["position"]["step"] if last.exists() else 0
        assert step - every <= saved <= step
        resume = ["--resume"]
    assert cli.run([*given, "--out", str(broken), "--resume"]) == 0
    said = capfd.readouterr().out
    begun = int(re.search(r"resuming at step (\d+)", said)[1])  # type: ignore[index]
    assert steps[-1] - every <= begun <= steps[-1]
    assert lines(broken) == lines(whole)
    assert state(broken) == state(whole)
    for file in sorted((whole / "predictions").iterdir()):
        assert (broken / "predictions" / file.name).read_bytes() == file.read_bytes()


def test_resuming_a_finished_run_changes_nothing(small: Small, tmp_path: Path) -> None:
    """The test scores are the same, once in the file."""
    first = train(small(cycles=1), out=tmp_path / "run")
    before = lines(tmp_path / "run")
    again = train(out=tmp_path / "run", resume=True)
    assert again.scores == first.scores
    assert lines(tmp_path / "run") == before


class _Stop:
    """Asks the run to stop, as Ctrl-C does, after some steps."""

    def __init__(self, after: int) -> None:
        self.after = after

    @hookimpl
    def ark_steps_flushed(self, event: StepsFlushed) -> None:
        if event.steps[-1].step >= self.after:
            os.kill(os.getpid(), signal.SIGTERM)


def test_asked_to_stop_it_saves_first(small: Small, tmp_path: Path) -> None:
    """SIGTERM: exit code 75, and the resumed run is the uninterrupted one."""
    config = small(log={"every": 1}, checkpoint={"every": 1000})
    with pytest.raises(Interrupted) as error:
        train(config, out=tmp_path / "a", watching=(_Stop(7),))
    assert error.value.exit_code == 75
    assert "--resume" in str(error.value)
    assert json.loads((tmp_path / "a" / "run.json").read_text())["status"] == "interrupted"
    begun: list[int] = []

    class Begin:
        @hookimpl
        def ark_run_started(self, event: RunStarted) -> None:
            begun.append(event.step)

    train(config, out=tmp_path / "a", resume=True, watching=(Begin(),))
    assert begun[0] in (8, 9)
    train(config, out=tmp_path / "b")
    assert state(tmp_path / "a") == state(tmp_path / "b")
    assert lines(tmp_path / "a") == lines(tmp_path / "b")


def test_what_torch_draws_is_drawn_by_the_step(small: Small, tmp_path: Path) -> None:
    """Drop path goes on as if nothing had been interrupted, whatever was drawn meanwhile."""
    config = small(cycles=1, log={"every": 1}, checkpoint={"every": 1000})
    config["model"] = {
        "backbone": "timm", "init": "random", "features": 8,
        "options": {"name": "test_convnext", "kwargs": {"drop_path_rate": 0.5}},
    }  # fmt: skip
    config["views"] = {"size": 32}
    config["tasks"] = [{"dataset": "phantom-north", "steps": 8}]
    train(config, out=tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(config, out=tmp_path / "out", watching=(_Stop(3),))
    torch.rand(7)
    train(config, out=tmp_path / "out", resume=True)
    assert state(tmp_path / "out") == state(tmp_path / "whole")
    assert lines(tmp_path / "out") == lines(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cycles": 9}, "cycles was 3 when"),
        ({"optim": {"lr": 0.5}}, "optim.lr was 0.05 when"),
        ({"data": {"phantom-east": {"films": 60, "size": 32}}}, "data.phantom-east.films was 120"),
    ],
)
def test_another_run_is_not_resumed(
    small: Small, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    """Other settings are refused by name; where a store lies is not such a setting."""
    with pytest.raises(Interrupted):
        train(small(log={"every": 1}), out=tmp_path / "run", watching=(_Stop(1),))
    with pytest.raises(ConfigError, match=said):
        train(
            small(**{"log": {"every": 1}, **change}),
            out=tmp_path / "run",
            resume=True,
        )
    moved = small(log={"every": 1}, store={"folder": str(tmp_path / "elsewhere")})
    assert train(moved, out=tmp_path / "run", resume=True).scores


def test_data_that_changed_are_noticed(small: Small, tmp_path: Path) -> None:
    """A plan that would come out otherwise than the run's own is refused."""
    with pytest.raises(Interrupted):
        train(small(log={"every": 1}), out=tmp_path / "run", watching=(_Stop(1),))
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    plan["tasks"][0]["rows"] += 1
    (tmp_path / "run" / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(ConfigError, match=r"^tasks"):
        train(out=tmp_path / "run", resume=True)


@pytest.mark.parametrize("damage", ["cut", "text", "absent"])
def test_a_damaged_checkpoint(small: Small, tmp_path: Path, damage: str) -> None:
    """One line that names the file; without any checkpoint the run begins again."""
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(small(log={"every": 1}), out=run, watching=(_Stop(1),))
    last = run / "checkpoints" / "last.pt"
    if damage == "cut":
        last.write_bytes(last.read_bytes()[:500])
    elif damage == "text":
        last.write_text("no checkpoint")
    else:
        last.unlink()
        assert train(out=run, resume=True).scores
        return
    assert cli.run(["train", "--out", str(run), "--resume"]) == 1


def test_a_loss_that_is_not_finite_stops_the_run(small: Small, tmp_path: Path) -> None:
    """The step is named, the code is 1, and the last checkpoint is from before it."""
    config = small(optim={"lr": 1e12, "nesterov": False}, checkpoint={"every": 2})
    with pytest.raises(RunError, match=r"not finite at step \d+ \(cycle \d+, task phantom"):
        train(config, out=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
    content = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)
    assert all(value.isfinite().all() for value in content["student"].values())


class _Halt(BaseException):
    """The process ends here, as far as the run can tell."""


def test_no_checkpoint_without_what_it_was_trained_on(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ends while its first checkpoint is written has its record; none before."""
    run = tmp_path / "run"

    def ends(*_: object) -> None:
        assert (run / exposure.FILE).is_file()
        raise _Halt

    monkeypatch.setattr(checkpoint, "save", ends)
    with pytest.raises(_Halt):
        train(small(checkpoint={"every": 3}), out=run)


def test_first_weights_are_remembered_until_there_is_a_checkpoint(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run from other weights that ends before its first checkpoint begins from them again."""
    train(small(cycles=1, seed=5), out=tmp_path / "old")
    train(small(cycles=1), out=tmp_path / "whole", init_from=tmp_path / "old")

    def ends(*_: object) -> None:
        raise _Halt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", ends)
        with pytest.raises(_Halt):
            train(small(cycles=1), out=tmp_path / "broken", init_from=tmp_path / "old")
    train(out=tmp_path / "broken", resume=True)
    assert state(tmp_path / "broken") == state(tmp_path / "whole")
    kept = exposure.load(tmp_path / "broken")
    assert len(kept.parts) == 2 * len(exposure.load(tmp_path / "old").parts)
