"""The CheXpert adapter: official layouts in, one honest table out."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ark_plugin_chexpert import COMPETITION, LABELS, SPEC, ChexpertOptions, schema

from ark_framework import DataError
from ark_framework.annotations import AnnotationTable, validate
from ark_framework.testing import conformance

test_conformance = conformance("ark-chexpert")
REAL = os.environ.get("ARK_REAL_DATA")
real = pytest.mark.skipif(REAL is None, reason="ARK_REAL_DATA is not set")
HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(LABELS)


def table(options: ChexpertOptions) -> AnnotationTable:
    return validate(SPEC.read(options), dataset=SPEC.name, schema=schema(options))


@pytest.fixture
def miniature(tmp_path: Path) -> ChexpertOptions:
    return SPEC.fixture(tmp_path / "chexpert")


def changed(options: ChexpertOptions, **values: Any) -> ChexpertOptions:
    return ChexpertOptions.model_validate({**options.model_dump(), **values})


def write(path: Path, number: int, line: str) -> None:
    """Put another line, counted from 1, into a file."""
    lines = path.read_text().split("\n")
    lines[number - 1] = line
    path.write_text("\n".join(lines))


def refused(options: ChexpertOptions) -> str:
    with pytest.raises(DataError) as error:
        table(options)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("chexpert: ")
    assert len(str(error.value)) < 500
    return str(error.value)


def test_miniature(miniature: ChexpertOptions) -> None:
    """The miniature has both answers to each label in both splits, doubt in train, all films."""
    mini = table(changed(miniature, test="2022"))
    assert len(mini) == 80
    assert all((miniature.root / image).is_file() for image in mini.frame["image"])
    for split in ("train", "val", "test"):
        values = mini.targets()[mini.rows(split)]
        assert (values == 1).any(axis=0).all()
        assert (values == 0).any(axis=0).all()
        assert np.isnan(values).any() == (values == -1).any() == (split == "train")
    spread = mini.frame.groupby("patient")["split"].agg(["nunique", "size"])
    assert spread["nunique"].max() == 1
    assert spread["size"].max() == 2


def test_columns(miniature: ChexpertOptions) -> None:
    """Path, patient, sex, age, view and each label are those of that line."""
    marks = "1.0,-1.0,0.0,,1.0,,,-1.0,,0.0,,,1.0,0.0"
    path = "CheXpert-v1.0-small/train/patient00007/study12/view1_frontal.jpg"
    write(miniature.root / "train.csv", 2, f"{path},Female,58,Frontal,PA,{marks}")
    row = table(miniature).frame.iloc[0]
    assert row["image"] == "train/patient00007/study12/view1_frontal.jpg"
    assert [row[name] for name in ("split", "patient", "sex", "age", "view")] == [
        "train", "patient00007", "F", 58.0, "PA",
    ]  # fmt: skip
    want = [1, -1, 0, np.nan, 1, np.nan, np.nan, -1, np.nan, 0, np.nan, np.nan, 1, 0]
    np.testing.assert_array_equal(row[list(LABELS)].to_numpy(dtype=float), want)


@pytest.mark.parametrize(
    ("about", "sex", "age", "view"),
    [
        ("Unknown,34,Frontal,AP", None, 34, "AP"),
        (",,Lateral,", None, np.nan, "LATERAL"),
        ("Male,140,Lateral,LL", "M", np.nan, "LATERAL"),
        ("Male,-1,Frontal,LL", "M", np.nan, "LL"),
        ("Female,0,Frontal,", "F", 0, None),
    ],
)
def test_unknown_is_missing(
    miniature: ChexpertOptions, about: str, sex: str | None, age: float, view: str | None
) -> None:
    """Unknown sex, no age or one that nobody has, and no view are missing; lateral wins."""
    path = "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg"
    write(miniature.root / "train.csv", 2, f"{path},{about}{',' * 14}")
    row = table(miniature).frame.iloc[0]
    assert [row["sex"], row["view"]] == [sex, view]
    np.testing.assert_equal(row["age"], age)


def test_labels_are_found_by_name(miniature: ChexpertOptions) -> None:
    """With the columns of a file in another order every value keeps its name."""
    want = table(miniature).frame
    for name in ("train.csv", "valid.csv"):
        frame = pd.read_csv(miniature.root / name, dtype=str, keep_default_na=False)
        frame[sorted(frame.columns, reverse=True)].assign(extra="x").to_csv(
            miniature.root / name, index=False
        )
    pd.testing.assert_frame_equal(table(miniature).frame, want)


def test_root_may_be_the_folder_above(miniature: ChexpertOptions) -> None:
    """From the folder above the same films are found, under paths that start with the folder."""
    want = table(miniature).frame
    above = changed(miniature, root=miniature.root.parent)
    frame = table(above).frame
    assert (frame["image"] == "CheXpert-v1.0-small/" + want["image"]).all()
    assert all((above.root / image).is_file() for image in frame["image"])
    pd.testing.assert_frame_equal(frame.drop(columns="image"), want.drop(columns="image"))


def test_two_distributions_below_root(miniature: ChexpertOptions) -> None:
    """Where the folder above holds the full and the small distribution the user must choose."""
    other = miniature.root.parent / "CheXpert-v1.0"
    other.mkdir()
    (other / "train.csv").write_text(HEADER)
    assert "in 2 folders CheXpert-v1.0*" in refused(changed(miniature, root=other.parent))


@pytest.mark.parametrize("prefix", ["CheXpert-v1.0/", ""])
def test_either_distribution(miniature: ChexpertOptions, prefix: str) -> None:
    """The first folder of the paths may be the full distribution's, or none."""
    want = table(miniature).frame
    for name in ("train.csv", "valid.csv"):
        text = (miniature.root / name).read_text()
        (miniature.root / name).write_text(text.replace("CheXpert-v1.0-small/", prefix))
    pd.testing.assert_frame_equal(table(miniature).frame, want)


