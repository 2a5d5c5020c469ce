"""A place where several ranks train, with a loss that does harm in one of them when told to."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import torch

from ark_framework import config
from ark_framework.registry import GROUP

# A loss like any other, until TRAP=rank:call:what says in which process it is to do what.
TRAP = """
import os, signal, subprocess, time
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
            if what == "nan" and len(calls) == int(call):
                output = output * float("nan")
            if what == "stop":
                if len(calls) == int(call):
                    os.kill(os.getppid(), signal.SIGTERM)
                time.sleep(0.5)
            if what == "orphan":
                if len(calls) == int(call):
                    os.kill(os.getppid(), signal.SIGKILL)
                while not os.path.exists("go"):
                    time.sleep(0.05)
            if what == "delay" and len(calls) == int(call):
                subprocess.Popen(["sh", "-c", f"sleep 3; kill -CONT {os.getpid()}"])
                os.kill(os.getpid(), signal.SIGSTOP)
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
        with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
            done = subprocess.run(
                [sys.executable, *words],
                cwd=self.folder,
                env=self.environment | {"TRAP": trap} if trap else self.environment,
                check=False,
                stdout=out,  # of a pipe one would not see the end before all that hold it end
                stderr=err,
                timeout=240,
            )
            for file in (out, err):
                file.seek(0)
            return subprocess.CompletedProcess(
                done.args, done.returncode, stdout=out.read(), stderr=err.read()
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


@contextmanager
def opened(folder: Path) -> Iterator[Place]:
    """Make the place; while it lasts this process finds the plugin as well."""
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


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What was said on standard error, which is nothing but errors in a line each."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert all(line.startswith(("error: ", "interrupted")) for line in lines), done.stderr
    return lines
