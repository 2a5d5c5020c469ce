"""No name from a file leads out of its folder: films, masks, tasks, heads, models, locks."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ark_framework import LabelSchema, PluginError, bundle, cli, config
from ark_framework.annotations import validate
from ark_framework.blueprint import Blueprint, Preprocessing, TaskHead
from ark_framework.builtin import table as builtin_table
from ark_framework.cli.auditing import _file_of as _audit_of
from ark_framework.errors import CheckpointError, ConfigError, DataError, MachineError
from ark_framework.images import resolve_below
from ark_framework.transfer.outcome import Outcome
from ark_framework.transfer.pieces import _file_of, predictions_of
from ark_framework.unfinished import locked

OUTSIDE = [
    "../secret.png",
    "a/../../secret.png",
    "/etc/passwd",
    "..",
    "a\\..\\secret.png",
    "C:/secret.png",
    "\\\\server\\share\\secret.png",
]
UNSHOWN = ["a\0b.png", "a\nb.png", "a\x1b[31mb.png", "a\rb.png", "\x7f.png"]
NOT_NAMES = [*OUTSIDE, *UNSHOWN, "a/b", "a b", "", ".hidden", "-option", "x\n", "\u202ex", "a;b"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder of films with a CSV, a secret beside it, and a configuration that trains on it."""
    folder = tmp_path / "films"
    options = builtin_table.SPEC.fixture(folder).model_dump(mode="json", exclude={"root", "masks"})
    written = {
        "plugins": ["ark-table"],
        "data": {"table": {**options, "root": str(folder)}},
        "cycles": 1,
        "store": {"size": 32, "folder": str(tmp_path / "stores"), "workers": 1},
        "views": {"size": 32},
        "model": {"backbone": "tiny", "options": {"width": 4}, "features": 8, "init": "random"},
        "runtime": {"device": "cpu"},
    }
    (tmp_path / "run.yaml").write_text(json.dumps(written), encoding="utf-8")
    Image.fromarray(np.full((64, 64), 99, np.uint8)).save(tmp_path / "secret.png")
    return tmp_path


def refused(run: Path, capfd: pytest.CaptureFixture[str], code: int, *given: str) -> str:
    """Plan, which packs; return the one line of the refusal."""
    assert cli.run(["plan", "-c", str(run / "run.yaml"), *given]) == code
    error = capfd.readouterr().err.strip()
    assert error.startswith("error: ")
    assert re.fullmatch(r"[^\x00-\x1f\x7f]*", error), repr(error)
    return error


def rename(run: Path, film: str) -> None:
    """Give the first row another film."""
    path = run / "films" / "labels.csv"
    text = path.read_text("utf-8")
    written = f'"{film}"' if re.search(r"[\n\r,]", film) else film
    path.write_text(text.replace("film00.png", written), encoding="utf-8", newline="")


@pytest.mark.parametrize("film", [*OUTSIDE, *UNSHOWN])
def test_a_film_lies_below_its_root(run: Path, film: str, capfd, ledger) -> None:
    """However it leads out; the line shows what stood there, and does not obey it."""
    rename(run, film)
    error = refused(run, capfd, 3)
    assert "posix path below the dataset's root" in error
    assert not list((run / "stores").glob("table-*"))
    ledger.refused("path out of the root")


def link_of_film(run: Path) -> None:
    film = run / "films" / "film00.png"
    film.unlink()
    film.symlink_to(run / "secret.png")


def link_of_folder(run: Path) -> None:
    (run / "films" / "part").symlink_to(run, target_is_directory=True)
    rename(run, "part/secret.png")


def link_in_circles(run: Path) -> None:
    film = run / "films" / "film00.png"
    film.unlink()
    film.symlink_to(film)


@pytest.mark.parametrize("make", [link_of_film, link_of_folder, link_in_circles])
def test_no_link_leads_out_of_the_root(
    run: Path, make: Callable[[Path], None], capfd, ledger
) -> None:
    """A film is where it says, with all links followed."""
    make(run)
    refused(run, capfd, 3)
    listed = (run / "stores" / "table-bad.csv").read_text("utf-8")
    assert "leads out of the root" in listed or "no such file" in listed or "loop" in listed
    ledger.refused("path out of the root")


def test_a_link_within_the_root_is_fine(run: Path, ledger) -> None:
    """Some unpack a dataset once and link its parts together."""
    film = run / "films" / "film00.png"
    film.rename(run / "films" / "kept.png")
    film.symlink_to(run / "films" / "kept.png")
    assert cli.run(["plan", "-c", str(run / "run.yaml")]) == 0
    (run / "linked").symlink_to(run / "films", target_is_directory=True)
    assert resolve_below(run / "linked", "film00.png").is_file()
    ledger.survived("link within the root")


