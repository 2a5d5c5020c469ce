"""The MIMIC adapter: official files in, joined by name, one honest table out."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ark_plugin_mimic import LABELS, SPEC, MimicOptions, schema

from ark_framework import DataError
from ark_framework.annotations import AnnotationTable, validate
from ark_framework.testing import conformance

test_conformance = conformance("ark-mimic")
REAL = os.environ.get("ARK_REAL_DATA")
real = pytest.mark.skipif(REAL is None, reason="ARK_REAL_DATA is not set")
# The order of CheXpert's own files, under which the published code names these labels.
CHEXPERT = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
PARTS = ("split", "chexpert", "metadata")


def table(options: MimicOptions) -> AnnotationTable:
    return validate(SPEC.read(options), dataset=SPEC.name, schema=schema(options))


@pytest.fixture
def miniature(tmp_path: Path) -> MimicOptions:
    return SPEC.fixture(tmp_path / "mimic")


def changed(options: MimicOptions, **values: Any) -> MimicOptions:
    return MimicOptions.model_validate({**options.model_dump(), **values})


def file(options: MimicOptions, part: str) -> Path:
    return options.root / f"mimic-cxr-2.0.0-{part}.csv.gz"


def text(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode()


def put(path: Path, content: str | bytes) -> None:
    path.write_bytes(gzip.compress(content.encode() if isinstance(content, str) else content))


def write(path: Path, number: int, line: str) -> None:
    """Put another line, counted from 1, into a gzipped file."""
    lines = text(path).split("\n")
    lines[number - 1] = line
    put(path, "\n".join(lines))


def refused(options: MimicOptions) -> str:
    with pytest.raises(DataError) as error:
        table(options)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("mimic: ")
    assert len(str(error.value)) < 500
    return str(error.value)


def test_miniature(miniature: MimicOptions) -> None:
    """The miniature has both answers to each label in train and test, doubt, and all films."""
    mini = table(miniature)
    assert len(mini) == 80
    assert [len(mini.rows(split)) for split in ("train", "val", "test")] == [48, 8, 24]
    assert all((miniature.root / image).is_file() for image in mini.frame["image"])
    for split in ("train", "test"):
        values = mini.targets()[mini.rows(split)]
        assert (values == 1).any(axis=0).all()
        assert (values == 0).any(axis=0).all()
        assert (values == -1).any()
        assert np.isnan(values).any()
    spread = mini.frame.groupby("patient")["split"].agg(["nunique", "size"])
    assert spread["nunique"].max() == 1
    assert spread["size"].max() == 3


def test_columns(miniature: MimicOptions) -> None:
    """Path, split, patient, sex, age, view and labels are those of that film, study and patient."""
    film = "687754ce-7420bfd3-0a19911f-a27a3916-9019cd53"
    write(file(miniature, "split"), 5, f"{film},50331901,10032725,test")
    write(file(miniature, "metadata"), 9, f'{film},10032725,50331901,"CHEST, ""PA""",PA')
    marks = "1.0,-1.0,0.0,,1.0,,,-1.0,,0.0,,,1.0,0.0"
    write(file(miniature, "chexpert"), 7, f"10032725,50331901,{marks}")
    write(miniature.root / "patients.csv.gz", 3, "10032725,F,91,2150,2011 - 2013,2151-01-01")
    row = table(miniature).frame.iloc[3]
    assert row["image"] == f"files/p10/p10032725/s50331901/{film}.jpg"
    assert [row[name] for name in ("split", "patient", "sex", "age", "view")] == [
        "test", "10032725", "F", 91.0, "PA",
    ]  # fmt: skip
    want = [1, -1, 0, np.nan, 1, np.nan, np.nan, -1, np.nan, 0, np.nan, np.nan, 1, 0]
    np.testing.assert_array_equal(row[list(LABELS)].to_numpy(dtype=float), want)


