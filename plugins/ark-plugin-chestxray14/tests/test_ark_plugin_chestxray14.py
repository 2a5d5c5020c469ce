"""The NIH adapter: official layouts in, one honest table out."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

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


def table(root: Path, **options: Any) -> AnnotationTable:
    read = SPEC.read(ChestXray14Options(root=root, **options))
    return validate(read, dataset=SPEC.name, schema=SPEC.schema)


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


def test_split_files(miniature: Path) -> None:
    """Lists of one's own replace the official ones: with labels, folder, no ending, or gzipped."""
    (miniature / "my lists").mkdir()
    (miniature / "my lists" / "train.txt").write_text(
        f"00000001_000.png {'0 ' * 14}\nimages_001/00000001_001.png\n\n00000002_000\n"
    )
    (miniature / "val.txt.gz").write_bytes(gzip.compress(b"00000036_001.png,1\r\n"))
    for name in ("train_val_list.txt", "test_list.txt"):
        (miniature / name).unlink()
    files = {"train": "my lists/train.txt", "val": miniature / "val.txt.gz"}
    frame = table(miniature, split_files=files).frame
    assert frame["split"].iloc[:4].tolist() == ["train", "train", "train", None]
    assert frame["split"].iloc[-1] == "val"
    assert frame["split"].notna().sum() == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "lists no film"),
        ("00000001_000.png\n00000099_000.png", "line 2: '00000099_000.png' is no film of Data_"),
        ("00000001_000.png\n00000001_000", "line 2: '00000001_000.png' stands above already"),
        ("00000001_001.png\n\n00000036_001.png", "line 3: '00000036_001.png' is in two of the li"),
    ],
)
def test_wrong_split_file(miniature: Path, text: str, said: str) -> None:
    """A film that is unknown, or listed twice, is one line that names the list and the line."""
    (miniature / "first.txt").write_text("00000036_001.png\n")
    (miniature / "second.txt").write_text(text)
    with pytest.raises(DataError) as error:
        table(miniature, split_files={"train": "first.txt", "test": "second.txt"})
    assert said in str(error.value)
    assert "second.txt" in str(error.value)
    assert "\n" not in str(error.value)


ENTRY, TEST = plugin.ENTRIES[0], "test_list.txt"


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (ENTRY, "|", "|Gout|", "line 5: 'Gout' is no finding; known: Atelectasis, "),
        (ENTRY, "|", "|No Finding|", "line 5: 'Cardiomegaly|No Finding|Infiltration' says No"),
        (ENTRY, ",Cardiomegaly,", ",,", "line 3: '' is not a valid Finding Labels"),
        (ENTRY, "Finding Labels", "Findings", "no column 'Finding Labels'"),
        (ENTRY, "Follow-up #", "Patient ID", "two columns 'Patient ID'"),
        (ENTRY, ",1,31,", ",one,31,", "line 2: 'one' is not a valid Patient ID"),
        (ENTRY, ",1,31,", ",2,31,", "line 2: '00000001_000.png' is not a film of the patient"),
        (ENTRY, "00000001_001", "../001_001", "line 3: '../001_001.png' is not a valid Image In"),
        (ENTRY, "00000001_001", "00000001_000", "line 3: '00000001_000.png' stands above already"),
        (ENTRY, ",1,31,", ",1,\uff13,", "line 2: '\uff13' is not a valid Patient Age"),
        (ENTRY, ",M,PA,", ",X,PA,", "line 4: 'X' is not a valid Patient Gender"),
        (ENTRY, ",M,PA,", ",M,LL,", "line 4: 'LL' is not a valid View Position"),
        (ENTRY, ",M,PA,", ",M,", "line 4: 10 fields, the header has 11"),
        (ENTRY, ",M,PA,", ",M,PA,1,", "line 4: 12 fields, the header has 11"),
        (ENTRY, ",Cardiomegaly", ',"Cardiomegaly', "line 3: unexpected end of data"),
        (ENTRY, ",Cardiomegaly", ",Cardio\0megaly", "line 3: has a NUL byte"),
        (TEST, "00000025_000", "00000001_000", "line 1: '00000001_000.png' is in two of the lists"),
        (TEST, "00000025_001", "00000025_0x1", "line 2: '00000025_0x1.png' is no film of Data_En"),
    ],
)
def test_wrong_file(miniature: Path, file: str, old: str, new: str, said: str) -> None:
    """A wrong value in an official file is one line that names the file and the place."""
    path = miniature / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError) as error:
        table(miniature)
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_other_ends_and_marks(miniature: Path) -> None:
    """A byte-order mark, other ends of line, blank lines and quoted fields change nothing."""
    path = miniature / ENTRY
    before, lines = table(miniature).frame, path.read_text().splitlines()
    quoted = [",".join(f'"{field}"' for field in line.split(",")) for line in lines]
    for text in (
        "\ufeff" + "\r\n".join(lines), "\r".join(lines), "\n\n".join(lines), "\n".join(quoted)
    ):  # fmt: skip
        path.write_bytes(text.encode())
        pd.testing.assert_frame_equal(table(miniature).frame, before)


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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the whole official CSV; the official lists are rebuilt from the authors'."""
    source, root = Path(str(REAL)) / "annotations", tmp_path_factory.mktemp("nih")
    (root / "images").mkdir()
    text = gzip.decompress((source / f"{ENTRY}.gz").read_bytes())
    (root / ENTRY).write_bytes(text)
    names = {split: authors(split)["image"] for split in ("train", "val", "test")}
    train_val = pd.concat([names["train"], names["val"]])
    (root / "train_val_list.txt").write_text("\n".join(train_val))
    (root / TEST).write_text("\n".join(names["test"]))
    return root


