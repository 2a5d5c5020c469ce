"""Killed, stopped or short of disk at any point, a run goes on to the bytes of one left alone.

The same command goes on: nobody need know how far it came.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faults
import pytest
import yaml
from faults import Command, Point
from runs import checkpoints, files, must_equal, status

from ark_framework import cli

LONG = pytest.mark.long
# Where a process may be when it is ended, and how many such places there are in a run.
STEP = "ark_framework.pretrain:_step"
PLACES = {
    STEP: 30,
    "ark_framework.pretrain:_move": 30,  # the gradients are there, nothing has moved
    "ark_framework.teacher:Teacher.update": 6,
    "ark_framework.scoring:center": 30,
    "ark_framework.observers:JsonLines._write": 40,
    "ark_framework.observers:JsonLines._flush": 20,
    "ark_framework.checkpoint:save": 16,
    "torch:UntypedStorage.nbytes": 600,  # within the writing of a checkpoint
    "os:fsync": 30,
    "pathlib:Path.replace": 20,  # written, and not yet in place
    "ark_framework.exposure:Exposure.save": 1,
    "ark_framework.launch:create": 1,
    "ark_framework.run:RunFolder.write": 3,
    "ark_framework.run:RunFolder.status": 1,
    "ark_framework.scoring:Scorer._save": 3,
}


@dataclass(frozen=True)
class Course:
    """A configuration, and the run that was left alone."""

    folder: Path
    values: dict[str, Any]

    @property
    def whole(self) -> Path:
        """The run that was left alone."""
        return self.folder / "whole"

    def words(self, out: Path, *more: str) -> list[str]:
        """Return the command that makes a run."""
        file = str(self.folder / "run.yaml")
        return ["train", "-c", file, "--recipe", "default", "--out", str(out), *more]


def course(folder: Path, values: dict[str, Any]) -> Course:
    """Make the run that others are compared with."""
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    made = Course(folder, values)
    assert cli.run(made.words(made.whole)) == 0
    return made


CHANGES = {
    "seed": 7,  # its first cycle is the best one
    "cycles": 2,
    "log": {"every": 2},
    "checkpoint": {"every": 4, "keep": 1, "best": True},
    "eval": {"every": 1, "forgetting_every": 2, "batch_size": 16},
}


@pytest.fixture(scope="module")
def run(small: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Course:
    """A short run that does all that there is."""
    return course(tmp_path_factory.mktemp("course"), small(**CHANGES))


def kills(seed: int, count: int) -> list[Point]:
    """Draw where processes are killed."""
    rng = random.Random(seed)
    names = rng.sample(sorted(PLACES), count % len(PLACES))
    names += sorted(PLACES) * (count // len(PLACES))
    return [Point(at=name, call=rng.randint(1, PLACES[name])) for name in names]


def kill(run: Course, tmp_path: Path, points: list[Point], ledger: Any) -> None:
    """Kill a run at one point after another, then let it go on to its end."""
    out = tmp_path / "out"
    reached = [faults.killed_at(point, run.words(out), tmp_path / "command") for point in points]
    if all(reached):  # a place beyond the end of the run is no place
        assert cli.run(run.words(out)) == 0
    must_equal(out, run.whole)
    for _ in filter(None, reached):
        ledger.survived("SIGKILL")


# A cycle ends with three saves: the best one, the one that is kept, the last one.
ENDS = [Point(at="ark_framework.checkpoint:save", call=7)]


@pytest.mark.parametrize("point", [*kills(1, 3), *ENDS], ids=str)
def test_killed(run: Course, tmp_path: Path, point: Point, ledger: Any) -> None:
    """Anywhere, also within what is written."""
    kill(run, tmp_path, [point], ledger)


@pytest.mark.long
@pytest.mark.parametrize("point", kills(2, 3 * len(PLACES)), ids=str)
def test_killed_in_many_places(run: Course, tmp_path: Path, point: Point, ledger: Any) -> None:
    """At each kind of place, several times."""
    kill(run, tmp_path, [point], ledger)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again(run: Course, tmp_path: Path, seed: int, ledger: Any) -> None:
    """A run that is killed five times, each time further on."""
    rng = random.Random(seed)
    kill(run, tmp_path, [Point(at=STEP, call=rng.randint(2, 8)) for _ in range(5)], ledger)


def test_torn_lines_are_cut_off(run: Course, tmp_path: Path, ledger: Any) -> None:
    """Of lines that a dead process wrote, those after the last checkpoint are written again."""
    out = tmp_path / "out"
    assert faults.killed_at(Point(at=STEP, call=15), run.words(out), tmp_path / "command")
    with (out / "metrics.jsonl").open("ab") as file:
        file.write(b'{"event": "step", "los')
    (out / "checkpoints" / ".last.pt.part").write_bytes(b"torn")
    assert cli.run(run.words(out)) == 0
    must_equal(out, run.whole)
    ledger.survived("torn lines")


# Asked to stop ----------------------------------------------------------------------------------


def stopped(command: Command, number: int) -> None:
    """Send a signal to a command that waits at its point, and see it saved within ten seconds."""
    command.reached()
    begun = time.monotonic()
    command.send(number)
    command.go()
    assert command.end() == 75
    assert time.monotonic() - begun < 10
    assert command.error.startswith("error: stopped at step ")
    assert "--resume goes on from there, as does the same command" in command.error


def places(seed: int, count: int) -> list[tuple[int, Point]]:
    """Draw a signal and a place in the loop or in a scoring."""
    rng = random.Random(seed)
    names = [STEP, "ark_framework.scoring:center", "ark_framework.checkpoint:save"]
    made = [Point(at=names[n % 3], call=rng.randint(1, PLACES[names[n % 3]])) for n in range(count)]
    return [((signal.SIGTERM, signal.SIGINT)[n // 3 % 2], point) for n, point in enumerate(made)]


@pytest.mark.parametrize(("number", "point"), places(1, 2), ids=str)
def test_asked_to_stop(
    run: Course, tmp_path: Path, number: int, point: Point, ledger: Any, capfd: Any
) -> None:
    """It saves and ends with 75; the same command says that it goes on, and does."""
    stopping(run, tmp_path, number, point, ledger)
    assert "holds this very run, unfinished: it goes on" in capfd.readouterr().out.replace("\n", "")


def stopping(run: Course, tmp_path: Path, number: int, point: Point, ledger: Any) -> None:
    """Stop a run at a point, and let it go on."""
    out = tmp_path / "out"
    stopped(Command(run.words(out), tmp_path / "command", point=point), number)
    assert status(out) == "interrupted"
    assert cli.run(run.words(out)) == 0
    must_equal(out, run.whole)
    ledger.survived(signal.Signals(number).name)


@pytest.mark.long
@pytest.mark.parametrize(("number", "point"), places(2, 18), ids=str)
def test_asked_to_stop_in_many_places(
    run: Course, tmp_path: Path, number: int, point: Point, ledger: Any
) -> None:
    """In the loop, in a scoring, in a save."""
    stopping(run, tmp_path, number, point, ledger)


def test_asked_to_stop_in_a_long_scoring(run: Course, tmp_path: Path, ledger: Any) -> None:
    """A scoring that would take a minute is left between two of its batches."""
    out, center = tmp_path / "out", "ark_framework.scoring:center"
    # Of three tasks and two models; the point is before the second batch.
    command = Command(
        run.words(out, "--set", "eval.batch_size=2"),
        tmp_path / "command",
        point=Point(at=center, call=2),
        slow={center: 2.0},
    )
    stopped(command, signal.SIGTERM)
    assert "stopped at step 18, and saved in" in command.error
    assert cli.run(run.words(out, "--set", "eval.batch_size=2")) == 0
    assert checkpoints(out)["last.pt"][0] == checkpoints(run.whole)["last.pt"][0]
    ledger.survived("SIGTERM")


def test_told_twice_it_does_not_wait(run: Course, tmp_path: Path, ledger: Any) -> None:
    """The second Ctrl-C ends it at once: 130, and what was saved before is there."""
    out = tmp_path / "out"
    command = Command(run.words(out), tmp_path / "command", point=Point(at=STEP, call=11))
    command.reached()
    command.send(signal.SIGINT)
    time.sleep(0.5)  # signals of one kind that come at once are one
    command.send(signal.SIGINT)
    assert command.end() == 130
    assert command.error == "interrupted"
    assert cli.run(run.words(out)) == 0
    must_equal(out, run.whole)
    ledger.survived("SIGINT twice")


@pytest.mark.parametrize(
    ("at", "number"),
    [
        ("ark_framework.decoding:Reader.decode", signal.SIGTERM),
        pytest.param("ark_framework.session:build_student", signal.SIGINT, marks=LONG),
        pytest.param("ark_framework.session:build_student", signal.SIGTERM, marks=LONG),
    ],
)
def test_stopped_before_there_is_anything_to_keep(
    run: Course, tmp_path: Path, at: str, number: int, ledger: Any
) -> None:
    """While films are packed or the model is built: 130, and the same command does it."""
    words = run.words(tmp_path / "out", "--set", f"store.folder={tmp_path / 'stores'}")
    command = Command(words, tmp_path / "command", point=Point(at=at))
    command.reached()
    command.send(number)
    assert command.end() == 130
    assert command.error == "interrupted"
    assert cli.run(words) == 0
    must_equal(tmp_path / "out", run.whole)
    ledger.survived(signal.Signals(number).name)


# Disks ------------------------------------------------------------------------------------------

WRITES = {
    "ark_framework.launch:create": 1,
    "ark_framework.run:RunFolder.write": 2,
    "ark_framework.observers:JsonLines._write": 20,
    "ark_framework.exposure:Exposure.save": 1,
    "ark_framework.checkpoint:save": 5,
    "ark_framework.scoring:Scorer._save": 2,
    "ark_framework.session:Session._finish": 1,
}
QUICK = "ark_framework.checkpoint:save"
EVERYWHERE = [at if at == QUICK else pytest.param(at, marks=LONG) for at in WRITES]


def refused(command: Command, said: str) -> None:
    """It ends with one line that names a file and what the machine said of it."""
    assert command.end() == 5
    *others, line = command.err.splitlines()
    assert all(other.startswith("observer TrainLog failed") for other in others)
    assert line.startswith("error: cannot ")
    assert said in line
    assert "Errno" not in line
    assert "enforce fail" not in line


def kept(out: Path) -> dict[str, bytes]:
    """The checkpoints as bytes, by name."""
    return files(out / "checkpoints") if (out / "checkpoints").is_dir() else {}


def whole_ones(out: Path, before: dict[str, bytes]) -> None:
    """Every earlier checkpoint is what it was, and nothing lies beside them."""
    assert kept(out) == before
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize("at", EVERYWHERE)
def test_a_full_disk(run: Course, tmp_path: Path, at: str, ledger: Any) -> None:
    """Wherever a run writes: one line, and once there is room the same command goes on."""
    with faults.small_disk(tmp_path / "disk", size="8m") as disk:
        out = disk / "out"
        point = Point(at=at, call=WRITES[at])
        command = Command(run.words(out), tmp_path / "command", point=point)
        command.reached()
        before = kept(out)
        with faults.filled(disk):
            command.go()
            refused(command, "No space left on device")
            whole_ones(out, before)
        ledger.refused("full disk")
        assert cli.run(run.words(out)) == 0
        must_equal(out, run.whole)


def test_no_room_for_the_metrics(run: Course, tmp_path: Path, ledger: Any) -> None:
    """A run does not go on without its numbers, even if all else could be written."""
    with faults.small_disk(tmp_path / "disk", size="8m") as disk:
        out = disk / "out"
        words = run.words(out, "--set", "log.every=1", "--set", "checkpoint.every=1000")
        point = Point(at="ark_framework.observers:JsonLines._write", call=3)
        command = Command(words, tmp_path / "command", point=point)
        command.reached()
        with faults.filled(disk):
            command.go()
            refused(command, f"cannot write {out / 'metrics.jsonl'}: No space left on device")
        ledger.refused("full disk")
        assert cli.run(words) == 0
        must_equal(out, run.whole)


@pytest.mark.parametrize("at", EVERYWHERE)
def test_a_folder_that_becomes_read_only(run: Course, tmp_path: Path, at: str, ledger: Any) -> None:
    """As a full disk."""
    out = tmp_path / "home" / "out"
    out.parent.mkdir()
    point = Point(at=at, call=WRITES[at])
    command = Command(run.words(out), tmp_path / "command", point=point)
    command.reached()
    before = kept(out)
    with faults.read_only(out.parent):
        command.go()
        refused(command, "Read-only file system")
        whole_ones(out, before)
        again = Command(run.words(out), tmp_path / "again")
        refused(again, "Read-only file system")
        whole_ones(out, before)
    ledger.refused("read-only folder")
    assert cli.run(run.words(out)) == 0
    must_equal(out, run.whole)


def test_what_people_look_at_may_be_lost(run: Course, tmp_path: Path, ledger: Any) -> None:
    """Without room for TensorBoard's files the run says so and goes on without them."""
    words = run.words(tmp_path / "out", "--set", "log.tensorboard=true")
    command = Command(words, tmp_path / "command", point=Point(at=STEP, call=5))
    stopped(command, signal.SIGTERM)
    with faults.small_disk(tmp_path / "out" / "tb", size="4k"):
        command = Command(words, tmp_path / "command")
        assert command.end() == 0, command.err
        *_, line = command.err.splitlines()  # above it is what TensorBoard's own thread says
        assert line.startswith("observer TensorBoard failed")
        must_equal(tmp_path / "out", run.whole)
    ledger.survived("full disk")


