"""One of two ranks is killed or held up, or what started them is: the same command goes on."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults
import pytest
import torch
from ranked import Place, errors, opened

pytestmark = [pytest.mark.long, pytest.mark.slow]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A place with a run of two ranks that was left alone."""
    with opened(tmp_path_factory.mktemp("ranks")) as made:
        done = made.two("whole")
        assert done.returncode == 0, done.stderr
        yield made


def must_equal(place: Place, run: str) -> None:
    """The run ended with the same losses and the same tensors as the one left alone."""
    assert place.status(run)["status"] == "finished"
    assert (place.losses(run) == place.losses("whole")).all()
    mine, other = place.state(run), place.state("whole")
    assert mine.keys() == other.keys()
    assert all(torch.equal(each, other[name]) for name, each in mine.items())


def goes_on(place: Place, run: str) -> None:
    """Give the same command again."""
    done = place.two(run)
    assert (done.returncode, errors(done)) == (0, [])
    assert "this very run, unfinished: it goes on" in done.stdout.replace("\n", "")
    must_equal(place, run)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank(place: Place, rank: int, ledger: Any) -> None:
    """The other ends with it, and both go on."""
    call, run = random.Random(rank).randint(2, 12), f"killed-{rank}"
    done = place.two(run, trap=f"{rank}:{call}:kill")
    assert done.returncode == 128 + signal.SIGKILL
    (line,) = errors(done)
    assert line.startswith(f"error: rank {rank} was ended by SIGKILL")
    goes_on(place, run)
    ledger.survived("SIGKILL of a rank")


def test_a_rank_that_is_held_up(place: Place, ledger: Any) -> None:
    """The other waits for it."""
    done = place.two("delayed", trap="1:5:delay")
    assert (done.returncode, errors(done)) == (0, [])
    must_equal(place, "delayed")
    ledger.survived("delayed rank")


def test_ranks_that_nobody_watches(place: Place, ledger: Any) -> None:
    """Where the command that started them is killed they go on, and no other may join."""
    done = place.two("orphans", trap="0:3:orphan")
    assert done.returncode == -signal.SIGKILL
    lock = (place.folder / "orphans" / "run.lock").read_text()
    assert lock.startswith("process ")
    done = place.two("orphans")
    assert done.returncode == 2
    (line,) = errors(done)
    assert f"is in use by {lock.strip()}, which trains there" in line
    ledger.refused("two runs on one folder")
    begun = time.monotonic()
    os.kill(int(lock.split()[1]), signal.SIGTERM)
    (place.folder / "go").touch()
    faults.until(lambda: place.status("orphans")["status"] == "interrupted")
    assert time.monotonic() - begun < 10
    faults.until(lambda: not Path(f"/proc/{lock.split()[1]}").exists())
    goes_on(place, "orphans")
    ledger.survived("SIGKILL of what started the ranks")
