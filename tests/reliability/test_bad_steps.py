"""A loss or a gradient that is not finite: nothing moves at that step, and its films are named.

Skipped, it leaves a run that is, byte by byte, one whose optimizer was not called at that step.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranked import errors, opened
from runs import files, lines, must_equal, state, tensors
from safetensors.torch import load_file

from ark_framework import config as configuration
from ark_framework import pretrain as loop
from ark_framework.badsteps import BadSteps
from ark_framework.batches import StoreBatches
from ark_framework.errors import ConfigError, RunError
from ark_framework.launch import train
from ark_framework.preparation import build_student, make_losses, prepare
from ark_framework.runtime import open_runtime
from ark_framework.teacher import Teacher
from ark_framework.views import Views

Small = Callable[..., dict[str, Any]]
Patch = pytest.MonkeyPatch
CONCURRENT = {"strategy": "concurrent", "batch_size": 12}
NORMED = {"model": {"backbone": "timm", "options": {"name": "test_efficientnet", "in_chans": 1}}}
ADAMW = {"optim": {"name": "adamw", "lr": 0.01, "clip": 1.0}}
# How each kind of run is hurt; every one trains 30 steps at least.
KINDS = {"cyclic": {}, "adamw": ADAMW, "concurrent": CONCURRENT, "batch norm": NORMED}


def hurt(small: Small, kind: str, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings of a kind of run; options of its own backbone alone."""
    config = small(**configuration.merge(KINDS[kind], changes or {}))
    if kind == "batch norm":
        config["model"] = {**config["model"], **NORMED["model"]}
    return config


class Poison:
    """Makes chosen steps bad: their films, and with them the loss; their gradients; a weight."""

    def __init__(self, patch: Patch, steps: set[int], what: str = "loss") -> None:
        self.steps, self.what = steps, what
        self.before: dict[int, dict[str, bytes]] = {}
        self.views: dict[int, Views] = {}
        self._take, self._learn, self._add = loop._step, loop._learn, loop.part_losses
        patch.setattr(loop, "_step", self.step)
        patch.setattr(loop, "_learn", self.learn)

    def step(self, plan: Any, state: loop.State, visit: Any, views: Views, *rest: Any) -> Any:
        if state.step in self.steps:
            if self.what == "weight":
                next(state.student.parameters()).data.view(-1)[0] = torch.nan
            self.before[state.step], self.views[state.step] = moving(state), views
        return self._take(plan, state, visit, views, *rest)

    def learn(self, state: loop.State, views: Views, *rest: Any, **keys: Any) -> torch.Tensor:
        if state.step not in self.steps or self.what == "weight":
            return self._learn(state, views, *rest, **keys)
        if self.what == "loss":
            views.student.mul_(torch.nan)
            return self._learn(state, views, *rest, **keys)
        values = self._learn(state, views, *rest, **keys)
        last = [each for each in state.student.parameters() if each.grad is not None][-1]
        last.grad.view(-1)[-1] = torch.inf
        return values


def moving(state: loop.State) -> dict[str, bytes]:
    """The bytes of all that moves."""
    parts = (state.student.state_dict(), state.teacher.model.state_dict())
    return tensors([*map(dict, parts), state.optimizer.state_dict()])


class Watch:
    """Reads the losses at the end of each task alone, so that steps follow a bad one."""

    def stepped(self, state: loop.State, visit: Any) -> None: ...

    def visited(self, state: loop.State, visit: Any) -> None:
        loop.drain(state)

    def cycled(self, state: loop.State, cycle: int) -> None: ...


