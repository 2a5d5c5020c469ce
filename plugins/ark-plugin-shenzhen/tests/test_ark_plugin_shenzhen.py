"""The Shenzhen adapter: names, readings and lists in, one honest table out."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ark_plugin_shenzhen as plugin
import numpy as np
import pandas as pd
import pytest
from ark_plugin_shenzhen import METADATA, READINGS, SPEC, ShenzhenOptions
from hypothesis import given, settings
from hypothesis import strategies as st

from ark_framework import DataError
from ark_framework.annotations import AnnotationTable, validate
from ark_framework.images import read_image
from ark_framework.testing import conformance

test_conformance = conformance("ark-shenzhen")
REAL = os.environ.get("ARK_REAL_DATA")
real = pytest.mark.skipif(REAL is None, reason="ARK_REAL_DATA is not set")
FIRST, LAST = "CHNCXR_0001_0", "CHNCXR_0060_1"
Change = Callable[[bytes], bytes]


def table(options: ShenzhenOptions) -> AnnotationTable:
    return validate(SPEC.read(options), dataset=SPEC.name, schema=SPEC.schema)


@pytest.fixture
def miniature(tmp_path: Path) -> ShenzhenOptions:
    return SPEC.fixture(tmp_path / "shenzhen")


def changed(options: ShenzhenOptions, **values: Any) -> ShenzhenOptions:
    return ShenzhenOptions.model_validate({**options.model_dump(), **values})


def refused(options: ShenzhenOptions, path: Path, said: str) -> None:
    with pytest.raises(DataError) as error:
        table(options)
    message = str(error.value)
    assert said in message
    assert str(path) in message
    assert message.startswith("shenzhen: ")
    assert "\n" not in message
    assert len(message) < 500


def kaggle(options: ShenzhenOptions) -> ShenzhenOptions:
    """Turn the folder into Kaggle's edition: one CSV in place of the readings."""
    frame = table(options).frame
    lines = ["study_id,sex,age,findings"]
    for row in frame.itertuples():
        sex = {"M": "Male", "F": "Female"}[row.sex]
        found = '"left PTB,left pleurisy"' if row.TB else "normal"
        lines.append(f"{Path(row.image).name},{sex},{row.age:.0f},{found}")
    (options.root / METADATA).write_text("\n".join(lines) + "\n")
    for path in (options.root / READINGS).iterdir():
        path.unlink()
    (options.root / READINGS).rmdir()
    (options.root / "images").mkdir()
    (options.root / "CXR_png").rename(options.root / "images" / "images")
    return options


def test_miniature(miniature: ShenzhenOptions) -> None:
    """The miniature has both labels in both splits, all files, and a spot where there is TB."""
    mini = table(miniature)
    assert len(mini) == 60
    assert mini.frame.groupby("split")["TB"].value_counts().gt(4).sum() == 4
    for row in mini.frame.itertuples():
        film = read_image(miniature.root / row.image)
        assert film.shape == (64, 64)
        assert (film[8:28, 8:28].mean() > 140) == (row.TB == 1)


