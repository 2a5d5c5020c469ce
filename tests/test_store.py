"""Packing films into a store and reading them back."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydantic import BaseModel

from ark_framework import DatasetCard, DatasetSpec, LabelSchema, packing, unfinished
from ark_framework.decoding import Reader, decode_all
from ark_framework.errors import DataError, MachineError
from ark_framework.images import fit_square, read_image
from ark_framework.packing import ensure
from ark_framework.store import Source, Store, default_folder, open_store, verify

CARD = DatasetCard(title="t", home="h", licence="l", access="open", citation="c")
SCHEMA = LabelSchema(name="s", kind="multilabel", labels=("a",))


class FolderOptions(BaseModel):
    root: Path
    seed: int = 0


class DrawnOptions(BaseModel):
    shade: int = 10


def make_spec(options: type[BaseModel] = FolderOptions, **keys: Any) -> DatasetSpec:
    return DatasetSpec(
        name=keys.pop("name", "films"),
        schema=SCHEMA,
        options=options,
        read=lambda _: pd.DataFrame(),
        fixture=lambda path: FolderOptions(root=path),
        card=CARD,
        **keys,
    )


def make_films(root: Path, count: int, *, side: int = 12) -> list[str]:
    """Write ``count`` films below ``root/images``; film i is i % 256 everywhere."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    names = [f"images/{index:04d}.png" for index in range(count)]
    for index, name in enumerate(names):
        Image.fromarray(np.full((side, side), index % 256, dtype=np.uint8)).save(root / name)
    return names


def pack(root: Path, images: list[str], folder: Path, **keys: Any) -> Store:
    spec = keys.pop("spec", None) or make_spec()
    keys = {"size": 8, "fit": "squash", "workers": 1} | keys
    options = keys.pop("options", None) or FolderOptions(root=root)
    return ensure(spec, options, images, folder=folder, **keys)


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_films_come_back_by_name(tmp_path: Path) -> None:
    """Every film's row holds its pixels, in whatever order and however often it is asked for."""
    names = make_films(tmp_path, 5)
    store = pack(tmp_path, names, tmp_path / "stores")
    assert store.images.shape == (5, 1, 8, 8)
    assert store.images.dtype == np.uint8
    rows = store.rows([names[3], "images/none.png", names[0], names[3]])
    assert rows.dtype == np.int64
    assert rows.tolist() == [3, -1, 0, 3]
    assert store.images[rows[[0, 2]], 0, 4, 4].tolist() == [3, 0]


def test_a_store_is_a_memory_map_of_three_files(tmp_path: Path) -> None:
    """On disk: the map, the table, the manifest, a lock, and nothing half made."""
    store = pack(tmp_path, make_films(tmp_path, 3), tmp_path / "stores")
    assert isinstance(store.images, np.memmap)
    assert not store.images.flags.writeable
    inside = f"films-{store.fingerprint}"
    files = {name for name in tree(tmp_path / "stores") if not name.endswith(".lock")}
    assert files == {f"{inside}/{name}" for name in ("images.npy", "table.npz", "manifest.json")}


