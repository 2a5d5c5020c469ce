"""The Montgomery adapter: films, two masks each and readings in, one honest table out."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ark_plugin_montgomery as plugin
import numpy as np
import pandas as pd
import pytest
from ark_plugin_montgomery import FILMS, MASKS, READINGS, SPEC, MontgomeryOptions
from PIL import Image

from ark_framework import DataError
from ark_framework.annotations import AnnotationTable, validate
from ark_framework.images import read_image
from ark_framework.testing import conformance

test_conformance = conformance("ark-montgomery")
FIRST, LAST = "MCUCXR_0001_0", "MCUCXR_0048_1"
LEFT, RIGHT = MASKS.values()
LISTS = {"train": "my train.txt", "val": "val.txt.gz", "test": "test.txt"}
Change = Callable[[bytes], bytes]


def table(options: MontgomeryOptions) -> AnnotationTable:
    assert not callable(SPEC.schema)
    return validate(SPEC.read(options), dataset=SPEC.name, schema=SPEC.schema)


@pytest.fixture
def miniature(tmp_path: Path) -> MontgomeryOptions:
    return SPEC.fixture(tmp_path / "montgomery")


def changed(options: MontgomeryOptions, **values: Any) -> MontgomeryOptions:
    return MontgomeryOptions.model_validate({**options.model_dump(), **values})


def row(options: MontgomeryOptions, number: int = 0) -> Any:
    return list(SPEC.read(options).itertuples())[number]


def check_message(error: pytest.ExceptionInfo[DataError], path: Path, said: str) -> None:
    message = str(error.value)
    assert said in message
    assert str(path) in message
    assert message.startswith("montgomery: ")
    assert "\n" not in message
    assert len(message) < 500


def refused(options: MontgomeryOptions, path: Path, said: str) -> None:
    with pytest.raises(DataError) as error:
        table(options)
    check_message(error, path, said)


def test_miniature(miniature: MontgomeryOptions) -> None:
    """Both splits are filled, films are wider than high, and lungs are dark where the masks are."""
    mini = table(miniature)
    assert len(mini) == 48
    assert min(len(mini.rows("train")), len(mini.rows("test"))) > 8
    for each in mini.frame.itertuples():
        film, mask = read_image(miniature.root / each.image), plugin.read_mask(each, miniature)
        assert film.shape == mask.shape[1:] == (64, 72)
        lungs = mask.any(axis=0)
        assert film[lungs].mean() + 80 < film[~lungs].mean()


def test_columns(miniature: MontgomeryOptions) -> None:
    """Names, sex, age and view are those of the film; no patient is given."""
    frame = table(miniature).frame
    assert frame["image"].iloc[[0, -1]].tolist() == [f"CXR_png/{f}.png" for f in (FIRST, LAST)]
    assert frame["sex"].tolist() == ["M", "F"] * 24
    assert frame["age"].tolist() == list(range(20, 68))
    assert frame["view"].eq("PA").all()
    assert frame[["patient", "source_id", "source_patient"]].isna().all(axis=None)
    assert frame[list(MASKS)].eq(1).all(axis=None)


@pytest.mark.parametrize("kind", ["1-bit", "0/1", "0/255", "palette"])
def test_masks(miniature: MontgomeryOptions, kind: str) -> None:
    """Each mask is its own structure, in schema order, however it is stored."""
    small = np.zeros((64, 72), dtype=bool)
    small[3, 70] = True
    image = Image.fromarray(small if kind == "1-bit" else small.astype(np.uint8))
    if kind in ("0/255", "palette"):
        image = image.point(lambda value: value * 255)
    (image.convert("P") if kind == "palette" else image).save(
        miniature.root / LEFT / f"{FIRST}.png"
    )
    mask = plugin.read_mask(row(miniature), miniature)
    assert list(MASKS) == ["left_lung", "right_lung"]
    assert (mask.dtype, mask.shape) == (bool, (2, 64, 72))
    assert np.array_equal(mask[0], small)
    assert mask[1].sum() > 500
    assert not mask[1][:, 40:].any()


@pytest.mark.parametrize(
    ("folder", "kind", "said"),
    [
        (LEFT, "missing", "cannot read the mask"),
        (RIGHT, "missing", "cannot read the mask"),
        (RIGHT, "empty", "cannot read the mask"),
        (RIGHT, "cut", "cannot read the mask"),
        (RIGHT, "folder", "cannot read the mask"),
        (RIGHT, "turned", "another size than the left"),
    ],
)
def test_wrong_mask(miniature: MontgomeryOptions, folder: str, kind: str, said: str) -> None:
    """A mask that is missing, broken or of another size is one line that names it."""
    path = miniature.root / folder / f"{FIRST}.png"
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "turned":
        Image.new("L", (64, 72)).save(path)
    elif kind != "missing":
        path.write_bytes(content[:60] if kind == "cut" else b"")
    assert len(table(miniature)) == 48
    with pytest.raises(DataError) as error:
        plugin.read_mask(row(miniature), miniature)
    check_message(error, path, said)


@pytest.mark.parametrize(
    ("text", "sex", "age"),
    [
        (b"Patient's Sex: F \r\nPatient's Age: 027Y\r\nnormal", "F", 27),
        (b"\xef\xbb\xbfPatient's Sex: F\rPatient's Age: 027Y\rnormal", "F", 27),
        (b"patients sex:m\npatients age:  8\n", "M", 8),
        (b"Patient's Sex: M\nPatient's Age: 018M\n", "M", 1.5),
        (b"Patient's Sex: F\nPatient's Sex: F\nPatient's Age: 121Y", "F", None),
        (b"Patient's Sex: O\nPatient's Age: 000Y\ncaf\xe9", None, 0),
        (b"Patient's Sex: Female\nPatient's Age: 1e2\nPatient's age is not 33", None, None),
        (b"Patient's Age: 40Y or so\nPatient's Sex:\nF", None, None),
        (b"normal; Patient's Sex: F", None, None),
        ("Patient's Age: \uff14\uff10Y\nPatient's Sex: F\0".encode(), None, None),
        ("Patient's Sex: F".encode("utf-16"), None, None),
        (b"", None, None),
        (b"x" * 10**6, None, None),
    ],
)
def test_reading(
    miniature: MontgomeryOptions, text: bytes, sex: str | None, age: float | None
) -> None:
    """A reading gives what its lines say and nothing that they do not."""
    (miniature.root / READINGS / f"{FIRST}.txt").write_bytes(text)
    frame = table(miniature).frame
    assert len(frame) == 48
    assert frame["sex"][0] == sex
    np.testing.assert_allclose(frame["age"][0], np.nan if age is None else age)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Patient's Sex: F\nPatient's Sex: M", "line 2: 'M' here and 'F' above"),
        ("Patient's Age: 20Y\r\n\r\nPatient's Age: 21Y", "line 3: '21Y' here and '20Y' above"),
        (None, "cannot read"),
    ],
)
def test_wrong_reading(miniature: MontgomeryOptions, text: str | None, said: str) -> None:
    """A reading that says two things, or is a folder, is one line that names it."""
    path = miniature.root / READINGS / f"{FIRST}.txt"
    path.unlink()
    if text is None:
        path.mkdir()
    else:
        path.write_text(text)
    refused(miniature, path, said)


def test_no_readings(miniature: MontgomeryOptions) -> None:
    """Without readings, or one of them, the films stay, without sex and age."""
    (miniature.root / READINGS / f"{FIRST}.txt").unlink()
    assert table(miniature).frame["sex"].isna().tolist() == [True] + [False] * 47
    (miniature.root / READINGS).rename(miniature.root / "elsewhere")
    frame = table(miniature).frame
    assert len(frame) == 48
    assert frame[["sex", "age"]].isna().all(axis=None)


def test_missing_and_foreign_films(miniature: MontgomeryOptions) -> None:
    """A film that only a reading names is kept; Shenzhen's films and other files are not."""
    (miniature.root / FILMS / f"{FIRST}.png").unlink()
    for name in ("CHNCXR_0001_0.png", "Thumbs.db", "._MCUCXR_0002_0.png"):
        (miniature.root / FILMS / name).touch()
    images = table(miniature).frame["image"]
    assert len(images) == 48
    assert images[0] == f"CXR_png/{FIRST}.png"