def masks(run: Path, pattern: str) -> None:
    """Turn the configuration into one of masks."""
    written = json.loads((run / "run.yaml").read_text())
    told = written["data"]["table"]
    written["data"]["table"] = {
        **{name: told[name] for name in ("root", "image", "patient", "split")},
        "kind": "mask",
        "masks": {"spot": pattern},
    }
    (run / "run.yaml").write_text(json.dumps(written))
    (run / "films" / "masks").mkdir()
    for number in range(48):
        plane = Image.fromarray(np.full((64, 64), 255, np.uint8))
        plane.save(run / "films" / "masks" / f"film{number:02d}.png")


def pack(run: Path) -> int:
    return cli.run(["data", "pack", "-c", str(run / "run.yaml")])


@pytest.mark.parametrize("pattern", ["../{stem}.png", "/etc/{stem}", "masks/../../{stem}.png"])
def test_a_mask_lies_below_its_root(run: Path, pattern: str, capfd, ledger) -> None:
    """Even where there is such a file."""
    masks(run, pattern)
    (run / "film00.png").write_bytes((run / "secret.png").read_bytes())
    assert pack(run) == 3
    assert "leads out of the root" in capfd.readouterr().err
    ledger.refused("path out of the root")


def test_a_mask_starts_no_program(run: Path, capfd, ledger) -> None:
    """Pillow would give a PostScript file to an interpreter; here it is no mask."""
    masks(run, "masks/{stem}.png")
    mask = run / "films" / "masks" / "film00.png"
    mask.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with Image.open(mask) as known:
        assert known.format == "EPS"  # that is what Pillow takes it for
    assert pack(run) == 3
    assert "cannot identify" in capfd.readouterr().err
    ledger.refused("mask that is a program")


@pytest.mark.parametrize("name", NOT_NAMES)
def test_a_task_is_called_by_a_name(run: Path, name: str, capfd, ledger) -> None:
    """Files are named after it: predictions, and all that observers write."""
    written = json.loads((run / "run.yaml").read_text())
    written["tasks"] = [{"dataset": "table", "name": name}]
    (run / "run.yaml").write_text(json.dumps(written))
    error = refused(run, capfd, 2)
    assert "tasks.0.name" in error or "a NUL character" in error
    ledger.refused("hostile name")


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\tb", "a\x1bb", "a\0b", "\u202ea", "\x9b2J"])
def test_a_label_is_text_on_one_line(run: Path, name: str, capfd, ledger) -> None:
    """Of a plugin, of a folder's CSV, and of a model from elsewhere."""
    with pytest.raises(PluginError, match="text on one line"):
        LabelSchema(name="s", kind="multilabel", labels=(name,))
    with pytest.raises(ValueError, match="text on one line"):
        TaskHead(name="t", kind="multilabel", labels=(name,))
    written = json.loads((run / "run.yaml").read_text())
    written["data"]["table"]["labels"] = [name]
    (run / "run.yaml").write_text(json.dumps(written))
    error = refused(run, capfd, 2)
    assert "text on one line" in error or "a NUL character" in error
    ledger.refused("hostile name")


@pytest.mark.parametrize(
    "name", ["Pleural effusion", "肺炎", "No Lung Opacity / Not Normal", "É>5"]
)
def test_labels_are_in_any_language(name: str, ledger) -> None:
    """A slash or an angle bracket is no harm: no file is called after a label alone."""
    assert LabelSchema(name="s", kind="multilabel", labels=(name,)).labels == (name,)
    ledger.survived("label in any language")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "paper\0"])
def test_a_recipe_is_one_of_ours(name: str, ledger) -> None:
    """It is looked up, never joined to a folder."""
    with pytest.raises(ConfigError, match="no recipe"):
        config.recipe(name)
    ledger.refused("path out of the root")


@pytest.mark.parametrize(
    "args",
    [
        ["data", "link", "../../x", "."],
        ["plan", "--plugins", "ark-table", "--data", "../x=/etc"],
        ["plugins", "new", "../../x"],
        ["plugins", "new", "/x/y"],
        ["plugins", "show", "../../x"],
    ],
)
def test_names_on_the_command_line_are_no_paths(
    args: list[str], tmp_path: Path, monkeypatch, capfd, ledger
) -> None:
    """Where a name is asked for, a path is refused."""
    monkeypatch.chdir(tmp_path)
    assert cli.run(args) == 2
    assert capfd.readouterr().err.startswith("error: ")
    assert not any(tmp_path.iterdir())
    ledger.refused("hostile name")


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a\0b", "..", "x" * 999, "肺" * 99, "a\nb"])
def test_predictions_lie_in_their_folder(name: str, tmp_path: Path, ledger) -> None:
    """Models of a study are called as people like."""
    found = Outcome(
        model=name, dataset=name, protocol="probe", setting={"head": name}, films=1,
        trained_on={}, labels={}, auroc=0.5, accuracy=None,
    )  # fmt: skip
    file = predictions_of(tmp_path, Outcome(**{**vars(found), "predictions": _file_of(found, "k")}))
    assert file.resolve().parent == tmp_path / "predictions"
    assert len(file.name.encode()) < 255
    audits = {_audit_of("set", name), _audit_of("set", f"{name}-"), _audit_of("set", f"{name}/")}
    assert len(audits) == 3
    assert all(len(each.encode()) < 240 and "/" not in each for each in audits)
    ledger.survived("hostile name")