@pytest.mark.parametrize("what", ["loss", "gradient", "weight"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_moves_at_a_bad_step(
    small: Small, monkeypatch: Patch, ledger: Any, kind: str, what: str
) -> None:
    """Neither there nor at the steps until it is read: student, teacher, optimizer, statistics."""
    prepared = prepare(configuration.parse(hurt(small, kind)))
    runtime = open_runtime(prepared.config.runtime)
    rng = random.Random(f"{kind} {what}")
    visit = rng.choice(prepared.plan.visits[1:])
    bad = visit.first_step + rng.randrange(visit.steps - 2)  # others follow
    poison = Poison(monkeypatch, {bad}, what)
    student = build_student(prepared).train()
    state = loop.State(
        student=student,
        teacher=Teacher(student),
        optimizer=loop.make_optimizer(student, prepared.config.optim),
        bad=BadSteps(student),
    )
    batches = StoreBatches(
        prepared.plan, prepared.corpora, rows=prepared.rows, config=prepared.config, runtime=runtime
    )
    found = "a gradient" if what == "gradient" else "the loss"
    where = rf"{found} is not finite at step {bad} \(cycle {visit.cycle}, task phantom"
    with pytest.raises(loop.NotFinite, match=where):
        loop.pretrain(
            prepared.plan,
            state,
            batches,
            losses=make_losses(prepared, runtime.device),
            runtime=runtime,
            clip=prepared.config.optim.clip,
            watcher=Watch(),
        )
    assert state.step == visit.first_step + visit.steps > bad + 1
    assert moving(state) == poison.before[bad]
    ledger.refused(f"bad step: {found.rsplit(maxsplit=1)[-1]}")


@pytest.mark.parametrize("strategy", ["cyclic", "concurrent"])
def test_the_batch_is_written_beside_the_run(
    small: Small, tmp_path: Path, monkeypatch: Patch, ledger: Any, strategy: str
) -> None:
    """Its films by name, both views and targets as the step had them, and a loss for each part."""
    changes = CONCURRENT if strategy == "concurrent" else {}
    poison = Poison(monkeypatch, {14}, "weight")
    with pytest.raises(RunError) as error:
        train(small(checkpoint={"every": 5}, **changes), out=tmp_path / "run")
    folder = tmp_path / "run"
    said = str(error.value)
    assert str(folder / "bad-batch-14.csv") in said
    assert json.loads((folder / "run.json").read_text())["error"] == said
    with (folder / "bad-batch-14.csv").open(newline="") as file:
        films = list(csv.DictReader(file))
    images = [film["image"] for film in films]
    assert f"its {len(films)} films ({', '.join(images[:3])}, …)" in said
    views = poison.views[14]
    kept = load_file(folder / "bad-batch-14.safetensors")
    assert kept["student"].equal(views.student)
    assert kept["teacher"].equal(views.teacher)
    prepared = prepare(configuration.parse(small(**changes)))
    assert len(films) == len(views.student)
    for part in views.parts:
        assert kept[f"target/{part.task}"].numpy().tobytes() == part.target.numpy().tobytes()
        assert kept[f"loss/{part.task}"].isnan()
        own = films[part.films]
        assert {film["task"] for film in own} == {film["dataset"] for film in own} == {part.task}
        table = prepared.corpora[part.task].table
        row = {image: number for number, image in enumerate(table.frame["image"])}
        rows = [row[film["image"]] for film in own]
        assert set(rows) <= set(prepared.rows[part.task])
        raw = table.targets()[rows]  # what is uncertain is not learned from
        known = np.where(raw == -1, np.nan, raw)
        np.testing.assert_array_equal(known, part.target.numpy())
    assert kept["consistency"].isnan()
    last = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    assert last["position"]["step"] <= 14
    assert all(each.isfinite().all() for each in last["student"].values())
    ledger.refused("bad step: batch written")


def test_an_error_remains_where_its_batch_cannot_be_written(
    small: Small, tmp_path: Path, monkeypatch: Patch, ledger: Any
) -> None:
    """What ended the run is what is told, with what went wrong after."""
    Poison(monkeypatch, {5})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ark_framework.badbatch.save_file", full)
    with pytest.raises(
        RunError, match=r"not finite at step 5 .*could not be listed \(cannot write"
    ):
        train(small(), out=tmp_path / "run")
    assert not list((tmp_path / "run").glob("bad-batch-*.safetensors"))
    ledger.refused("bad step: batch not written")


def left_out(patch: Patch, steps: set[int]) -> None:
    """The oracle: at chosen steps the optimizer is not called, nor a teacher of each step."""
    take, follow, step = loop._step, Teacher.update, {"now": -1}

    def watched(plan: Any, state: loop.State, *rest: Any) -> Any:
        step["now"] = state.step
        with pytest.MonkeyPatch.context() as inner:
            if state.step in steps:
                inner.setattr(state.optimizer, "step", lambda: None)
                kept = {name: each.clone() for name, each in state.student.state_dict().items()}
            result = take(plan, state, *rest)
            if state.step in steps:
                state.student.load_state_dict(kept)
        return result

    def update(teacher: Teacher, *rest: Any, held: Any = None) -> None:
        if held is None or step["now"] not in steps:
            follow(teacher, *rest)

    patch.setattr(loop, "_step", watched)
    patch.setattr(Teacher, "update", update)


@pytest.mark.parametrize("kind", KINDS)
def test_a_skipped_step_is_one_without_the_optimizer(
    small: Small, tmp_path: Path, ledger: Any, kind: str
) -> None:
    """All else goes on: the rate, the order, the draws; and it is said, logged and counted."""
    config = hurt(small, kind, {"optim": {"max_bad_steps": 3}})
    rng = random.Random(kind)
    steps = set(rng.sample(range(1, 20), 2))
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        Poison(patch, steps)
        train(config, out=tmp_path / "skipped", say=said.append)
    with pytest.MonkeyPatch.context() as patch:
        left_out(patch, steps)
        train(config, out=tmp_path / "oracle")
    assert state(tmp_path / "skipped") == state(tmp_path / "oracle")
    assert files(tmp_path / "skipped/predictions") == files(tmp_path / "oracle/predictions")
    records = [each for each in map(json.loads, lines(tmp_path / "skipped")) if "lr" in each]
    assert {each["step"] for each in records if each["skipped"]} == steps
    assert all((each["loss"] is None) == (each["step"] in steps) for each in records)
    warned = [line for line in said if "were skipped" in line]
    assert len(warned) == len({step // 4 for step in steps})  # one for each time they are read
    assert "; 2 so far of 3 that may be" in warned[-1]
    assert {p.name for p in (tmp_path / "skipped").glob("bad-batch-*")} == {
        f"bad-batch-{step}.csv" for step in steps
    }
    for _ in steps:
        ledger.survived("bad step: skipped")


class _Halt(BaseException):
    """The process ends here, as far as the run can tell."""


def halt(patch: Patch, step: int) -> None:
    """End the process before a step."""
    take = loop._step

    def ends(plan: Any, state: loop.State, *rest: Any) -> Any:
        if state.step == step:
            raise _Halt
        return take(plan, state, *rest)

    patch.setattr(loop, "_step", ends)


def test_the_count_survives_a_crash(
    small: Small, tmp_path: Path, monkeypatch: Patch, ledger: Any
) -> None:
    """Resumed across a skipped step, a run ends as one left alone; and it counts from there."""
    config = small(optim={"max_bad_steps": 2}, checkpoint={"every": 5}, log={"every": 1}, cycles=2)
    Poison(monkeypatch, {3, 11})
    train(config, out=tmp_path / "whole")
    for end in (6, 12):
        with pytest.MonkeyPatch.context() as patch:
            halt(patch, end)
            with pytest.raises(_Halt):
                train(config, out=tmp_path / "broken")
    train(config, out=tmp_path / "broken")
    must_equal(tmp_path / "broken", tmp_path / "whole")
    for name in ("bad-batch-3.csv", "bad-batch-11.csv"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    ledger.survived("bad step: crash after it")
    fewer = configuration.merge(config, {"optim": {"max_bad_steps": 1}})
    with pytest.raises(
        RunError, match=r"^after 1 skipped steps, the loss is not finite at step 11"
    ):
        train(fewer, out=tmp_path / "fewer")
    assert (tmp_path / "fewer/bad-batch-11.safetensors").is_file()
    content = torch.load(tmp_path / "fewer/checkpoints/last.pt", weights_only=True)
    assert content["position"]["bad_steps"] == 1
    with pytest.raises(
        RunError, match=r"^after 1 skipped steps, the loss is not finite at step 11"
    ):
        train(fewer, out=tmp_path / "fewer")
    ledger.refused("bad step: one too many")
    none = configuration.merge(config, {"optim": {"max_bad_steps": 0}})
    with pytest.raises(ConfigError, match=r"has skipped 1 steps, and optim\.max_bad_steps is 0"):
        train(none, out=tmp_path / "fewer")
    ledger.refused("bad step: fewer allowed than skipped")
    train(config, out=tmp_path / "fewer")
    assert state(tmp_path / "fewer") == state(tmp_path / "whole")
    ledger.survived("bad step: more allowed")


def test_a_run_that_stopped_goes_on_with_more(
    small: Small, tmp_path: Path, monkeypatch: Patch, capfd: Any, ledger: Any
) -> None:
    """``--max-bad-steps`` beside a bare ``--resume``: the rest is what the folder says."""
    from ark_framework import cli

    config = configuration.parse(small(cycles=1, checkpoint={"every": 2}))
    (tmp_path / "run.yaml").write_text(configuration.dump(config))
    given = ["train", "-c", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run")]
    Poison(monkeypatch, {7})
    assert cli.run(given) == 1
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert "not finite at step 7 (cycle 0, task phantom" in error
    ledger.refused("bad step: loss")
    assert cli.run(["train", "--out", str(tmp_path / "run"), "--resume"]) == 1
    ledger.refused("bad step: loss")
    more = ["--resume", "--max-bad-steps", "1"]
    assert cli.run(["train", "--out", str(tmp_path / "run"), *more]) == 0
    assert "warning: 1 of the last" in capfd.readouterr().out
    other = ["--out", str(tmp_path / "other"), "--max-bad-steps", "1"]
    assert cli.run([*given[:3], *other]) == 0
    assert state(tmp_path / "run") == state(tmp_path / "other")
    ledger.survived("bad step: more allowed")


@pytest.mark.long
@pytest.mark.slow
def test_ranks_agree_on_a_bad_step(tmp_path: Path, ledger: Any) -> None:
    """Films of one rank are bad: both stop, or both skip; the whole batch is written."""
    with opened(tmp_path) as place:
        done = place.two("stopped", trap="1:9:nan")
        assert done.returncode == 1
        (line,) = errors(done)
        assert "the loss is not finite at step" in line
        (path,) = (tmp_path / "stopped").glob("bad-batch-*.safetensors")
        kept = load_file(path)
        films = path.with_suffix(".csv").read_text().splitlines()[1:]
        assert len(kept["student"]) == len(kept["target/phantom-north"]) == len(films) in (16, 3)
        ledger.refused("bad step: on one of two ranks")
        done = place.two("skipped", "--max-bad-steps", "1", trap="1:9:nan")
        assert (done.returncode, errors(done)) == (0, [])
        assert "were skipped" in done.stdout
        content = torch.load(tmp_path / "skipped/checkpoints/last.pt", weights_only=True)
        assert content["position"]["bad_steps"] == 1
        assert all(each.isfinite().all() for each in place.state("skipped").values())
        ledger.survived("bad step: on one of two ranks")