@pytest.mark.parametrize("parent", plugin.PARENTS[1:])
def test_parent_folder(miniature: MontgomeryOptions, parent: str) -> None:
    """The folder that the archive unpacks to may be the root, or a parent of it."""
    before = table(miniature).frame
    outer = miniature.root.parent / "outer"
    (outer / parent).parent.mkdir(parents=True)
    miniature.root.rename(outer / parent)
    options = changed(miniature, root=outer)
    frame = table(options).frame
    assert frame["image"][0] == f"{parent}/CXR_png/{FIRST}.png"
    assert plugin.read_mask(row(options), options).shape == (2, 64, 72)
    pd.testing.assert_frame_equal(frame.drop(columns="image"), before.drop(columns="image"))


def test_split_is_stable(miniature: MontgomeryOptions) -> None:
    """A part of the films splits as in the whole; another seed splits otherwise; 0 = no test."""
    whole = table(miniature).frame.set_index("image")["split"]
    for film in sorted((miniature.root / FILMS).iterdir())[:24]:
        film.unlink()
        (miniature.root / READINGS / f"{film.stem}.txt").unlink()
    part = table(miniature).frame.set_index("image")["split"]
    assert len(part) == 24
    pd.testing.assert_series_equal(part, whole.loc[part.index])
    assert table(changed(miniature, split_seed=1)).frame["split"].tolist() != part.tolist()
    assert not len(table(changed(miniature, test_fraction=0)).rows("test"))