def test_test_of_2022(miniature: ChexpertOptions) -> None:
    """With the films of 2022 valid.csv is for validation; of these only the view is known."""
    assert table(miniature).frame["split"].value_counts().to_dict() == {"train": 48, "test": 16}
    mini = table(changed(miniature, test=2022))
    assert [len(mini.rows(split)) for split in ("train", "val", "test")] == [48, 16, 16]
    test = mini.frame.iloc[mini.rows("test")]
    assert test["image"].str.startswith("test/").all()
    assert test[["sex", "age"]].isna().all(axis=None)
    assert test["view"].notna().tolist() == test["image"].str.contains("lateral").tolist()
    assert test["view"].dropna().eq("LATERAL").all()


def test_labels_of_2022_as_integers(miniature: ChexpertOptions) -> None:
    """Labels without a decimal point, paths without first folder, and the other file names."""
    options = changed(miniature, test="2022")
    want = table(options).frame
    path = miniature.root / "test_labels.csv"
    text = path.read_text().replace(".0,", ",").replace(".0\n", "\n")
    assert ".0" not in text.replace("v1.0", "")
    path.unlink()
    for name in ("test.csv", "groundtruth.csv"):
        (miniature.root / name).write_text(text.replace("CheXpert-v1.0-small/", ""))
        pd.testing.assert_frame_equal(table(options).frame, want)


def test_list_of_studies(miniature: ChexpertOptions) -> None:
    """The file that lists studies instead of films is refused with what is needed."""
    path = miniature.root / "test_labels.csv"
    path.write_text(path.read_text().replace("Path,", "Study,"))
    assert "lists studies" in refused(changed(miniature, test="2022"))


def test_lateral_films_keep_their_row(miniature: ChexpertOptions) -> None:
    """With frontal views alone a lateral film is in no split, and still in the table."""
    every, frontal = (
        table(changed(miniature, views=views, test="2022")).frame for views in ("all", "frontal")
    )
    assert every["split"].notna().all()
    assert frontal["split"].isna().tolist() == (every["view"] == "LATERAL").tolist()
    assert 0 < frontal["split"].isna().sum() < 80
    pd.testing.assert_frame_equal(frontal.drop(columns="split"), every.drop(columns="split"))


def test_schema_follows_the_options(miniature: ChexpertOptions) -> None:
    """The published policies are the default, and the options change them."""
    made = schema(miniature)
    assert (made.labels, made.scored) == (LABELS, tuple(n for n in LABELS if n in COMPETITION))
    assert (made.uncertain, made.blank, made.soft_range) == ("soft", "zeros", (0.55, 0.85))
    made = schema(changed(miniature, uncertain="ones", blank="ignore"))
    assert (made.uncertain, made.blank) == ("ones", "ignore")


