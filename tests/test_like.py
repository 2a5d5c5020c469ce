"""Several folders in one run: entries of ``data`` that are read as a dataset is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ark_framework import ConfigError
from ark_framework.builtin.table import SPEC
from ark_framework.cli import run
from ark_framework.config import parse
from ark_framework.preparation import Prepared, prepare
from ark_framework.registry import load

Small = Callable[..., dict[str, Any]]


def folder(path: Path) -> dict[str, Any]:
    """Write a folder of images with a CSV and return the options that read it."""
    values = SPEC.fixture(path).model_dump(mode="json", exclude_defaults=True)
    return {"like": "table", **values}


def prepared(small: Small, data: dict[str, Any], **more: Any) -> Prepared:
    values = small(plugins=["ark-table"], **more)
    return prepare(parse({**values, "data": data}))


def test_two_folders_are_two_tasks(small: Small, tmp_path: Path) -> None:
    """Each has its own name, labels and store; the dataset that they are like is not asked for."""
    data = {"here": folder(tmp_path / "a"), "there": folder(tmp_path / "b")}
    data["there"]["labels"] = ["right"]
    found = prepared(small, data)
    assert {task.name: task.labels for task in found.plan.tasks} == {
        "here": ("left", "right"),
        "there": ("right",),
    }
    assert len({task.store for task in found.plan.tasks}) == 2
    assert found.registry.origin("dataset", "here").name == "ark-table"


def test_the_model_itself_takes_part_where_it_is_told(small: Small, tmp_path: Path) -> None:
    """``table`` with options of its own trains too, in the order of the plugin, then of data."""
    data = {"more": folder(tmp_path / "a"), "table": folder(tmp_path / "b")}
    del data["table"]["like"]
    assert [task.name for task in prepared(small, data).plan.tasks] == ["table", "more"]


def test_a_drawn_dataset_stays(small: Small) -> None:
    """What needs no folder is a dataset beside the one that is like it."""
    known = load(["ark-phantom"], data={"afar": {"like": "phantom-north"}}).datasets
    assert {"phantom-north", "afar"} <= set(known)
    assert known["afar"].read is known["phantom-north"].read


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"a": {"like": "tabel"}}, "no dataset 'tabel'; did you mean 'table'"),
        ({"table": {"like": "table"}}, "'table' is a dataset of its own already"),
        ({"My Films": {"like": "table"}}, "data.My Films: dataset name 'My Films' must be"),
    ],
)
def test_what_cannot_be(data: dict[str, Any], said: str) -> None:
    """An entry that is like nothing, or has a name that no dataset can have, is refused."""
    with pytest.raises(ConfigError, match=said):
        load(["ark-table"], data=data)


def test_a_folder_under_another_name_says_how(
    small: Small, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without ``like`` the error names the entry and the line to write."""
    data = {"here": folder(tmp_path / "a")}
    del data["here"]["like"]
    with pytest.raises(ConfigError, match=r"data\.here: .* say data\.here\.like = table"):
        prepared(small, data)
    assert run(["train", "--plugins", "ark-table", "--set", "data.here.csv=x.csv"]) == 2
    assert "data.here.like = table" in capfd.readouterr().err


def test_no_test_films_are_said(small: Small, tmp_path: Path) -> None:
    """A dataset without a test split trains, and a line says that nothing scores it at the end."""
    said: list[str] = []
    values = folder(tmp_path / "a")
    del values["split"]
    config = parse({**small(plugins=["ark-table"]), "data": {"here": values}})
    prepare(config, say=said.append)
    assert "here: no test films; it trains, and is not scored at the end" in said


def test_a_file_for_training_is_no_study(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Keys of training in the file of another command come with what to do about it."""
    (tmp_path / "run.yaml").write_text("plugins: [ark-phantom]\ncycles: 8\n")
    words = ["probe", "random:tiny", "-c", str(tmp_path / "run.yaml"), "--size", "24"]
    assert run([*words, "--out", str(tmp_path / "out")]) == 2
    assert "keep plugins and data in a file of their own" in capfd.readouterr().err


def test_listed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """``ark data list`` shows each folder with its labels, and a recipe's datasets."""
    values = folder(tmp_path / "a")
    (tmp_path / "two.yaml").write_text(
        json.dumps({"plugins": ["ark-table"], "data": {"here": values}})
    )
    assert run(["data", "list", "-c", str(tmp_path / "two.yaml")]) == 0
    assert "here  multilabel, 2 labels" in capfd.readouterr().out
    assert run(["data", "list", "--recipe", "demo"]) == 0
    assert "phantom-north" in capfd.readouterr().out