# Stores -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [pytest.param(True, marks=LONG), False])
def test_a_store_goes_away(
    run: Course, tmp_path: Path, *, gone: bool, ledger: Any, capfd: Any
) -> None:
    """A deleted one is read to the end; a truncated one kills, and is refused until it is gone."""
    out, stores = tmp_path / "out", tmp_path / "stores"
    words = run.words(out, "--set", f"store.folder={stores}")
    command = Command(words, tmp_path / "command", point=Point(at=STEP, call=9))
    command.reached()
    (store,) = stores.glob("phantom-east-*")
    if gone:
        shutil.rmtree(store)
        command.go()
        assert command.end() == 0
    else:
        faults.truncate(store / "images.npy", 0.1)
        command.go()
        assert command.end() == -signal.SIGBUS
        assert cli.run(words) == 3
        assert "is damaged" in capfd.readouterr().err
        shutil.rmtree(store)
        assert cli.run(words) == 0
    must_equal(out, run.whole)
    ledger.survived("deleted store") if gone else ledger.refused("truncated store")


def test_a_store_that_is_gone_is_packed_again(run: Course, tmp_path: Path, ledger: Any) -> None:
    """A run that was stopped finds no store, and makes it anew."""
    out, stores = tmp_path / "out", tmp_path / "stores"
    words = run.words(out, "--set", f"store.folder={stores}")
    assert faults.killed_at(Point(at=STEP, call=9), words, tmp_path / "command")
    shutil.rmtree(stores)
    assert cli.run(words) == 0
    must_equal(out, run.whole)
    ledger.survived("deleted store")


