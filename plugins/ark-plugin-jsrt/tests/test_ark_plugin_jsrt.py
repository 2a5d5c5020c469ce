"""The JSRT adapter: raw films, SCR masks and clinical files in, one honest table out."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ark_plugin_jsrt as plugin
import numpy as np
import pandas as pd
import pytest
from ark_plugin_jsrt import COUNTS, SPEC, STRUCTURES, JsrtOptions
from PIL import Image

from ark_framework import DataError
from ark_framework.annotations import AnnotationTable, validate
from ark_framework.testing import conformance

test_conformance = conformance("ark-jsrt")
RAW = "Nodule154images/JPCLN001.IMG"
NODULES, OTHERS = "Clinical_Information/CLNDAT_EN.txt", "Clinical_Information/CNNDAT_EN.TXT"
HEART = "scratch/fold1/masks/heart/JPCLN001.gif"
LISTS = {"train": "my train.txt", "val": "val.txt.gz", "test": "test.txt"}
Change = Callable[[bytes], bytes]


def table(options: JsrtOptions) -> AnnotationTable:
    assert not callable(SPEC.schema)
    return validate(SPEC.read(options), dataset=SPEC.name, schema=SPEC.schema)


@pytest.fixture
def miniature(tmp_path: Path) -> JsrtOptions:
    return SPEC.fixture(tmp_path / "jsrt")


def changed(options: JsrtOptions, **values: Any) -> JsrtOptions:
    return JsrtOptions.model_validate({**options.model_dump(), **values})


def row(options: JsrtOptions, number: int = 0) -> Any:
    return list(SPEC.read(options).itertuples())[number]


def check_message(error: pytest.ExceptionInfo[DataError], said: str, *more: object) -> None:
    message = str(error.value)
    for text in (said, *more):
        assert str(text) in message
    assert message.startswith("jsrt: ")
    assert "\n" not in message
    assert len(message) < 600


def refused(options: JsrtOptions, said: str, *more: object) -> None:
    with pytest.raises(DataError) as error:
        table(options)
    check_message(error, said, *more)


def test_miniature(miniature: JsrtOptions) -> None:
    """Both splits are filled; in each film lungs are dark and heart and clavicles bright."""
    mini = table(miniature)
    assert len(mini) == 54
    assert min(len(mini.rows("train")), len(mini.rows("test"))) > 8
    for each in mini.frame.itertuples():
        film = plugin.read_image(each, miniature)
        masks = plugin.read_mask(each, miniature).repeat(2, axis=1).repeat(2, axis=2)
        assert film.shape == masks.shape[1:]
        left, right, heart, *clavicles = masks
        lungs = (left | right) & ~heart & ~clavicles[0] & ~clavicles[1]
        shades = [film[part].mean() for part in (lungs, ~masks.any(axis=0), heart, *clavicles)]
        assert (np.diff(shades[:3]) > 600).all()
        assert min(shades[3:]) > 3000


def test_columns(miniature: JsrtOptions) -> None:
    """Nodule films come first; sex, age and view are those of the film; no patient is given."""
    frame = table(miniature).frame
    images = frame["image"].tolist()
    assert images[0] == RAW
    assert images[30] == "NonNodule93images/JPCNN001.IMG"
    assert frame["sex"].tolist() == ["M", "F"] * 27
    assert frame["age"].tolist() == list(range(20, 74))
    assert frame["view"].eq("PA").all()
    assert frame[["patient", "source_id", "source_patient"]].isna().all(axis=None)
    assert frame[list(STRUCTURES)].eq(1).all(axis=None)


def test_heart_lies_over_the_lung(miniature: JsrtOptions) -> None:
    """A pixel may belong to two structures: the heart takes nothing from the lung."""
    left, right, heart, left_clavicle, right_clavicle = plugin.read_mask(row(miniature), miniature)
    assert (left & heart).sum() > 20
    assert left.sum() == right.sum()
    # The patient's left is on the right of the picture.
    assert np.nonzero(left)[1].mean() > 20 > 12 > np.nonzero(right)[1].mean()
    assert np.nonzero(left_clavicle)[1].mean() > 20 > 12 > np.nonzero(right_clavicle)[1].mean()


def test_each_structure_is_its_own_file(miniature: JsrtOptions) -> None:
    """Structure k is the mask of label k, whatever its folder's spelling and ending."""
    masks = miniature.root / "scratch/fold1/masks"
    for number, structure in enumerate(STRUCTURES):
        pixels = np.zeros((40, 30), dtype=np.uint8)
        pixels[number, 29] = 255
        shutil.rmtree(masks / structure.replace("_", " "))
        folder = masks / (structure.title(), f"{structure}_png")[number % 2]
        folder.mkdir()
        Image.fromarray(pixels).save(folder / ("JPCLN001.gif", "JPCLN001.png")[number % 2])
    mask = plugin.read_mask(row(miniature), miniature)
    assert (mask.dtype, mask.shape, mask.sum()) == (bool, (5, 40, 30), 5)
    assert np.argwhere(mask).tolist() == [[k, k, 29] for k in range(5)]
    assert STRUCTURES == ("left_lung", "right_lung", "heart", "left_clavicle", "right_clavicle")