def test_columns(miniature: ShenzhenOptions) -> None:
    """Label, sex, age and view are those of the film; no patient is known."""
    frame = table(miniature).frame
    assert frame["image"].iloc[[0, -1]].tolist() == [f"CXR_png/{f}.png" for f in (FIRST, LAST)]
    assert frame["sex"].iloc[:5].tolist() == ["M", "F", "F", "F", "M"]
    assert frame["age"].tolist() == list(range(20, 80))
    assert frame["view"].eq("PA").all()
    assert frame["TB"].tolist() == [0] * 30 + [1] * 30
    assert frame[["patient", "source_id", "source_patient"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("text", "sex", "age"),
    [
        ("male 16month\nnormal", "M", 16 / 12),
        ("Male 7months", "M", 7 / 12),
        ("female 64days\nnormal", "F", 64 / 365.25),
        ("female 3 weeks", "F", 3 / 52.18),
        ("male 42\nnormal", "M", 42),
        ("FEMALE 36 years old", "F", 36),
        ("male 42 normal", "M", None),
        ("male 45mild", "M", None),
        ("male 121yrs", "M", None),
        ("male\n3 nodules", "M", None),
        ("mass 45yrs", None, None),
        ("normal", None, None),
        ("\0\ufffd", None, None),
        ("", None, None),
    ],
)
def test_reading(miniature: ShenzhenOptions, text: str, sex: str | None, age: float | None) -> None:
    """A reading gives what it begins with and nothing that it does not say."""
    (miniature.root / READINGS / f"{FIRST}.txt").write_text(text)
    row = table(miniature).frame.iloc[0]
    assert row["sex"] == sex
    np.testing.assert_allclose(row["age"], np.nan if age is None else age)


@settings(deadline=None)
@given(
    sex=st.sampled_from(["male", "female", "femal", "m", "f"]),
    gap=st.text(" \t,.:", max_size=3),
    age=st.integers(0, 120),
    unit=st.sampled_from([*["yrs", "yr", "years", "y", ""], "month", "months", "days", "day"]),
    space=st.text(" ", max_size=2),
    upper=st.booleans(),
    rest=st.sampled_from(["", "\nnormal", ", normal", " \t\r\nPTB 3"]),
)
def test_readings_in_any_spelling(
    sex: str, gap: str, age: int, unit: str, space: str, upper: bool, rest: str
) -> None:
    """Case, spacing and unit may be any: sex and age come back as they were written."""
    text = f"{sex}{gap}{age}{space if unit else ''}{unit}"
    found = plugin._person((text.upper() if upper else text) + rest)
    assert found[0] == ("F" if sex.startswith("f") else "M")
    per_year = {"m": 12, "d": 365.25}.get(unit[:1], 1)
    np.testing.assert_allclose(found[1], age / per_year)


@settings(deadline=None)
@given(st.text(max_size=40) | st.text("fmale0129 .,\nyrsd", max_size=12))
def test_any_text_is_a_reading(text: str) -> None:
    """No text breaks the parser, and what it gives a table can hold."""
    sex, age = plugin._person(text)
    assert sex in ("M", "F", None)
    assert np.isnan(age) or (sex and 0 <= age <= 120)


def test_no_readings(miniature: ShenzhenOptions) -> None:
    """Without readings, or one of them, the films stay, without sex and age."""
    (miniature.root / READINGS / f"{FIRST}.txt").unlink()
    frame = table(miniature).frame
    assert frame["sex"].isna().tolist() == [True] + [False] * 59
    (miniature.root / READINGS).rename(miniature.root / "elsewhere")
    frame = table(miniature).frame
    assert len(frame) == 60
    assert frame[["sex", "age"]].isna().all(axis=None)


def test_missing_and_foreign_films(miniature: ShenzhenOptions) -> None:
    """A film that only a reading names is kept; Montgomery's films and other files are not."""
    (miniature.root / "CXR_png" / f"{FIRST}.png").unlink()
    for name in ("MCUCXR_0001_0.png", "Thumbs.db", "._CHNCXR_0002_0.png"):
        (miniature.root / "CXR_png" / name).touch()
    images = table(miniature).frame["image"]
    assert len(images) == 60
    assert images[0] == f"CXR_png/{FIRST}.png"


def test_parent_folder(miniature: ShenzhenOptions) -> None:
    """The folder that the archive unpacks to may be the root, or its parent."""
    before = table(miniature).frame
    outer = miniature.root.parent / "outer"
    outer.mkdir()
    miniature.root.rename(outer / "ChinaSet_AllFiles")
    frame = table(changed(miniature, root=outer)).frame
    assert frame["image"][0] == f"ChinaSet_AllFiles/CXR_png/{FIRST}.png"
    assert all((outer / image).is_file() for image in frame["image"])
    pd.testing.assert_frame_equal(frame.drop(columns="image"), before.drop(columns="image"))


@pytest.mark.parametrize("nested", [True, False])
def test_kaggle_edition(miniature: ShenzhenOptions, nested: bool) -> None:
    """Kaggle's folder and CSV give what the NLM's folder gives."""
    before = table(miniature).frame
    options = kaggle(miniature)
    if not nested:
        (options.root / "images" / "images").rename(options.root / "flat")
        (options.root / "images").rmdir()
        (options.root / "flat").rename(options.root / "images")
    frame = table(options).frame
    assert all((options.root / image).is_file() for image in frame["image"])
    pd.testing.assert_frame_equal(frame.drop(columns="image"), before.drop(columns="image"))


def test_split_is_stable(miniature: ShenzhenOptions) -> None:
    """A part of the films splits as in the whole; another seed splits otherwise; 0 = no test."""
    whole = table(miniature).frame.set_index("image")["split"]
    for film in sorted((miniature.root / "CXR_png").iterdir())[:30]:
        film.unlink()
        (miniature.root / READINGS / f"{film.stem}.txt").unlink()
    part = table(miniature).frame.set_index("image")["split"]
    assert len(part) == 30
    pd.testing.assert_series_equal(part, whole.loc[part.index])
    assert table(changed(miniature, split_seed=1)).frame["split"].tolist() != part.tolist()
    assert not len(table(changed(miniature, test_fraction=0)).rows("test"))


LISTS = {"train": "my train.txt", "val": "val.txt.gz", "test": "test.txt"}


def with_lists(options: ShenzhenOptions) -> ShenzhenOptions:
    (options.root / LISTS["train"]).write_text(f"{FIRST}.png,0\nCHNCXR_0031_1.png,1\n")
    content = b"img/CHNCXR_0002_0.png 0\n\nCHNCXR_0032_1.png 1\n"
    (options.root / LISTS["val"]).write_bytes(gzip.compress(content))
    (options.root / LISTS["test"]).write_text(f"CHNCXR_0003_0\n{LAST}")
    return changed(options, split_files=LISTS)


def test_lists(miniature: ShenzhenOptions) -> None:
    """Lists with and without labels, folders and endings split the films; the rest is not used."""
    frame = table(with_lists(miniature)).frame
    wanted = {0: "train", 30: "train", 1: "val", 31: "val", 2: "test", 59: "test"}
    assert frame["split"].dropna().to_dict() == wanted


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: b"\n \n", "names no film"),
        (lambda content: content.replace(b",1", b",0"), "line 2: the label is '0' and by its name"),
        (lambda content: content.replace(b",1", b",1,1"), "line 2: the label is '1 1' and"),
        *[
            (lambda content, value=value: content.replace(b",1", value.encode()), "line 2: the la")
            for value in (",2", ",yes", ",nan", ",1e400", ",\uff0d1", ",1\0", f",{'1' * 10**6}")
        ],
        (lambda content: b"image,label\n" + content, "line 1: 'image' is no film"),
        (lambda content: content + b"CHNCXR_0099_1.png", "line 3: CHNCXR_0099_1 is not in the"),
        (lambda content: content + content[:19], "line 3: CHNCXR_0001_0 stands above already"),
        (lambda content: content + b"CHNCXR_0060_1.png", "_0060_1 stands above already, or in an"),
        (lambda content: content + b"../CHNCXR_0003_0.png", "line 3: '../CHN"),
        (lambda content: content + b"/CHNCXR_0003_0.png", "line 3: '/CHN"),
        (lambda content: content + b"a\\CHNCXR_0003_0.png", "line 3: 'a\\\\CHN"),
        (lambda content: content + b'"CHNCXR_0003_0.png"', "line 3: '\"CHN"),
        (lambda content: content + b"x" * 10**6, "line 3: 'xxx"),
        (lambda content: content + b",,", "line 3: ',,' is no film"),
        (lambda content: content + b"\xe9", "cannot read"),
        (lambda content: content.decode().encode("utf-16"), "cannot read"),
    ],
)
def test_wrong_list(miniature: ShenzhenOptions, change: Change, said: str) -> None:
    """Whatever is wrong in a list is one line that names a list and the place."""
    options = with_lists(miniature)
    options = changed(options, split_files=dict(reversed(LISTS.items())))
    path = miniature.root / LISTS["train"]
    path.write_bytes(change(path.read_bytes()))
    refused(options, path, said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: b"", "no column 'study_id'"),
        (lambda content: content.replace(b"age", b"years", 1), "no column 'age'"),
        (lambda content: content.replace(b"findings", b"sex", 1), "two columns 'sex'"),
        (lambda content: content + b"study_id,sex,age,findings", "line 62: 'study_id' is no film"),
        (lambda content: content.replace(b",normal", b"", 1), "line 2: has 3 fields, the header 4"),
        (lambda content: content.replace(b",normal", b",a,b", 1), "line 2: has 5 fields"),
        (lambda content: content.replace(b"normal", b'"normal', 1), "line 2: unexpected end"),
        (lambda content: content.replace(b"normal", b"x" * 10**6, 1), "line 2: field larger"),
        (lambda content: content + content.split(b"\n")[1], "line 62: CHNCXR_0001_0 stands above"),
        (lambda content: content.replace(b"CHNCXR_0002", b"../CHNCXR_0002"), "line 3: '../CHN"),
        (lambda content: content.replace(b"Male", b"\xe9"), "cannot read"),
        (lambda content: content.decode().encode("utf-16"), "cannot read"),
    ],
)
def test_wrong_metadata(miniature: ShenzhenOptions, change: Change, said: str) -> None:
    """Whatever is wrong in Kaggle's CSV is one line that names it and the place."""
    options = kaggle(miniature)
    path = options.root / METADATA
    path.write_bytes(change(path.read_bytes()))
    refused(options, path, said)


