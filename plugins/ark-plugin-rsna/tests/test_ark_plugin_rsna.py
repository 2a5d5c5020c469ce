"""The RSNA adapter: official layout in, one honest table out."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (plugin.CLASSES, ",Normal", ",Fine", "line 2: unknown class 'Fine'"),
        (plugin.CLASSES, "Lung Opacity\n00000003", "Normal\n00000003", "another class above"),
        (plugin.CLASSES, "patientId", "patient", "no column 'patientId'"),
        ("nih.csv", "nih_image", "nih", "no column 'nih_image'"),
    ],
)
def test_wrong_file(miniature: RsnaOptions, file: str, old: str, new: str, said: str) -> None:
    """A wrong value in a file is one line that names the file and the place."""
    path = miniature.root / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError) as error:
        table(miniature)
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["root", "nih_mapping", "headers"])
def test_missing_file(miniature: RsnaOptions, key: str) -> None:
    """A file that is not there is named on one line."""
    with pytest.raises(DataError, match="nowhere") as error:
        table(changed(miniature, **{key: "nowhere"}))
    assert "\n" not in str(error.value)


def test_wrong_json(miniature: RsnaOptions) -> None:
    """A JSON file of another form is one line that names it."""
    (miniature.root / "other.json").write_text('[{"a": 1}]')
    with pytest.raises(DataError, match=r"other\.json is no JSON list"):
        table(changed(miniature, nih_mapping="other.json"))


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


@real
def test_real_full_size(tmp_path: Path) -> None:
    """All 26,684 films: official class counts, opacity = target, doubtful matches left out."""
    notes = Path(str(REAL)) / "annotations"
    archive = zipfile.ZipFile(notes / "kaggle_stage_2_train_labels.csv.zip")
    targets = pd.read_csv(io.BytesIO(archive.read("stage_2_train_labels.csv")))
    matches = pd.read_csv(notes / "rsna_nih_matches.csv.gz").set_index("rsna_patientId")
    # As in the official class file: one line for each line of the label file.
    classes = targets[["patientId"]].assign(
        **{"class": matches["rsna_class"].loc[targets["patientId"]].to_numpy()}
    )
    classes.to_csv(tmp_path / plugin.CLASSES, index=False)
    full = table(
        RsnaOptions(
            root=tmp_path,
            nih_mapping=notes / "rsna_nih_matches.csv.gz",
            headers=notes / "kaggle_stage_2_train_images_dicom_headers.csv.gz",
        )
    )
    assert full.targets().sum(axis=0).tolist() == [8851, 11821, 6012]
    opacity = set(targets.loc[targets["Target"] == 1, "patientId"])
    shown = full.frame.loc[full.frame["Lung Opacity"] == 1, "image"]
    assert {Path(image).stem for image in shown} == opacity
    assert full.frame["source_id"].isna().sum() == 98
    assert full.frame["age"].isna().sum() == 5
    test = full.rows("test")
    assert not set(full.groups()[test]) & set(full.groups()[full.rows("train")])
    np.testing.assert_allclose(len(test) / 26684, 0.15, atol=0.02)
