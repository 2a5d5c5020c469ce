"""The RSNA adapter: official layout in, one honest table out."""

from __future__ import annotations

import gzip
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import ark_plugin_rsna as plugin
import numpy as np
import pandas as pd
import pytest
from ark_plugin_rsna import LABELS, SPEC, RsnaOptions

from ark_framework import DataError
from ark_framework.annotations import AnnotationTable, validate
from ark_framework.testing import conformance

test_conformance = conformance("ark-rsna")
NOTES = Path(os.environ.get("ARK_REAL_DATA", "")) / "annotations"
SPLITS = ("train", "val", "test")
REAL = os.environ.get("ARK_REAL_DATA")
real = pytest.mark.skipif(REAL is None, reason="ARK_REAL_DATA is not set")


def table(options: RsnaOptions) -> AnnotationTable:
    return validate(SPEC.read(options), dataset=SPEC.name, schema=SPEC.schema)


@pytest.fixture
def miniature(tmp_path: Path) -> RsnaOptions:
    return SPEC.fixture(tmp_path / "rsna")


def changed(options: RsnaOptions, **values: Any) -> RsnaOptions:
    return RsnaOptions.model_validate({**options.model_dump(), **values})


def test_miniature(miniature: RsnaOptions) -> None:
    """The miniature has every class in both splits, patients with two films, and all files."""
    mini = table(miniature)
    assert len(mini) == 72
    for split in ("train", "test"):
        assert mini.frame.loc[mini.rows(split), list(LABELS)].sum().gt(4).all()
    patients = [set(mini.frame["patient"][mini.rows(split)]) for split in ("train", "test")]
    assert not patients[0] & patients[1]
    assert mini.frame["patient"].value_counts().max() == 2
    assert all((miniature.root / image).is_file() for image in mini.frame["image"])


def test_films_decode(miniature: RsnaOptions) -> None:
    """The drawn DICOM films carry pixels that any reader decodes."""
    from pydicom import dcmread

    row = table(miniature).frame.iloc[1]
    pixels = dcmread(miniature.root / row["image"]).pixel_array
    assert pixels.shape == (64, 64)
    assert pixels.max() > 150


def test_columns(miniature: RsnaOptions) -> None:
    """Class, sex, age, view and NIH identity are those of that film."""
    row = table(miniature).frame.iloc[2]
    assert [row[name] for name in ("sex", "age", "view")] == ["F", 31.0, "PA"]
    assert (row["patient"], row["source_id"]) == ("2", "nih:00000002_000.png")
    assert row["source_patient"] == "nih:2"
    assert row[list(LABELS)].tolist() == [0, 0, 1]


def test_doubtful_match_is_unknown(miniature: RsnaOptions) -> None:
    """A match whose error is not below max_mse gives neither identity nor patient."""
    first = table(miniature).frame.iloc[0]
    assert first["source_id"] is None
    assert first["patient"] == first["image"].split("/")[1].removesuffix(".dcm")
    assert table(changed(miniature, max_mse=41)).frame["source_id"].iloc[0] == (
        "nih:00000001_000.png"
    )


def test_json_mapping(miniature: RsnaOptions) -> None:
    """The JSON list says the same as the CSV."""
    frame = pd.read_csv(miniature.root / "nih.csv")
    entries = [
        {"subset_img_id": film, "img_id": image, "orig_labels": ["Mass"]}
        for film, image in zip(frame["rsna_patientId"], frame["nih_image"], strict=True)
    ]
    (miniature.root / "nih.json").write_text(json.dumps(entries))
    by_json = table(changed(miniature, nih_mapping="nih.json")).frame
    pd.testing.assert_frame_equal(by_json, table(changed(miniature, max_mse=50)).frame)


def test_headers_file(miniature: RsnaOptions) -> None:
    """A CSV of the headers gives what the films' own headers give."""
    want = table(miniature).frame
    lines = ["Filename,PatientAge,PatientID,PatientSex,ViewPosition"]
    for row in want.itertuples():
        film = Path(row.image).stem
        lines.append(f"{film}.dcm,{row.age:.0f},{film},{row.sex},{row.view}")
    (miniature.root / "headers.csv").write_text("\n".join(lines))
    pd.testing.assert_frame_equal(table(changed(miniature, headers="headers.csv")).frame, want)


