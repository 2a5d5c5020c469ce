"""Checkpoints, exports, weights and records that are broken: refused in a line, and never run."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from corpus_checkpoints import (
    BUILT,
    CHECKPOINTS,
    EXPORTS,
    MARK,
    PIECES,
    PLANS,
    PUBLISHED,
    RECORDS,
    RESUMED,
    SEGMENTERS,
    VECTORS,
    Break,
)
from oneline import assert_one_line, files, refused, some
from PIL import Image

from ark_framework import cli
from ark_framework.errors import ArkError, CheckpointError
from ark_framework.transfer import segmenter
from ark_framework.transfer.candidate import open_candidate
from ark_framework.transfer.workfolder import WorkFolder

BOUND = 2**20  # of more memory, in KiB: far above what is read here, far below what is asked for


@dataclass(frozen=True)
class World:
    """A sound run, its export, published weights, and the settings that made them."""

    config: Path
    study: Path
    run: Path
    export: Path
    published: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, shared_stores: Path) -> World:
    """Train once; every test breaks a copy."""
    home = tmp_path_factory.mktemp("sound")
    study = {
        "plugins": ["ark-phantom"],
        "data": {"phantom-north": {"films": 60, "size": 32}},
        "store": {"size": 32, "folder": str(shared_stores), "workers": 1},
        "runtime": {"threads": 1, "device": "cpu"},
    }
    config = {
        **study,
        "tasks": [{"dataset": "phantom-north"}],
        "cycles": 2,
        "views": {"size": 24},
        "model": {"backbone": "tiny", "options": {"width": 4}, "features": 8, "init": "random"},
        "log": {"tensorboard": False},
        "eval": {"every": 0, "test": False},
    }
    made = World(home / "run.yaml", home / "study.yaml", home / "run", home / "export", home / "p")
    made.config.write_text(json.dumps(config))
    made.study.write_text(json.dumps({**study, "datasets": ["phantom-north"]}))
    assert cli.run(["train", "-c", str(made.config), "--out", str(made.run)]) == 0
    assert cli.run(["export", str(made.run), "--out", str(made.export)]) == 0
    torch.save(_published(), made.published)
    return made


def _published() -> dict[str, torch.Tensor]:
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=0, img_size=64, embed_dim=24,
        depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=4,
    )  # fmt: skip
    more = {"omni_heads.0.weight": (3, 8), "omni_heads.0.bias": (3,)}
    more |= {"projector.weight": (8, 192), "projector.bias": (8,)}
    return {**model.state_dict(), **{name: torch.zeros(shape) for name, shape in more.items()}}


@pytest.fixture(autouse=True)
def bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing planted has run, and no memory was taken that a file asked for."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert not Path(MARK).exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + BOUND


@pytest.fixture
def run(world: World, tmp_path: Path) -> Path:
    """A copy of the run, to break."""
    return shutil.copytree(world.run, tmp_path / "run")


def _broken(path: Path, edit: Break) -> dict[str, str]:
    edit(path)
    return files(path.parent)


def test_what_is_broken_was_sound(
    world: World, run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Else each of these would be refused for nothing."""
    train = ["train", "-c", str(world.config)]
    assert cli.run([*train, "--out", str(run), "--resume"]) == 0
    assert cli.run([*train, "--out", str(tmp_path / "a"), "--init-from", str(run)]) == 0
    assert cli.run(["export", str(world.export), "--out", str(tmp_path / "b")]) == 0
    assert cli.run(["import", str(world.published), "--out", str(tmp_path / "c")]) == 0
    assert (tmp_path / "c" / "heads.json").is_file(), capfd.readouterr()


