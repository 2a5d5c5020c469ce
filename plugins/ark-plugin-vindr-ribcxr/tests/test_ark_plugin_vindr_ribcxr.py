"""The VinDr-RibCXR adapter: outlines in, one honest table and twenty masks out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ark_plugin_vindr_ribcxr as plugin
import numpy as np
import pandas as pd
import pytest
from ark_plugin_vindr_ribcxr import RIBS, SPEC, VindrRibcxrOptions, read_mask
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ark_framework import DataError
from ark_framework.annotations import AnnotationTable, validate
from ark_framework.images import read_image
from ark_framework.testing import conformance

test_conformance = conformance("ark-vindr-ribcxr")
TRAIN, VAL = "Vindr_RibCXR_train_mask.json", "Vindr_RibCXR_val_mask.json"
IMAGE = "data/train/img/VinDr_RibCXR_train_000.png"
Change = Callable[[bytes], bytes]


def table(options: VindrRibcxrOptions) -> AnnotationTable:
    return validate(SPEC.read(options), dataset=SPEC.name, schema=SPEC.schema)


@pytest.fixture
def miniature(tmp_path: Path) -> VindrRibcxrOptions:
    return SPEC.fixture(tmp_path / "ribs")


def refused(options: VindrRibcxrOptions, path: Path, said: str) -> None:
    with pytest.raises(DataError) as error:
        table(options)
    message = str(error.value)
    assert said in message
    assert str(path) in message
    assert message.startswith("vindr-ribcxr: ")
    assert "\n" not in message
    assert len(message) < 500


def edited(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    found = json.loads(path.read_text())
    edit(found)
    path.write_text(json.dumps(found))


def first(options: VindrRibcxrOptions) -> Any:
    return next(table(options).frame.itertuples())


def test_order_of_ribs() -> None:
    """The structures are R1 to R10 and then L1 to L10."""
    assert RIBS[:2] + RIBS[9:12] + RIBS[19:] == ("R1", "R2", "R10", "L1", "L2", "L10")
    assert SPEC.schema.labels == RIBS
    assert len(RIBS) == 20


def test_table(miniature: VindrRibcxrOptions) -> None:
    """The official train is train, the official val is test; only the view is known."""
    frame = table(miniature).frame
    assert frame["split"].tolist() == ["train"] * 40 + ["test"] * 12
    assert frame["image"][0] == IMAGE
    assert frame["image"][40] == IMAGE.replace("train", "val")
    assert frame["view"].eq("PA").all()
    unknown = ["patient", "sex", "age", "source_id", "source_patient"]
    assert frame[unknown].isna().all(axis=None)


def test_miniature(miniature: VindrRibcxrOptions) -> None:
    """The film is bright where a mask is; each rib is drawn on some films and not on others."""
    drawn = []
    for row in table(miniature).frame.itertuples():
        film, mask = read_image(miniature.root / row.image), read_mask(row, miniature)
        assert mask.dtype == bool
        assert mask.shape == (20, *film.shape)
        np.testing.assert_array_equal(mask.any(axis=0), film > 95)
        drawn.append(mask.any(axis=(1, 2)))
    assert np.all(~np.array(drawn[:40]).all(axis=0))
    assert np.array(drawn[40:]).any(axis=0).all()
    # A right rib is on the left of the film, and the tenth below the first.
    across = [np.argwhere(plane)[:, 1].mean() for plane in mask if plane.any()]
    assert max(across[:9]) < 32 < min(across[10:])
    below = [np.argwhere(plane)[:, 0].mean() for plane in mask[10:] if plane.any()]
    assert below == sorted(below)


def test_outline_at_native_size(miniature: VindrRibcxrOptions) -> None:
    """An outline is filled in pixels of the film, which need not be square, and cut at its edge."""
    Image.new("L", (50, 30)).save(miniature.root / IMAGE)
    corners = [(10, 5), (19, 5), (19, 12), (10, 12)]
    beyond = [(40.5, -9), (900, -9), (900, 4), (40.5, 4)]

    def edit(found: dict[str, Any]) -> None:
        for rib, points in (("R2", corners), ("L10", beyond)):
            found[rib]["0"] = [{"x": x, "y": y} for x, y in points]

    edited(miniature.root / TRAIN, edit)
    mask = read_mask(first(miniature), miniature)
    assert mask.shape == (20, 30, 50)
    wanted = np.zeros((30, 50), dtype=bool)
    wanted[5:13, 10:20] = True
    np.testing.assert_array_equal(mask[RIBS.index("R2")], wanted)
    last = np.argwhere(mask[RIBS.index("L10")])
    assert last.max(axis=0).tolist() == [4, 49]
    assert last[:, 1].min() in (40, 41)


@pytest.mark.parametrize("none", ["None", None])
def test_rib_that_was_not_drawn(miniature: VindrRibcxrOptions, none: str | None) -> None:
    """'None' and null are missing in the rib's column, and an all-False plane."""
    edited(miniature.root / TRAIN, lambda found: found["L3"].update({"0": none}))
    found = table(miniature)
    assert [rib for rib, drawn in zip(RIBS, found.drawn()[0], strict=True) if not drawn] == [
        "R1",  # by the miniature
        "L3",
    ]
    assert found.frame[list(RIBS)].isin([1, np.nan]).all(axis=None)
    mask = read_mask(first(miniature), miniature)
    missing = [rib for rib, plane in zip(RIBS, mask, strict=True) if not plane.any()]
    assert missing == ["R1", "L3"]


