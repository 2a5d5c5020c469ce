"""One process or several give the same run, and end together."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from ark_framework import config
from ark_framework.launch import train
from ark_framework.registry import GROUP

WORKER = Path(__file__).parent / "assets" / "ranks_worker.py"
# A loss like any other, until TRAP=rank:call:what says in which process it is to do what.
TRAP = """
import os, signal, time
from ark_framework import LossSpec, hookimpl
from ark_framework.errors import DataError

calls = []

def build(_):
    from torch.nn import functional
    rank, call, what = os.environ.get("TRAP", ":0:").split(":")
    def loss(output, target):
        calls.append(None)
        if os.environ.get("RANK") == rank and len(calls) >= int(call):
            if what == "error":
                raise DataError(f"rank {rank} met a trap")
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if what == "stop":
                if len(calls) == int(call):
                    os.kill(os.getppid(), signal.SIGTERM)
                time.sleep(0.5)
        blank = target.isnan()
        value = functional.binary_cross_entropy_with_logits(
            output, target.masked_fill(blank, 0.0), reduction="none"
        )
        return value.masked_fill(blank, 0.0)
    return loss

@hookimpl
def ark_losses():
    return [LossSpec(name="trap", kinds=("multilabel",), build=build)]
"""
METADATA = "Metadata-Version: 2.1\nName: ark-plugin-trap\nVersion: 1.0\n"


@dataclass(frozen=True, kw_only=True)
class Place:
    """The folder of this module's runs, their settings, and what its processes see."""

    folder: Path
    values: dict[str, Any]
    environment: dict[str, str]

    def start(self, *words: str, trap: str = "") -> subprocess.CompletedProcess[str]:
        """Run Python in a process of its own, and end it should it hang."""
        return subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env=self.environment | {"TRAP": trap} if trap else self.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=240,
        )

    def two(self, out: str, *words: str, trap: str = "") -> subprocess.CompletedProcess[str]:
        """Run ``ark train --gpus 2``."""
        given = ["-c", str(self.folder / "run.yaml"), *words]
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir()
        return self.start(
            "-m", "ark_framework.cli", "train", *given, "--gpus", "2", "--out", out, trap=trap
        )

    @property
    def temporary(self) -> Path:
        """Where its processes have their temporary files."""
        return self.folder / "tmp"

    def losses(self, run: str) -> np.ndarray:
        """Return the three losses of a run's steps, ``(steps, 3)``."""
        lines = map(json.loads, (self.folder / run / "metrics.jsonl").read_text().splitlines())
        keys = ("loss", "task_loss", "consistency_loss")
        return np.array([[each[k] for k in keys] for each in lines if each["event"] == "step"])

    def recorded(self, run: str, world: int) -> dict[str, np.ndarray]:
        """Return what the ranks recorded: films in the global order, the first rank's gradients."""
        parts = [np.load(self.folder / f"{run}-{world}-{rank}.npz") for rank in range(world)]
        counts = np.stack([part["counts"] for part in parts], axis=1)
        views = np.empty((counts.sum(), 2), dtype=np.float32)
        begun = np.concatenate([[0], counts.sum(axis=1).cumsum()])
        for rank, part in enumerate(parts):
            own = np.split(part["views"], counts[:, rank].cumsum()[:-1])
            for start, stop, films in zip(begun, begun[1:], own, strict=False):
                views[start + rank : stop : world] = films
        return {"films": counts, "views": views, "gradients": parts[0]["gradients"]}

    def state(self, run: str) -> dict[str, torch.Tensor]:
        """Return the tensors of a run's last checkpoint."""
        content = torch.load(self.folder / run / "checkpoints" / "last.pt", weights_only=True)
        return {f"{who}/{k}": t for who in ("student", "teacher") for k, t in content[who].items()}

    def status(self, run: str) -> dict[str, Any]:
        """Return what is written of how a run ended."""
        found: dict[str, Any] = json.loads((self.folder / run / "run.json").read_text())
        return found


def _values(folder: Path) -> dict[str, Any]:
    films = {"films": 120, "size": 32}
    names = [f"phantom-{name}" for name in ("north", "south", "east")]
    return {
        "plugins": ["ark-phantom", "ark-trap"],
        "tasks": [{"dataset": names[0], "loss": "trap"}, *({"dataset": n} for n in names[1:])],
        "leaks": "drop",
        "data": dict.fromkeys(names, films),
        "cycles": 2,
        "batch_size": 16,
        "limit": 83,  # five batches of 16 and one of 3
        "store": {"size": 32, "folder": str(folder / "stores"), "workers": 1},
        "views": {"size": 24},
        # The norms of a narrower one have so few channels that rounding is all they see.
        "model": {"backbone": "tiny", "options": {"width": 16}, "features": 8, "init": "random"},
        "optim": {"name": "sgd", "lr": 0.05, "clip": 1.0},
        "teacher": {"momentum": 0.5},
        "log": {"every": 1, "tensorboard": False},
        "checkpoint": {"every": 5},
        "runtime": {"threads": 1, "device": "cpu"},
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A folder with settings and a plugin, which this process finds as well."""
    folder = tmp_path_factory.mktemp("ranks")
    site = folder / "site"
    info = site / "ark_plugin_trap-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "ark_plugin_trap.py").write_text(TRAP)
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nark-trap = ark_plugin_trap\n")
    (folder / "tmp").mkdir()
    values = _values(folder)
    # Every value, for the command begins with a recipe's.
    (folder / "run.yaml").write_text(config.dump(config.parse(values)))
    (folder / "values.json").write_text(json.dumps(values))
    found = [str(site), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, found)),
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(folder / "tmp"),
    }
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    yield Place(folder=folder, values=values, environment=environment)
    sys.path.remove(str(site))
    sys.modules.pop("ark_plugin_trap", None)


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


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What was said on standard error, which is nothing but errors in a line each."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert all(line.startswith(("error: ", "interrupted")) for line in lines), done.stderr
    return lines


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