@pytest.mark.parametrize("order", [LABELS, CHEXPERT, LABELS[::-1]])
def test_each_label_has_its_own_name(miniature: MimicOptions, order: tuple[str, ...]) -> None:
    """In the order of the alphabet, in CheXpert's and in any other a value keeps its name."""
    assert tuple(sorted(CHEXPERT)) == LABELS != CHEXPERT
    path = file(miniature, "chexpert")
    # Study number k has label number k of the alphabet, and no other.
    frame = pd.read_csv(path, dtype=str).fillna("")
    for place, label in enumerate(LABELS):
        frame[label] = np.where(np.arange(len(frame)) % len(LABELS) == place, "1.0", "0.0")
    want = dict(zip(frame["study_id"], np.arange(len(frame)) % len(LABELS), strict=True))
    columns = ["study_id", *order, "subject_id"]
    put(path, frame[columns].assign(extra="x").to_csv(index=False))
    made = table(miniature)
    assert made.schema.labels == LABELS
    seen = 0
    for image, values in zip(made.frame["image"], made.targets(), strict=True):
        place = want.get(image.split("/")[3].removeprefix("s"))
        if place is not None:
            assert [label for label, value in zip(LABELS, values, strict=True) if value == 1] == [
                LABELS[place]
            ]
            seen += 1
    assert seen == 79


def test_all_other_columns_are_found_by_name(miniature: MimicOptions) -> None:
    """With the columns of the other files in another order nothing changes."""
    want = table(miniature).frame
    for path in (
        file(miniature, "split"), file(miniature, "metadata"), miniature.root / "patients.csv.gz"
    ):  # fmt: skip
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        put(path, frame[frame.columns[::-1]].assign(extra="x,y").to_csv(index=False))
    pd.testing.assert_frame_equal(table(miniature).frame, want)


def test_labels_belong_to_subject_and_study(miniature: MimicOptions) -> None:
    """A label line with the study of a film and another subject is not that film's."""
    path = file(miniature, "chexpert")
    line = text(path).split("\n")[1]
    write(path, 2, "19999999" + line[8:])
    frame = table(miniature).frame
    # Both films of the first study, and the one whose study has no line at all.
    blank = frame[list(LABELS)].isna().all(axis=1)
    assert frame.loc[blank, "image"].str.split("/").str[3].tolist() == (
        ["s50000000"] * 2 + ["s50000003"]
    )


def test_film_without_label_line(miniature: MimicOptions) -> None:
    """A film whose study has no line stays in its split with all labels missing."""
    frame = table(miniature).frame
    blank = frame[frame[list(LABELS)].isna().all(axis=1)]
    assert blank["image"].str.split("/").str[3].tolist() == ["s50000003"]
    assert blank["split"].tolist() == ["train"]
    assert ",50000003," not in text(file(miniature, "chexpert"))


def test_labeler(miniature: MimicOptions) -> None:
    """The labels are those of the labeler that was asked for, whose file alone is read."""
    theirs, other = (table(changed(miniature, labeler=name)) for name in ("chexpert", "negbio"))
    differ = ~np.isclose(theirs.targets(), other.targets(), equal_nan=True)
    assert differ.any()
    assert (theirs.targets()[differ] == -1).all()
    assert (other.targets()[differ] == 1).all()
    file(miniature, "chexpert").unlink()
    assert len(table(changed(miniature, labeler="negbio"))) == 80
    assert "mimic-cxr-2.0.0-chexpert.csv" in refused(miniature)


def test_schema_follows_the_options(miniature: MimicOptions) -> None:
    """The published policies are the default, all labels are scored, the options change them."""
    made = schema(miniature)
    assert (made.uncertain, made.blank, made.scored) == ("ones", "zeros", LABELS)
    made = schema(changed(miniature, uncertain="soft", blank="ignore"))
    assert (made.uncertain, made.blank) == ("soft", "ignore")


def test_views(miniature: MimicOptions) -> None:
    """LL is lateral; with frontal views alone all but PA and AP keep their row, not their split."""
    path = file(miniature, "metadata")
    lines = text(path).split("\n")
    for number, view in ((2, "LL"), (3, "AP AXIAL"), (4, "L5 S1"), (5, "")):
        write(path, number, lines[number - 1].rpartition(",")[0] + "," + view)
    put(path, "\n".join(text(path).split("\n")[:-2]))
    every = table(miniature).frame
    views = every["view"].tolist()
    assert views[:4] == ["LATERAL", "AP AXIAL", "L5 S1", None]
    # The last film stands in no line of the metadata.
    assert views[-1] is None
    assert set(views) == {"LATERAL", "AP AXIAL", "L5 S1", "PA", "AP", None}
    frontal = table(changed(miniature, views="frontal")).frame
    assert every["split"].notna().all()
    assert frontal["split"].notna().tolist() == every["view"].isin(["PA", "AP"]).tolist()
    pd.testing.assert_frame_equal(frontal.drop(columns="split"), every.drop(columns="split"))