@pytest.mark.parametrize("folder", plugin.FOLDERS)
def test_folders(miniature: VindrRibcxrOptions, folder: str) -> None:
    """The files may lie in any of the folders; paths of films start at the root all the same."""
    before = table(miniature).frame
    for part in ("train", "val"):
        new = miniature.root / folder.format(part=part)
        new.mkdir(parents=True, exist_ok=True)
        name = f"Vindr_RibCXR_{part}_mask.json"
        (miniature.root / name).rename(new / name)
    pd.testing.assert_frame_equal(table(miniature).frame, before)
    assert all((miniature.root / image).is_file() for image in before["image"])


def test_masks_read_the_files_once(
    miniature: VindrRibcxrOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is parsed once for all masks, and again when it has changed."""
    row = first(miniature)
    reads: list[Path] = []
    old = plugin._json
    monkeypatch.setattr(plugin, "_json", lambda path: reads.append(path) or old(path))
    for _ in range(5):
        before = read_mask(row, miniature)
    assert not reads
    edited(miniature.root / TRAIN, lambda found: found["L3"].update({"0": "None"}))
    assert read_mask(row, miniature).sum() < before.sum()
    assert reads == [miniature.root / TRAIN]


def test_film_that_cannot_be_read(miniature: VindrRibcxrOptions) -> None:
    """A film that is missing, broken or unknown has no mask, and is named."""
    row = first(miniature)
    (miniature.root / IMAGE).write_bytes(b"no film")
    with pytest.raises(DataError, match=r"cannot read the film .*train_000\.png"):
        read_mask(row, miniature)
    (miniature.root / IMAGE).unlink()
    assert len(table(miniature)) == 52
    with pytest.raises(DataError, match=r"cannot read the film .*train_000\.png"):
        read_mask(row, miniature)
    with pytest.raises(DataError, match=r"no file in .* names the film 'other\.png'"):
        read_mask(row._replace(image="other.png"), miniature)


def put(key: str, index: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda found: found[key].update({index: value})


def points(*places: Any) -> list[dict[str, Any]]:
    """Return four points, the last ones as given."""
    good = [{"x": 1, "y": 1}, {"x": 9, "y": 1}, {"x": 9, "y": 9}]
    return [*good, *places]


@pytest.mark.parametrize("name", [TRAIN, VAL])
@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda found: found.clear(), "key 'img': is missing"),
        (lambda found: found.pop("img"), "key 'img': is missing"),
        (lambda found: found.pop("R7"), "key 'R7': is missing"),
        (lambda found: found.update(R11={}), "key 'R11': is no rib R1..R10, L1..L10"),
        (lambda found: found.update(L2=[]), "key 'L2': must be an object by index, not list"),
        (lambda found: found["L2"].pop("3"), "key 'L2': has other indexes than 'img': '3'"),
        (put("L2", "99", "None"), "key 'L2': has other indexes than 'img': '99'"),
        (put("img", "99", "a.png"), "key 'R1': has other indexes than 'img': '99'"),
        (lambda found: [found[key].clear() for key in found], "key 'img': names no film"),
        *[
            (put("img", "1", path), "key 'img', index '1': ")
            for path in (
                "../a.png", "a/../b.png", "/a.png", "a\\b.png", "C:/a.png", "a.json", "", "a\0.png",
                "a\nb.png", "\ud800.png", "a//b.png", 1, None, [], "x" * 10**6,
            )
        ],
        (lambda found: found["img"].update({"1": found["img"]["0"]}), "stands above already"),
        (put("R4", "2", "none"), "key 'R4', index '2': must be three points or more, or 'None'"),
        (put("R4", "2", []), "key 'R4', index '2': must be three points or more, or 'None', not 0"),
        (put("R4", "2", points()[:2]), "or 'None', not 2 points"),
        (put("R4", "2", {}), "key 'R4', index '2': must be three points or more"),
        (put("R4", "2", 0), "key 'R4', index '2': must be three points or more"),
        *[
            (put("R4", "2", points(point)), "key 'R4', index '2', point 3: ")
            for point in (
                {"x": 1}, {}, [1, 2], None, "None", {"X": 1, "y": 2}, {"x": "1", "y": 2},
                {"x": None, "y": 2}, {"x": True, "y": 2}, {"x": [1], "y": 2},
                {"x": float("nan"), "y": 2}, {"x": 1, "y": float("inf")}, {"x": 1, "y": -1e9},
                {"x": 10**400, "y": 2},
            )
        ],
    ],
)  # fmt: skip
def test_wrong_entries(
    miniature: VindrRibcxrOptions, name: str, edit: Callable[[dict[str, Any]], Any], said: str
) -> None:
    """Whatever is wrong in a file is one line that names it, the key and the index."""
    edited(miniature.root / name, edit)
    refused(miniature, miniature.root / name, said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: b"", "cannot read"),
        (lambda content: content[:-9], "cannot read"),
        (lambda content: content + b"}", "cannot read"),
        (lambda content: content.replace(b'"img"', b'"img', 1), "cannot read"),
        (lambda content: content.replace(b"data/", b"d\xe9ta/", 1), "cannot read"),
        (lambda content: content.replace(b'"x"', b'"\0"', 1), "cannot read"),
        (lambda content: b"[" * 10**6, "cannot read"),
        (
            lambda content: content.replace(b'"x": ', b'"x": ' + b"1" * 9999 + b', "z": ', 1),
            "cannot read",
        ),
        (lambda content: content.replace(b'"x": ', b'"x": 1e400, "z": ', 1), "point 0: {'x': inf"),
        (lambda content: content.replace(b'"R2"', b'"R1"', 1), "key 'R1' stands there twice"),
        (lambda content: content.replace(b'"1"', b'"0"', 1), "key '0' stands there twice"),
        (lambda content: b"[" + content + b"]", "is no JSON object"),
        (lambda _: b"null", "is no JSON object"),
    ],
)
def test_wrong_files(miniature: VindrRibcxrOptions, change: Change, said: str) -> None:
    """A file that is no JSON, or has a key twice, is one line that names it."""
    path = miniature.root / TRAIN
    content = path.read_bytes()
    assert change(content) != content
    path.write_bytes(change(content))
    refused(miniature, path, said)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.replace(b", ", b",\r\n"),
        lambda content: content.replace(b", ", b",\r"),
        lambda content: content.decode().encode("utf-16"),
    ],
)
def test_harmless_forms(miniature: VindrRibcxrOptions, change: Change) -> None:
    """A byte order mark, any line end or UTF-16 change neither table nor masks."""
    before, mask = table(miniature).frame, read_mask(first(miniature), miniature)
    path = miniature.root / TRAIN
    path.write_bytes(change(path.read_bytes()))
    pd.testing.assert_frame_equal(table(miniature).frame, before)
    np.testing.assert_array_equal(read_mask(first(miniature), miniature), mask)


@pytest.mark.parametrize("name", [TRAIN, VAL])
def test_missing_file(miniature: VindrRibcxrOptions, name: str) -> None:
    """A file that is missing, or a folder, is one line that names it."""
    (miniature.root / name).unlink()
    refused(miniature, miniature.root, f"has no {name}")
    (miniature.root / name).mkdir()
    refused(miniature, miniature.root / name, "cannot read")


def test_film_in_both_files(miniature: VindrRibcxrOptions) -> None:
    """A film that is train and test is refused."""
    edited(miniature.root / VAL, put("img", "5", IMAGE))
    refused(miniature, miniature.root / VAL, f"key 'img': '{IMAGE}' is in both files")


PLACES = st.floats(-plugin.FARTHEST, plugin.FARTHEST) | st.integers(-100, 100)


@given(st.lists(st.tuples(PLACES, PLACES), min_size=3, max_size=12))
def test_any_outline_can_be_filled(places: list[tuple[float, float]]) -> None:
    """Whatever outline is accepted gives a plane of the film's size."""
    rib = plugin._outline([{"x": x, "y": y} for x, y in places], "here")
    assert plugin._filled(rib, (7, 5)).shape == (5, 7)