def with_lists(options: MontgomeryOptions) -> MontgomeryOptions:
    (options.root / LISTS["train"]).write_text(f"{FIRST}.png,0\nMCUCXR_0029_1.png,1\n")
    content = b"img/MCUCXR_0002_0.png 0\n\nMCUCXR_0030_1.png 1\n"
    (options.root / LISTS["val"]).write_bytes(gzip.compress(content))
    (options.root / LISTS["test"]).write_text(f"MCUCXR_0003_0\n{LAST}")
    return changed(options, split_files=LISTS)


def test_lists(miniature: MontgomeryOptions) -> None:
    """Lists with and without further fields, folders and endings split; the rest is not used."""
    frame = table(with_lists(miniature)).frame
    wanted = {0: "train", 28: "train", 1: "val", 29: "val", 2: "test", 47: "test"}
    assert frame["split"].dropna().to_dict() == wanted


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: b"", "names no film"),
        (lambda _: b"\n \n", "names no film"),
        (lambda content: b"image,label\n" + content, "line 1: 'image,label' is no film"),
        (lambda content: content + b"MCUCXR_0099_1.png", "line 3: MCUCXR_0099_1 is not in the"),
        (lambda content: content + content[:19], "line 3: MCUCXR_0001_0 stands above already"),
        (lambda content: content + b"MCUCXR_0048_1", "MCUCXR_0048_1 stands above already, or in"),
        (lambda content: content + b"../MCUCXR_0003_0.png", "line 3: '../MCU"),
        (lambda content: content + b"/MCUCXR_0003_0.png", "line 3: '/MCU"),
        (lambda content: content + b"a\\MCUCXR_0003_0.png", "line 3: 'a\\\\MCU"),
        (lambda content: content + b'"MCUCXR_0003_0.png"', "line 3: '\"MCU"),
        (lambda content: content + b"MCUCXR_0003_0.png\0", "line 3: 'MCUCXR_0003_0.png\\x00'"),
        (lambda content: content + "MCUCXR_000\uff13_0.png".encode(), "line 3: 'MCUCXR_000"),
        (lambda content: content + b"x" * 10**6, "line 3: 'xxx"),
        (lambda content: content + b",,", "line 3: ',,' is no film"),
        (lambda content: content + b"\xe9", "cannot read"),
        (lambda content: content.decode().encode("utf-16"), "cannot read"),
    ],
)
def test_wrong_list(miniature: MontgomeryOptions, change: Change, said: str) -> None:
    """Whatever is wrong in a list is one line that names a list and the place."""
    options = with_lists(miniature)
    options = changed(options, split_files=dict(reversed(LISTS.items())))
    path = miniature.root / LISTS["train"]
    path.write_bytes(change(path.read_bytes()))
    refused(options, path, said)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: content.replace(b"\n", b"\r"),
        lambda content: content + b"\n \n",
        lambda content: content.replace(b"\n", b"," + b"x" * 10**6 + b"\n"),
    ],
)
def test_harmless_forms(miniature: MontgomeryOptions, change: Change) -> None:
    """A byte order mark, any line end, blank lines or a long rest change nothing."""
    options = with_lists(miniature)
    before = table(options).frame
    for name in (LISTS["train"], LISTS["test"]):
        path = miniature.root / name
        path.write_bytes(change(path.read_bytes()))
    pd.testing.assert_frame_equal(table(options).frame, before)


