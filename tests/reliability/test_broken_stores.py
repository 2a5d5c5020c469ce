"""Stores that are broken or put together from two: said, and never trained on."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from corpus_checkpoints import MARK
from corpus_stores import BROKEN, HIDDEN, MENDED, PARTIAL
from oneline import files, refused, some
from PIL import Image, ImageOps

from ark_framework import cli, store
from ark_framework.builtin.table import SPEC


@dataclass(frozen=True)
class World:
    """Films, a configuration that packs them below ``home``, and two stores of one shape."""

    home: Path

    @property
    def config(self) -> Path:
        """Training on the first store."""
        return self.home / "run.yaml"

    @property
    def store(self) -> Path:
        """The store that is broken."""
        return self.home / "stores" / (self.home / "name").read_text()

    @property
    def other(self) -> Path:
        """One of other films under the same names."""
        return self.home / "stores" / (self.home / "other").read_text()

    def write(self, films: str = "films") -> None:
        """Write the configuration."""
        options = json.loads((self.home / "options.json").read_text())
        config = {
            "plugins": ["ark-table"],
            "data": {"table": {**options, "root": str(self.home / films)}},
            "cycles": 1,
            "store": {"size": 32, "folder": str(self.home / "stores")},
            "views": {"size": 32},
            "model": {"backbone": "tiny", "options": {"width": 4}, "features": 8},
            "runtime": {"device": "cpu"},
        }
        self.config.write_text(json.dumps(config))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Pack films, and their negatives; every test breaks a copy."""
    world = World(tmp_path_factory.mktemp("sound"))
    options = SPEC.fixture(world.home / "films").model_dump(mode="json", exclude={"root", "masks"})
    (world.home / "options.json").write_text(json.dumps(options))
    negatives = shutil.copytree(world.home / "films", world.home / "negatives")
    for path in (each for each in negatives.rglob("*") if each.suffix in (".png", ".jpg")):
        with Image.open(path) as film:
            ImageOps.invert(film.convert("L")).save(path)
    for films, name in (("negatives", "other"), ("films", "name")):
        world.write(films)
        before = set((world.home / "stores").glob("table-*"))
        assert cli.run(["train", "-c", str(world.config), "--dry-run"]) == 0
        [made] = set((world.home / "stores").glob("table-*")) - before
        (world.home / name).write_text(made.name)
    return world


@pytest.fixture
def world(sound: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A copy, with the times of its files."""
    made = World(shutil.copytree(sound.home, tmp_path / "copy", symlinks=True))
    made.write()
    monkeypatch.chdir(tmp_path)
    return made


def test_what_is_broken_was_sound(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    """Else each of these would be refused for nothing; nothing is packed again either."""
    before = files(world.store)
    for words in (["train", "--dry-run"], ["data", "verify"], ["data", "pack"]):
        assert cli.run([*words, "-c", str(world.config)]) == 0, capfd.readouterr()
    assert files(world.store) == before
    assert np.load(world.store / "images.npy").shape == np.load(world.other / "images.npy").shape


@pytest.mark.parametrize("name", some(BROKEN))
def test_a_broken_store_is_said(
    name: str, world: World, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """By training, packing and checking; what can be is named, and nothing is changed."""
    folder, other = world.store, world.other
    BROKEN[name](folder, other)
    before = files(world.home)
    code = 5 if name.startswith("the folder") else 3
    for words in (["train", "--dry-run"], ["data", "pack"]):
        refused([*words, "-c", world.config], code, capfd, str(folder))
    if code == 3:
        refused(["data", "verify", "-c", world.config], code, capfd, str(folder))
    assert files(world.home) == before
    assert not Path(MARK).exists()
    ledger.refused("store")


@pytest.mark.parametrize("name", some(MENDED))
def test_a_store_that_is_gone_is_packed_again(
    name: str, sound: World, world: World, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """With the same bytes; what lies beside the films does no harm."""
    folder = world.store
    MENDED[name](folder, world.other)
    assert cli.run(["train", "-c", str(world.config), "--dry-run"]) == 0, capfd.readouterr()
    for each in ("images.npy", "table.npz", "manifest.json", "prints-1.npy"):
        assert (folder / each).read_bytes() == (sound.store / each).read_bytes()
    assert cli.run(["data", "verify", "-c", str(world.config)]) == 0
    ledger.survived("store")


@pytest.mark.parametrize("name", HIDDEN)
def test_a_check_reads_every_film(
    name: str, world: World, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """What opening does not look at, ``ark data verify`` finds."""
    HIDDEN[name](world.store, world.other)
    refused(["data", "verify", "-c", world.config], 3, capfd, "images.npy: its checksum")
    ledger.refused("store: films")


def test_a_film_is_changed(
    sound: World, world: World, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """Of another size: another store.  Of the same size: found by its time, when that is asked."""
    film = next((world.home / "films").rglob("*.png"))
    content = film.read_bytes()
    film.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert cli.run(["train", "-c", str(world.config), "--dry-run"]) == 0
    refused(["data", "verify", "-c", world.config], 3, capfd, film.name, "changed since")
    ledger.refused("store: stale")
    film.write_bytes(content + b"\0\0")  # after its end: the pixels are the same
    assert cli.run(["train", "-c", str(world.config), "--dry-run"]) == 0
    stores = list((world.home / "stores").glob("table-*"))
    assert len(stores) == len(list((sound.home / "stores").glob("table-*"))) + 1
    assert cli.run(["data", "verify", "-c", str(world.config)]) == 0, capfd.readouterr()
    ledger.survived("store: stale")


@pytest.mark.parametrize("name", some(PARTIAL))
def test_a_damaged_part_begins_anew(
    name: str,
    sound: World,
    world: World,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    ledger,
) -> None:
    """A pack that was stopped and then damaged still gives the same bytes."""
    folder = world.store
    shutil.rmtree(folder)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ark_framework.packing._finish", stop)
        assert cli.run(["train", "-c", str(world.config), "--dry-run"]) == 130
    [partial] = (world.home / "stores").glob(".*.partial")
    names = {each.name for each in partial.iterdir()}
    assert names >= {"images.npy", "done.npy", "files.npy", "names"}
    PARTIAL[name](partial)
    assert cli.run(["train", "-c", str(world.config), "--dry-run"]) == 0, capfd.readouterr()
    for each in ("images.npy", "table.npz", "manifest.json"):
        assert (folder / each).read_bytes() == (sound.store / each).read_bytes()
    assert not partial.exists()
    assert not Path(MARK).exists()
    ledger.survived("store: stopped pack")


def test_a_store_of_before_is_read(world: World) -> None:
    """One whose manifest does not yet say what its films and table are."""
    path = world.store / "manifest.json"
    values = json.loads(path.read_text())
    for key in ("table", "some"):
        del values[key]
    path.write_text(json.dumps(values))
    assert store.open_store(world.store).fingerprint == values["fingerprint"]


def test_the_stores_are_a_file(world: World, capfd: pytest.CaptureFixture[str], ledger) -> None:
    """The folder of all stores cannot be made."""
    shutil.rmtree(world.home / "stores")
    (world.home / "stores").write_text("years of work")
    for words in (["train", "--dry-run"], ["data", "pack"]):
        refused([*words, "-c", world.config], 5, capfd, str(world.home / "stores"))
        ledger.refused("store")
    assert (world.home / "stores").read_text() == "years of work"