def test_patients(miniature: MimicOptions) -> None:
    """Without the patients of MIMIC-IV sex and age are missing, as for those who are not in it."""
    frame = table(changed(miniature, patients=None)).frame
    assert frame[["sex", "age"]].isna().all(axis=None)
    path = miniature.root / "patients.csv.gz"
    lines = text(path).split("\n")
    put(path, "\n".join([lines[0], lines[2].replace(",F,", ",,"), *lines[3:]]))
    after = table(miniature).frame
    gone = after["patient"] == lines[1][:8]
    assert after["sex"].isna().tolist() == (gone | (after["patient"] == lines[2][:8])).tolist()
    assert after["age"].isna().tolist() == gone.tolist()
    assert gone.sum() == 3


@pytest.mark.parametrize("release", ["2.0.0", "2.1.0"])
@pytest.mark.parametrize("packed", [True, False])
def test_releases(miniature: MimicOptions, release: str, packed: bool) -> None:
    """The files of either release are read, packed or unpacked."""
    want = table(miniature).frame
    for part in PARTS:
        path, content = file(miniature, part), text(file(miniature, part))
        path.unlink()
        name = miniature.root / f"mimic-cxr-{release}-{part}.csv"
        if packed:
            put(name.with_name(f"{name.name}.gz"), content)
        else:
            name.write_text(content)
    pd.testing.assert_frame_equal(table(miniature).frame, want)


def test_split_files(miniature: MimicOptions) -> None:
    """Lists replace the splits: paths or ids, with ending, labels, header or none; gzip; blanks."""
    lists = miniature.root / "my lists"
    lists.mkdir()
    frame = table(miniature).frame
    films = frame["image"].tolist()
    ids = [Path(film).stem for film in films]
    header = "image_path,dicom_id,study_id,subject_id,split," + ",".join(LABELS)
    put(lists / "a.csv.gz", "\n".join([header, *(f"{film},x,y" for film in films[:10])]))
    (lists / "b.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(ids[20:23]).encode())
    (lists / "c.txt").write_text(f"{ids[50]}.jpg 1 0\n")
    options = changed(
        miniature,
        split_files={
            "train": "my lists/a.csv.gz", "val": "my lists/b.txt", "test": lists / "c.txt"
        },
    )  # fmt: skip
    listed = table(options)
    assert [listed.rows(split).tolist() for split in ("train", "val", "test")] == [
        list(range(10)), [20, 21, 22], [50],
    ]  # fmt: skip
    assert listed.frame["split"].isna().sum() == 80 - 14
    pd.testing.assert_frame_equal(listed.frame.drop(columns="split"), frame.drop(columns="split"))


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        ("{0}\n{1}\n", "{2}\n{1}\n", "val.txt, line 2: film '"),
        ("{0}\n{1}\n{0}\n", "{2}\n", "train.txt, line 3: film '"),
        ("{0}\n" + "f" * 44 + "\n", "{2}\n", "train.txt, line 2: film 'fff"),
        ("{0}\n../../etc/passwd\n", "{2}\n", "train.txt, line 2: film 'passwd' is not in the"),
        ("{0}\n\n{1}\n", "{2}\n", "train.txt, line 2: film '' is not in the split file"),
        ("dicom_id\n{0}\nx{0}\n", "{2}\n", "train.txt, line 3"),
        ("", "{2}\n", "train.txt is empty"),
        ("{0}\n" + "x" * 1_000_000, "{2}\n", "(1000002 characters)"),
    ],
)
def test_wrong_list(miniature: MimicOptions, train: str, val: str, said: str) -> None:
    """A film that is unknown or listed twice stops with its list and line."""
    ids = [Path(film).stem for film in table(miniature).frame["image"]]
    (miniature.root / "train.txt").write_text(train.format(*ids))
    (miniature.root / "val.txt").write_text(val.format(*ids))
    lists = {"train": "train.txt", "val": "val.txt"}
    assert said in refused(changed(miniature, split_files=lists))


