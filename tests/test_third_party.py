"""Packages by five strangers in one run: a schema, a dataset, a head, a loss and a backbone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ark_framework import cli, scaffold

Install = Callable[..., str]
KINDS = ("dataset", "schema", "head", "loss", "backbone")
COLOR = """
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import BaseModel, ConfigDict

from ark_framework import DatasetCard, DatasetSpec, LabelSchema, hookimpl

class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    root: Path

def read(options):
    return pd.read_csv(options.root / "moles.csv", dtype={"patient": str})

def fixture(folder):
    rng = np.random.default_rng(0)
    rows = ["image,patient,split,red,green"]
    for number in range(48):
        red = number % 2
        skin = rng.normal(120, 20, (32, 32, 3))
        skin[8:24, 8:24, 1 - red] += 100
        Image.fromarray(skin.clip(0, 255).astype("uint8")).save(folder / f"{number}.png")
        split = "train" if number < 32 else "test"
        rows.append(f"{number}.png,p{number},{split},{red},{1 - red}")
    (folder / "moles.csv").write_text("\\n".join(rows) + "\\n")
    return Options(root=folder)

@hookimpl
def ark_datasets():
    card = DatasetCard(title="Moles", home="h", licence="CC0", access="open", citation="c")
    schema = LabelSchema(name="moles", kind="multilabel", labels=("red", "green"))
    return [DatasetSpec(name="moles", schema=schema, options=Options, read=read, fixture=fixture,
                        card=card, channels=3)]
"""


@pytest.fixture
def five(install: Install, tmp_path: Path) -> dict[str, Any]:
    """Install one package of each kind as ``ark plugins new`` writes them; return a config."""
    for kind in KINDS:
        made = scaffold.plan(f"their-{kind}", kind=kind)
        code = made.files[f"{made.module}.py"]
        if kind == "dataset":  # it refers to the schema of another package by name
            code = code.replace("schema=SCHEMA,", 'schema="their-schema",')
        if kind == "schema":
            lines = code.replace("REPORT = (", "REPORT = None  # (").splitlines()
            begun = [line.startswith("LABELS = ") for line in lines].index(True)
            lines[begun] = 'LABELS = ("effusion", "nodule")'
            code = "\n".join(lines)
        install(f"their-{kind}", code)
    return {
        "plugins": [f"ark-their-{kind}" for kind in KINDS],
        "tasks": [{"dataset": "their-dataset", "head": "their-head", "loss": "their-loss"}],
        "model": {"backbone": "their-backbone", "projector": "linear", "features": 16},
        "store": {"size": 48, "folder": str(tmp_path / "stores"), "workers": 1},
        "views": {"size": 32},
        "cycles": 2,
        "batch_size": 16,
        "leaks": "drop",
    }


def test_five_packages_in_one_run(
    five: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By name from a config, each is used and the plan says so; a wrong kind is refused before."""
    import ark_plugin_their_dataset as dataset

    folder = tmp_path / "films"
    folder.mkdir()
    dataset.fixture(folder)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**five, "data": {"their-dataset": {"root": str(folder)}}}))
    assert cli.run(["train", "-c", str(path), "--out", str(tmp_path / "run")]) == 0
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    (task,) = plan["tasks"]
    assert (task["dataset"], task["head"], task["loss"]) == (
        "their-dataset", "their-head", "their-loss",
    )  # fmt: skip
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    names = {plugin["name"] for plugin in run["plugins"]}
    assert names >= {f"ark-their-{kind}" for kind in KINDS}
    capsys.readouterr()

    wrong = {**five, "tasks": [{"dataset": "their-dataset", "loss": "cross_entropy"}]}
    wrong["data"] = {"their-dataset": {"root": str(folder)}}
    path.write_text(yaml.safe_dump(wrong))
    assert cli.run(["train", "-c", str(path), "--out", str(tmp_path / "no")]) == 2
    assert capsys.readouterr().err.strip() == (
        "error: task 'their-dataset': loss 'cross_entropy' serves multiclass, not multilabel"
    )
    assert not (tmp_path / "no").exists()


def test_three_channels_that_are_no_radiograph(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A color dataset trains unchanged beside a grey one, and its colors are what it learns."""
    module = install("moles", COLOR)
    folder = tmp_path / "moles"
    folder.mkdir()
    __import__(module).fixture(folder)
    monkeypatch.chdir(tmp_path)
    sizes = {f"phantom-{n}": {"films": 120, "size": 32} for n in ("north", "south", "east")}
    settings = {
        "data": {"moles": {"root": str(folder)}, **sizes},
        "store": {"size": 32, "folder": "stores", "workers": 1},
        "views": {"size": 32, "scale": [0.9, 1.0]},
        "model": {"backbone": "timm", "options": {"name": "resnet10t"}, "init": "random",
                  "projector": "linear", "features": 16},
        "optim": {"name": "adamw", "lr": 0.003},
        "teacher": {"momentum": 0.3},
        "leaks": "drop",
    }  # fmt: skip
    Path("run.yaml").write_text(yaml.safe_dump(settings))
    words = ["train", "--plugins", "ark-moles", "ark-phantom", "--tasks", "moles", "phantom-east"]
    assert cli.run([*words, "-c", "run.yaml", "--out", "run", "--set", "cycles=12"]) == 0
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    (scores,) = (line["scores"] for line in lines if line["event"] == "run" and line.get("scores"))
    (moles,) = (s for s in scores if (s["task"], s["model"]) == ("moles", "student"))
    assert moles["auroc"] > 0.9
