"""What a run has left in its folder, so that two runs can be compared byte by byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch


def lines(folder: Path) -> list[str]:
    """The metrics without what a clock says."""
    kept = (folder / "metrics.jsonl").read_text().splitlines()
    return [line for line in kept if json.loads(line)["event"] != "speed"]


def tensors(value: Any, where: str = "") -> dict[str, bytes]:
    """Every tensor of a checkpoint as bytes, by its path."""
    if isinstance(value, torch.Tensor):
        return {where: value.numpy().tobytes()}
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list | tuple) else items
    return {key: b for name, each in items for key, b in tensors(each, f"{where}/{name}").items()}


def state(folder: Path, name: str = "last.pt") -> dict[str, bytes]:
    """All that moves, of a checkpoint of a run."""
    content = torch.load(folder / "checkpoints" / name, weights_only=True)
    return tensors({name: content[name] for name in ("student", "teacher", "optimizer")})


def checkpoints(folder: Path) -> dict[str, Any]:
    """Every checkpoint of a run, by name: its tensors, where it stands and the best scores."""
    found: dict[str, Any] = {}
    for path in (folder / "checkpoints").iterdir():
        content = torch.load(path, weights_only=True)
        content["meta"].pop("metrics_offset")  # lines on speed have no fixed length
        content["meta"].pop("config")  # it says where stores lie as well
        rest = json.dumps([content["position"], content["meta"]], sort_keys=True)
        found[path.name] = (state(folder, path.name), rest)
    return found


def status(folder: Path) -> str:
    """How a run ended."""
    told: str = json.loads((folder / "run.json").read_text())["status"]
    return told


def must_equal(broken: Path, whole: Path) -> None:
    """A run that was broken is, in every byte that counts, one that was left alone."""
    assert status(broken) == "finished"
    assert lines(broken) == lines(whole)
    assert checkpoints(broken) == checkpoints(whole)
    assert files(broken / "predictions") == files(whole / "predictions")
    assert not list(broken.rglob("*.part"))


def files(folder: Path) -> dict[str, bytes]:
    """The bytes of the files of a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