FILM = "687754ce-7420bfd3-0a19911f-a27a3916-9019cd53"
STUDY = "10032725,50331901," + ",".join(["1.0"] * 13) + ","


@pytest.mark.parametrize(
    ("part", "line", "said"),
    [
        ("split", "dicom_id,study_id,subject_id,split", "line 4: 'dicom_id' is no dicom_id"),
        ("split", f"{FILM},50331901,10032725", "line 4: 3 fields, where the header has 4"),
        ("split", f"{FILM},50331901,10032725,test,", "line 4: 5 fields, where the header has 4"),
        ("split", f"{FILM},50331901,10032725,valid", "line 4: 'valid' is no split of the"),
        ("split", f"{FILM},50331901,10032725,", "line 4: '' is no split"),
        ("split", f"{FILM},50331901,../../..,test", "line 4: '../../..' is no subject_id"),
        ("split", f"{FILM},5033/901,10032725,test", "line 4: '5033/901' is no study_id"),
        ("split", f"{FILM},,10032725,test", "line 4: '' is no study_id"),
        ("split", f"..\\{FILM},50331901,10032725,test", "is no dicom_id"),
        ("split", f"{FILM},\uff150331901,10032725,test", "is no study_id"),
        ("split", "a" * 1_000_000 + ",50331901,10032725,test", "(1000002 characters)"),
        ("split", f'"{FILM},50331901,10032725,test', "line 4: "),
        ("split", f"{FILM},50331901,10032725,te\0st", "line 4: no official file has a NUL"),
        ("split", "", "line 4: 1 fields"),
        ("chexpert", "subject_id,study_id," + ",".join(LABELS), "line 4: 'Atelectasis' is 'Atel"),
        ("chexpert", STUDY[:-1], "line 4: 15 fields, where the header has 16"),
        ("chexpert", STUDY + ",", "line 4: 17 fields, where the header has 16"),
        ("chexpert", STUDY + "2", "line 4: 'Support Devices' is '2', not 1.0, 0.0, -1.0 or blank"),
        ("chexpert", STUDY + "yes", "line 4: 'Support Devices' is 'yes'"),
        ("chexpert", STUDY + "1e400", "line 4: 'Support Devices' is '1e400'"),
        ("chexpert", STUDY + "nan", "line 4: 'Support Devices' is 'nan'"),
        ("chexpert", STUDY + "-inf", "line 4: 'Support Devices' is '-inf'"),
        ("chexpert", STUDY + "\uff0d1", "line 4: 'Support Devices' is '\uff0d1'"),
        ("chexpert", STUDY + "7" * 1_000_000, "(1000002 characters)"),
        ("chexpert", STUDY.replace("1003", "x"), "line 4: 'x2725' is no subject_id"),
        ("metadata", f"{FILM},1,2,3", "line 4: 4 fields, where the header has 5"),
        ("metadata", f'{FILM},1,2,"CHEST,PA', "line 4: "),
        ("metadata", f'{FILM},1,2,"CHEST"x,PA', "line 4: "),
        ("metadata", f"{FILM},1,2,CHEST,P_A", "line 4: 'P_A' is no ViewPosition"),
        ("metadata", f"{FILM},1,2,CHEST," + "A" * 1_000_000, "line 4: field larger"),
        ("metadata", f'{FILM},1,2,"' + "A" * 1_000_000 + '",PA', "line 4: field larger"),
        ("patients", "10032725,X,50,2150,2011 - 2013,", "line 4: 'X' is no gender"),
        ("patients", "10032725,F,old,2150,2011 - 2013,", "line 4: 'anchor_age' is 'old', not a"),
        ("patients", "x,F,50,2150,2011 - 2013,", "line 4: 'x' is no subject_id"),
    ],
)
def test_wrong_line(miniature: MimicOptions, part: str, line: str, said: str) -> None:
    """Each kind of wrong line stops with the file and that line, and shifts or drops no row."""
    path = miniature.root / "patients.csv.gz" if part == "patients" else file(miniature, part)
    write(path, 4, line)
    error = refused(miniature)
    assert said in error
    assert str(path) in error