# The last checkpoint ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "share", [pytest.param(0.0, marks=LONG), 0.5, pytest.param(0.99, marks=LONG)]
)
def test_the_last_checkpoint_is_truncated(
    run: Course, tmp_path: Path, share: float, ledger: Any, capfd: Any
) -> None:
    """The line says what to put in its place, and then the run goes on to the same bytes."""
    out = tmp_path / "out"
    shutil.copytree(run.whole, out)
    told = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**told, "status": "interrupted"}))
    for later in ("cycle-0002.pt", "best.pt"):
        (out / "checkpoints" / later).unlink()
    last, before = out / "checkpoints" / "last.pt", kept(out)
    faults.truncate(last, share)
    assert cli.run(run.words(out)) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {last} ")
    spare = out / "checkpoints" / "cycle-0001.pt"
    assert line.endswith(f"; to go on from step 18: cp {spare} {last}")
    assert kept(out)["cycle-0001.pt"] == before["cycle-0001.pt"]
    shutil.copy(spare, last)
    assert cli.run(run.words(out)) == 0
    must_equal(out, run.whole)
    ledger.refused("truncated checkpoint")


def test_no_checkpoint_is_whole(run: Course, tmp_path: Path, ledger: Any, capfd: Any) -> None:
    """The run can begin again."""
    out = tmp_path / "out"
    assert faults.killed_at(Point(at=STEP, call=9), run.words(out), tmp_path / "command")
    (last,) = (out / "checkpoints").iterdir()
    faults.truncate(last, 0.5)
    assert cli.run(run.words(out)) == 1
    assert "delete it, and the run begins again at step 0" in capfd.readouterr().err
    last.unlink()
    assert cli.run(run.words(out)) == 0
    must_equal(out, run.whole)
    ledger.refused("truncated checkpoint")


