"""Packing, studies and exports: hurt at any point, the same command ends in the same bytes."""

from __future__ import annotations

import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faults
import numpy as np
import pytest
import yaml
from faults import Command, Point

from ark_framework import cli
from ark_framework.arrays import new_map

LONG = pytest.mark.long
FILMS = {"phantom-north": {"films": 400, "size": 32}}
# What differs between two runs that are the same: when, how long, and where.
CLOCK = re.compile(rb'"seconds": [0-9.e+-]+|\d{4}-\d\d-\d\d \d\d:\d\d \+0000: ark [^<\n]*')


@dataclass(frozen=True, kw_only=True)
class Work:
    """A command and the points where it can be hurt.

    Attributes:
        words: The command without its output; ``FROM`` stands for a folder of what it needs.
        option: Which names its output.
        needs: What it writes into beside its output, copied from ``FROM`` for each try.
        points: Functions by how often each is called at least.
        middle: The one where it is asked to stop.
        stopped: The exit code of SIGTERM.
        again: Whether the same command may be given once it has ended.
    """

    words: tuple[str, ...]
    option: str
    points: dict[str, int]
    middle: Point
    needs: str | None = None
    stopped: int = 130
    again: bool = True


NORTH = ("--tasks", "phantom-north", "--size", "24", "--resize", "32")
ORGANS = ("--tasks", "phantom-organs", "--size", "32")
DECODE = "ark_framework.decoding:Reader.decode"
EMBED = "ark_framework.transfer.embed:Extractor._batch"
TUNE = "ark_framework.transfer.training:Training._step"
STUDY = {
    "os:fsync": 4,
    "pathlib:Path.replace": 4,
    "ark_framework.transfer.pieces:write_text": 1,
    "ark_framework.transfer.ledger:Ledger._make": 1,
}
PACK = {
    "ark_framework.packing:open_partial": 1,
    "ark_framework.packing:_announce": 1,
    "numpy:memmap.flush": 4,
    "ark_framework.packing:write_table": 1,
    "ark_framework.packing:sample": 1,
    "pathlib:Path.replace": 1,
}
WORKS = {
    "pack": Work(
        words=("data", "pack", "-c", "FROM/one.yaml"), option="--store",
        points={**PACK, DECODE: 7}, middle=Point(at=DECODE, call=3),
    ),
    "pack-workers": Work(
        words=("data", "pack", "-c", "FROM/two.yaml"), option="--store", points=PACK,
        middle=Point(at="numpy:memmap.flush", call=2),
    ),
    "probe": Work(
        words=("probe", "random:tiny", "-c", "FROM/probe.yaml", *NORTH),
        option="--out", needs="stores", stopped=75,
        points={**STUDY, EMBED: 2, "ark_framework.transfer.embed:new_map": 1},
        middle=Point(at=EMBED, call=1),
    ),
    "finetune": Work(
        words=("finetune", "random:tiny", "-c", "FROM/finetune.yaml", "--keep", *NORTH),
        option="--out", needs="stores", stopped=75, middle=Point(at=TUNE, call=4),
        points={**STUDY, TUNE: 10, "ark_framework.transfer.training:Training._validate": 2},
    ),
    "segment": Work(
        words=("segment", "random:tiny", "-c", "FROM/segment.yaml", "--keep", *ORGANS),
        option="--out", needs="stores", stopped=75, middle=Point(at=TUNE, call=4),
        points={**STUDY, TUNE: 6},
    ),
    "export": Work(
        words=("export", "FROM/run"), option="--out", again=False,
        points={"pathlib:Path.replace": 5, "os:fsync": 4, "ark_framework.bundle:_heads": 1},
        middle=Point(at="os:fsync", call=2),
    ),
}  # fmt: skip


