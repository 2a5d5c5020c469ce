"""The first-party datasets in use: linked, trained on by name, and beside a stranger's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ark_framework import cli, roots
from ark_framework import registry as plugins
from ark_framework.annotations import validate

OWN_HEAD = """
import ark_plugin_first as first
from dataclasses import replace
from ark_framework import HeadSpec, hookimpl

def build(in_features, schema):
    from torch import nn
    return nn.Sequential(nn.Linear(in_features, 8), nn.GELU(), nn.Linear(8, len(schema.labels)))

@hookimpl
def ark_heads():
    return [HeadSpec(name="{name}-mlp", kinds=("multilabel",), build=build)]

@hookimpl
def ark_datasets():
    return [replace(first.SPEC, name="{name}", head="{name}-mlp")]
"""


@pytest.fixture
def link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return ``link(*datasets)``: write their miniatures and link them, in an own folder."""
    monkeypatch.chdir(tmp_path)

    def make(*names: str) -> None:
        for name in names:
            registry = plugins.load([f"ark-{name}"])
            options = registry.dataset(name).fixture(tmp_path / name)
            roots.link(name, options.root)

    yield make
    roots.links_file().unlink(missing_ok=True)


def test_the_command_of_the_readme(
    link: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``ark train --plugins ark-vindr ark-chexpert``, typed exactly so, trains on both."""
    link("vindr", "chexpert")
    assert cli.run(["train", "--plugins", "ark-vindr", "ark-chexpert"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    run = json.loads((folder / "run.json").read_text())
    assert run["status"] == "finished"
    assert list(run["data"]) == ["vindr", "chexpert"]
    assert run["leaks"]["films"] == 0
    out = capsys.readouterr().out
    assert "vindr" in out
    assert "chexpert" in out


def test_a_stranger_with_a_head_of_their_own(
    install: Callable[..., str], link: Callable[..., None], tmp_path: Path
) -> None:
    """A package with an adapter and its own head trains beside a first-party dataset."""
    install("own", OWN_HEAD)
    link("own", "shenzhen")
    words = ["train", "--plugins", "ark-own", "ark-shenzhen", "--out", "run", "--set", "cycles=2"]
    assert cli.run(words) == 0
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert [(task["name"], task["head"]) for task in plan["tasks"]] == [
        ("own", "own-mlp"), ("shenzhen", "linear"),
    ]  # fmt: skip


def test_mimic_and_chexpert_name_their_labels(tmp_path: Path) -> None:
    """The same fourteen labels stand in two orders, and each table has its own, by name."""
    orders = {}
    for name in ("mimic", "chexpert"):
        registry = plugins.load([f"ark-{name}"])
        spec = registry.dataset(name)
        options = spec.fixture(tmp_path / name)
        schema = registry.schema_of(spec, options)
        validate(spec.read(options), dataset=name, schema=schema)
        orders[name] = schema.labels
    assert set(orders["mimic"]) == set(orders["chexpert"])
    assert list(orders["mimic"]) == sorted(orders["chexpert"])
    assert orders["chexpert"][:2] == ("No Finding", "Enlarged Cardiomediastinum")