def test_an_existing_store_is_opened_without_decoding(tmp_path: Path) -> None:
    """A second run, or a table in another order, decodes nothing and finds every film."""
    names = make_films(tmp_path, 4)
    first = pack(tmp_path, names, tmp_path / "stores")
    calls: list[tuple[int, int]] = []
    turned = names[::-1]
    second = pack(
        tmp_path,
        turned,
        tmp_path / "stores",
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == []
    assert second.folder == first.folder
    assert second.images[second.rows(turned), 0, 0, 0].tolist() == [3, 2, 1, 0]


def test_of_many_films_few_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of many films opens by their names and some sizes; where one differs, all count."""
    names = make_films(tmp_path, 9)
    kept, stats = tmp_path / "stores", Source.stats
    first = pack(tmp_path, names, kept)
    monkeypatch.setattr("ark_framework.store.LOOKED_AT", 3)
    looked: list[int] = []

    def counted(source: Source) -> Any:
        looked.append(len(source.images))
        return stats(source)

    monkeypatch.setattr(Source, "stats", counted)
    assert pack(tmp_path, names[::-1], kept).folder == first.folder
    assert looked == [3]
    assert pack(tmp_path, names[:-1], kept).folder != first.folder  # other films
    Image.new("L", (50, 60)).save(tmp_path / names[4])  # the first, the middle, the last
    assert pack(tmp_path, names, kept).folder != first.folder
    assert looked[-2:] == [3, 9]


def test_a_moved_root_keeps_its_store(tmp_path: Path) -> None:
    """The fingerprint knows relative paths alone, and no option that chooses rows."""
    names = make_films(tmp_path / "one", 3)
    first = pack(tmp_path / "one", names, tmp_path / "stores")
    shutil.move(tmp_path / "one", tmp_path / "two")
    options = FolderOptions(root=tmp_path / "two", seed=5)
    assert pack(tmp_path, names, tmp_path / "stores", options=options).folder == first.folder


def test_what_changes_pixels_changes_the_fingerprint(tmp_path: Path) -> None:
    """Files, their bytes, side, fit, channels and reader version each make another store."""
    names = make_films(tmp_path, 3)
    stores = tmp_path / "stores"
    prints = [
        pack(tmp_path, names, stores).fingerprint,
        pack(tmp_path, names[:2], stores).fingerprint,
        pack(tmp_path, names, stores, size=9).fingerprint,
        pack(tmp_path, names, stores, fit="pad").fingerprint,
        pack(tmp_path, names, stores, spec=make_spec(channels=3)).fingerprint,
        pack(tmp_path, names, stores, spec=make_spec(reader_version="2")).fingerprint,
    ]
    noise = np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / names[1])
    again = pack(tmp_path, names, stores)
    assert len({*prints, again.fingerprint}) == 7
    assert np.array_equal(again.images[1], fit_square(noise, 8, "squash"))


def test_three_channels_are_stored_where_declared(tmp_path: Path) -> None:
    """A color dataset keeps its colors, channels first."""
    Image.new("RGB", (9, 9), (10, 20, 30)).save(tmp_path / "a.png")
    store = pack(tmp_path, ["a.png"], tmp_path / "stores", spec=make_spec(channels=3))
    assert store.images[0, :, 2, 2].tolist() == [10, 20, 30]


@pytest.mark.parametrize("portable", [True, False])
def test_a_pool_gives_the_same_films_as_one_process(tmp_path: Path, portable: bool) -> None:
    """Worker processes, or threads for a reader that cannot be handed over, change nothing."""
    names = make_films(tmp_path, 300)
    read: Callable[..., np.ndarray] | None = None
    if not portable:
        read = lambda row, options: read_image(options.root / row.image)  # noqa: E731
    reader = Reader(
        root=tmp_path,
        channels=1,
        size=8,
        fit="pad",
        read=read,
        options=FolderOptions(root=tmp_path),
    )
    chunks = [names[start : start + 64] for start in range(0, 300, 64)]
    films = np.concatenate([array for array, _ in decode_all(reader, chunks, workers=2)])
    assert films[:, 0, 4, 4].tolist() == [index % 256 for index in range(300)]


def test_a_script_without_a_main_guard_is_not_run_again(tmp_path: Path) -> None:
    """Workers do not import the user's script, so packing at its top level works."""
    names = make_films(tmp_path, 300)
    (tmp_path / "script.py").write_text(
        f"""
from pathlib import Path
from ark_framework.decoding import Reader, decode_all
print("started")
reader = Reader(root=Path({str(tmp_path)!r}), channels=1, size=8, fit="pad")
print(sum(len(films) for films, _ in decode_all(reader, [{names!r}] * 2, workers=2)))
"""
    )
    run = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.stdout.split() == ["started", "600"], run.stderr


def draw(row: Any, options: DrawnOptions) -> np.ndarray:
    return np.full((4, 4), options.shade + int(row.image), dtype=np.uint8)


def draw_badly(row: Any, options: DrawnOptions) -> np.ndarray:
    if row.image == "1":
        raise RuntimeError("no such\nimage")
    return np.zeros((4, 4), dtype=np.float32 if row.image == "2" else np.uint8)


def test_a_dataset_may_draw_its_own_films(tmp_path: Path) -> None:
    """``read_image(row, options)`` gives the pixels, and its options are in the fingerprint."""
    spec = make_spec(DrawnOptions, read_image=draw)
    first = pack(tmp_path, ["0", "7"], tmp_path, spec=spec, options=DrawnOptions())
    assert first.images[:, 0, 0, 0].tolist() == [10, 17]
    other = pack(tmp_path, ["0", "7"], tmp_path, spec=spec, options=DrawnOptions(shade=20))
    assert other.images[:, 0, 0, 0].tolist() == [20, 27]


def test_a_reader_that_fails_is_named_with_the_film(tmp_path: Path) -> None:
    """A plugin's exception or wrong array becomes a bad film with a reason, on one line."""
    spec = make_spec(DrawnOptions, read_image=draw_badly)
    with pytest.raises(
        DataError, match=r"2 of 3 films.*'1': RuntimeError: no such image"
    ) as caught:
        pack(tmp_path, ["0", "1", "2"], tmp_path, spec=spec, options=DrawnOptions())
    assert "\n" not in str(caught.value)
    assert (
        "gave float32 (4, 4), not uint8 or uint16 (H, W)"
        in (tmp_path / "films-bad.csv").read_text()
    )


def break_films(root: Path, names: list[str]) -> None:
    """Truncate film 2 and make film 5 lead out of the root."""
    path = root / names[2]
    path.write_bytes(path.read_bytes()[:50])
    (root / names[5]).unlink()
    secret = root.parent / "secret.png"
    Image.new("L", (12, 12), 77).save(secret)
    (root / names[5]).symlink_to(secret)


def test_broken_films_stop_the_pack_and_are_all_listed(tmp_path: Path) -> None:
    """The error names the first and how many; the list names every film and its reason."""
    names = make_films(tmp_path / "root", 8)
    break_films(tmp_path / "root", names)
    with pytest.raises(DataError, match=r"films: 2 of 8 films .* 'images/0002\.png': cannot be"):
        pack(tmp_path / "root", names, tmp_path / "stores")
    with (tmp_path / "stores/films-bad.csv").open(newline="") as file:
        listed = {row["image"]: row["reason"] for row in csv.DictReader(file)}
    assert list(listed) == [names[2], names[5]]
    assert "out of the root" in listed[names[5]]
    assert not list((tmp_path / "stores").glob("films-*/manifest.json"))


def test_a_cap_lets_broken_films_pass(tmp_path: Path) -> None:
    """With ``max_bad`` they are recorded and have no row; a smaller cap still refuses the store."""
    names = make_films(tmp_path / "root", 8)
    break_films(tmp_path / "root", names)
    store = pack(tmp_path / "root", names, tmp_path / "stores", max_bad=2)
    assert set(store.bad) == {names[2], names[5]}
    assert store.rows(names).tolist() == [0, 1, -1, 3, 4, -1, 6, 7]
    assert 77 not in store.images
    with pytest.raises(DataError, match="2 of 8"):
        pack(tmp_path / "root", names, tmp_path / "stores", max_bad=1)


def test_missing_films_are_found_before_anything_is_decoded(tmp_path: Path) -> None:
    """A wrong root costs a second, not an hour: no chunk is decoded and no partial is left."""
    names = make_films(tmp_path, 3)
    calls: list[int] = []
    with pytest.raises(DataError, match=r"2 of 5 films.*no such file"):
        pack(
            tmp_path,
            [*names, "images/gone.png", "also-gone.png"],
            tmp_path / "stores",
            progress=lambda done, total: calls.append(done),
        )
    assert calls == []
    assert tree(tmp_path / "stores") == {"films-bad.csv"}


def test_after_mending_only_what_changed_is_decoded(tmp_path: Path) -> None:
    """A pack that stopped over one broken film of many goes on with that film's chunk alone."""
    names = make_films(tmp_path, 200)
    whole = (tmp_path / names[70]).read_bytes()
    (tmp_path / names[70]).write_bytes(whole[:50])
    with pytest.raises(DataError, match="1 of 200"):
        pack(tmp_path, names, tmp_path / "stores")
    (tmp_path / names[70]).write_bytes(whole)
    done: list[int] = []
    store = pack(tmp_path, names, tmp_path / "stores", progress=lambda d, _: done.append(d))
    assert done == [200]
    assert store.images[:, 0, 0, 0].tolist() == list(range(200))
    assert not (tmp_path / "stores/films-bad.csv").exists()
    assert not list((tmp_path / "stores").glob(".*.partial"))


class Stop(Exception):
    pass


def stop_after(films: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done >= films:
            raise Stop

    return progress


def test_a_film_that_changes_while_a_pack_rests_is_decoded_again(tmp_path: Path) -> None:
    """Resuming trusts no chunk whose file has another size or time than before."""
    names = make_films(tmp_path, 200)
    with pytest.raises(Stop):
        pack(tmp_path, names, tmp_path / "stores", progress=stop_after(128))
    Image.fromarray(np.full((12, 12), 250, dtype=np.uint8)).save(tmp_path / names[10])
    os.utime(tmp_path / names[10], ns=(1, 1))
    store = pack(tmp_path, names, tmp_path / "stores")
    expected = list(range(200))
    expected[10] = 250
    assert store.images[:, 0, 0, 0].tolist() == expected


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_store
def progress(done, total):
    print(done, flush=True)
    if done >= 192:
        time.sleep(600)
images = [f"images/{{i:04d}}.png" for i in range(600)]
test_store.pack(Path({root!r}), images, Path({stores!r}), workers=2, progress=progress)
"""


def start_pack(tmp_path: Path) -> subprocess.Popen[str]:
    """Start a pack in another process and return once it has done 192 of 600 films."""
    make_films(tmp_path, 600)
    code = SCRIPT.format(
        tests=str(Path(__file__).parent), root=str(tmp_path), stores=str(tmp_path / "s")
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 192:
            return process
    raise AssertionError("the pack ended early")


def children(pid: int) -> list[int]:
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and str(pid) in _ancestors(int(entry.name))
    ]


def _ancestors(pid: int) -> list[str]:
    found: list[str] = []
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
        found.append(str(pid))
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_a_killed_pack_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """After SIGKILL no worker stays behind, the lock is free, and done films are not done again."""
    process = start_pack(tmp_path)
    workers = children(process.pid)
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    done: list[int] = []
    names = [f"images/{index:04d}.png" for index in range(600)]
    store = pack(tmp_path, names, tmp_path / "s", progress=lambda d, _: done.append(d))
    assert done[0] == 192 + 64
    assert store.images[:, 0, 0, 0].tolist() == [index % 256 for index in range(600)]
    assert len(workers) >= 2
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}/cmdline").exists() for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_second_packer_waits_and_says_for_whom(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two processes never pack the same films at once; the one that waits names the other."""
    process = start_pack(tmp_path)
    os.kill(process.pid, signal.SIGSTOP)
    names = [f"images/{index:04d}.png" for index in range(600)]

    def release() -> None:
        while "waiting for" not in caplog.text:
            time.sleep(0.01)
        process.kill()

    thread = Thread(target=release)
    thread.start()
    store = pack(tmp_path, names, tmp_path / "s")
    thread.join()
    process.communicate()
    assert f"waiting for process {process.pid} on " in caplog.text
    assert len(store.names) == 600


def test_a_store_that_another_process_made_meanwhile_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waited for the lock finds the finished store and packs nothing."""
    names = make_films(tmp_path, 3)
    locked = packing.locked

    def late(path: Path) -> Any:
        monkeypatch.setattr(packing, "locked", locked)
        pack(tmp_path, names, tmp_path / "stores")
        return locked(path)

    monkeypatch.setattr(packing, "locked", late)
    calls: list[int] = []
    store = pack(tmp_path, names, tmp_path / "stores", progress=lambda d, _: calls.append(d))
    assert calls == []
    assert store.images[:, 0, 0, 0].tolist() == [0, 1, 2]


def test_a_full_disk_is_refused_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says how much is needed and how much is free, and nothing was written."""
    names = make_films(tmp_path, 3)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 12_000_000))
    with pytest.raises(MachineError, match=r"needs 0\.07 GB and .* has 0\.01 GB free"):
        pack(tmp_path, names, tmp_path / "stores")
    assert not list((tmp_path / "stores").glob(".*.partial"))


