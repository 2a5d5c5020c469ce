"""A run's folder: what was asked, what was planned, what came out."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ark_framework import config as configuration
from ark_framework import locks
from ark_framework.config import RunConfig
from ark_framework.errors import ConfigError, MachineError

REPORTED = ("ark-framework", "torch", "torchvision", "timm", "numpy", "pandas")
LOCK = "run.lock"
# What a new run's folder may hold before its plan, which is written last and vouches for the rest.
MAKING = {LOCK, "checkpoints", "config.yaml", "run.json", "leaks.json"}


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """Paths below one run's folder."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.checkpoints / "last.pt"

    @property
    def metrics(self) -> Path:
        """The JSON lines."""
        return self.path / "metrics.jsonl"

    def write(self, name: str, values: Mapping[str, Any]) -> None:
        """Write ``name`` as JSON, whole or not at all."""
        write_text(self.path / name, json.dumps(values, indent=1) + "\n")

    def read(self, name: str) -> dict[str, Any]:
        """Read a JSON file of the folder.

        Raises:
            ConfigError: it is absent or not JSON.
        """
        try:
            values: dict[str, Any] = json.loads((self.path / name).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"--resume: {self.path / name} cannot be read: {error}") from error
        return values

    def status(self, status: str, **values: Any) -> None:
        """Set the status in ``run.json``, with whatever else there is to say."""
        known = json.loads((self.path / "run.json").read_text("utf-8"))
        known.pop("error", None)  # that of an earlier end
        self.write("run.json", {**known, "status": status, **values})

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep others from training in this folder; the lock ends with the process at the latest.

        Raises:
            ConfigError: another process has it.
            MachineError: there can be no lock.
        """
        with locks.open_lock(self.path / LOCK) as file:
            if (who := locks.take(file)) is not None:
                raise ConfigError(
                    f"--out {self.path} is in use by {who}, which trains there; give another "
                    "folder, or the same command when that has ended"
                )
            yield


def write_text(path: Path, text: str) -> None:
    """Write a file beside, then put it in place.

    Raises:
        MachineError: the disk refuses.
    """
    beside = _beside(path)
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise MachineError(f"cannot write {path}: {error.strerror}") from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless they are there.

    Raises:
        MachineError: the disk refuses.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"cannot make {path}: {error.strerror}") from error


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def default_name() -> str:
    """Return a folder name for a run that was not given one, from the local time."""
    return datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")


def refuse_used(path: Path) -> None:
    """Raise if something lies at ``path`` already.

    Raises:
        ConfigError: the folder is in use.
    """
    if path.exists() and not _free(path):
        raise ConfigError(
            f"--out {path} is in use; give another folder, or --resume to go on with the run in it"
        )


def _free(path: Path) -> bool:
    """Whether a folder is empty, or one of ours whose process ended while it was being made."""
    if not path.is_dir():
        return False
    parts = {_beside(path / name).name for name in (*MAKING, "plan.json")}
    found = {each.name for each in path.iterdir()} - parts
    saved = any(path.glob("checkpoints/*.pt"))
    return not found or (LOCK in found and found <= MAKING and not saved)


def unfinished(path: Path) -> bool:
    """Whether there is a run in a folder that has begun and has not come to its end."""
    if not all((path / name).is_file() for name in ("config.yaml", "plan.json", "run.json")):
        return False
    return RunFolder(path=path).read("run.json").get("status") != "finished"


def create(
    path: Path, config: RunConfig, *, about: Mapping[str, Any], held: ExitStack
) -> RunFolder:
    """Make the folder of a new run; its lock is given up with ``held``.

    Raises:
        ConfigError: the folder is in use.
        MachineError: it cannot be made.
    """
    refuse_used(path)
    folder = RunFolder(path=path)
    make_folder(path)
    held.enter_context(folder.held())
    refuse_used(path)  # before there was a lock another run may have begun
    make_folder(folder.checkpoints)
    write_text(path / "config.yaml", configuration.dump(config))
    folder.write(
        "run.json",
        {
            "status": "running",
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
            "versions": {name: _version(name) for name in REPORTED},
            "python": platform.python_version(),
            "platform": platform.platform(),
            **about,
        },
    )
    return folder


def reopen(path: Path) -> tuple[RunFolder, RunConfig]:
    """Open the folder of a run that is to go on.

    Raises:
        ConfigError: there is no run there.
    """
    if not (path / "config.yaml").is_file():
        raise ConfigError(f"--resume: no run in {path} (it has no config.yaml)")
    if not (path / "plan.json").is_file():
        raise ConfigError(
            f"--resume: no run in {path}, which has no plan.json: it was ended while it was being "
            "made; give the command that began it without --resume"
        )
    return RunFolder(path=path), configuration.parse(configuration.load_yaml(path / "config.yaml"))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