@pytest.mark.parametrize("part", [*PARTS, "patients"])
@pytest.mark.parametrize("other", [False, True])
def test_line_twice(miniature: MimicOptions, part: str, other: bool) -> None:
    """A film, study or patient in two lines stops with both lines, be they the same or not."""
    path = miniature.root / "patients.csv.gz" if part == "patients" else file(miniature, part)
    line = text(path).split("\n")[3]
    if other:
        line = {
            "split": line.replace("train", "test"),
            "chexpert": line.rpartition(",")[0] + ",-1.0",
            "metadata": line.rpartition(",")[0] + ",AP",
            "patients": line.replace("M", "F"),
        }[part]
    write(path, 8, line)
    assert f"{path}, line 8: " in (error := refused(miniature))
    assert error.endswith("stands in line 4 already")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("other", ["utf-16", "utf-16-le", "latin-1", "empty", "header"])
def test_wrong_file(miniature: MimicOptions, part: str, other: str) -> None:
    """A file that is empty or in another encoding is named on one line."""
    path = file(miniature, part)
    content = text(path)
    contents = {
        "utf-16": (content.encode("utf-16"), "line 1: this is not UTF-8"),
        "utf-16-le": (content.encode("utf-16-le"), "line 1: no official file has a NUL"),
        "latin-1": (content.encode() + b"caf\xe9", "this is not UTF-8"),
        "empty": (b"\n", "is empty"),
        "header": (content.split("\n")[0].encode(), "has no line but its header"),
    }
    put(path, contents[other][0])
    error = refused(miniature)
    assert contents[other][1] in error
    assert str(path) in error


@pytest.mark.parametrize(
    ("part", "column"),
    [
        *(("split", name) for name in ("dicom_id", "study_id", "subject_id", "split")),
        *(("chexpert", name) for name in ("subject_id", "study_id", *LABELS)),
        *(("metadata", name) for name in ("dicom_id", "ViewPosition")),
        *(("patients", name) for name in ("subject_id", "gender", "anchor_age")),
    ],
)
def test_missing_column(miniature: MimicOptions, part: str, column: str) -> None:
    """Each column that is read is needed, under its name and once."""
    path = miniature.root / "patients.csv.gz" if part == "patients" else file(miniature, part)
    content = text(path)
    put(path, content.replace(column, column.upper() + "x", 1))
    assert f"{path} has no column {column!r}" in refused(miniature)
    lines = content.removesuffix("\n").split("\n")
    put(path, "\n".join([f"{lines[0]},{column}", *(line + "," for line in lines[1:])]))
    assert f"{path} has two columns {column!r}" in refused(miniature)


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n\n\n"])
def test_line_ends_and_byte_order_mark(miniature: MimicOptions, end: str) -> None:
    """Other line ends, empty lines at the end and a byte order mark change nothing."""
    want = table(miniature).frame
    for part in PARTS:
        content = text(file(miniature, part))
        content = content + end if end == "\n\n\n" else content.replace("\n", end)
        put(file(miniature, part), b"\xef\xbb\xbf" + content.encode())
    pd.testing.assert_frame_equal(table(miniature).frame, want)


@pytest.mark.parametrize("part", PARTS)
def test_missing_file(miniature: MimicOptions, part: str) -> None:
    """A file that is missing, a folder of its name, or a gzip that is cut short is named."""
    path = file(miniature, part)
    content = path.read_bytes()
    for broken in (content[:-40], b"no gzip", b""):
        path.write_bytes(broken)
        assert str(path) in refused(miniature)
    path.unlink()
    assert f"no {path.name}" in refused(miniature)
    path.mkdir()
    assert f"no {path.name}" in refused(miniature)