def test_what_a_resting_pack_holds_is_not_needed_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pack can go on though the disk has no room for a second copy of it."""
    names = make_films(tmp_path, 200)
    with pytest.raises(Stop):
        pack(tmp_path, names, tmp_path / "stores", size=256, progress=stop_after(64))
    usage = namedtuple("usage", "total used free")
    room = unfinished.MARGIN + 100 * 256 * 256
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, room))
    assert len(pack(tmp_path, names, tmp_path / "stores", size=256).names) == 200


def test_the_size_is_said_before_it_begins(tmp_path: Path) -> None:
    """One line with films, GB and place; none when the store is there already."""
    names = make_films(tmp_path, 3)
    said: list[str] = []
    store = pack(tmp_path, names, tmp_path / "stores", say=said.append)
    assert said == [f"films: packing 3 films, 0.00 GB, into {store.folder}"]
    pack(tmp_path, names, tmp_path / "stores", say=said.append)
    assert len(said) == 1


def test_verify_finds_what_changed(tmp_path: Path) -> None:
    """A touched file, a gone file, an unknown film and altered pixels are each named."""
    names = make_films(tmp_path, 4)
    store = pack(tmp_path, names, tmp_path / "stores")

    def source(images: list[str]) -> Source:
        options = FolderOptions(root=tmp_path)
        return Source(spec=make_spec(), options=options, images=tuple(images), size=8, fit="squash")

    assert verify(store, source(names)) == []
    os.utime(tmp_path / names[1], ns=(5, 5))
    (tmp_path / names[2]).unlink()
    with (store.folder / "images.npy").open("r+b") as file:
        file.seek(200)
        file.write(b"\xff\xee")
    found = verify(store, source([*names, "images/new.png"]))
    assert [line.partition(": ")[0] for line in found] == [
        names[1],
        names[2],
        "images/new.png",
        "images.npy",
    ]


@pytest.mark.parametrize("name", ["images.npy", "table.npz", "manifest.json"])
def test_a_damaged_store_is_refused_in_a_line(tmp_path: Path, name: str) -> None:
    """A store whose files were cut off says which folder to delete."""
    store = pack(tmp_path, make_films(tmp_path, 4), tmp_path / "stores")
    path = store.folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="damaged") as caught:
        open_store(store.folder)
    assert str(store.folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_folder_is_the_variable_or_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``ARK_STORE`` decides where stores are; without it, the user's cache folder."""
    monkeypatch.setenv("ARK_STORE", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("ARK_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_folder().name == "stores"
    assert tmp_path / "cache" in default_folder().parents or sys.platform != "linux"


def test_a_store_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A file in the way is a matter of the machine, in one line."""
    names = make_films(tmp_path, 2)
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot make the store folder"):
        pack(tmp_path, names, tmp_path / "file" / "stores")


def test_a_million_names_are_found_at_once(tmp_path: Path) -> None:
    """Looking up every film of a large dataset takes about a second, not minutes."""
    names = tuple(f"files/p10/p{index:08d}/s{index:08d}/{index:032x}.jpg" for index in range(10**6))
    store = Store(
        folder=tmp_path,
        images=np.zeros((0, 1, 1, 1), dtype=np.uint8),
        masks=np.zeros((0, 0, 1, 1), dtype=np.uint8),
        structures=0,
        names=names,
        fingerprint="0",
        size=1,
        channels=1,
        fit="pad",
        bad={names[5]: "broken"},
    )
    start = time.perf_counter()
    rows = store.rows(names)
    assert time.perf_counter() - start < 30
    assert rows[5] == -1
    assert np.array_equal(np.delete(rows, 5), np.delete(np.arange(10**6), 5))


def test_real_films_pack_to_their_twins(tmp_path: Path) -> None:
    """Stored RSNA DICOMs are the stored NIH PNGs they were made from, film by film."""
    if "ARK_REAL_DATA" not in os.environ:
        pytest.skip("ARK_REAL_DATA is not set")
    data = Path(os.environ["ARK_REAL_DATA"])
    with gzip.open(data / "annotations/rsna_nih_matches.csv.gz", "rt") as file:
        twins = {row["rsna_patientId"]: row["nih_image"] for row in csv.DictReader(file)}
    films = sorted((data / "rsna_pneumonia/stage_2_train_images").glob("*.dcm"))[:16]
    left = [f"stage_2_train_images/{film.name}" for film in films]
    right = [f"images/{twins[film.stem]}" for film in films]
    rsna = pack(data / "rsna_pneumonia", left, tmp_path, size=64)
    nih = pack(data / "nih_chestxray14", right, tmp_path, size=64)
    apart = np.abs(
        rsna.images[rsna.rows(left)][:, None].astype(int) - nih.images[nih.rows(right)][None]
    ).mean(axis=(2, 3, 4))
    assert apart.diagonal().max() < 1
    assert np.array_equal(apart.argmin(axis=1), np.arange(16))
    assert json.loads((nih.folder / "manifest.json").read_text())["films"] == 16
