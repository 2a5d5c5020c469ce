"""`ark recipes`: what a copy comes to is what the recipe comes to, and what differs is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ark_framework import cli, config
from ark_framework.cli.settings import gather


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def gathered(**told: object) -> config.RunConfig:
    nothing = {"plugins": (), "tasks": (), "file": None, "assignments": (), "store": None}
    return gather(**{**nothing, "limit": None, "max_bad": None, **told})  # type: ignore[arg-type]


def test_list(capfd: pytest.CaptureFixture[str]) -> None:
    """A line for each: what it is, and where its numbers come from."""
    assert cli.run(["recipes", "list"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(config.recipes())
    told = dict(line.split(maxsplit=1) for line in lines)
    assert told["ark6"].startswith("Ark-6: the values of the published command")
    assert "of our own" in told["default"]
    assert "of our own" in told["demo"]
    assert all(line.endswith(".") for line in told.values())


@pytest.mark.parametrize("name", config.recipes())
def test_a_copy_is_the_recipe(name: str, tmp_path: Path) -> None:
    """`ark train -c` of a copy is `ark train --recipe`: a recipe says all that `default` says."""
    assert cli.run(["recipes", "copy", name, "mine.yaml"]) == 0
    text = (tmp_path / "mine.yaml").read_text("utf-8")
    assert text.startswith("# ")
    assert gathered(file=Path("mine.yaml")) == gathered(recipe=name)


def test_nothing_is_overwritten(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A file that is there, a folder that is not, another suffix and an unknown name: exit 2."""
    (tmp_path / "mine.yaml").write_text("kept", encoding="utf-8")
    for words, message in (
        (["ark6", "mine.yaml"], "not overwritten"),
        (["ark6", "nowhere/mine.yaml"], "folder that exists"),
        (["ark6", "mine.txt"], ".yaml"),
        (["ark66", "other.yaml"], "did you mean 'ark6'"),
    ):
        assert cli.run(["recipes", "copy", *words]) == 2
        assert message in capfd.readouterr().err
    assert (tmp_path / "mine.yaml").read_text("utf-8") == "kept"
    assert not (tmp_path / "other.yaml").exists()


def test_diff(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Dotted keys that differ, of recipes and of files as `-c` takes them."""
    assert cli.run(["recipes", "diff", "ark6", "ark5", "--json"]) == 0
    found = {each["key"]: each for each in json.loads(capfd.readouterr().out)}
    assert set(found) == {"plugins", "model.projector"}
    assert (found["model.projector"]["ark6"], found["model.projector"]["ark5"]) == ("mlp", "linear")
    (tmp_path / "mine.yaml").write_text("optim: {lr: 0.5}\n", encoding="utf-8")
    assert cli.run(["recipes", "diff", "default", "mine.yaml"]) == 0
    heading, *lines = capfd.readouterr().out.splitlines()
    assert heading.split() == ["default", "mine.yaml"]
    assert [line.split() for line in lines] == [["optim.lr", "0.001", "0.5"]]
    assert cli.run(["recipes", "diff", "ark6", "ark6"]) == 0
    assert "the same settings" in capfd.readouterr().out
    assert cli.run(["recipes", "diff", "ark6", "none.yaml"]) == 2
    assert "cannot read config none.yaml" in capfd.readouterr().err