def test_published_layout(miniature: JsrtOptions) -> None:
    """``images/<id>.IMG.png`` with ``masks/left_lung_png/<id>.png`` is read; a GIF goes first."""
    before = plugin.read_mask(row(miniature), miniature)
    root = miniature.root.parent / "other"
    (root / "images").mkdir(parents=True)
    Image.new("L", (8, 8), 7).save(root / "images/JPCLN001.IMG.png")
    for structure in STRUCTURES:
        (root / f"masks/{structure}_png").mkdir(parents=True)
        with Image.open(
            miniature.root / HEART.replace("heart", structure.replace("_", " "))
        ) as mask:
            mask.save(root / f"masks/{structure}_png/JPCLN001.png")
    options = changed(miniature, root=root)
    assert table(options).frame["image"].tolist() == ["images/JPCLN001.IMG.png"]
    assert np.array_equal(plugin.read_mask(row(options), options), before)
    shutil.copytree(miniature.root / "scratch", root / "scratch")
    Image.new("L", (32, 32)).save(root / "masks/heart_png/JPCLN001.png")
    assert np.array_equal(plugin.read_mask(row(options), options), before)


def test_raw_film_is_inverted(miniature: JsrtOptions) -> None:
    """Raw numbers are big-endian and row by row; the highest, 4095, becomes black."""
    raw = np.full((64, 64), 4095)
    raw[0, 1], raw[2, 0] = 0, 256
    (miniature.root / RAW).write_bytes(raw.astype(">u2").tobytes())
    film = plugin.read_image(row(miniature), miniature)
    assert film.dtype == np.uint16
    assert film[0, 1] == 4095
    assert film[2, 0] == 4095 - 256
    assert (film > 0).sum() == 2


@pytest.mark.parametrize("name", ["JPCLN001.IMG.png", "JPCLN001.png", "jpcln001.PNG"])
@pytest.mark.parametrize("deep", [True, False])
def test_converted_film(miniature: JsrtOptions, name: str, deep: bool) -> None:
    """A converted film is read as it is, 8 or 16 bits, where there is no raw one."""
    pixels = np.arange(12).reshape(3, 4).astype(np.uint16 if deep else np.uint8) * 20
    pixels[2, 3] = 60000 if deep else 255
    (miniature.root / "png").mkdir()
    Image.fromarray(pixels).save(miniature.root / "png" / name, format="PNG")
    assert table(miniature).frame["image"][0] == RAW
    (miniature.root / RAW).unlink()
    found = row(miniature)
    assert found.image == f"png/{name}"
    film = plugin.read_image(found, miniature)
    assert film.dtype == pixels.dtype
    assert np.array_equal(film, pixels)
    assert plugin.read_mask(found, miniature).any()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has 0 bytes; a raw film 64 x 64 has 8192"),
        (bytes(8191), "has 8191 bytes"),
        (bytes(8193), "has 8193 bytes"),
        (np.full(4096, 300, dtype="<u2").tobytes(), "goes up to 11265, which is no big-endian"),
        (None, "cannot read"),
    ],
)
def test_wrong_raw_film(miniature: JsrtOptions, content: bytes | None, said: str) -> None:
    """A raw film of another length or depth is one line that names it."""
    found, path = row(miniature), miniature.root / RAW
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as error:
        plugin.read_image(found, miniature)
    check_message(error, said, path)


def test_wrong_converted_film(miniature: JsrtOptions) -> None:
    """A converted film that is no image is one line that names it."""
    (miniature.root / RAW).unlink()
    path = miniature.root / "JPCLN001.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DataError) as error:
        plugin.read_image(row(miniature), miniature)
    check_message(error, "cannot read", path)


def test_side_is_that_of_the_jsrt() -> None:
    """Without the option a raw film is 2048 x 2048."""
    assert JsrtOptions(root=Path()).side == 2048


