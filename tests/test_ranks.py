"""One process or several give the same run, and end together."""

from __future__ import annotations

import importlib
import importlib.util
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from ranked import Place, errors, opened

from ark_framework.launch import train

WORKER = Path(__file__).parent / "assets" / "ranks_worker.py"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A folder with settings and a plugin, which this process finds as well."""
    with opened(tmp_path_factory.mktemp("ranks")) as made:
        yield made


@pytest.fixture(scope="module")
def worker() -> ModuleType:
    """The worker as a module, for the world of one process."""
    spec = importlib.util.spec_from_file_location("ranks_worker", WORKER)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def runs(place: Place, worker: ModuleType) -> Place:
    """The same runs in 1, 2 and 4 processes."""
    worker.both(place.folder, place.values)
    worker.half(place.folder, place.values)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
    for world in (2, 4):
        done = place.start(*torchrun, str(world), str(WORKER), str(place.folder))
        assert done.returncode == 0, done.stderr[-4000:]
    return place


@pytest.mark.slow
@pytest.mark.parametrize("run", ["cyclic", "concurrent"])
@pytest.mark.parametrize("world", [2, 4])
def test_any_number_of_processes_gives_the_same_run(runs: Place, run: str, world: int) -> None:
    """Films in the same order with the same draws, gradients to 1e-6 and losses to 1e-5.

    Also with unequal numbers of missing labels, and where a batch of 3 leaves ranks without films.
    """
    one, many = runs.recorded(run, 1), runs.recorded(run, world)
    assert len(one["gradients"]) == 20
    assert 3 in one["films"]
    assert world == 2 or 0 in many["films"]
    assert many["films"].sum(axis=1).tolist() == one["films"].sum(axis=1).tolist()
    assert np.abs(many["views"] - one["views"]).max() <= 1e-6
    assert np.abs(one["gradients"]).max() > 1e-2
    assert np.abs(many["gradients"] - one["gradients"]).max() <= 1e-6
    expected, losses = runs.losses(f"{run}-1")[:20], runs.losses(f"{run}-{world}")[:20]
    assert np.abs(losses - expected).max() <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("begun", [1, 2])
def test_a_run_goes_on_with_another_number_of_processes(runs: Place, begun: int) -> None:
    """Stopped with one and resumed with two, or the reverse, its losses are those of either."""
    run = f"half-{begun}"
    if begun == 2:
        assert runs.status(run)["status"] == "interrupted"
        train(runs.values, out=runs.folder / run, resume=True)
    assert runs.status(run)["status"] == "finished"
    assert len(runs.losses(run)) == len(runs.losses("cyclic-1"))
    assert np.abs(runs.losses(run)[:20] - runs.losses("cyclic-1")[:20]).max() <= 1e-5
    mine, other = runs.state(run), runs.state("cyclic-1")
    assert mine.keys() == other.keys()
    for name, each in mine.items():
        assert torch.allclose(each, other[name], atol=1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_the_first_rank_alone_writes(runs: Place, world: int) -> None:
    """The others open no file of a run for writing, and a run's files are those of one process."""
    for rank in range(world):
        report = json.loads((runs.folder / f"report-{world}-{rank}.json").read_text())
        assert bool(report["wrote"]) == (rank == 0)
    for run in ("cyclic", "concurrent"):
        one, many = (
            {str(path.relative_to(root)) for path in root.rglob("*")}
            for root in (runs.folder / f"{run}-1", runs.folder / f"{run}-{world}")
        )
        assert one == many


@pytest.mark.slow
def test_batch_norm_on_cpus_is_warned_of(runs: Place) -> None:
    """The first rank says, once, that such a run depends on their number."""
    first, second = (
        json.loads((runs.folder / f"report-2-{rank}.json").read_text())["said"] for rank in (0, 1)
    )
    assert sum("on CPUs batch norm sees each rank's films alone" in line for line in first) == 1
    assert second == []


@pytest.mark.slow
def test_what_fails_on_the_first_rank_alone_does_not_hang_the_others(runs: Place) -> None:
    """They learn of it where they wait, and could go on."""
    first, second = (
        json.loads((runs.folder / f"report-2-{rank}.json").read_text())["failed"] for rank in (0, 1)
    )
    assert first == ["DataError", "rank 0 goes on"]
    assert second == ["RanksLost", "rank 0 goes on"]


@pytest.mark.slow
def test_an_error_of_one_rank_ends_all(place: Place) -> None:
    """Its code is the command's, its line the only one, and the run is marked as failed."""
    done = place.two("error", trap="1:9:error")
    assert done.returncode == 3
    assert errors(done) == ["error: rank 1 met a trap"]
    assert place.status("error")["status"] == "failed"
    assert not [each.name for each in place.temporary.iterdir() if "inductor" not in each.name]


@pytest.mark.slow
def test_an_error_of_all_ranks_is_said_once(place: Place) -> None:
    """The first speaks for all, with its code, and what it writes of the run is whole."""
    done = place.two("diverged", "--set", "optim.lr=1e12", "--set", "optim.clip=null")
    assert done.returncode == 1
    (line,) = errors(done)
    assert "the loss is not finite at step" in line
    assert place.status("diverged")["status"] == "failed"
    assert "not finite" in place.status("diverged")["error"]


@pytest.mark.slow
def test_a_killed_rank_ends_all(place: Place) -> None:
    """The signal is named, and the code is the shell's for it."""
    done = place.two("killed", trap="1:9:kill")
    assert done.returncode == 128 + signal.SIGKILL
    (line,) = errors(done)
    assert line.startswith("error: rank 1 was ended by SIGKILL")
    assert place.status("killed")["status"] == "failed"


@pytest.mark.slow
def test_a_stopped_command_goes_on_to_the_same_bytes(runs: Place) -> None:
    """SIGTERM to the command: code 75, and with ``--resume`` it ends as if left alone."""
    done = runs.two("stopped", trap="0:9:stop")
    assert done.returncode == 75
    (line,) = errors(done)
    assert "--resume goes on from there" in line
    assert runs.status("stopped")["status"] == "interrupted"
    done = runs.two("stopped", "--resume")
    assert (done.returncode, errors(done)) == (0, [])
    assert "resuming at step" in done.stdout
    assert (runs.losses("stopped") == runs.losses("cyclic-2")).all()
    mine, other = runs.state("stopped"), runs.state("cyclic-2")
    assert mine.keys() == other.keys()
    assert all(torch.equal(each, other[name]) for name, each in mine.items())