def test_metadata_of_another_label(miniature: ShenzhenOptions) -> None:
    """A film whose label in Kaggle's CSV is not that of the film in the folder is refused."""
    options = kaggle(miniature)
    path = options.root / METADATA
    path.write_text(path.read_text().replace(FIRST, "CHNCXR_0001_1"))
    said = "CHNCXR_0001_0 and CHNCXR_0001_1 are one film"
    refused(options, options.root / "images" / "images", said)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: content.replace(b"\n", b"\r"),
        lambda content: content + b"\n \n",
        lambda content: content.replace(b"\n", b",\n"),
    ],
)
def test_harmless_forms(miniature: ShenzhenOptions, change: Change) -> None:
    """A byte order mark, any line end, blank lines or one column more change nothing."""
    options = with_lists(kaggle(miniature))
    before = table(options).frame
    for name in (METADATA, LISTS["train"], LISTS["test"]):
        path = options.root / name
        path.write_bytes(change(path.read_bytes()))
    pd.testing.assert_frame_equal(table(options).frame, before)


@pytest.mark.parametrize("kind", ["missing", "folder", "no gzip", "cut gzip"])
def test_unreadable_list(miniature: ShenzhenOptions, kind: str) -> None:
    """A list that is missing, a folder or a broken archive is one line that names it."""
    path = miniature.root / "list.txt.gz"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        packed = gzip.compress(b"CHNCXR_0001_0.png,0\n" * 99)
        path.write_bytes(packed[:30] if kind == "cut gzip" else b"plain")
    refused(changed(miniature, split_files={"train": path.name}), path, "cannot read")