def test_missing_and_broken_films(miniature: RsnaOptions) -> None:
    """A film that is missing or broken stays in the table, without sex, age and view."""
    films = sorted((miniature.root / plugin.FILMS).iterdir())
    films[0].unlink()
    films[1].write_bytes(films[1].read_bytes()[:140])
    films[2].write_bytes(b"not a film")
    frame = table(miniature).frame
    assert len(frame) == 72
    assert frame["sex"].isna().tolist() == [True] * 3 + [False] * 69
    assert frame[["age", "view"]].iloc[:3].isna().all(axis=None)


def test_split_is_by_patient_and_stable(miniature: RsnaOptions) -> None:
    """A part of the films splits as in the whole; another seed splits otherwise; 0 = no test."""
    whole = table(miniature).frame.set_index("image")["split"]
    path = miniature.root / plugin.CLASSES
    path.write_text("\n".join(path.read_text().splitlines()[:40]))
    part = table(miniature).frame.set_index("image")["split"]
    assert len(part) < len(whole)
    pd.testing.assert_series_equal(part, whole.loc[part.index])
    assert table(changed(miniature, split_seed=1)).frame["split"].tolist() != part.tolist()
    assert not len(table(changed(miniature, test_fraction=0)).rows("test"))


def test_films_as_png(miniature: RsnaOptions) -> None:
    """Films converted to PNG are named by their id; sex, age and view are had from the CSV only."""
    frame = table(changed(miniature, films="png")).frame
    assert frame["image"].iloc[1] == f"{plugin.FILMS}/{film(1)}.png"
    assert frame[["sex", "age", "view"]].isna().all(axis=None)
    want = table(miniature).frame
    same = [name for name in frame.columns if name not in ("image", "sex", "age", "view")]
    pd.testing.assert_frame_equal(frame[same], want[same])


def film(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-{number:012x}"


def test_split_files(miniature: RsnaOptions) -> None:
    """Lists replace the drawn split: with class, folder, no ending, or gzipped."""
    (miniature.root / "my lists").mkdir()
    (miniature.root / "my lists" / "train.txt").write_text(
        f"{film(0)}.png 0\nfilms/{film(1)}.dcm\n\n{film(2)}\n"
    )
    (miniature.root / "test.txt.gz").write_bytes(gzip.compress(f"{film(71)}.png,2\r\n".encode()))
    files = {"train": "my lists/train.txt", "test": miniature.root / "test.txt.gz"}
    frame = table(changed(miniature, split_files=files)).frame
    assert frame["split"].iloc[:4].tolist() == ["train", "train", "train", None]
    assert frame["split"].iloc[-1] == "test"
    assert frame["split"].notna().sum() == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "lists no film"),
        (f"{film(0)}.png\n{film(99)}.png 0", f"line 2: '{film(99)}' is no film of stage_2_det"),
        (f"{film(0)}.png 0\n{film(0)}", f"line 2: '{film(0)}' stands above already"),
        (f"{film(0)}.png 0\n\n{film(9)}", f"line 3: '{film(9)}' is in two of the lists"),
    ],
)
def test_wrong_split_file(miniature: RsnaOptions, text: str, said: str) -> None:
    """A film that is unknown, or listed twice, is one line that names the list and the line."""
    (miniature.root / "first.txt").write_text(f"{film(9)}.png\n")
    (miniature.root / "second.txt").write_text(text)
    with pytest.raises(DataError) as error:
        table(changed(miniature, split_files={"train": "first.txt", "test": "second.txt"}))
    assert said in str(error.value)
    assert "second.txt" in str(error.value)
    assert "\n" not in str(error.value)


