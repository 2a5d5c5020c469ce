"""Pictures and DICOMs of every kind: read right, or refused in a line that says why."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import corpus_dicoms
import corpus_images
import numpy as np
import pandas as pd
import pytest
from corpus_images import NO_IMAGE, Case, picture
from oneline import assert_one_line, refused
from PIL import Image

from ark_framework import bundle, cli
from ark_framework.blueprint import Blueprint, Preprocessing, TaskHead
from ark_framework.errors import DataError
from ark_framework.images import fit_square, read_color, read_image, resolve_below
from ark_framework.pixels import MAX_PIXELS
from ark_framework.store import Store, open_store

PICTURES, DICOMS = corpus_images.cases(), corpus_dicoms.cases()
SIDE = 32
# What a small file may take until it is refused, and what one may take that is read.
REFUSED_MB, READ_MB = 400, 1300


def written(case: Case, root: Path) -> Path:
    """Write one case; return where."""
    case.make(root / case.name)
    return root / case.name


def check(case: Case, root: Path) -> None:
    """Read one case as a dataset does."""
    path = written(case, root)
    if case.pixels is None:
        with pytest.raises(DataError) as caught:
            read_image(resolve_below(root, case.name))
        said = str(caught.value)
        assert said.startswith(f"{path}: ")
        assert_one_line(said.removeprefix(f"{path}: "))
        assert re.search(case.reason, said.removeprefix(f"{path}: ")), said
        return
    pixels = read_image(resolve_below(root, case.name))
    assert (pixels.shape, pixels.dtype) == (case.pixels.shape, case.pixels.dtype)
    assert np.abs(pixels.astype(int) - case.pixels).max() <= case.near
    assert read_color(path).shape == (*pixels.shape, 3)


@pytest.mark.parametrize("case", PICTURES, ids=str)
def test_a_picture(case: Case, tmp_path: Path, capfd: pytest.CaptureFixture[str], ledger) -> None:
    """Nothing is printed besides, by no library either."""
    check(case, tmp_path)
    assert capfd.readouterr() == ("", "")
    ledger.survived("picture") if case.pixels is not None else ledger.refused("picture")


@pytest.mark.parametrize("case", DICOMS, ids=str)
def test_a_dicom(case: Case, tmp_path: Path, capfd: pytest.CaptureFixture[str], ledger) -> None:
    """As a viewer shows it, or not at all."""
    check(case, tmp_path)
    assert capfd.readouterr() == ("", "")
    ledger.survived("DICOM") if case.pixels is not None else ledger.refused("DICOM")


@dataclass(frozen=True)
class Folder:
    """All cases in one folder of films, a table of them, and a configuration that packs them."""

    home: Path
    cases: tuple[Case, ...]
    config: Path

    @property
    def stores(self) -> Path:
        return self.home / "stores"

    def store(self) -> Store:
        [path] = self.stores.glob("table-*[0-9a-f]/")
        return open_store(path)

    def write(self, names: list[str]) -> None:
        """Name these films in the table."""
        with (self.home / "films" / "labels.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(
                [("image", "a"), *((name, n % 2) for n, name in enumerate(names))]
            )

    def words(self, *words: str, max_bad: int) -> list[str]:
        return [*words, "-c", str(self.config), "--set", f"store.max_bad={max_bad}"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Write them all; those of one name are one film."""
    home = tmp_path_factory.mktemp("corpus")
    cases = tuple({case.name: case for case in (*PICTURES, *DICOMS)}.values())
    made = Folder(home, cases, home / "run.yaml")
    (home / "films").mkdir()
    for case in cases:
        written(case, home / "films")
    config = {
        "plugins": ["ark-table"],
        "data": {"table": {"root": str(home / "films"), "labels": ["a"]}},
        "store": {"size": SIDE, "folder": str(home / "stores"), "workers": 1},
        "views": {"size": SIDE},
        "runtime": {"device": "cpu"},
    }
    made.config.write_text(json.dumps(config))
    made.write([case.name for case in cases])
    return made