@pytest.mark.parametrize("name", [METADATA, f"{READINGS}/CHNCXR_0001_0.txt"])
def test_folder_for_a_text(miniature: ShenzhenOptions, name: str) -> None:
    """A folder where a text should be is one line that names it."""
    (miniature.root / name).unlink(missing_ok=True)
    (miniature.root / name).mkdir()
    refused(miniature, miniature.root / name, "cannot read")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("CXR_png/CHNCXR_0001_1.png", "CHNCXR_0001_0 and CHNCXR_0001_1 are one film"),
        ("CXR_png/CHNCXR_0001_2.png", "CHNCXR_0001_2.png: the name is not CHNCXR_"),
        ("CXR_png/CHNCXR_0001_0 (1).png", "the name is not CHNCXR_"),
        ("CXR_png/CHNCXR_\u0661\u0661\u0661\u0661_0.png", "the name is not CHNCXR_"),
        (f"{READINGS}/CHNCXR_0001.txt", "the name is not CHNCXR_"),
    ],
)
def test_wrong_name(miniature: ShenzhenOptions, name: str, said: str) -> None:
    """A film or reading whose name gives no label, or another one, is refused by name."""
    (miniature.root / name).touch()
    refused(miniature, (miniature.root / name).parent, said)


def test_wrong_folder(tmp_path: Path) -> None:
    """A root without films is refused by name, with what was looked for."""
    refused(ShenzhenOptions(root=tmp_path), tmp_path, "neither CXR_png/ nor images/")
    (tmp_path / "CXR_png").mkdir()
    refused(ShenzhenOptions(root=tmp_path), tmp_path / "CXR_png", "no film CHNCXR_")


@real
def test_real_lists(tmp_path: Path) -> None:
    """The authors' three lists name 662 different films, and each label is the name's own."""
    notes = Path(str(REAL)) / "annotations" / "ark_splits"
    names = {"train": "train", "val": "valid", "test": "test"}
    files = {split: notes / f"ShenzenCXR_{name}_data.txt.gz" for split, name in names.items()}
    (tmp_path / "CXR_png").mkdir()
    for path in files.values():
        for line in gzip.decompress(path.read_bytes()).decode().split():
            (tmp_path / "CXR_png" / line.split(",")[0]).touch()
    full = table(ShenzhenOptions(root=tmp_path, split_files=files))
    assert len(full) == SPEC.card.rows["all"] == 662
    assert full.frame["TB"].value_counts().to_dict() == {1: 336, 0: 326}
    assert SPEC.card.positives["all"] == {"TB": 336}
    for split, count, positives in (("train", 463, 235), ("val", 65, 33), ("test", 134, 68)):
        rows = full.rows(split)
        assert (len(rows), full.targets()[rows].sum()) == (count, positives)
    drawn = table(ShenzhenOptions(root=tmp_path))
    np.testing.assert_allclose(len(drawn.rows("test")) / 662, 0.2, atol=0.04)
