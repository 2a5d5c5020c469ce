"""What people get wrong: one line, the documented exit code, nothing overwritten."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ark_framework import cli
from ark_framework.builtin.table import SPEC


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder of images with a CSV and a config that trains on it."""
    folder = tmp_path / "films"
    options = SPEC.fixture(folder).model_dump(mode="json", exclude={"root", "masks"})
    config = {
        "plugins": ["ark-table"],
        "data": {"table": {**options, "root": str(folder)}},
        "cycles": 1,
        "store": {"size": 32, "folder": str(tmp_path / "stores")},
        "views": {"size": 32},
        "model": {"backbone": "tiny", "options": {"width": 4}, "features": 8, "init": "random"},
        "runtime": {"device": "cpu"},
    }
    (tmp_path / "run.yaml").write_text(json.dumps(config), encoding="utf-8")
    return tmp_path


def change(run: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((run / "run.yaml").read_text())
    edit(config)
    (run / "run.yaml").write_text(json.dumps(config))


def images(run: Path) -> list[Path]:
    return sorted(p for p in (run / "films").rglob("*") if p.suffix in {".png", ".jpg", ".jpeg"})


def no_column(run: Path) -> list[str]:
    change(run, lambda config: config["data"]["table"].update(labels=["pneumnia"]))
    return []


def no_image(run: Path) -> list[str]:
    images(run)[3].unlink()
    return []


def cut_png(run: Path) -> list[str]:
    film = next(path for path in images(run) if path.suffix == ".png")
    film.write_bytes(film.read_bytes()[:60])
    return []


def unknown_key(run: Path) -> list[str]:
    change(run, lambda config: config.update(cycels=3))
    return []


def unknown_set(run: Path) -> list[str]:
    return ["--set", "optim.learning_rate=0.1"]


def unknown_plugin(run: Path) -> list[str]:
    return ["--plugins", "ark-chexprt"]


def no_root(run: Path) -> list[str]:
    change(run, lambda config: config["data"]["table"].pop("root"))
    return []


def root_is_gone(run: Path) -> list[str]:
    change(run, lambda config: config["data"]["table"].update(root=str(run / "nowhere")))
    return []


def out_in_use(run: Path) -> list[str]:
    (run / "out").mkdir()
    (run / "out" / "thesis.txt").write_text("years of work")
    return []


def out_is_a_file(run: Path) -> list[str]:
    (run / "out").write_text("years of work")
    return []


def no_weights(run: Path) -> list[str]:
    model = {"backbone": "timm", "options": {"name": "resnet10t"}, "init": str(run / "absent.pth")}
    change(run, lambda config: config.update(model=model))
    return []


def no_gpu(run: Path) -> list[str]:
    return ["--set", "runtime.device=cuda:7"]


def nothing_to_resume(run: Path) -> list[str]:
    return ["--resume"]


def no_init(run: Path) -> list[str]:
    return ["--init-from", str(run / "nowhere")]


@pytest.mark.parametrize(
    ("mistake", "code", "said"),
    [
        (no_column, 3, ["no column 'pneumnia'", "labels.csv"]),
        (no_image, 3, ["no such file", "-bad.csv", "--max-bad"]),
        (cut_png, 3, [".png", "-bad.csv"]),
        (unknown_key, 2, ["unknown key 'cycels'", "did you mean 'cycles'"]),
        (unknown_set, 2, ["unknown key 'optim.learning_rate'"]),
        (unknown_plugin, 2, ["no plugin 'ark-chexprt'", "pip install ark-plugin-chexprt"]),
        (no_root, 3, ["--data table=PATH", "data.table.root", "ARK_DATA_TABLE", "ark data link"]),
        (root_is_gone, 3, ["nowhere", "not a folder"]),
        (out_in_use, 2, ["in use", "--resume"]),
        (out_is_a_file, 2, ["in use"]),
        (no_weights, 5, ["absent.pth"]),
        (no_gpu, 5, ["cuda:7"]),
        (nothing_to_resume, 2, ["no run in"]),
        (no_init, 1, ["no checkpoint at"]),
    ],
)
def test_a_mistake_is_one_line(
    run: Path,
    mistake: Callable[[Path], list[str]],
    code: int,
    said: list[str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """And every file that was there is there still, as it was."""
    given = mistake(run)
    before = snapshot(run)
    assert (
        cli.run(["train", "-c", str(run / "run.yaml"), "--out", str(run / "out"), *given]) == code
    )
    error = capfd.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    assert "Traceback" not in error
    for part in said:
        assert part in error
    after = snapshot(run)
    assert {name: after.get(name) for name in before} == before


def snapshot(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_broken_films_may_be_allowed(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With a cap the run goes on without them, and says so."""
    cut_png(run)
    given = ["train", "-c", str(run / "run.yaml"), "--out", str(run / "out")]
    assert cli.run([*given, "--max-bad", "1"]) == 0
    assert "left out: 1 unreadable film\n" in capfd.readouterr().out


def test_without_the_mistake_it_trains(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The config that all of these spoil is sound; the result can be read by a script."""
    code = cli.run(["train", "-c", str(run / "run.yaml"), "--out", str(run / "out"), "--json"])
    assert code == 0
    result = json.loads(capfd.readouterr().out)
    assert Path(result["out"]) == run / "out"
    assert {each["model"] for each in result["scores"]} == {"student", "teacher"}