def test_a_folder_of_them_is_refused(
    folder: Folder, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """Once in a line that names the first, and all in a list; no store is made."""
    wrong = {case.name for case in folder.cases if case.pixels is None}
    assert len(wrong) > 200
    words = folder.words("data", "pack", max_bad=len(wrong) - 1)
    line = refused(words, 3, capfd, f"{len(wrong)} of {len(folder.cases)} films cannot be read")
    assert "table-bad.csv" in line
    with (folder.stores / "table-bad.csv").open(encoding="utf-8", newline="") as file:
        assert {row["image"] for row in csv.DictReader(file)} == wrong
    assert not [path for path in folder.stores.glob("table-*/") if path.name[0] != "."]
    ledger.refused("folder of broken films")


def test_a_folder_of_them_is_packed(
    folder: Folder, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """The fine films are stored as they are; the others are black, and each says why."""
    wrong = {case.name: case.reason for case in folder.cases if case.pixels is None}
    assert cli.run(folder.words("data", "pack", max_bad=len(wrong))) == 0
    assert "Traceback" not in capfd.readouterr().err
    store = folder.store()
    assert set(store.bad) == set(wrong)
    for row, case in enumerate(folder.cases):
        if case.pixels is None:
            assert not store.images[row].any()
            assert_one_line(store.bad[case.name])
            assert re.search(case.reason, store.bad[case.name])
            continue
        film = fit_square(case.pixels, SIDE, "squash")
        # A deep film is spread by its own range: what differs by a little may differ by more.
        assert np.abs(store.images[row].astype(int) - film).max() <= max(1, case.near)
    assert len(cli_json(["data", "verify"], folder, capfd)["problems"]) > 1
    ledger.survived("folder of broken films")


def cli_json(words: list[str], folder: Folder, capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Run a command that finds problems; return what it writes."""
    capfd.readouterr()
    assert cli.run([*folder.words(*words, max_bad=10**6), "--json"]) == 3
    captured = capfd.readouterr()
    [line] = [each for each in captured.err.splitlines() if each.startswith("error: ")]
    assert_one_line(line, "error: table: ")
    found: dict[str, Any] = json.loads(captured.out)[0]
    return found


def model(folder: Path) -> Path:
    """Write a small model for others."""
    plan = Blueprint(
        backbone="tiny",
        options={"width": 4},
        projector="none",
        features=8,
        tasks=(TaskHead(name="task", kind="multilabel", labels=("a", "b")),),
        preprocessing=Preprocessing(size=SIDE, resize=SIDE, fit="squash", normalize="none"),
    )
    bundle.write(folder, plan.build(), plan, card="# small\n")
    return folder


def test_they_are_predicted(
    folder: Folder, tmp_path: Path, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """A film that cannot be read has its row, without numbers and with the reason."""
    films, out = folder.home / "films", tmp_path / "out.csv"
    words = ["predict", str(model(tmp_path / "model")), str(films), "--out", str(out)]
    refused([*words, "--workers", "1"], 3, capfd, "films cannot be read", str(out))
    assert cli.run([*words, "--overwrite", "--workers", "1", "--max-bad", "999"]) == 0
    table = pd.read_csv(out, keep_default_na=False).set_index("image")
    found = {case.name: case for case in folder.cases if str(films / case.name) in table.index}
    assert len(found) == len(table) > 300  # all that ends as a film does
    for name, case in found.items():
        row = table.loc[str(films / name)]
        assert bool(row["problem"]) == (case.pixels is None), name
        assert (row["task:a"] == "") == (case.pixels is None)
        if case.pixels is None and "root" not in case.reason:  # here no root confines them
            assert_one_line(row["problem"])
            assert re.search(case.reason, row["problem"])
    ledger.survived("folder of broken films")


def test_they_are_embedded(
    folder: Folder, tmp_path: Path, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """Those that can be read."""
    out, study = tmp_path / "out.npz", tmp_path / "study.yaml"
    config = json.loads(folder.config.read_text())
    del config["views"]  # a model has its own
    study.write_text(json.dumps(config))
    folder = Folder(folder.home, folder.cases, study)
    words = ["embed", str(model(tmp_path / "model")), "--out", str(out)]
    refused(folder.words(*words, max_bad=3), 3, capfd, "films cannot be read")
    assert not out.exists()
    assert cli.run(folder.words(*words, max_bad=999)) == 0
    with np.load(out) as made:
        names = made["ids"].tolist()
    assert names == [case.name for case in folder.cases if case.pixels is not None]
    ledger.survived("folder of broken films")


MEASURED = """
import os, resource, sys
from pathlib import Path
from ark_framework.errors import DataError
from ark_framework.images import fit_square, read_image
import pydicom.pixels, openjpeg.utils, PIL.features  # what is loaded once is not a film's
from pydicom.pixels.decoders import JPEGBaseline8BitDecoder

def read(path):
    try:
        fit_square(read_image(path), 32, "pad")
    except DataError:
        pass

for name in sorted(os.listdir(sys.argv[1])):
    child = os.fork()
    if not child:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        read(Path(sys.argv[1], name))
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, name)
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
"""


def measured(folder: Path) -> dict[str, int]:
    """Return by how many megabytes a process grew over each file."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(folder)], capture_output=True, text=True, check=True
    )
    lines = (line.split(" ", 1) for line in done.stdout.splitlines())
    return {name: int(megabytes) for megabytes, name in lines}


def test_what_is_refused_takes_no_room(tmp_path: Path, ledger) -> None:
    """However much it claims to hold, or grows to."""
    claims = re.compile("bomb|pixels a side|65535|JPEG.* of|4 GB|beyond|million|frames|nested|much")
    chosen = [case for case in (*PICTURES, *DICOMS) if claims.search(case.name)]
    for case in chosen:
        written(case, tmp_path)
    found = measured(tmp_path)
    assert len(found) == len(chosen) > 60
    assert {name: grown for name, grown in found.items() if grown > REFUSED_MB} == {}
    for _ in found:
        ledger.refused("bomb")


def largest(folder: Path) -> None:
    """Write films of a few kilobytes that are as large as a film may be."""
    side = int(MAX_PIXELS**0.5)
    data = corpus_images.nothing(520)
    for depth, color in ((8, 0), (16, 0), (8, 2), (8, 6)):
        path = folder / f"{depth} bits, color {color}.png"
        path.write_bytes(corpus_images.png(side, side, data, depth=depth, color=color))
    with io.BytesIO() as file:
        Image.new("L", (side, side), 9).save(file, "JPEG")
        jpeg = corpus_dicoms.fragments(file.getvalue())
    given = {"Rows": side, "Columns": side, "PixelData": jpeg, "syntax": corpus_dicoms.JPEG}
    window = {"WindowCenter": 9, "WindowWidth": 99, "RescaleSlope": 2, "RescaleIntercept": 1}
    (folder / "window.dcm").write_bytes(corpus_dicoms.dicom(**given, **window))
    (folder / "plain.dcm").write_bytes(corpus_dicoms.dicom(**given))


@pytest.mark.long
def test_what_is_read_takes_bounded_room(tmp_path: Path, ledger) -> None:
    """A film of the greatest size, of nothing and so in a small file, of any depth."""
    largest(tmp_path)
    found = measured(tmp_path)
    assert len(found) == 6
    assert {name: grown for name, grown in found.items() if grown > READ_MB} == {}
    for _ in found:
        ledger.survived("bomb")


NAMES = [
    b"new\nline.png", b"carriage\rreturn.png", b"\x1b[31mred.png", b"not \xff\xfe text.png",
    "turned \u202e.png".encode(), b"tab\t.png", b"a,b\"c'.png", b"<script>.png", b"%s%n.png",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=repr)
@pytest.mark.parametrize("as_json", [False, True])
def test_names_are_text(
    name: bytes, as_json: bool, tmp_path: Path, small_model: Path,
    capfd: pytest.CaptureFixture[str], ledger,
) -> None:  # fmt: skip
    """A file may be called anything: its row is whole, and what is said of it one line."""
    films, out = tmp_path / "films", tmp_path / "out"
    films.mkdir()
    path = Path(os.fsdecode(bytes(films / "x")[:-1] + name))
    path.write_bytes(b"not found")
    (films / "z fine.png").write_bytes(picture("png"))
    words = ["predict", str(small_model), str(films), "--out", str(out), *["--json"] * as_json]
    line = refused(words, 3, capfd, "1 of 2 films cannot be read", NO_IMAGE)
    assert len(line) < 500
    told = out.read_text("utf-8")
    read = pd.read_json if as_json else pd.read_csv
    table = read(out, **({"lines": True} if as_json else {}))
    assert table["problem"].notna().tolist() == [True, False]
    shown = str(path).encode("utf-8", "backslashreplace").decode().replace("\r", "\\r")
    assert table["image"].tolist() == [shown, str(films / "z fine.png")]
    assert "\ufffd" not in told
    ledger.refused("hostile name")


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that does nothing useful."""
    return model(tmp_path_factory.mktemp("models") / "small")


def test_a_file_of_somebody_else_is_refused(tmp_path: Path, ledger) -> None:
    """As the system says it; root may read anything, so a test as root is nobody for a while."""
    film = tmp_path / "film.png"
    film.write_bytes(picture("png"))
    film.chmod(0)
    opened = {each: each.stat().st_mode for each in (tmp_path, *tmp_path.parents)}
    us = os.geteuid()
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        os.fchdir(here)
        for each in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            each.chmod(0o755)
        if us == 0:
            os.seteuid(65534)
        with pytest.raises(DataError, match="Permission denied"):
            read_image(film)
    finally:
        os.seteuid(us)
        for each in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            each.chmod(opened[each] & 0o7777)
    ledger.refused("unreadable file")


def test_a_pipe_below_a_folder_is_no_film(
    tmp_path: Path, small_model: Path, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """Whoever opens one waits: also where only the start tells a DICOM."""
    for name in ("film.png", "film.dcm", "film"):
        os.mkfifo(tmp_path / name)
    words = ["predict", str(small_model), str(tmp_path), "--out", str(tmp_path / "out.csv")]
    refused(words, 3, capfd, "2 of 2 films cannot be read", "is no regular file")
    ledger.refused("pipe")