@pytest.mark.parametrize("part", ["chexpert", "metadata", "patients"])
def test_files_of_different_films(miniature: MimicOptions, part: str) -> None:
    """A file that shares no film, study or patient with the split file is not its match."""
    path = miniature.root / "patients.csv.gz" if part == "patients" else file(miniature, part)
    lines = text(path).split("\n")[:2]
    other = {"chexpert": "1", "metadata": "f", "patients": "1"}[part]
    lines[1] = other * lines[1].index(",") + lines[1][lines[1].index(",") :]
    lines[1] = lines[1].replace("f" * 44, FILM)
    put(path, "\n".join(lines))
    assert f"{path} has no line of any film in the split file" in refused(miniature)


def test_missing_patients_file(miniature: MimicOptions) -> None:
    """A patients file that is named and is not there is an error."""
    assert "nowhere.csv" in refused(changed(miniature, patients="nowhere.csv"))


@pytest.fixture(scope="module")
def lists() -> pd.DataFrame:
    """The published validation and test lists, 8,150 real lines of the label format."""
    folder = Path(str(REAL)) / "annotations" / "ark_splits"
    parts = [folder / f"mimic-cxr-2.0.0-{name}.csv.gz" for name in ("validate", "test")]
    return pd.concat([pd.read_csv(part, dtype=str) for part in parts], ignore_index=True)


def official(folder: Path, lists: pd.DataFrame, *, blank_lines: bool) -> MimicOptions:
    """Write the lists as the files that they were made from, in another order of lines."""
    shuffled = lists.sample(frac=1, random_state=4)
    studies = shuffled.drop_duplicates(["subject_id", "study_id"])
    if not blank_lines:
        studies = studies.dropna(subset=list(LABELS), how="all")
    columns = {
        "split": shuffled[["dicom_id", "study_id", "subject_id", "split"]],
        "chexpert": studies.sample(frac=1, random_state=5)[["subject_id", "study_id", *LABELS]],
        "metadata": lists[["dicom_id", "subject_id", "study_id"]].assign(ViewPosition="PA"),
    }
    for part, frame in columns.items():
        frame.to_csv(folder / f"mimic-cxr-2.0.0-{part}.csv.gz", index=False)
    return MimicOptions(root=folder)


@real
@pytest.mark.parametrize("blank_lines", [True, False])
def test_real_lists(tmp_path: Path, lists: pd.DataFrame, blank_lines: bool) -> None:
    """Official files made from the real lists give each of their films, labels and splits back."""
    made = table(official(tmp_path, lists, blank_lines=blank_lines))
    assert len(made) == 8150
    counts = {split: len(made.rows(split)) for split in ("val", "test")}
    assert counts == {"val": 2991, "test": 5159}
    assert all(SPEC.card.rows[split] == count for split, count in counts.items())
    ours, theirs = made.frame.set_index("image"), lists.set_index("image_path")
    assert set(ours.index) == set(theirs.index)
    ours = ours.loc[theirs.index]
    for label in LABELS:
        np.testing.assert_array_equal(ours[label], theirs[label].astype(float), err_msg=label)
    assert (ours["patient"] == theirs["subject_id"]).all()
    assert (ours["split"] == theirs["split"].replace("validate", "val")).all()
    blank = ours[ours[list(LABELS)].isna().all(axis=1)]
    assert blank["split"].value_counts().to_dict() == {"val": 49, "test": 42}
    assert ours.loc[ours["split"] == "test", "patient"].nunique() == 293
    patients = [set(ours.loc[ours["split"] == split, "patient"]) for split in ("val", "test")]
    assert not patients[0] & patients[1]


@real
def test_real_split_files(tmp_path: Path, lists: pd.DataFrame) -> None:
    """The published lists give the official splits; one alone leaves the other's films out."""
    options = official(tmp_path, lists, blank_lines=False)
    folder = Path(str(REAL)) / "annotations" / "ark_splits"
    files = {
        "val": folder / "mimic-cxr-2.0.0-validate.csv.gz",
        "test": folder / "mimic-cxr-2.0.0-test.csv.gz",
    }
    want = table(options).frame
    pd.testing.assert_frame_equal(table(changed(options, split_files=files)).frame, want)
    swapped = table(changed(options, split_files={"train": files["val"]})).frame
    assert swapped["split"].value_counts(dropna=False).to_dict() == {None: 5159, "train": 2991}
