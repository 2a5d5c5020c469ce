"""Films packed in parts, by several processes, and joined into one store."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydantic import BaseModel

from ark_framework import DatasetCard, DatasetSpec, LabelSchema, cli
from ark_framework.errors import ConfigError, DataError, MachineError
from ark_framework.packing import ensure, pack_shard
from ark_framework.shards import Shard, parse
from ark_framework.store import Source, Store, verify


class Options(BaseModel):
    root: Path


SPEC = DatasetSpec(
    name="films",
    schema=LabelSchema(name="s", kind="multilabel", labels=("a",)),
    options=Options,
    read=lambda _: pd.DataFrame(),
    fixture=lambda path: Options(root=path),
    card=DatasetCard(title="t", home="h", licence="l", access="open", citation="c"),
)
# Seven chunks, the last one short.
COUNT = 64 * 6 + 10


class Stop(Exception):
    pass


def films(root: Path) -> Source:
    """A source of films, each a grey of its own or nearly."""
    (root / "images").mkdir(parents=True)
    names = [f"images/{index:04d}.png" for index in range(COUNT)]
    for index, name in enumerate(names):
        Image.fromarray(np.full((9, 9), index % 251, dtype=np.uint8)).save(root / name)
    return Source(spec=SPEC, options=Options(root=root), images=tuple(names), size=8, fit="squash")


def whole(source: Source, folder: Path, max_bad: int = 0) -> Store:
    """Pack at once, or what shards have left."""
    return ensure(
        SPEC, source.options, source.images,
        folder=folder, size=8, fit="squash", workers=1, max_bad=max_bad,
    )  # fmt: skip


def part(source: Source, folder: Path, text: str, **keys: object) -> Store | None:
    """Pack one part."""
    return pack_shard(source, parse(text), folder=folder, workers=1, **keys)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder of stores but locks, which say who had them."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.mark.parametrize("order", [["1/3", "2/3", "3/3"], ["3/3", "1/3", "2/3"]])
def test_parts_make_the_very_same_store(tmp_path: Path, order: list[str]) -> None:
    """Whoever packs the last part joins them: files, bytes and names as if packed at once."""
    source = films(tmp_path)
    said: list[str] = []
    stores = [part(source, tmp_path / "parts", text, say=said.append) for text in order]
    assert stores[:2] == [None, None]
    assert stores[2] is not None
    assert verify(stores[2], source) == []
    once = whole(source, tmp_path / "once")
    assert contents(tmp_path / "parts") == contents(tmp_path / "once")
    assert once.fingerprint == stores[2].fingerprint
    missing = [line for line in said if "still missing" in line]
    assert missing[1] == f"films: shard {order[1]} is packed; still missing: {order[2]}"


def test_more_parts_than_chunks(tmp_path: Path) -> None:
    """Parts without films are parts as well."""
    source = films(tmp_path)
    stores = [part(source, tmp_path / "parts", f"{number}/9") for number in range(1, 10)]
    assert stores[-1] is not None
    whole(source, tmp_path / "once")
    assert contents(tmp_path / "parts") == contents(tmp_path / "once")


def test_every_chunk_is_in_one_part() -> None:
    """Parts are neighbors, as even as they can be."""
    for total in (0, 1, 7, 100):
        for count in (1, 2, 3, 7, 16):
            ranges = [Shard(number=n, count=count).chunks(total) for n in range(1, count + 1)]
            assert [chunk for each in ranges for chunk in each] == list(range(total))
            assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


def stop_after(count: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done >= count:
            raise Stop

    return progress


def test_an_interrupted_part_goes_on(tmp_path: Path) -> None:
    """What it has done is not done again."""
    source = films(tmp_path)
    with pytest.raises(Stop):
        part(source, tmp_path / "parts", "1/2", progress=stop_after(128))
    done: list[int] = []
    part(source, tmp_path / "parts", "1/2", progress=lambda d, _: done.append(d))
    assert done == [192]
    assert part(source, tmp_path / "parts", "2/2") is not None
    whole(source, tmp_path / "once")
    assert contents(tmp_path / "parts") == contents(tmp_path / "once")


def test_packing_without_a_part_takes_what_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It joins parts, whole or begun, names those that are missing, and packs only the rest."""
    source = films(tmp_path)
    part(source, tmp_path / "parts", "2/3")
    with pytest.raises(Stop):
        part(source, tmp_path / "parts", "3/3", progress=stop_after(64))
    done: list[int] = []
    ensure(
        SPEC, source.options, source.images, folder=tmp_path / "parts", size=8, fit="squash",
        workers=1, progress=lambda d, _: done.append(d),
    )  # fmt: skip
    assert len(done) == 7 - 2 - 1
    assert "films: missing of its shards: 1/3, 3/3" in caplog.text
    whole(source, tmp_path / "once")
    assert contents(tmp_path / "parts") == contents(tmp_path / "once")