def test_films_anywhere(miniature: JsrtOptions) -> None:
    """Films lie flat, deep, or raw in two folders; other files and masks are no films."""
    before = table(miniature).frame
    (miniature.root / "All247images").mkdir()
    shutil.copy(miniature.root / RAW, miniature.root / "All247images")
    (miniature.root / "Nodule154images/JPCLN002.IMG").replace(miniature.root / "JPCLN002.IMG")
    for name in ("._JPCLN003.IMG", "JPCLN003.IMG.zip", "JPCLN003.jpg", "JPCLN0033.IMG"):
        (miniature.root / name).touch()
    (miniature.root / "left_lung").mkdir()
    (miniature.root / "left_lung/JPCLN099.png").touch()
    frame = table(miniature).frame
    assert frame["image"].tolist()[:2] == ["All247images/JPCLN001.IMG", "JPCLN002.IMG"]
    pd.testing.assert_frame_equal(frame.drop(columns="image"), before.drop(columns="image"))


def test_films_without_masks_are_not_used(miniature: JsrtOptions) -> None:
    """A film without any mask has no split; one that lacks a mask is refused at its mask."""
    for mask in miniature.root.rglob("JPCLN001.gif"):
        mask.unlink()
    (miniature.root / HEART.replace("001", "003")).unlink()
    for options in (miniature, changed(miniature, split="scr")):
        frame = table(options).frame
        assert frame["split"].isna().tolist() == [True] + [False] * 53
    for number, said in (
        (0, "JPCLN001 has no mask of 'left_lung'"),
        (2, "JPCLN003 has no mask of"),
    ):
        with pytest.raises(DataError) as error:
            plugin.read_mask(row(miniature, number), miniature)
        check_message(error, said, miniature.root)


@pytest.mark.parametrize("kind", ["empty", "cut", "other size"])
def test_wrong_mask(miniature: JsrtOptions, kind: str) -> None:
    """A mask that is broken or of another size is one line that names it."""
    path = miniature.root / HEART
    if kind == "other size":
        Image.new("L", (32, 33)).save(path)
    else:
        path.write_bytes(path.read_bytes()[:30] if kind == "cut" else b"")
    with pytest.raises(DataError) as error:
        plugin.read_mask(row(miniature), miniature)
    check_message(error, "another size" if kind == "other size" else "cannot read the mask", path)


def test_seeded_split_is_stable(miniature: JsrtOptions) -> None:
    """A part of the films splits as in the whole; another seed splits otherwise; 0 = no test."""
    whole = table(miniature).frame.set_index("image")["split"]
    for film in sorted((miniature.root / "Nodule154images").iterdir())[:20]:
        film.unlink()
    part = table(miniature).frame.set_index("image")["split"]
    assert len(part) == 34
    pd.testing.assert_series_equal(part, whole.loc[part.index])
    assert table(changed(miniature, split_seed=1)).frame["split"].tolist() != part.tolist()
    assert not len(table(changed(miniature, test_fraction=0)).rows("test"))


def test_scr_split(miniature: JsrtOptions) -> None:
    """``scr`` trains on films whose masks lie in fold1 and tests on those of fold2."""
    frame = table(changed(miniature, split="scr")).frame
    assert frame["split"].tolist() == ["train", "test"] * 27
    assert table(miniature).frame["split"].tolist() != frame["split"].tolist()


@pytest.mark.parametrize("to", ["scratch/fold2/masks/heart", "scratch/masks/heart"])
def test_scr_needs_folds(miniature: JsrtOptions, to: str) -> None:
    """Masks of one film in two folds, or in none, are refused under ``scr`` alone."""
    (miniature.root / to).mkdir(parents=True, exist_ok=True)
    (miniature.root / HEART).replace(miniature.root / to / "JPCLN001.gif")
    assert len(table(miniature)) == 54
    refused(changed(miniature, split="scr"), "the masks of JPCLN001", "split 'scr'", miniature.root)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("scratch/fold2/masks/heart/JPCLN001.gif", "JPCLN001 has two masks of 'heart'"),
        ("JPCLN155.IMG", "the JSRT has no film JPCLN155"),
        ("JPCNN094.png", "the JSRT has no film JPCNN094"),
        ("JPCLN000.IMG", "the JSRT has no film JPCLN000"),
    ],
)
def test_one_too_many(miniature: JsrtOptions, name: str, said: str) -> None:
    """A second mask of one kind, or a film that cannot be, is refused by name."""
    (miniature.root / name).touch()
    refused(miniature, said, name)


def test_two_converted_films(miniature: JsrtOptions) -> None:
    """Two converted films of one name may differ, in bones say, and are refused by name."""
    for folder in ("a", "b"):
        (miniature.root / folder).mkdir()
        (miniature.root / folder / "JPCLN001.png").touch()
    assert table(miniature).frame["image"][0] == RAW
    (miniature.root / RAW).unlink()
    refused(miniature, "JPCLN001 is below", "a/JPCLN001.png and b/JPCLN001.png")