# The same command, another one, two at once -------------------------------------------------------


def test_another_command_is_refused(run: Course, tmp_path: Path, capfd: Any) -> None:
    """The first setting that differs is named; the run stays as it was."""
    out, old = tmp_path / "out", tmp_path / "old"
    assert cli.run(run.words(old, "--set", "cycles=1", "--set", "seed=3")) == 0
    assert faults.killed_at(Point(at=STEP, call=9), run.words(out), tmp_path / "command")
    before = kept(out), (out / "metrics.jsonl").read_bytes()
    for more, said in (
        (["--set", "optim.lr=0.5"], f"optim.lr was 0.05 when {out} began and is 0.5 now"),
        (["--init-from", str(old)], f"init_from was null when {out} began and is"),
    ):
        capfd.readouterr()
        assert cli.run(run.words(out, *more)) == 2
        assert said in capfd.readouterr().err
    assert before == (kept(out), (out / "metrics.jsonl").read_bytes())
    assert cli.run(run.words(out)) == 0
    must_equal(out, run.whole)


def test_a_finished_run_is_not_made_again(run: Course, capfd: Any) -> None:
    """Nor is anything of it changed."""
    before = files(run.whole), kept(run.whole)
    assert cli.run(run.words(run.whole)) == 2
    assert "is in use" in capfd.readouterr().err
    assert before == (files(run.whole), kept(run.whole))