@pytest.mark.parametrize("kind", ["missing", "folder", "no gzip", "cut gzip"])
def test_unreadable_list(miniature: MontgomeryOptions, kind: str) -> None:
    """A list that is missing, a folder or a broken archive is one line that names it."""
    path = miniature.root / "list.txt.gz"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        packed = gzip.compress(b"MCUCXR_0001_0.png,0\n" * 99)
        path.write_bytes(packed[:30] if kind == "cut gzip" else b"plain")
    refused(changed(miniature, split_files={"train": path.name}), path, "cannot read")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (f"{FILMS}/MCUCXR_0001_1.png", "MCUCXR_0001_0 and MCUCXR_0001_1 are one film"),
        (f"{FILMS}/MCUCXR_0001_2.png", "MCUCXR_0001_2.png: the name is not MCUCXR_"),
        (f"{FILMS}/MCUCXR_0001_0 (1).png", "the name is not MCUCXR_"),
        (f"{FILMS}/MCUCXR_\u0661\u0661\u0661\u0661_0.png", "the name is not MCUCXR_"),
        (f"{READINGS}/MCUCXR_0001.txt", "the name is not MCUCXR_"),
    ],
)
def test_wrong_name(miniature: MontgomeryOptions, name: str, said: str) -> None:
    """A film or reading of another name, or one film under two, is refused by name."""
    (miniature.root / name).touch()
    refused(miniature, (miniature.root / name).parent, said)


def test_wrong_folder(tmp_path: Path) -> None:
    """A root without films is refused by name, with what was looked for."""
    refused(MontgomeryOptions(root=tmp_path), tmp_path, "neither CXR_png/ nor MontgomerySet/")
    (tmp_path / FILMS).mkdir()
    refused(MontgomeryOptions(root=tmp_path), tmp_path / FILMS, "no film MCUCXR_")


def test_full_size(tmp_path: Path) -> None:
    """138 films by name give the card's rows, and about a fifth of them is test."""
    (tmp_path / FILMS).mkdir()
    for number in range(138):
        (tmp_path / FILMS / f"MCUCXR_{number + 1:04d}_{int(number >= 80)}.png").touch()
    full = table(MontgomeryOptions(root=tmp_path))
    assert len(full) == SPEC.card.rows["all"] == 138
    np.testing.assert_allclose(len(full.rows("test")) / 138, 0.2, atol=0.08)
    assert full.frame["image"].str.endswith("_1.png").sum() == 58