def export(folder: Path) -> Path:
    """Write a small model for others."""
    plan = Blueprint(
        backbone="tiny",
        options={"width": 4},
        projector="none",
        features=8,
        tasks=(TaskHead(name="task", kind="multilabel", labels=("a", "b")),),
        preprocessing=Preprocessing(size=32, resize=32, fit="squash", normalize="none"),
    )
    bundle.write(folder, plan.build(), plan, card="# small\n")
    return folder


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text("utf-8"))
    edit(values)
    path.write_text(json.dumps(values), "utf-8")


def head_called(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda values: values["tasks"][0].update(name=name)


TIMM = {"backbone": "timm", "plugins": []}


@pytest.mark.parametrize(
    ("file", "edit"),
    [
        *(("heads.json", head_called(name)) for name in ("../../x", "/x", "a/b", "a\0", "a.b", 7)),
        ("heads.json", lambda values: values["tasks"][0].update(labels=["a", "\x1b[31m"])),
        ("preprocess.json", lambda values: values.update(size=10**9, resize=10**9)),
        ("preprocess.json", lambda values: values.update(size=-1)),
        ("preprocess.json", lambda values: values.update(size="32")),
    ],
)
def test_a_model_from_elsewhere_has_names_and_sides(
    file: str, edit: Callable[[dict[str, Any]], object], tmp_path: Path, ledger
) -> None:
    """Its heads name columns and files; its side is memory."""
    made = export(tmp_path / "export")
    bundle.read(made)
    change(made / file, edit)
    with pytest.raises(CheckpointError, match="is damaged"):
        bundle.read(made)
    ledger.refused("hostile export")


@pytest.mark.parametrize("key", ["checkpoint_path", "pretrained_cfg", "pretrained", "cache_dir"])
def test_a_model_from_elsewhere_reads_no_other_file(key: str, tmp_path: Path, ledger) -> None:
    """timm would look for weights wherever a description says, on the network too."""
    made = export(tmp_path / "export")
    options = {"name": "resnet10t", "kwargs": {key: "/etc/passwd"}}
    change(made / "config.json", lambda values: values.update(ark={**TIMM, "options": options}))
    with pytest.raises(CheckpointError, match=f"{key} is not taken"):
        bundle.read(made)
    hub = {**TIMM, "options": {"name": "hf-hub:someone/model"}}
    change(made / "config.json", lambda values: values.update(ark=hub))
    with pytest.raises(CheckpointError, match="timm has no model"):
        bundle.read(made)
    ledger.refused("hostile export")


def test_a_lock_is_no_link(tmp_path: Path, ledger) -> None:
    """In a shared folder somebody may have put one there, to a file of the user's."""
    diary = tmp_path / "diary"
    diary.write_text("years of work")
    lock = tmp_path / "store.lock"
    lock.symlink_to(diary)
    with pytest.raises(MachineError, match="cannot lock"), locked(lock):
        pass
    assert diary.read_text() == "years of work"
    lock.unlink()
    for _ in range(2):
        with locked(lock):
            assert re.fullmatch(r"process \d+ on \S+\n", lock.read_text())
    ledger.refused("link in a shared folder")


def test_files_are_made_with_the_users_umask(run: Path, ledger) -> None:
    """Who keeps what is theirs from others keeps runs, stores and exports from them too."""
    before = os.umask(0o077)
    try:
        given = ["-c", str(run / "run.yaml"), "--out", str(run / "out" / "run")]
        assert cli.run(["train", *given]) == 0
        export(run / "out" / "export")
    finally:
        os.umask(before)
    made = [*(run / "out").rglob("*"), *(run / "stores").rglob("*")]
    assert len(made) > 20
    assert not [path for path in made if path.stat().st_mode & 0o077]
    ledger.survived("umask")


def test_every_table_is_checked_alike(ledger) -> None:
    """A plugin's as well: what it joins from its files, it cannot make a way out of."""
    schema = LabelSchema(name="s", kind="multilabel", labels=("a",))
    for film in (*OUTSIDE, *UNSHOWN):
        frame = pd.DataFrame({"image": ["ok.png", film], "split": "train", "a": 1})
        with pytest.raises(DataError, match="row 1"):
            validate(frame, dataset="d", schema=schema)
        ledger.refused("path out of the root")