NIH = "nih.csv"


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (plugin.CLASSES, ",Normal", ",Fine", "line 2: 'Fine' is no class; the classes are Normal"),
        (plugin.CLASSES, "Lung Opacity\n00000003", "Normal\n00000003", "has another class above"),
        (plugin.CLASSES, "patientId", "patient", "no column 'patientId'"),
        (plugin.CLASSES, "class", "patientId", "two columns 'patientId'"),
        (
            plugin.CLASSES,
            "00000001-",
            "../0001-",
            "line 3: '../0001-0000-4000-8000-000000000001' is",
        ),
        (plugin.CLASSES, ",Normal", "", "line 2: 1 fields, the header has 2"),
        (plugin.CLASSES, ",Normal", ",Normal,1", "line 2: 3 fields, the header has 2"),
        (plugin.CLASSES, ",Normal", ',"Normal', "line 2: unexpected end of data"),
        (NIH, "nih_image", "nih", "no column 'nih_image'"),
        (NIH, "00000001_001.png", "1_001.png", "line 3: '1_001.png' is not an NIH film"),
        (NIH, ".png,40", ".png,low", "line 2: 'low' is not an error, mse"),
        (NIH, ".png,40", ".png,1e400", "line 2: '1e400' is not an error, mse"),
        (NIH, film(1), film(0), f"line 3: '{film(0)}' stands above already"),
        ("headers.csv", "PatientSex", "Sex", "no column 'PatientSex'"),
        ("headers.csv", ",F,", ",female,", "line 2: 'female' is not a valid PatientSex"),
        ("headers.csv", ",30Y,", ",-1,", "line 2: '-1' is not a valid PatientAge"),
        ("headers.csv", film(1), film(0), f"line 3: '{film(0)}' stands above already"),
    ],
)
def test_wrong_file(miniature: RsnaOptions, file: str, old: str, new: str, said: str) -> None:
    """A wrong value in a file is one line that names the file and the place."""
    path = miniature.root / file
    (miniature.root / "headers.csv").write_text(
        f"PatientID,PatientAge,PatientSex,ViewPosition\n{film(0)},30Y,F,PA\n{film(1)},30Y,F,PA\n"
    )
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError) as error:
        table(changed(miniature, headers="headers.csv"))
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["root", "nih_mapping", "headers"])
def test_missing_file(miniature: RsnaOptions, key: str) -> None:
    """A file that is not there is named on one line."""
    with pytest.raises(DataError, match="nowhere") as error:
        table(changed(miniature, **{key: "nowhere"}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"a": 1}]', "entry 1: 'None' is not a patientId"),
        (f'[{{"subset_img_id": "{film(0)}", "img_id": 7}}]', "entry 1: '7' is not an NIH film"),
        ("[1]", "is no JSON list of objects"),
        ("[" * 100_000, "is no JSON list of objects"),
        ("[", "is no JSON list of objects"),
        ("[]", "is an empty list"),
    ],
    ids=["another form", "a number", "no objects", "too deep", "cut off", "empty"],
)
def test_wrong_json(miniature: RsnaOptions, text: str, said: str) -> None:
    """A JSON file of another form is one line that names it and the entry."""
    (miniature.root / "other.json").write_text(text)
    with pytest.raises(DataError, match=r"other\.json") as error:
        table(changed(miniature, nih_mapping="other.json"))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@real
