"""A run's folder: what was asked, what was planned, what came out."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ark_framework import config as configuration
from ark_framework.config import RunConfig
from ark_framework.errors import ConfigError, MachineError

REPORTED = ("ark-framework", "torch", "torchvision", "timm", "numpy", "pandas")


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
        self.write("run.json", {**known, "status": status, **values})


def write_text(path: Path, text: str) -> None:
    """Write a file beside, then put it in place.

    Raises:
        MachineError: the disk refuses.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise MachineError(f"cannot write {path}: {error.strerror}") from error


def default_name() -> str:
    """Return a folder name for a run that was not given one, from the local time."""
    return datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")


def refuse_used(path: Path) -> None:
    """Raise if something lies at ``path`` already.

    Raises:
        ConfigError: the folder is in use.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(
            f"--out {path} is in use; give another folder, or --resume to go on with the run in it"
        )


def create(path: Path, config: RunConfig, *, about: Mapping[str, Any]) -> RunFolder:
    """Make the folder of a new run.

    Raises:
        ConfigError: the folder is in use.
        MachineError: it cannot be made.
    """
    refuse_used(path)
    folder = RunFolder(path=path)
    try:
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"cannot make {path}: {error.strerror}") from error
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
    return RunFolder(path=path), configuration.parse(configuration.load_yaml(path / "config.yaml"))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
