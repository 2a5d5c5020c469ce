"""Whatever becomes of a store's index: one line, or a store whose reads stay within it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oneline import assert_one_line
from PIL import Image
from pydantic import BaseModel

from ark_framework import DatasetCard, DatasetSpec, LabelSchema
from ark_framework.errors import ArkError
from ark_framework.packing import ensure
from ark_framework.store import Source, Store, open_store, verify
from ark_framework.text import printable

FILMS = [f"film-{number}.png" for number in range(5)]
INDEX = ("manifest.json", "table.npz", "images.npy")
HEADER = 128  # bytes of images.npy before its films
QUICK = settings(max_examples=80, deadline=None, derandomize=True)
LONG = settings(
    max_examples=3000, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


class Options(BaseModel):
    """A folder of films."""

    root: Path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Source]]:
    """A store of five films."""
    home = tmp_path_factory.mktemp("films")
    draw = np.random.default_rng(0)
    for name in FILMS:
        Image.fromarray(draw.integers(0, 255, (20, 20)).astype(np.uint8)).save(home / name)
    spec = DatasetSpec(
        name="films",
        schema=LabelSchema(name="films", kind="multilabel", labels=("a",)),
        options=Options,
        read=lambda _: None,  # type: ignore[arg-type, return-value]
        fixture=lambda _: None,
        card=DatasetCard(title="t", home="h", licence="CC0", access="open", citation="c"),
    )
    options = Options(root=home)
    store = ensure(spec, options, FILMS, folder=home / "stores", size=16, fit="squash", workers=1)
    source = Source(spec=spec, options=options, images=tuple(FILMS), size=16, fit="squash")
    kept = home / "kept"
    shutil.copytree(store.folder, kept)
    yield store, source
    assert open_store(store.folder).names == tuple(FILMS)


def judge(store: Store, source: Source, name: str, content: bytes) -> None:
    """Put other bytes in a file's place, look at what becomes of the store, and put it back."""
    path = store.folder / name
    before = path.read_bytes()
    path.write_bytes(content)
    wrong = None
    try:
        _look(store.folder, source)
    except ArkError as error:
        wrong = error
    finally:
        path.write_bytes(before)
    if wrong is not None:
        assert wrong.exit_code == 3
        assert_one_line(printable(str(wrong)), str(store.folder))
        assert content != before


def _look(folder: Path, source: Source) -> None:
    """Open a store and read all of it."""
    store = open_store(folder)
    assert store.images.shape[0] == len(store.names) == len(set(store.names))
    assert store.images.base is not None
    assert np.asarray(store.images).nbytes == len(FILMS) * 16 * 16
    assert store.rows(store.names).max() < len(store.images)
    assert set(store.rows(FILMS).tolist()) <= set(range(-1, len(FILMS)))
    assert all(isinstance(line, str) for line in verify(store, source))


def _bytes(content: bytes, cuts: list[tuple[int, int, bytes]], *, most: int) -> bytes:
    for start, length, put in cuts:
        at = start % min(max(len(content), 1), most)
        content = content[:at] + put + content[at + length :]
    return content


CUTS = st.lists(
    st.tuples(st.integers(0, 10**4), st.integers(0, 9), st.binary(max_size=9)),
    min_size=1,
    max_size=3,
)
# As long as what it replaces: the header's length stays right.
TURNS = st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255)), min_size=1, max_size=3)
VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.text(max_size=4), st.text(max_size=4))
)  # fmt: skip


def _turned(content: bytes, turns: list[tuple[int, int]], *, most: int) -> bytes:
    made = bytearray(content)
    for at, value in turns:
        made[at % min(len(made), most)] = value
    return bytes(made)


def _most(name: str) -> int:
    return HEADER if name == "images.npy" else 10**9


@QUICK
@given(name=st.sampled_from(INDEX), cuts=CUTS)
def test_any_cut(sound: tuple[Store, Source], name: str, cuts: list[Any]) -> None:
    """Bytes left out and put in."""
    store, source = sound
    content = (store.folder / name).read_bytes()
    judge(store, source, name, _bytes(content, cuts, most=_most(name)))


@QUICK
@given(name=st.sampled_from(INDEX), turns=TURNS)
def test_any_byte(sound: tuple[Store, Source], name: str, turns: list[Any]) -> None:
    """Bytes that are others."""
    store, source = sound
    content = (store.folder / name).read_bytes()
    judge(store, source, name, _turned(content, turns, most=_most(name)))


def _told(store: Store, source: Source, key: str, value: Any) -> None:
    values = json.loads((store.folder / "manifest.json").read_text())
    values[key] = value
    judge(store, source, "manifest.json", json.dumps(values).encode())


KEYS = st.sampled_from(
    ["version", "dataset", "fingerprint", "key", "films", "size", "channels", "fit", "bad",
     "sha256", "table", "some", "structures", "reader", "more"]
)  # fmt: skip


@QUICK
@given(key=KEYS, value=VALUES)
def test_any_value(sound: tuple[Store, Source], key: str, value: Any) -> None:
    """In the manifest."""
    _told(*sound, key, value)


@pytest.mark.long
@LONG
@given(data=st.data())
def test_at_length(sound: tuple[Store, Source], data: st.DataObject) -> None:
    """All of these, many times."""
    store, source = sound
    kind, name = data.draw(st.integers(0, 2)), data.draw(st.sampled_from(INDEX))
    if kind == 0:
        _told(store, source, data.draw(KEYS), data.draw(VALUES))
        return
    content = (store.folder / name).read_bytes()
    made = (
        _bytes(content, data.draw(CUTS), most=_most(name))
        if kind == 1
        else _turned(content, data.draw(TURNS), most=_most(name))
    )
    judge(store, source, name, made)


def test_the_ledger_has_it(sound: tuple[Store, Source], ledger) -> None:
    """What was fuzzed is sound after all of that."""
    _look(sound[0].folder, sound[1])
    ledger.survived("fuzzed store")