def test_split_files(miniature: ChexpertOptions) -> None:
    """Lists replace the splits: with or without folder, ending, labels, header; gzip; blanks."""
    lists = miniature.root / "my lists"
    lists.mkdir()
    frame = table(miniature).frame
    films = frame["image"].tolist()
    (lists / "a.txt").write_bytes(
        b"\xef\xbb\xbf" + "\r\n".join(f"CheXpert-v1.0/{film} 1 0" for film in films[:10]).encode()
    )
    (lists / "b.txt.gz").write_bytes(
        gzip.compress("\n".join(film.removesuffix(".jpg") for film in films[20:23]).encode())
    )
    (lists / "c.csv").write_text(HEADER + "\n" + films[50] + ",Male,1,Frontal,AP" + 14 * ",")
    options = changed(
        miniature,
        split_files={
            "train": "my lists/a.txt",
            "val": "my lists/b.txt.gz",
            "test": lists / "c.csv",
        },
    )
    listed = table(options)
    assert [listed.rows(split).tolist() for split in ("train", "val", "test")] == [
        list(range(10)), [20, 21, 22], [50],
    ]  # fmt: skip
    assert listed.frame["split"].isna().sum() == 64 - 14
    pd.testing.assert_frame_equal(listed.frame.drop(columns="split"), frame.drop(columns="split"))


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        ("{0}\n{1}\n", "{2}\n{1}\n", "val.txt, line 2: film 'train/patient00001/study2"),
        ("{0}\n{1}\n{0}\n", "{2}\n", "train.txt, line 3: film"),
        ("{0}\ntrain/patient99999/study1/view1_frontal\n", "{2}\n", "train.txt, line 2"),
        ("{0}\n../../etc/passwd\n", "{2}\n", "train.txt, line 2: film '../../etc/passwd' is in no"),
        ("{0}\n\n{1}\n", "{2}\n", "train.txt, line 2: film '' is in no official file"),
        ("Path\n{0}\n{0}x\n", "{2}\n", "train.txt, line 3"),
        ("", "{2}\n", "train.txt is empty"),
        ("{0}\n" + "x" * 1_000_000, "{2}\n", "(1000002 characters)"),
    ],
)
def test_wrong_list(miniature: ChexpertOptions, train: str, val: str, said: str) -> None:
    """A film that is unknown or listed twice stops with its list and line."""
    films = table(miniature).frame["image"].tolist()
    (miniature.root / "train.txt").write_text(train.format(*films))
    (miniature.root / "val.txt").write_text(val.format(*films))
    lists = {"train": "train.txt", "val": "val.txt"}
    assert said in refused(changed(miniature, split_files=lists))


FILM = "CheXpert-v1.0-small/train/patient00900/study1/view1_frontal.jpg"
GOOD = f"{FILM},Male,31,Frontal,PA," + ",".join(["1.0"] * 14)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (HEADER, "line 4"),
        (GOOD + ",1.0", "line 4: 20 fields, where the header has 19"),
        (GOOD[:-4], "line 4: 18 fields, where the header has 19"),
        (GOOD.removesuffix(",1.0") + ",2", "line 4: 'Support Devices' is '2'"),
        (GOOD.removesuffix(",1.0") + ",yes", "line 4: 'Support Devices' is 'yes'"),
        (GOOD.removesuffix(",1.0") + ",1e400", "line 4: 'Support Devices' is '1e400'"),
        (GOOD.removesuffix(",1.0") + ",nan", "line 4: 'Support Devices' is 'nan'"),
        (GOOD.removesuffix(",1.0") + ",inf", "line 4: 'Support Devices' is 'inf'"),
        (GOOD.removesuffix(",1.0") + ",\uff0d1", "line 4: 'Support Devices' is '\uff0d1'"),
        (GOOD.removesuffix(",1.0") + "," + "7" * 1_000_000, "(1000002 characters)"),
        (GOOD.replace(",31,", ",old,"), "line 4: 'Age' is 'old', not a number"),
        (GOOD.replace("Male", "male"), "line 4: Sex is 'male', not one of Male, Female, Unknown"),
        (GOOD.replace("Frontal,", ","), "line 4: Frontal/Lateral is '', not one of Frontal"),
        (GOOD.replace(",PA,", ",XX,"), "line 4: AP/PA is 'XX', not one of AP, PA, LL, RL"),
        (GOOD.replace(FILM, ""), "line 4: '' is not a path such as"),
        (GOOD.replace(FILM, "/etc/passwd"), "line 4: '/etc/passwd' is not a path"),
        (GOOD.replace("train/", "train/../../"), "line 4: "),
        (GOOD.replace("/", "\\"), "line 4: "),
        (GOOD.replace("train/", "valid/"), "such as CheXpert-v1.0/train/patient00001"),
        (GOOD.replace("-small/", "-small" + "l" * 1_000_000 + "/"), "characters) is not a path"),
        (GOOD.replace("00900", "\uff100900"), "line 4: "),
        (GOOD.replace("Male", '"Male'), "line 4: no official file has"),
        (GOOD.replace("Male", "Ma\0le"), "line 4: no official file has"),
        ("", "line 4: 1 fields"),
    ],
)
def test_wrong_line(miniature: ChexpertOptions, line: str, said: str) -> None:
    """Each kind of wrong line stops with the file and that line, and shifts or drops no row."""
    path = miniature.root / "train.csv"
    write(path, 4, line)
    error = refused(miniature)
    assert said in error
    assert str(path) in error


