"""The NIH adapter: official layouts in, one honest table out."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import ark_plugin_chestxray14 as plugin
import numpy as np
import pandas as pd
import pytest
from ark_plugin_chestxray14 import LABELS, SPEC, ChestXray14Options

from ark_framework import DataError
from ark_framework.annotations import AnnotationTable, validate
from ark_framework.testing import conformance

test_conformance = conformance("ark-chestxray14")
REAL = os.environ.get("ARK_REAL_DATA")
real = pytest.mark.skipif(REAL is None, reason="ARK_REAL_DATA is not set")


def table(root: Path) -> AnnotationTable:
    return validate(SPEC.read(ChestXray14Options(root=root)), dataset=SPEC.name, schema=SPEC.schema)


@pytest.fixture
def miniature(tmp_path: Path) -> Path:
    return SPEC.fixture(tmp_path / "nih").root


def test_miniature(miniature: Path) -> None:
    """The miniature has every finding in both splits, patients with two films, and all files."""
    mini = table(miniature)
    assert len(mini) == 72
    assert mini.frame["patient"].value_counts().eq(2).all()
    assert set(mini.rows("train")).isdisjoint(mini.rows("test"))
    for split in ("train", "test"):
        assert mini.frame.loc[mini.rows(split), list(LABELS)].sum().gt(0).all()
    assert all((miniature / image).is_file() for image in mini.frame["image"])


def test_columns(miniature: Path) -> None:
    """Findings, patient, sex, age, view and identity are those of the row of that film."""
    text = (miniature / plugin.ENTRIES[0]).read_text().splitlines()
    text[1] = "00000001_000.png,Hernia|Mass,0,1,58,F,AP,64,64,1,1"
    (miniature / plugin.ENTRIES[0]).write_text("\n".join(text))
    row = table(miniature).frame.iloc[0]
    assert row["image"] == "images/00000001_000.png"
    assert [row[name] for name in ("split", "patient", "sex", "age", "view")] == [
        "train", "1", "F", 58.0, "AP",
    ]  # fmt: skip
    assert (row["source_id"], row["source_patient"]) == ("nih:00000001_000.png", "nih:1")
    assert {label for label in LABELS if row[label] == 1} == {"Hernia", "Mass"}
    assert row[list(LABELS)].isin([0, 1]).all()


def test_first_edition(miniature: Path) -> None:
    """The 2017 file is read too: ages with units, a header longer than its rows, and slips."""
    lines = (miniature / plugin.ENTRIES[0]).read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    for row, age in zip(rows, ["058Y", "013M", "412Y", *["044Y"] * 69], strict=True):
        row[4] = age
    (miniature / plugin.ENTRIES[0]).unlink()
    text = "\n".join([lines[0] + ",", *(",".join(row) for row in rows)])
    (miniature / plugin.ENTRIES[1]).write_text(text)
    frame = table(miniature).frame
    np.testing.assert_allclose(frame["age"].iloc[:4], [58, 13 / 12, np.nan, 44])
    assert frame["image"].iloc[0] == "images/00000001_000.png"
    assert frame["sex"].isin(["M", "F"]).all()


def test_rows_longer_than_header(miniature: Path) -> None:
    """A comma at the end of each row shifts no column."""
    path = miniature / plugin.ENTRIES[0]
    before = table(miniature).frame
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(line + "," for line in lines[1:])]))
    pd.testing.assert_frame_equal(table(miniature).frame, before)


def test_corrected_edition_wins(miniature: Path) -> None:
    """With both editions in the folder the corrected one is read."""
    text = (miniature / plugin.ENTRIES[0]).read_text()
    (miniature / plugin.ENTRIES[1]).write_text(text.replace(",31,", ",99,"))
    assert table(miniature).frame["age"].max() < 99


def test_twelve_folders(miniature: Path) -> None:
    """Films in images_001/images … are found where they lie; one that is nowhere keeps a path."""
    films = sorted((miniature / "images").iterdir())
    for number, film in enumerate(films[1:]):
        folder = miniature / f"images_{number % 12 + 1:03d}" / "images"
        folder.mkdir(parents=True, exist_ok=True)
        film.rename(folder / film.name)
    films[0].unlink()
    (miniature / "images").rmdir()
    images = table(miniature).frame["image"]
    assert images[0] == "images/00000001_000.png"
    assert images[1] == "images_001/images/00000001_001.png"
    assert all((miniature / image).is_file() for image in images[1:])


def test_unlisted_film_has_no_split(miniature: Path) -> None:
    """A film in neither official list is in the table and in no split."""
    path = miniature / "test_list.txt"
    path.write_text("\n".join(path.read_text().split()[1:]))
    frame = table(miniature).frame
    assert frame["split"].isna().sum() == 1
    assert frame.loc[frame["split"].isna(), "image"].item() == "images/00000025_000.png"


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("Data_Entry_2017_v2020.csv", "|", "|Gout|", "line 5: unknown finding 'Gout'"),
        ("Data_Entry_2017_v2020.csv", "Finding Labels", "Findings", "no column 'Finding Labels'"),
        ("Data_Entry_2017_v2020.csv", ",1,31,", ",one,31,", "line 2, lacks"),
        ("test_list.txt", "00000025_000", "00000001_000", "00000001_000.png is in both"),
    ],
)
def test_wrong_file(miniature: Path, file: str, old: str, new: str, said: str) -> None:
    """A wrong value in an official file is one line that names the folder and the place."""
    path = miniature / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError) as error:
        table(miniature)
    assert said in str(error.value)
    assert str(miniature) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "file", ["Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt", "images"]
)
def test_missing_file(miniature: Path, file: str) -> None:
    """Each part of the official layout that is missing is named on one line with its folder."""
    (miniature / file).rename(miniature / "elsewhere")
    with pytest.raises(DataError) as error:
        table(miniature)
    assert file in str(error.value)
    assert str(miniature) in str(error.value)
    assert "\n" not in str(error.value)


@real
@pytest.mark.parametrize(
    ("folder", "train", "test"), [("nih_64px", 1391, 428), ("nih_chestxray14", 704, 122)]
)
def test_real_films(folder: str, train: int, test: int) -> None:
    """Real folders give their official splits, patient-disjoint, with every film in its place."""
    root = Path(str(REAL)) / folder
    films = table(root)
    assert (len(films.rows("train")), len(films.rows("test"))) == (train, test)
    patients = [set(films.frame["patient"][films.rows(split)]) for split in ("train", "test")]
    assert not patients[0] & patients[1]
    assert all((root / image).is_file() for image in films.frame["image"])
    if folder == "nih_64px":
        assert len(patients[1]) == 85
        assert len(patients[0] | patients[1]) == 831
        assert (films.frame["sex"] == "F").sum() == 900


@real
def test_real_full_size(tmp_path: Path) -> None:
    """The whole official file agrees with an independent list of the same films, label by label."""
    source = Path(str(REAL)) / "annotations"
    (tmp_path / "images").mkdir()
    text = gzip.decompress((source / "Data_Entry_2017_v2020.csv.gz").read_bytes())
    (tmp_path / "Data_Entry_2017_v2020.csv").write_bytes(text)
    lists = []
    for split in ("train", "val", "test"):
        path = source / "ark_splits" / f"Xray14_{split}_official.txt.gz"
        lists.append(pd.read_csv(path, sep=r"\s+", header=None, names=["image", *LABELS]))
    for name, parts in (("train_val_list.txt", lists[:2]), ("test_list.txt", lists[2:])):
        (tmp_path / name).write_text("\n".join(pd.concat(parts)["image"]))
    full = table(tmp_path)
    assert len(full) == 112120
    assert (len(full.rows("train")), len(full.rows("test"))) == (86524, 25596)
    assert full.frame["patient"].nunique() == 30805
    theirs = pd.concat(lists).set_index("image")[list(LABELS)]
    names = full.frame["image"].str.removeprefix("images/")
    np.testing.assert_array_equal(full.targets(), theirs.loc[names].to_numpy())
    assert full.targets()[full.rows("test")].sum(axis=0).tolist() == [
        3279, 1069, 4658, 6112, 1748, 1623, 555, 2665, 1815, 925, 1093, 435, 1143, 86,
    ]  # fmt: skip