def test_a_part_that_is_being_packed_is_refused(tmp_path: Path) -> None:
    """Nobody else packs it meanwhile, nor joins what is half there; the lock's owner is named."""
    source = films(tmp_path)
    with pytest.raises(Stop):
        part(source, tmp_path / "parts", "1/2", progress=stop_after(64))
    (lock,) = (tmp_path / "parts").glob(".*.1-of-2.lock")
    with lock.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(MachineError, match=r"shard 1/2 is being packed by process \d+ on "):
            part(source, tmp_path / "parts", "1/2")
        with pytest.raises(MachineError, match="shard 1/2 is being packed"):
            whole(source, tmp_path / "parts")
        assert part(source, tmp_path / "parts", "2/2") is None
    assert part(source, tmp_path / "parts", "1/2") is not None


def test_a_film_that_changed_since_its_part_was_packed(tmp_path: Path) -> None:
    """Joining trusts no chunk whose file has another size or time."""
    source = films(tmp_path)
    part(source, tmp_path / "parts", "1/2")
    Image.fromarray(np.full((9, 9), 255, dtype=np.uint8)).save(tmp_path / source.images[5])
    store = part(source, tmp_path / "parts", "2/2")
    assert store is not None
    assert (store.images[5] == 255).all()
    assert verify(store, source) == []


def test_broken_films_of_a_part(tmp_path: Path) -> None:
    """They are listed for that part; those that are allowed are the whole's as well."""
    source = films(tmp_path)
    (tmp_path / source.images[-1]).write_bytes(b"no picture")
    assert part(source, tmp_path / "parts", "1/2") is None
    with pytest.raises(DataError, match=r"1 of 202 films .*/films-shard-2-of-2-bad\.csv"):
        part(source, tmp_path / "parts", "2/2")
    store = part(source, tmp_path / "parts", "2/2", max_bad=1)
    assert store is not None
    assert list(store.bad) == [source.images[-1]]
    whole(source, tmp_path / "once", max_bad=1)
    assert contents(tmp_path / "parts") == contents(tmp_path / "once")


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "1/2/3"])
def test_what_is_no_part(text: str) -> None:
    """The form is shown."""
    with pytest.raises(ConfigError, match="write i/n"):
        parse(text)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each says what is missing, the last one where the store is."""
    given = ["data", "pack", "--plugins", "ark-phantom", "--tasks", "phantom-east", "--size", "32"]
    given += ["--set", "data.phantom-east.films=70", "--set", "data.phantom-east.size=32"]
    given += ["--store", str(tmp_path), "--shard"]
    assert cli.run([*given, "2/2"]) == 0
    assert "phantom-east: shard 2/2 is packed; still missing: 1/2" in capsys.readouterr().out
    assert cli.run([*given, "1/2"]) == 0
    assert "phantom-east: 70 films of 32 x 32" in capsys.readouterr().out
    assert cli.run([*given, "2/3"]) == 0
    assert "phantom-east: 70 films of 32 x 32" in capsys.readouterr().out
    assert cli.run([*given, "5/3"]) == 2