@pytest.mark.parametrize("name", ["run.json", "thesis.txt", "movie.part", "checkpoints/mine.pt"])
def test_a_folder_that_is_no_run_is_refused(
    run: Course, tmp_path: Path, name: str, capfd: Any
) -> None:
    """Also one that looks like one that was being made."""
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_text("years of work")
    if "/" in name:
        (tmp_path / "out" / "run.lock").touch()
    assert cli.run(run.words(tmp_path / "out")) == 2
    assert "is in use" in capfd.readouterr().err
    assert file.read_text() == "years of work"


def test_a_run_that_was_being_made_is_not_resumed(
    run: Course, tmp_path: Path, ledger: Any, capfd: Any
) -> None:
    """``--resume`` of what never began is an error that says what to do."""
    out = tmp_path / "out"
    point = Point(at="ark_framework.run:RunFolder.write", call=3)
    assert faults.killed_at(point, run.words(out), tmp_path / "command")
    assert cli.run(run.words(out, "--resume")) == 2
    assert "give the command that began it without --resume" in capfd.readouterr().err
    assert cli.run(run.words(out)) == 0
    must_equal(out, run.whole)
    ledger.survived("SIGKILL")


@pytest.mark.parametrize(
    "at", [STEP, pytest.param("ark_framework.run:RunFolder.write", marks=LONG)]
)
def test_two_runs_on_one_folder(
    run: Course, tmp_path: Path, at: str, ledger: Any, capfd: Any
) -> None:
    """The second is refused while the first lives, and names it; a dead one's lock is nobody's."""
    out = tmp_path / "out"
    first = Command(run.words(out), tmp_path / "command", point=Point(at=at, call=2))
    first.reached()
    for more in ([], ["--resume"]) if at == STEP else ([],):
        assert cli.run(run.words(out, *more)) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert f"is in use by process {first.process.pid} on " in line
        ledger.refused("two runs on one folder")
    first.send(signal.SIGKILL)
    assert first.end() == -signal.SIGKILL
    assert cli.run(run.words(out)) == 0
    must_equal(out, run.whole)