@pytest.mark.parametrize("name", some([*CHECKPOINTS, *RESUMED]))
def test_a_run_does_not_go_on(
    name: str, world: World, run: Path, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """From a broken checkpoint; it lies there as it was, and so does all that was measured."""
    last = run / "checkpoints" / "last.pt"
    before = _broken(last, {**CHECKPOINTS, **RESUMED}[name])
    words = ["train", "-c", world.config, "--out", run, "--resume"]
    metrics = (run / "metrics.jsonl").read_bytes()
    refused(words, 1, capfd, str(last))
    assert files(last.parent) == before
    assert (run / "metrics.jsonl").read_bytes() == metrics
    ledger.refused("checkpoint: resume")


@pytest.mark.parametrize("name", some(CHECKPOINTS))
def test_nothing_starts_from_it(
    name: str, world: World, run: Path, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """Neither by the run nor by the checkpoint itself."""
    last = run / "checkpoints" / "last.pt"
    _broken(last, CHECKPOINTS[name])
    words = ["train", "-c", world.config, "--out", run.parent / "new", "--init-from", last]
    refused(words, 1, capfd, str(last))
    assert not list((run.parent / "new" / "checkpoints").iterdir())
    ledger.refused("checkpoint: first weights")


@pytest.mark.parametrize("name", some([*CHECKPOINTS, *BUILT]))
def test_nothing_is_built_from_it(
    name: str, run: Path, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """No export, and so no embedding or score."""
    _broken(run / "checkpoints" / "last.pt", {**CHECKPOINTS, **BUILT}[name])
    refused(["export", run, "--out", run.parent / "new"], 1, capfd, str(run))
    assert not (run.parent / "new").exists()
    ledger.refused("checkpoint: model")


@pytest.mark.parametrize("name", some(PLANS))
def test_a_plan_is_broken(name: str, run: Path, capfd: pytest.CaptureFixture[str], ledger) -> None:
    """It says what heads a checkpoint has."""
    _broken(run / "plan.json", PLANS[name])
    refused(["export", run, "--out", run.parent / "new"], 1, capfd, str(run))
    ledger.refused("checkpoint: plan")


@pytest.mark.parametrize("name", some(EXPORTS))
def test_an_export_is_broken(
    name: str, world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """Refused before any data is looked at."""
    model = shutil.copytree(world.export, tmp_path / "model")
    file, edit = EXPORTS[name]
    edit(model / file)
    words = ["eval", model, "-c", world.study, "--out", tmp_path / "scores"]
    refused(words, 1, capfd, str(model))
    assert not (tmp_path / "scores").exists()
    ledger.refused("export")


@pytest.mark.parametrize("name", some(PUBLISHED))
def test_published_weights_are_broken(
    name: str, world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """Nothing is imported."""
    file = tmp_path / "weights.pth.tar"
    shutil.copy(world.published, file)
    PUBLISHED[name](file)
    refused(["import", file, "--out", tmp_path / "model"], 1, capfd, str(file))
    assert not (tmp_path / "model").exists()
    ledger.refused("published weights")


@pytest.mark.parametrize("name", some(RECORDS))
def test_a_record_is_broken(
    name: str, run: Path, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """What a model was trained on is known or not, and never guessed."""
    RECORDS[name](run / "trained_on.npz")
    refused(["export", run, "--out", run.parent / "new"], 1, capfd, "trained_on.npz")
    assert not (run.parent / "new").exists()
    ledger.refused("record of training films")


@pytest.mark.parametrize("name", some(PIECES))
def test_a_piece_of_work_is_broken(name: str, tmp_path: Path, ledger) -> None:
    """It is named, to be deleted; nothing of it is taken for done."""
    work = WorkFolder(path=tmp_path / "piece", asked={"films": 3})
    work.save({"model": {"a": torch.zeros(3)}, "best": None})
    if not name.startswith("last.pt"):
        work.finish({"steps": 3}, np.zeros((2, 3)), None)
    file, edit = PIECES[name]
    edit(work.path / file)
    with pytest.raises(CheckpointError) as error:
        work.load() if file == "last.pt" else work.result()
    assert_one_line(str(error.value), str(work.path), "delete it")
    ledger.refused("piece of a study")


@pytest.mark.parametrize("name", some(VECTORS))
def test_a_table_of_embeddings_is_broken(name: str, tmp_path: Path, ledger) -> None:
    """It is data, and refused as data is."""
    file, edit = VECTORS[name]
    edit(tmp_path / file)
    with pytest.raises(ArkError) as error:
        open_candidate(str(tmp_path / file))
    assert error.value.exit_code == 3
    assert_one_line(str(error.value), str(tmp_path / file))
    ledger.refused("table of embeddings")


@pytest.mark.parametrize("name", some(SEGMENTERS))
def test_a_network_for_masks_is_broken(name: str, tmp_path: Path, ledger) -> None:
    """As an export is."""
    plan = open_candidate("random:resnet10t", size=32)
    made = segmenter.build(plan, ("a", "b"), size=32, width=8)
    folder = tmp_path / "network"
    segmenter.save(folder, made, made.network.state_dict())
    segmenter.load(folder)
    file, edit = SEGMENTERS[name]
    edit(folder / file)
    with pytest.raises(CheckpointError) as error:
        segmenter.load(folder)
    assert_one_line(str(error.value), str(folder))
    ledger.refused("network for masks")


COMMANDS = ("eval", "embed", "probe", "finetune", "segment", "fairness", "predict")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "what",
    ["run", *(pytest.param(w, marks=pytest.mark.long) for w in ("export", "published", "nothing"))],
)
def test_every_command_refuses_it(
    command: str,
    what: str,
    world: World,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    ledger,
) -> None:
    """Whichever reads a model."""
    model = tmp_path / "model"
    if what == "published":
        shutil.copy(world.published, model)
        PUBLISHED["half"](model)
    elif what != "nothing":
        shutil.copytree(world.run if what == "run" else world.export, model)
        CHECKPOINTS["half"](
            model / ("checkpoints/last.pt" if what == "run" else "model.safetensors")
        )
    if command == "predict":
        (tmp_path / "films").mkdir()
        Image.new("L", (32, 32)).save(tmp_path / "films" / "a.png")
        words = ["predict", model, tmp_path / "films", "--out", tmp_path / "new.csv"]
    else:
        suffix = ".npz" if command == "embed" else ""
        words = [command, model, "-c", world.study, "--out", tmp_path / f"new{suffix}"]
    refused(words, 1, capfd, str(model))
    assert not list(tmp_path.glob("new*"))
    ledger.refused("model of a command")
