"""`ark bench`, and what a run says of its speed: that it is there and makes sense, not how fast."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from ark_framework import speed
from ark_framework.cli import ark
from ark_framework.cli.bench import Watch
from ark_framework.config import ModelConfig, RuntimeConfig
from ark_framework.errors import DataError
from ark_framework.launch import train
from ark_framework.model import ArkModel
from ark_framework.runtime import Runtime, open_runtime

Small = Callable[..., dict[str, Any]]
SMALL = ["--device", "cpu", "--size", "32", "--batch", "4", "--steps", "2"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is measured for long."""
    monkeypatch.setattr("ark_framework.cli.bench.PATIENCE", 0.0)
    monkeypatch.setattr("ark_framework.cli.bench.FILMS", 24)
    monkeypatch.setattr("ark_framework.cli.bench.DRAWN", 2)
    monkeypatch.setattr("ark_framework.cli.bench.DRAWN_SIDE", 64)
    monkeypatch.setattr(speed, "SIDES", {"cpu": 64})
    monkeypatch.setattr(speed, "PATIENCE", 0.0)


def table(*words: str) -> dict[str, dict[str, Any]]:
    done = CliRunner().invoke(ark, ["bench", *SMALL, *words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    return {line["name"]: line for line in json.loads(done.output)}


def test_the_table() -> None:
    """Every stage from the file to the step has its rate, and shares are shares."""
    found = table()
    rates = ["decode", "store", "views", "step"]
    assert list(found) == [*rates, "data wait", "matmul", "matmul share", "memory"]
    assert {found[name]["unit"] for name in rates} == {"images/s"}
    assert all(line["value"] > 0 for line in found.values())
    assert found["data wait"]["value"] < 100
    # A film goes through all of it, so that a step of it is slower than its views alone.
    assert found["step"]["value"] < found["views"]["value"] < found["store"]["value"]
    assert "tiny, fp32, batches of 4, 2 steps" in found["step"]["about"]


def test_given_films(tmp_path: Path) -> None:
    """Films that are given are decoded; those that cannot be are counted, not timed."""
    (tmp_path / "below").mkdir()
    for name in ("a.png", "below/b.PNG"):
        Image.new("L", (40, 50)).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no film")
    about = table("--films", str(tmp_path))["decode"]["about"]
    assert f"2 films of {tmp_path}, 1 unreadable" in about


@pytest.mark.parametrize(
    ("content", "told"), [(None, "no films"), (b"no film", "none can be read")]
)
def test_no_films(tmp_path: Path, content: bytes | None, told: str) -> None:
    """A folder without a film that can be read is refused in a line."""
    if content:
        (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(DataError, match=told):
        CliRunner().invoke(ark, ["bench", *SMALL, "--films", str(tmp_path)], catch_exceptions=False)


def test_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores, films and checkpoints go when the table is printed."""
    monkeypatch.setenv("ARK_STORE", str(tmp_path / "stores"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    table()
    assert not list(tmp_path.iterdir())


def test_every_line_says_the_speed(small: Small, tmp_path: Path) -> None:
    """Images a second, the share of waiting and memory are in the log and in the JSON lines."""
    watch = Watch()
    train(small(cycles=1), out=tmp_path / "run", watching=(watch,))
    log = (tmp_path / "run" / "train.log").read_text().splitlines()
    lines = [line for line in log if " step " in line and "loss" in line]
    told = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    speeds = [line for line in told if line["event"] == "speed"]
    assert len(lines) == len(speeds) == len(watch.flushed)
    for line, values, event in zip(lines, speeds, watch.flushed, strict=True):
        images = sum(step.images for step in event.steps)
        assert values["images_per_second"] == pytest.approx(images / event.seconds)
        assert 0 <= values["wait_share"] <= 1
        assert values["memory"] == event.memory > 50e6  # torch alone is larger
        # Of a GPU alone.
        assert (values["device_memory"], values["matmul_share"]) == (None, None)
        for part in (" img/s", " wait ", " mem "):
            assert part in line


def test_a_gpu_adds_its_own(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU's peak and the share of its matmul rate stand beside the rest."""
    monkeypatch.setattr(speed, "device_memory", lambda _: 3 * 10**9)
    opened = speed.Gauge.open

    def with_rate(*args: Any) -> speed.Gauge:
        runtime = opened(*args).runtime
        return speed.Gauge(runtime=runtime, flops=10.0, rate=1e9)

    monkeypatch.setattr(speed.Gauge, "open", with_rate)
    watch = Watch()
    train(small(cycles=1), out=tmp_path / "run", watching=(watch,))
    event = watch.flushed[0]
    images = sum(step.images for step in event.steps)
    assert event.matmul_share == pytest.approx(images / event.seconds * 10.0 / 1e9)
    assert " gpu 3.0 GB matmul " in (tmp_path / "run" / "train.log").read_text()


def test_the_share_is_of_all_processes() -> None:
    """Two processes have two devices' rate; what has no rate has no share."""
    alone = Runtime(device=torch.device("cpu"), precision="fp32")
    both: Any = SimpleNamespace(device=alone.device, ranks=SimpleNamespace(world=2))
    assert speed.Gauge(runtime=alone, flops=2.0, rate=100.0).share(10.0) == pytest.approx(0.2)
    assert speed.Gauge(runtime=both, flops=2.0, rate=100.0).share(10.0) == pytest.approx(0.1)
    assert speed.Gauge(runtime=alone).share(10.0) is None


def test_flops_of_a_step() -> None:
    """Four forwards, counted by hand on one convolution and one product; the model stays."""

    class Encoder(torch.nn.Module):
        in_chans = 1

        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 4, 3, padding=1, bias=False)
            self.norm = torch.nn.BatchNorm2d(4)

        def forward_maps(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [self.norm(self.conv(x))]

        def pool(self, last: torch.Tensor) -> torch.Tensor:
            return last.mean((2, 3))

    config = ModelConfig(projector="linear", features=8)
    model = ArkModel(Encoder(), {}, config=config, size=16).eval()
    model.inputs["task"] = "projected"
    model.heads["task"] = torch.nn.Identity()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    forward = 2 * (16 * 16 * 4 * 9) + 2 * (4 * 8)
    assert speed.film_flops(model, "task", 16) == 4 * forward
    after = model.state_dict()
    assert all(torch.equal(each, after[name]) for name, each in before.items())


def test_memory_is_the_process_own(tmp_path: Path) -> None:
    """What is allocated counts; a file that is mapped and read does not."""
    import numpy as np

    size = 64 * 2**20
    before = speed.memory()
    held = np.ones(size, dtype=np.uint8)
    assert speed.memory() - before > 0.9 * size
    path = tmp_path / "films.npy"
    np.save(path, held)
    with_array = speed.memory()
    mapped = np.load(path, mmap_mode="r")
    assert int(mapped.sum(dtype=np.int64)) == size
    assert abs(speed.memory() - with_array) < 0.1 * size


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(small: Small, tmp_path: Path) -> None:
    """A run on a GPU says a share of the matmul rate between nothing and all of it."""
    watch = Watch()
    config = small(cycles=1, runtime={"device": "cuda"})
    train(config, out=tmp_path / "run", watching=(watch,))
    assert all(0 < event.matmul_share < 1 for event in watch.flushed if event.matmul_share)
    assert all(event.device_memory for event in watch.flushed)
    rate = speed.matmul_rate(open_runtime(RuntimeConfig(device="cuda")))
    assert rate > 1e12