@dataclass
class Place:
    """Where works are done: what they need, and the output of each that was left alone."""

    folder: Path
    wholes: dict[str, dict[str, bytes]] = field(default_factory=dict, repr=False)

    def words(self, work: Work, home: Path) -> list[str]:
        """Return the command that works in ``home``, which gets what is written into."""
        words = [word.replace("FROM", str(self.folder)) for word in work.words]
        words += [work.option, str(home / "out")]
        if work.needs is None:
            return words
        if not (home / work.needs).exists():
            shutil.copytree(self.folder / work.needs, home / work.needs)
        return [*words, "--store", str(home / work.needs)]

    def whole(self, name: str, home: Path) -> dict[str, bytes]:
        """Return what a work that is left alone puts out; it is done once."""
        if name not in self.wholes:
            work = WORKS[name]
            assert cli.run(self.words(work, home / "whole")) == 0
            self.wholes[name] = contents(home / "whole")
            shutil.rmtree(home / "whole")
        return self.wholes[name]


def contents(home: Path) -> dict[str, bytes]:
    """What lies in a home, by name, without what a clock says and without locks."""
    found = {
        str(path.relative_to(home)): CLOCK.sub(b"", path.read_bytes())
        for path in home.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }
    assert found
    return found


@pytest.fixture(scope="module")
def place(small: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Stores, a run, and a configuration for each work."""
    folder = tmp_path_factory.mktemp("place")
    plain = {"plugins": ["ark-phantom"], "runtime": {"threads": 1, "device": "cpu"}}
    packs = {**plain, "data": FILMS, "tasks": [{"dataset": "phantom-north"}], "views": {"size": 24}}
    north = {
        **plain, "data": {"phantom-north": {"films": 120, "size": 32}},
        "store": {"size": 32, "workers": 1},
    }  # fmt: skip
    organs = {
        **plain, "data": {"phantom-organs": {"films": 40, "size": 32}},
        "store": {"size": 32, "workers": 1},
    }  # fmt: skip
    files = {
        "one": {**packs, "store": {"size": 32, "workers": 1}},
        "two": {**packs, "store": {"size": 32, "workers": 2}},
        "probe": {**north, "probe": {"shots": [1, 4]}},
        "finetune": {**north, "finetune": {"epochs": 2, "batch_size": 16}},
        "segment": {**organs, "segment": {"steps": 6, "width": 8, "batch_size": 4}},
        "run": small(cycles=1),
    }
    for name, values in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    run = ["train", "-c", str(folder / "run.yaml"), "--recipe", "default"]
    assert cli.run([*run, "--out", str(folder / "run")]) == 0
    for values in (north, organs):
        (folder / "data.yaml").write_text(yaml.safe_dump({**values, "views": {"size": 24}}))
        words = ["data", "pack", "-c", str(folder / "data.yaml"), "--tasks", *values["data"]]
        assert cli.run([*words, "--store", str(folder / "stores")]) == 0
    return Place(folder)


def drawn(seed: int, count: int, names: Sequence[str] = tuple(WORKS)) -> list[Any]:
    """Draw so many points of each of some works."""
    rng = random.Random(seed)
    made = []
    for name in names:
        every = sorted(WORKS[name].points.items())
        for at, calls in rng.sample(every, min(count, len(every))):
            point = Point(at=at, call=rng.randint(1, calls))
            made.append(pytest.param(name, point, id=f"{name}-{point.at}-{point.call}"))
    return made


def again(place: Place, name: str, home: Path) -> None:
    """Give the command once more; all is as if it had never been hurt."""
    assert cli.run(place.words(WORKS[name], home)) == 0
    assert contents(home) == place.whole(name, home.with_name("alone"))


def kill(place: Place, name: str, point: Point, tmp_path: Path, ledger: Any) -> None:
    """Kill a work at a point and give the command again."""
    place.whole(name, tmp_path / "alone")
    home = tmp_path / "home"
    reached = faults.killed_at(point, place.words(WORKS[name], home), tmp_path / "command")
    if reached or WORKS[name].again:
        again(place, name, home)
    if reached:
        ledger.survived(f"SIGKILL: {name}")


QUICK = ("pack", "finetune", "export")


@pytest.mark.parametrize(("name", "point"), drawn(1, 1, QUICK))
def test_killed(place: Place, name: str, point: Point, tmp_path: Path, ledger: Any) -> None:
    """Anywhere, also within what is written."""
    kill(place, name, point, tmp_path, ledger)


@pytest.mark.long
@pytest.mark.parametrize(("name", "point"), drawn(2, 9))
def test_killed_in_many_places(
    place: Place, name: str, point: Point, tmp_path: Path, ledger: Any
) -> None:
    """At each kind of place."""
    kill(place, name, point, tmp_path, ledger)


@pytest.mark.parametrize("name", ["pack", "finetune", *(pytest.param(n, marks=LONG)
    for n in WORKS if n not in ("pack", "finetune"))])  # fmt: skip
def test_asked_to_stop(place: Place, name: str, tmp_path: Path, ledger: Any) -> None:
    """It ends within ten seconds and says so in one line; the same command does the rest."""
    work, home = WORKS[name], tmp_path / "home"
    command = Command(place.words(work, home), tmp_path / "command", point=work.middle)
    command.reached()
    begun = time.monotonic()
    command.send(signal.SIGTERM)
    command.go()
    assert command.end() == work.stopped, command.err
    assert time.monotonic() - begun < 10
    line = command.err.splitlines()[-1]
    assert line == "interrupted" if work.stopped == 130 else "the same command goes on" in line
    again(place, name, home)
    ledger.survived(f"SIGTERM: {name}")


@pytest.mark.parametrize(("name", "point"), [
    *drawn(3, 1, ("finetune",)),
    *(pytest.param(*each.values, marks=LONG, id=each.id) for each in drawn(4, 9)),
])  # fmt: skip
def test_a_full_disk(place: Place, name: str, point: Point, tmp_path: Path, ledger: Any) -> None:
    """One line and 5; once there is room the same command ends as if there had always been."""
    place.whole(name, tmp_path / "alone")
    with faults.small_disk(tmp_path / "home", size="200m") as home:
        words = place.words(WORKS[name], home)
        command = Command(words, tmp_path / "command", point=point)
        faults.until(lambda: (command.folder / "reached").exists() or command.process.exitcode == 0)
        with faults.filled(home):
            command.go()
            code = command.end()
        if code == 0:  # all of it was written by then
            assert contents(home) == place.whole(name, tmp_path / "alone")
            return
        assert code == 5, command.err
        line = command.err.splitlines()[-1]
        assert line.startswith("error: "), command.err
        assert "Errno" not in line
        assert "Traceback" not in command.err
        again(place, name, home)
        ledger.refused(f"full disk: {name}")


def test_a_memory_map_asks_for_its_room(tmp_path: Path, ledger: Any) -> None:
    """Less than all of it is refused at once: later it would be the end of the process."""
    with faults.small_disk(tmp_path / "disk", size="256k") as disk:
        with pytest.raises(OSError, match="No space left"):
            new_map(disk / "map.npy", dtype=np.uint8, shape=(1_000_000,))
        assert not list(disk.iterdir())
        made = new_map(disk / "map.npy", dtype=np.uint8, shape=(200_000,))
        with faults.filled(disk):
            made[:] = 1
    ledger.refused("full disk: memory map")


@pytest.mark.long
@pytest.mark.parametrize(
    "point",
    [
        Point(at="numpy:memmap.flush", call=2),  # within its films
        Point(at="ark_framework.packing:_take"),  # the parts are there, not yet joined
        Point(at="ark_framework.packing:_take", call=2),
        Point(at="ark_framework.packing:write_table"),
    ],
    ids=str,
)
def test_a_shard_is_killed(place: Place, point: Point, tmp_path: Path, ledger: Any) -> None:
    """Given again, it joins the parts to the bytes of a store that was packed at once."""
    work, home = WORKS["pack"], tmp_path / "home"
    place.whole("pack", tmp_path / "alone")
    words = place.words(work, home)
    assert cli.run([*words, "--shard", "1/2"]) == 0
    assert faults.killed_at(point, [*words, "--shard", "2/2"], tmp_path / "command")
    assert cli.run([*words, "--shard", "2/2"]) == 0
    assert contents(home) == place.whole("pack", tmp_path / "alone")
    ledger.survived("SIGKILL: pack --shard")