def test_wrong_folder(tmp_path: Path, miniature: JsrtOptions) -> None:
    """A root without films, or without masks, is refused by name."""
    refused(JsrtOptions(root=tmp_path / "nowhere"), "no film below", tmp_path / "nowhere")
    shutil.rmtree(miniature.root / "scratch")
    refused(miniature, "no mask below", miniature.root)


@pytest.mark.parametrize(
    ("record", "sex", "age"),
    [
        ("JPCLN001.IMG\t5\t15\t53\tMale\t1634\t692\tmalignant", "M", 53),
        ("JPCLN001.IMG, 5, 15, 53, female, 1634 692, malignant", "F", 53),
        ("JPCLN001.IMG 5 15.5 53 FEMALE 1634 692", "F", 53),
        ("JPCLN001.IMG\t5\t15\t\tMale\t1634\t692", "M", None),
        ("JPCLN001.IMG\t5\t15\t?\tMale\t1634\t692", "M", None),
        ("JPCLN001.IMG\t5\t15\tMale\t53\t1634", "M", None),
        ("JPCLN001.IMG\t5\t15\t153\tMale", "M", None),
        ("JPCLN001.IMG\t5\t15\t-3\tMale", "M", None),
        ("JPCLN001.IMG\t5\t15\t1e400\tMale", "M", None),
        ("JPCLN001.IMG\t5\t15\t\uff15\uff13\tMale", "M", None),
        ("JPCLN001.IMG\t5\t15\t53\tUnknown\t1634", None, None),
        ("JPCLN001.IMG\t5\t15\t53\tMale\tFemale", None, 53),
        ("JPCLN001.IMG\t5\t15\t53", None, None),
        ("JPCLN001.IMG", None, None),
        ("JPCNN001.IMG\t40\tFemale\tnon-nodule", "F", 40),
        ("JPCNN001.IMG\t5\t15\t40\tFemale", "F", None),
        ("JPCNN001.IMG\tFemale\t40", "F", None),
    ],
)
def test_person(record: str, sex: str | None, age: float | None) -> None:
    """A record gives sex and age only where they clearly stand."""
    found = plugin._person(record)
    assert found[0] == sex
    np.testing.assert_allclose(found[1], np.nan if age is None else age)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: content.replace(b"\n", b"\r"),
        lambda content: content.replace(b"\n", b""),
        lambda content: content.replace(b"\t", b"  "),
        lambda content: content + content,
        lambda content: b"file name\tage\tsex\n\n" + content,
        lambda content: content.replace(b"\n", b" caf\xe9 \"'\n"),
        lambda content: content.replace(b"\n", b" " + b"x" * 10**6 + b"\n", 1),
    ],
)
def test_harmless_clinical_files(miniature: JsrtOptions, change: Change) -> None:
    """Lost or other line ends, other blanks, a heading or an accent change nothing."""
    before = table(miniature).frame
    for name in (NODULES, OTHERS):
        path = miniature.root / name
        path.write_bytes(change(path.read_bytes()))
    pd.testing.assert_frame_equal(table(miniature).frame, before)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: b"", "names no film"),
        (lambda content: content.decode().encode("utf-16"), "names no film"),
        (lambda content: content.replace(b"JPCLN", b"film"), "names no film"),
        (
            lambda content: content + b"JPCLN001.IMG\t5\t15\t99\tMale",
            "line 31: JPCLN001 is another",
        ),
        (lambda content: content + b"JPCLN001.IMG", "line 31: JPCLN001 is another"),
        (None, "cannot read"),
    ],
)
def test_wrong_clinical_file(miniature: JsrtOptions, change: Change | None, said: str) -> None:
    """A clinical file without films, or with two persons for one, is named with the line."""
    path = miniature.root / NODULES
    if change is None:
        path.unlink()
        path.symlink_to("nowhere")
    else:
        path.write_bytes(change(path.read_bytes()))
    refused(miniature, said, path)


def test_no_clinical_files(miniature: JsrtOptions) -> None:
    """Without one clinical file, or both, the films stay, without sex and age."""
    (miniature.root / NODULES).unlink()
    assert table(miniature).frame["sex"].isna().tolist() == [True] * 30 + [False] * 24
    (miniature.root / OTHERS).unlink()
    frame = table(miniature).frame
    assert len(frame) == 54
    assert frame[["sex", "age"]].isna().all(axis=None)