def test_long_and_short_line(miniature: ChexpertOptions) -> None:
    """A line too long does not make up for one too short, wherever they stand."""
    lines = (miniature.root / "train.csv").read_text().splitlines()
    for long, short in ((1, 2), (2, 1), (48, 47)):
        broken = list(lines)
        broken[long] += ",1.0"
        broken[short] = broken[short].rpartition(",")[0]
        (miniature.root / "train.csv").write_text("\n".join(broken))
        assert f"line {min(long, short) + 1}: " in refused(miniature)


@pytest.mark.parametrize("other", [False, True])
def test_film_twice(miniature: ChexpertOptions, other: bool) -> None:
    """A film in two lines stops with both lines, whether its labels are the same or not."""
    path = miniature.root / "train.csv"
    line = path.read_text().splitlines()[3]
    write(path, 7, line.rpartition(",")[0] + "," if other else line)
    assert f"{path}, line 7: film " in (error := refused(miniature))
    assert error.endswith("stands in line 4 already")


@pytest.mark.parametrize("file", ["train.csv", "valid.csv", "test_labels.csv"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (HEADER.encode(), "lists no film"),
        (HEADER.encode() + b"\n", "lists no film"),
        (HEADER.replace("Edema", "edema").encode() + b"\nx", "no column 'Edema'"),
        (HEADER.replace("Edema", "Fracture").encode() + b"\nx", "no column 'Edema'"),
        (HEADER.encode() + b",Edema\nx", "two columns 'Edema'"),
        (HEADER.replace("Path", "path").encode() + b"\nx", "no column 'Path'"),
        (f"{HEADER}\n{GOOD}\n".encode("utf-16"), "line 1: this is not UTF-8"),
        (f"{HEADER}\n{GOOD}\n".encode("utf-16-le"), "line 1: no official file has"),
        (f"{HEADER}\n{GOOD}\n".encode() + b"caf\xe9", "line 3: this is not UTF-8"),
    ],
)
def test_wrong_file(miniature: ChexpertOptions, file: str, content: bytes, said: str) -> None:
    """A file that is empty, of another form or in another encoding is named on one line."""
    (miniature.root / file).write_bytes(content)
    error = refused(changed(miniature, test="2022"))
    assert said in error
    assert str(miniature.root / file) in error


@pytest.mark.parametrize("column", ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS])
def test_missing_column(miniature: ChexpertOptions, column: str) -> None:
    """Every column of the official file is needed, under its name."""
    frame = pd.read_csv(miniature.root / "valid.csv", dtype=str)
    frame.drop(columns=column).to_csv(miniature.root / "valid.csv", index=False)
    assert f"no column {column!r}" in refused(miniature)


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n\n\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_byte_order_mark(miniature: ChexpertOptions, end: str, mark: bytes) -> None:
    """Other line ends, empty lines at the end and a byte order mark change nothing."""
    want = table(miniature).frame
    path = miniature.root / "train.csv"
    text = path.read_text()
    text = text + end if end == "\n\n\n" else text.replace("\n", end)
    path.write_bytes(mark + text.encode())
    pd.testing.assert_frame_equal(table(miniature).frame, want)


@pytest.mark.parametrize("file", ["train.csv", "valid.csv", "test_labels.csv"])
def test_missing_file(miniature: ChexpertOptions, file: str) -> None:
    """A file that is missing, or a folder of its name, is named on one line."""
    (miniature.root / file).unlink()
    assert file in refused(changed(miniature, test="2022"))
    (miniature.root / file).mkdir()
    assert file in refused(changed(miniature, test="2022"))