def authors(split: str) -> pd.DataFrame:
    path = Path(str(REAL)) / "annotations" / "ark_splits" / f"Xray14_{split}_official.txt.gz"
    return pd.read_csv(path, sep=r"\s+", header=None, names=["image", *LABELS])


@real
def test_real_full_size(whole: Path) -> None:
    """The whole official file agrees with the authors' lists label by label, and with the card."""
    full = table(whole)
    assert len(full) == 112120
    assert (len(full.rows("train")), len(full.rows("test"))) == (86524, 25596)
    assert full.frame["patient"].nunique() == SPEC.card.patients == 30805
    theirs = pd.concat(map(authors, ("train", "val", "test"))).set_index("image")
    names = full.frame["image"].str.removeprefix("images/")
    np.testing.assert_array_equal(full.targets(), theirs.loc[names].to_numpy())
    for split, positives in SPEC.card.positives.items():
        found = full.targets()[full.rows(split)].sum(axis=0)
        assert dict(zip(LABELS, found, strict=True)) == positives


@real
def test_real_split_files(whole: Path) -> None:
    """The authors' own lists give their splits, patient-disjoint, with their positives."""
    lists = Path(str(REAL)) / "annotations" / "ark_splits"
    splits = ("train", "val", "test")
    files = {split: lists / f"Xray14_{split}_official.txt.gz" for split in splits}
    full = table(whole, split_files=files)
    rows = {split: full.rows(split) for split in splits}
    assert [len(rows[split]) for split in splits] == [75312, 11212, 25596]
    patients = [set(full.frame["patient"].iloc[rows[split]]) for split in splits]
    assert [len(each) for each in patients] == [24342, 3666, 2797]
    assert len(set().union(*patients)) == 30805
    positives = [full.targets()[rows[split]].sum(axis=0).tolist() for split in splits]
    assert positives == [
        [7205, 1501, 7649, 12036, 3574, 4060, 770, 2244, 2480, 1210, 1250, 1083, 1927, 126],
        [1075, 206, 1010, 1746, 460, 648, 106, 393, 372, 168, 173, 168, 315, 15],
        [3279, 1069, 4658, 6112, 1748, 1623, 555, 2665, 1815, 925, 1093, 435, 1143, 86],
    ]
    blank = [(full.targets()[rows[split]].sum(axis=1) == 0).sum() for split in splits]
    assert blank == [43886, 6614, 9861]
