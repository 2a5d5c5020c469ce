"""Many steps, many tasks, many films: nothing grows, and what is broken is left out, not lost."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import yaml
from faults import Command
from PIL import Image

from ark_framework import cli, exposure

PAGE = 4096
# Of memory, between one half of a run and the other: a few films and their gradients kept in each
# task or step would be many times as much.
GROWTH = 6e6


def watched(command: Command, every: float) -> list[tuple[float, int]]:
    """Return a process's memory in bytes and number of open files, again and again to its end."""
    found, where = [], Path(f"/proc/{command.process.pid}")
    while command.process.is_alive():
        try:
            memory = int((where / "statm").read_text().split()[1]) * PAGE
            found.append((memory, len(list((where / "fd").iterdir()))))
        except OSError:  # it ended between
            break
        time.sleep(every)
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("cycles", "steps"), [(9, 16), pytest.param(70, 24, marks=pytest.mark.long)]
)
def test_nothing_grows(
    small: Callable[..., dict[str, Any]], tmp_path: Path, cycles: int, steps: int, ledger: Any
) -> None:
    """Three tasks in turn, scored and saved each cycle; then memory and open files are the same."""
    north, south, east = ({"dataset": f"phantom-{name}"} for name in ("north", "south", "east"))
    values = small(
        cycles=cycles,
        tasks=[{**each, "steps": steps} for each in (north, south, east)],
        checkpoint={"every": 10, "keep": 2},
    )
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    words = ["train", "-c", str(tmp_path / "run.yaml"), "--recipe", "default"]
    command = Command([*words, "--out", str(tmp_path / "out")], tmp_path / "command")
    seen = watched(command, 0.02 if cycles < 20 else 0.1)
    assert command.end() == 0, command.err
    told = [
        json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    ]
    tasks = [each["task"] for each in told if each["event"] == "step"]
    assert len(tasks) == cycles * 3 * steps
    switches = sum(a != b for a, b in itertools.pairwise(tasks))
    assert switches == cycles * 3 - 1
    # The first half is for what is made once: buffers, caches, code.
    half = seen[len(seen) // 2 :]
    before, after = half[: len(half) // 2], half[len(half) // 2 :]
    grown = median(memory for memory, _ in after) - median(memory for memory, _ in before)
    assert grown < GROWTH, f"{grown / 1e6:.1f} MB more"
    assert median(files for _, files in after) <= median(files for _, files in before)
    assert max(files for _, files in after) <= max(files for _, files in before) + 1
    ledger.survived("soak: steps and task switches")


FOLDER, BROKEN = 1000, 10  # films in a folder, and how many of them are cut


def films(root: Path, rows: int) -> None:
    """Write films, a hundredth of them cut, and a table: one folder, and links to it."""
    draws = np.random.default_rng(0)
    (root / "00000").mkdir(parents=True)
    for film in range(FOLDER):
        path = root / "00000" / f"{film:03d}.png"
        Image.fromarray(draws.integers(0, 256, (16, 16), dtype=np.uint8)).save(path)
        if film % (FOLDER // BROKEN) == 7:
            path.write_bytes(path.read_bytes()[:60])
    for number in range(1, rows // FOLDER):
        (root / f"{number:05d}").symlink_to("00000")
    with (root / "films.csv").open("w") as file:
        file.write("image,patient,split,left,right\n")
        for row in range(rows):
            split = ("val", "test")[row % 2] if row % FOLDER < 20 else "train"
            left, right = draws.integers(0, 2), row % 2
            file.write(
                f"{row // FOLDER:05d}/{row % FOLDER:03d}.png,p{row},{split},{left},{right}\n"
            )


@pytest.mark.timeout(900)
@pytest.mark.parametrize("rows", [10_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_a_hundredth_of_the_films_is_broken(
    tmp_path: Path, rows: int, ledger: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """One too many is refused, with a list of all; allowed, all others train."""
    root, bad = tmp_path / "films", rows // FOLDER * BROKEN
    films(root, rows)
    values = {
        "plugins": ["ark-table"],
        "data": {
            "many": {
                "like": "table", "root": str(root), "csv": "films.csv", "image": "image",
                "patient": "patient", "split": "split", "labels": ["left", "right"],
            }
        },
        "tasks": [{"dataset": "many", "steps": 20}],
        "cycles": 1,
        "batch_size": 16,
        "store": {"size": 16, "folder": str(tmp_path / "stores")},
        "views": {"size": 16},
        "model": {"backbone": "tiny", "options": {"width": 4}, "features": 8, "init": "random"},
        "log": {"tensorboard": False},
        "runtime": {"threads": 1, "device": "cpu"},
    }  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    out = tmp_path / "out"
    words = ["train", "-c", str(tmp_path / "run.yaml"), "--recipe", "default"]
    few, enough = (["--max-bad", str(count)] for count in (bad - 1, bad))
    if rows <= 10_000:  # what is broken is read twice then
        assert cli.run([*words, *few, "--out", str(out)]) == 3
        refused(tmp_path, rows, capfd, ledger)
        assert not out.exists() or not (out / "checkpoints").exists()
    assert cli.run([*words, *enough, "--out", str(out)]) == 0
    assert (out / "checkpoints" / "last.pt").is_file()
    (store,) = (tmp_path / "stores").glob("many-*")
    manifest = json.loads((store / "manifest.json").read_text())
    assert (manifest["films"], len(manifest["bad"])) == (rows, bad)
    (part,) = exposure.load(out).parts
    assert len(part.films) == rows // FOLDER * 971  # not 20 held out, nor 9 that are broken
    ledger.survived("soak: broken films")
    capfd.readouterr()
    assert cli.run([*words, *few, "--out", str(tmp_path / "again")]) == 3
    refused(tmp_path, rows, capfd, ledger)


def refused(tmp_path: Path, rows: int, capfd: pytest.CaptureFixture[str], ledger: Any) -> None:
    """It is one line, and all are listed."""
    bad = rows // FOLDER * BROKEN
    *_, line = capfd.readouterr().err.splitlines()
    assert f"{bad} of {rows} films cannot be read" in line
    listing = (tmp_path / "stores" / "many-bad.csv").read_text().splitlines()
    assert len(listing) == 1 + bad
    assert listing[1].startswith("00000/007.png,")
    ledger.refused("soak: broken films")