def with_lists(options: JsrtOptions) -> JsrtOptions:
    (options.root / LISTS["train"]).write_text("JPCLN001.IMG.png,0\nJPCNN001.IMG\n")
    content = b"images/JPCLN002.png x\n\nJPCNN002\n"
    (options.root / LISTS["val"]).write_bytes(gzip.compress(content))
    (options.root / LISTS["test"]).write_text("jpcln003.img\nJPCNN024.gif")
    return changed(options, split_files=LISTS, split="scr")


def test_lists(miniature: JsrtOptions) -> None:
    """Lists in any of the films' spellings go before the split; the rest is not used."""
    frame = table(with_lists(miniature)).frame
    wanted = {0: "train", 30: "train", 1: "val", 31: "val", 2: "test", 53: "test"}
    assert frame["split"].dropna().to_dict() == wanted


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: b"", "names no film"),
        (lambda _: b"\n \n", "names no film"),
        (lambda content: b"image,label\n" + content, "line 1: 'image,label' is no film"),
        (lambda content: content + b"JPCLN099.IMG", "line 3: JPCLN099 has no film below"),
        (lambda content: content + b"JPCLN004", "line 3: JPCLN004 has no mask below"),
        (lambda content: content + content[:16], "line 3: JPCLN001 stands above already"),
        (lambda content: content + b"JPCNN024", "JPCNN024 stands above already, or in another"),
        (lambda content: content + b"../JPCLN005.IMG", "line 3: '../JPC"),
        (lambda content: content + b"/JPCLN005.IMG", "line 3: '/JPC"),
        (lambda content: content + b"a\\JPCLN005.IMG", "line 3: 'a\\\\JPC"),
        (lambda content: content + b'"JPCLN005.IMG"', "line 3: '\"JPC"),
        (lambda content: content + b"JPCLN005.IMG\0", "line 3: 'JPCLN005.IMG\\x00'"),
        (lambda content: content + "JPCLN00\uff15".encode(), "line 3: 'JPCLN00"),
        (lambda content: content + b"x" * 10**6, "line 3: 'xxx"),
        (lambda content: content + b",,", "line 3: ',,' is no film"),
        (lambda content: content + b"\xe9", "cannot read"),
        (lambda content: content.decode().encode("utf-16"), "cannot read"),
    ],
)
def test_wrong_list(miniature: JsrtOptions, change: Change, said: str) -> None:
    """Whatever is wrong in a list is one line that names a list and the place."""
    for mask in miniature.root.rglob("JPCLN004.gif"):
        mask.unlink()
    options = with_lists(miniature)
    options = changed(options, split_files=dict(reversed(LISTS.items())))
    path = miniature.root / LISTS["train"]
    path.write_bytes(change(path.read_bytes()))
    refused(options, said, path)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: content.replace(b"\n", b"\r"),
        lambda content: content + b"\n \n",
    ],
)
def test_harmless_lists(miniature: JsrtOptions, change: Change) -> None:
    """A byte order mark, any line end or blank lines change nothing."""
    options = with_lists(miniature)
    before = table(options).frame
    for name in (LISTS["train"], LISTS["test"]):
        path = miniature.root / name
        path.write_bytes(change(path.read_bytes()))
    pd.testing.assert_frame_equal(table(options).frame, before)


@pytest.mark.parametrize("kind", ["missing", "folder", "no gzip", "cut gzip"])
def test_unreadable_list(miniature: JsrtOptions, kind: str) -> None:
    """A list that is missing, a folder or a broken archive is one line that names it."""
    path = miniature.root / "list.txt.gz"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        packed = gzip.compress(b"JPCLN001.IMG,0\n" * 99)
        path.write_bytes(packed[:30] if kind == "cut gzip" else b"plain")
    refused(changed(miniature, split_files={"train": path.name}), "cannot read", path)


def test_full_size(tmp_path: Path) -> None:
    """All names of the JSRT give the card's rows, and the SCR's folds 124 and 123 films."""
    names = [f"{kind}{n:03d}" for kind, count in COUNTS.items() for n in range(1, count + 1)]
    for number, name in enumerate(names):
        (tmp_path / f"{name}.IMG").touch()
        for structure in STRUCTURES:
            folder = tmp_path / f"scratch/fold{1 + number % 2}/masks" / structure.replace("_", " ")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.gif").touch()
    full = table(JsrtOptions(root=tmp_path))
    assert len(full) == SPEC.card.rows["all"] == 247
    np.testing.assert_allclose(len(full.rows("test")) / 247, 0.2, atol=0.07)
    scr = table(JsrtOptions(root=tmp_path, split="scr"))
    assert (len(scr.rows("train")), len(scr.rows("test"))) == (124, 123)