def test_truncated_gzip(miniature: ChexpertOptions) -> None:
    """A gzipped list that was cut short, or that is none, is named on one line."""
    path = miniature.root / "train.txt.gz"
    films = "\n".join(table(miniature).frame["image"])
    for content in (gzip.compress(films.encode())[:-40], b"no gzip", b""):
        path.write_bytes(content)
        assert str(path) in refused(changed(miniature, split_files={"train": path.name}))


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> ChexpertOptions:
    """The real train.csv and valid.csv in a folder."""
    folder, source = tmp_path_factory.mktemp("official"), Path(str(REAL)) / "annotations"
    for name, file in (
        ("train.csv", "chexpert_train.csv.gz"),
        ("valid.csv", "ark_splits/CheXpert-v1.0_valid.csv.gz"),
    ):
        (folder / name).write_bytes(gzip.decompress((source / file).read_bytes()))
    return ChexpertOptions(root=folder)


@real
def test_real_files(official: ChexpertOptions) -> None:
    """The whole official files: films, patients, views, doubts, and what the card says."""
    full = table(official)
    frame, train, test = full.frame, full.rows("train"), full.rows("test")
    assert (len(train), len(test), len(frame)) == (223414, 234, 223648)
    assert SPEC.card.rows == {"train": len(train), "test": len(test)}
    assert frame["patient"].nunique() == SPEC.card.patients
    assert [frame["patient"].iloc[rows].nunique() for rows in (train, test)] == [64540, 200]
    assert (frame["view"].iloc[train] == "LATERAL").sum() == 32387
    assert (frame["view"].iloc[test] == "LATERAL").sum() == 32
    views = frame["view"].iloc[train].value_counts(dropna=False).to_dict()
    assert views == {"AP": 161590, "LATERAL": 32387, "PA": 29420, "LL": 16, "RL": 1}
    assert frame["sex"].iloc[train].isna().sum() == 1
    assert frame["sex"].iloc[test].value_counts().to_dict() == {"M": 128, "F": 106}
    assert frame["age"].notna().all()
    uncertain = {
        "Atelectasis": 33739, "Consolidation": 27742, "Pneumonia": 18770, "Edema": 12984,
        "Enlarged Cardiomediastinum": 12403, "Pleural Effusion": 11628, "Cardiomegaly": 8087,
        "Lung Opacity": 5598, "Pneumothorax": 3145, "Pleural Other": 2653, "Lung Lesion": 1488,
        "Support Devices": 1079, "Fracture": 642, "No Finding": 0,
    }  # fmt: skip
    assert (frame.iloc[train][list(LABELS)] == -1).sum().to_dict() == uncertain
    for split, rows in (("train", train), ("test", test)):
        positives = (frame.iloc[rows][list(LABELS)] == 1).sum().to_dict()
        assert positives == dict(SPEC.card.positives[split])
    assert [SPEC.card.positives["test"][name] for name in LABELS[4::8]] == [1, 0]
    assert frame.iloc[test][list(LABELS)].isin([0, 1]).all(axis=None)


@real
def test_real_labels_row_by_row(official: ChexpertOptions) -> None:
    """Every path and every label is what a plain reading of the two files gives."""
    full = table(official).frame
    plain = pd.concat([pd.read_csv(official.root / name) for name in ("train.csv", "valid.csv")])
    folders = r"^CheXpert-v1\.0(?:-small)?/"
    images = plain["Path"].str.replace(folders, "", regex=True)
    assert full["image"].tolist() == images.tolist()
    np.testing.assert_array_equal(full[list(LABELS)], plain[list(LABELS)])
    np.testing.assert_array_equal(full["age"], plain["Age"])
    assert (
        full["sex"].tolist()
        == plain["Sex"].map({"Male": "M", "Female": "F"}).replace({np.nan: None}).tolist()
    )


@real
def test_real_frontal_and_lists(official: ChexpertOptions) -> None:
    """191,027 frontal films stay; the official files as lists give the official splits."""
    frontal = table(changed(official, views="frontal"))
    assert [len(frontal.rows(split)) for split in ("train", "test")] == [191027, 202]
    assert len(frontal) == 223648
    lists = {"train": "train.csv", "test": "valid.csv"}
    listed = table(changed(official, split_files=lists)).frame
    pd.testing.assert_frame_equal(listed, table(official).frame)