@pytest.mark.parametrize(
    ("folder", "counts"), [("rsna_64px", [121, 244, 161]), ("rsna_pneumonia", [68, 117, 100])]
)
def test_real_films(folder: str, counts: list[int]) -> None:
    """Real JPEG DICOM folders give their classes; films' headers agree with the published CSV."""
    root, notes = Path(str(REAL)) / folder, Path(str(REAL)) / "annotations"
    films = table(RsnaOptions(root=root))
    assert films.targets().sum(axis=0).tolist() == counts
    assert len(films.rows("train")) + len(films.rows("test")) == sum(counts)
    assert all((root / image).is_file() for image in films.frame["image"])
    by_csv = table(
        RsnaOptions(root=root, headers=notes / "kaggle_stage_2_train_images_dicom_headers.csv.gz")
    )
    pd.testing.assert_frame_equal(films.frame, by_csv.frame)
    assert films.frame[["sex", "age", "view"]].notna().all(axis=None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RsnaOptions:
    """All 26,684 films, without their files.

    The class file is rebuilt: the lines of Kaggle's ``stage_2_train_labels.csv`` (one per box),
    each with the class that ``rsna_nih_matches.csv.gz`` has for its film.
    """
    root = tmp_path_factory.mktemp("rsna")
    matches = pd.read_csv(NOTES / "rsna_nih_matches.csv.gz").set_index("rsna_patientId")
    classes = boxes()[["patientId"]].assign(
        **{"class": lambda frame: matches["rsna_class"].loc[frame["patientId"]].to_numpy()}
    )
    classes.to_csv(root / plugin.CLASSES, index=False)
    return RsnaOptions(
        root=root,
        nih_mapping=NOTES / "rsna_nih_matches.csv.gz",
        headers=NOTES / "kaggle_stage_2_train_images_dicom_headers.csv.gz",
    )


def boxes() -> pd.DataFrame:
    archive = zipfile.ZipFile(NOTES / "kaggle_stage_2_train_labels.csv.zip")
    return pd.read_csv(io.BytesIO(archive.read("stage_2_train_labels.csv")))


def authors(options: RsnaOptions, **values: Any) -> AnnotationTable:
    lists = NOTES / "ark_splits"
    files = {split: lists / f"RSNAPneumonia_{split}.txt.gz" for split in SPLITS}
    return table(changed(options, split_files=files, **values))


@real
def test_real_full_size(whole: RsnaOptions) -> None:
    """All 26,684 films: official class counts, opacity = target, doubtful matches left out."""
    full, targets = table(whole), boxes()
    assert full.targets().sum(axis=0).tolist() == [8851, 11821, 6012]
    assert dict(zip(LABELS, full.targets().sum(axis=0), strict=True)) == SPEC.card.positives["all"]
    opacity = set(targets.loc[targets["Target"] == 1, "patientId"])
    shown = full.frame.loc[full.frame["Lung Opacity"] == 1, "image"]
    assert {Path(image).stem for image in shown} == opacity
    assert full.frame["source_id"].isna().sum() == 98
    assert full.frame["age"].isna().sum() == 5
    assert full.frame["view"].value_counts().to_dict() == {"PA": 14511, "AP": 12173}
    assert full.frame["sex"].value_counts().to_dict() == {"M": 15166, "F": 11518}
    test = full.rows("test")
    assert not set(full.groups()[test]) & set(full.groups()[full.rows("train")])
    np.testing.assert_allclose(len(test) / 26684, 0.15, atol=0.02)


@real
def test_real_split_files(whole: RsnaOptions) -> None:
    """The authors' own lists give their splits and classes, which agree with the challenge's."""
    full = authors(whole)
    rows = [full.rows(split) for split in SPLITS]
    assert [len(each) for each in rows] == [21295, 2680, 2709]
    assert [full.targets()[each].sum(axis=0).tolist() for each in rows] == [
        [7109, 9426, 4760], [903, 1165, 612], [839, 1230, 640],
    ]  # fmt: skip
    for split, each in zip(SPLITS, rows, strict=True):
        path = NOTES / "ark_splits" / f"RSNAPneumonia_{split}.txt.gz"
        theirs = pd.read_csv(path, sep=" ", header=None, index_col=0)[1]
        names = full.frame["image"].iloc[each].map(lambda image: f"{Path(image).stem}.png")
        assert (full.targets()[each].argmax(axis=1) == theirs.loc[names].to_numpy()).all()


@real
@pytest.mark.parametrize(
    ("max_mse", "in_nih_test", "distinct", "in_nih_train", "shared", "of"),
    [(10, 5699, None, 1722, 1398, 2161), (1000, 5719, 5714, 1728, 1403, 2166)],
)
def test_real_nih_twins(
    whole: RsnaOptions, max_mse: int, in_nih_test: int, distinct: int | None,
    in_nih_train: int, shared: int, of: int,
) -> None:  # fmt: skip
    """The authors' RSNA lists overlap with their NIH lists, and with each other by patient.

    Counted from the two published lists and the matches: below ``mse`` 10, and all of them.
    """
    frame = authors(whole, max_mse=max_mse).frame
    nih = {
        split: "nih:" + pd.read_csv(
            NOTES / "ark_splits" / f"Xray14_{split}_official.txt.gz", usecols=[0], sep=" ",
            header=None,
        )[0]
        for split in SPLITS
    }  # fmt: skip
    train, test = frame[frame["split"] == "train"], frame[frame["split"] == "test"]
    twins = train["source_id"][train["source_id"].isin(nih["test"])]
    assert len(twins) == in_nih_test
    assert distinct in (None, twins.nunique())
    assert test["source_id"].isin(nih["train"]).sum() == in_nih_train
    patients = set(test["source_patient"].dropna())
    assert (len(patients & set(train["source_patient"])), len(patients)) == (shared, of)
    # 00000061_012.png is of patient 61.
    of_nih_test = "nih:" + nih["test"].str[4:12].astype(int).astype(str)
    assert of_nih_test.nunique() == 2797
    if max_mse > 10:
        assert of_nih_test[of_nih_test.isin(train["source_patient"])].nunique() == 1159
