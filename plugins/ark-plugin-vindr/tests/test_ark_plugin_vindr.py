"""The VinDr adapter: three readers and two editions in, one honest table out."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ark_plugin_vindr as plugin
import numpy as np
import pandas as pd
import pytest
from ark_plugin_vindr import ALL, GLOBAL, SPEC, TEST, TRAIN, VinDrOptions
from hypothesis import given, settings
from hypothesis import strategies as st

from ark_framework import DataError
from ark_framework.annotations import AnnotationTable, validate
from ark_framework.images import read_image
from ark_framework.testing import conformance

test_conformance = conformance("ark-vindr")
REAL = os.environ.get("ARK_REAL_DATA")
real = pytest.mark.skipif(REAL is None, reason="ARK_REAL_DATA is not set")
FIRST, TESTED = f"{0:032x}", f"{48:032x}"
Change = Callable[[bytes], bytes]


def table(options: VinDrOptions) -> AnnotationTable:
    return validate(SPEC.read(options), dataset=SPEC.name, schema=plugin.schema(options))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> VinDrOptions:
    return SPEC.fixture(tmp_path_factory.mktemp("drawn"))


@pytest.fixture
def miniature(drawn: VinDrOptions, tmp_path: Path) -> VinDrOptions:
    return VinDrOptions(root=shutil.copytree(drawn.root, tmp_path / "vindr"))


def changed(options: VinDrOptions, **values: Any) -> VinDrOptions:
    return VinDrOptions.model_validate({**options.model_dump(), **values})


def listed(options: VinDrOptions, **values: Any) -> VinDrOptions:
    """Write lists as the method's authors have them, from the official labels, and use them."""
    frame = table(options).frame
    for split in ("train", "test"):
        lines = [
            f"{split}_jpeg/{Path(row.image).stem} " + " ".join(f"{mark:.0f}" for mark in row[8:])
            for row in frame[frame["split"] == split].set_index(frame.columns[0], drop=False)
            .itertuples(index=False, name="Row")
        ]  # fmt: skip
        (options.root / f"{split} list.txt").write_text(" \n".join(lines) + " \n")
    files = {"train": "train list.txt", "test": "test list.txt"}
    return changed(options, split_files=files, **values)


def refused(options: VinDrOptions, path: Path, said: str) -> None:
    with pytest.raises(DataError) as error:
        table(options)
    message = str(error.value)
    assert said in message
    assert str(path) in message
    assert message.startswith("vindr: ")
    assert "\n" not in message
    assert len(message) < 500


def test_miniature(miniature: VinDrOptions) -> None:
    """The miniature has every label both ways in both splits, all files, and each film once."""
    for labels, names in plugin.LABELS.items():
        mini = table(changed(miniature, labels=labels))
        assert len(mini) == 72
        for split in ("train", "test"):
            marks = mini.targets()[mini.rows(split)]
            assert marks.min(axis=0).tolist() == [0] * len(names)
            assert marks.max(axis=0).tolist() == [1] * len(names)
        assert all((miniature.root / image).is_file() for image in mini.frame["image"])


def test_spots(miniature: VinDrOptions) -> None:
    """A finding is a bright spot at its own place, whether the film is stored inverted or not."""
    for row in table(miniature).frame.iloc[:5].itertuples(index=False):
        film = read_image(miniature.root / row[0]).astype(float)
        for place, mark in enumerate(row[8:13]):
            top, left = 32 * (place // 3) + 6, 21 * (place % 3) + 2
            assert (film[top : top + 18, left : left + 18].mean() > film.max() / 2) == bool(mark)


def test_columns(miniature: VinDrOptions) -> None:
    """A film has the split of its file, a PA view, no patient and no sex or age."""
    row = table(miniature).frame.iloc[0]
    assert row["image"] == f"train/{FIRST}.dicom"
    assert (row["split"], row["view"]) == ("train", "PA")
    unknown = ["patient", "sex", "age", "source_id", "source_patient"]
    assert row[unknown].isna().all()
    assert row[list(GLOBAL)].tolist() == [1, 1, 0, 0, 0, 0]
    assert table(miniature).frame.iloc[48]["image"] == f"test/{TESTED}.dicom"


def write_votes(root: Path, votes: np.ndarray, order: list[int]) -> None:
    """Write votes ``(films, 3, 28)`` in the official form, the rows in any order."""
    for folder in ("annotations", "train"):
        (root / folder).mkdir(exist_ok=True)
    rows = [
        f"{film:032x},R{reader + film % 5}," + ",".join(map(str, votes[film, reader]))
        for film in range(len(votes))
        for reader in range(3)
    ]
    header = ["image_id,rad_id," + ",".join(ALL)]
    (root / TRAIN).write_text("\n".join(header + [rows[place] for place in order]))
    (root / TEST).write_text(f"image_id,{','.join(ALL)}\n{'f' * 32}{',1' * 28}")


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_votes_are_counted(data: st.DataObject) -> None:
    """Any, majority and consensus are what counting by hand gives, in any order of the rows."""
    films = data.draw(st.integers(1, 5))
    bits = st.lists(st.integers(0, 1), min_size=films * 84, max_size=films * 84)
    votes = np.array(data.draw(bits)).reshape(films, 3, 28)
    order = data.draw(st.permutations(range(films * 3)))
    with tempfile.TemporaryDirectory() as folder:
        write_votes(Path(folder), votes, list(order))
        for readers, needed in (("any", 1), ("majority", 2), ("consensus", 3)):
            for labels in plugin.LABELS:
                options = VinDrOptions(root=Path(folder), labels=labels, readers=readers)
                frame = table(options).frame.set_index("image")
                for film in range(films):
                    for label in plugin.LABELS[labels]:
                        found = frame.loc[f"train/{film:032x}.dicom", label]
                        marked = sum(votes[film, reader, ALL.index(label)] for reader in range(3))
                        assert found == (1 if marked >= needed else 0)


def test_readers_leave_the_test_split(miniature: VinDrOptions) -> None:
    """Only training labels depend on how many readers are asked for."""
    whole = table(miniature)
    strict = table(changed(miniature, readers="consensus"))
    rows = whole.rows("train")
    assert strict.targets()[rows].sum() < whole.targets()[rows].sum()
    rows = whole.rows("test")
    np.testing.assert_array_equal(strict.targets()[rows], whole.targets()[rows])


@pytest.mark.parametrize("ending", [".dcm", ".png", ".jpg", ".jpeg"])
@pytest.mark.parametrize("suffix", ["", "_jpeg"])
def test_converted_films(miniature: VinDrOptions, ending: str, suffix: str) -> None:
    """Films in any of the forms and folders are found where they lie."""
    for part in ("train", "test"):
        for film in (miniature.root / part).iterdir():
            film.rename(film.with_suffix(ending))
        (miniature.root / part).rename(miniature.root / f"{part}{suffix}")
    images = table(miniature).frame["image"]
    assert images[0] == f"train{suffix}/{FIRST}{ending}"
    assert all((miniature.root / image).is_file() for image in images)


def test_film_twice_or_missing(miniature: VinDrOptions) -> None:
    """Of two forms the DICOM is taken; a film that is nowhere keeps a path, to be reported."""
    (miniature.root / "train" / f"{FIRST}.png").touch()
    (miniature.root / "test" / f"{TESTED}.dicom").unlink()
    images = table(miniature).frame["image"]
    assert images[0] == f"train/{FIRST}.dicom"
    assert images[48] == f"test/{TESTED}.dicom"


def test_no_films(miniature: VinDrOptions) -> None:
    """A root without any folder of films is refused by name."""
    for part in ("train", "test"):
        (miniature.root / part).rename(miniature.root / f"{part}_films")
    refused(miniature, miniature.root, "no folder of films: train, train_jpeg, test, test_jpeg")


def test_lists_with_labels(miniature: VinDrOptions) -> None:
    """The authors' lists give what the official files give, and their labels win."""
    options = listed(miniature)
    pd.testing.assert_frame_equal(table(options).frame, table(miniature).frame)
    path = miniature.root / "train list.txt"
    path.write_text(path.read_text().replace(f"{FIRST} 1 1 0", f"{FIRST} 0 0 1"))
    assert table(options).frame.loc[0, list(GLOBAL)].tolist() == [0, 0, 1, 0, 0, 0]


def test_lists_of_ids(miniature: VinDrOptions) -> None:
    """Lists of ids only take the official labels; what is in no list has labels and no split."""
    (miniature.root / "mine.txt").write_text(f"{FIRST}\n\ntrain/{2:032x}.dicom\n")
    (miniature.root / "val.txt.gz").write_bytes(gzip.compress(f"{1:032x}".encode()))
    files = {"train": "mine.txt", "val": "val.txt.gz", "test": "theirs.txt"}
    (miniature.root / "theirs.txt").write_text(TESTED)
    options = changed(miniature, split_files=files, readers="majority", labels="all-28")
    frame = table(options).frame
    assert frame.loc[[0, 1, 2, 48], "split"].tolist() == ["train", "val", "train", "test"]
    assert frame["split"].notna().sum() == 4
    official = table(changed(miniature, readers="majority", labels="all-28")).frame
    pd.testing.assert_frame_equal(frame.drop(columns="split"), official.drop(columns="split"))


def test_kaggle_edition(miniature: VinDrOptions) -> None:
    """With Kaggle's file lists give splits and labels; films that only it names have neither."""
    options = listed(miniature)
    before = table(options).frame
    for file in (TRAIN, TEST):
        (miniature.root / file).unlink()
    pd.testing.assert_frame_equal(table(options).frame, before)
    lines = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"]
    lines += [f"{film:032x},No finding,14,R{film % 7},,,," for film in [*range(48), 99] * 2]
    (miniature.root / plugin.KAGGLE).write_text("\n".join(lines))
    frame = table(options).frame
    rest = frame[frame["image"] != f"train/{99:032x}.dicom"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, before)
    assert frame.loc[48, ["split", *GLOBAL]].isna().all()
    path = miniature.root / plugin.KAGGLE
    refused(changed(options, split_files={}), path, "is the Kaggle edition, which lacks")
    path.write_text("\n".join(lines[:40]))
    refused(options, miniature.root / "train list.txt", "line 40: film")


def test_validation_list(miniature: VinDrOptions) -> None:
    """Films of a validation list are training films: looked up as such, and missed as such."""
    path = miniature.root / "val.txt"
    path.write_text(f"{1:032x} 0 1 0 0 0 0\n{'f' * 32} 0 0 0 0 0 1")
    options = changed(miniature, split_files={"val": "val.txt"})
    refused(options, path, "line 2: film ffff")
    for file in (TRAIN, TEST):
        (miniature.root / file).unlink()
    frame = table(options).frame
    assert frame["image"].tolist() == [f"train/{1:032x}.dicom", f"train/{'f' * 32}.dicom"]
    assert frame["split"].tolist() == ["val", "val"]
    (miniature.root / plugin.KAGGLE).write_text(f"image_id\n{1:032x}")
    refused(options, path, "line 2: film ffff")


def test_kaggle_lists_need_labels(miniature: VinDrOptions) -> None:
    """A list of ids is refused where no file knows their labels."""
    for file in (TRAIN, TEST):
        (miniature.root / file).unlink()
    (miniature.root / "mine.txt").write_text(f"{FIRST} 0 0 0 0 0 1\n{1:032x}\n")
    options = changed(miniature, split_files={"train": "mine.txt"})
    refused(options, miniature.root / "mine.txt", "line 2: no labels here")
    refused(changed(options, split_files={}), miniature.root, f"no {TRAIN} in")


def line(number: int, old: str, new: str) -> Change:
    """Replace ``old`` in one line, numbered as in messages."""

    def change(content: bytes) -> bytes:
        lines = content.split(b"\n")
        assert old.encode() in lines[number - 1]
        lines[number - 1] = lines[number - 1].replace(old.encode(), new.encode(), 1)
        return b"\n".join(lines)

    return change


def append(number: int, old: bytes = b"", new: bytes = b"") -> Change:
    """Write one line once more at the end, perhaps changed."""
    return lambda content: content + content.split(b"\n")[number - 1].replace(old, new) + b"\n"


# What is wrong in each of the three kinds of file: (change, what is said).
COMMON: list[tuple[Change, str]] = [
    (lambda _: b"", ""),
    (lambda content: content.decode().encode("utf-16"), "cannot read"),
    (lambda content: content.replace(b"0", b"\xe9", 3), "cannot read"),
    (line(3, "0000", "../0"), "line 3: "),
    (line(3, "0000", "\\etc"), "line 3: "),
    (line(3, "0000", "/etc"), "line 3: "),
    (line(3, "0000", '"000'), "line 3: "),
    (line(3, "0000", "\0"), "line 3: "),
    (line(3, "0000", "x" * 10**6), "line 3: "),
    (line(2, "0", "0" * 10**6), "line 2: "),
    (append(3), "above"),
    (append(3, b"1", b"0"), ""),
    (lambda content: content + b"x" * 10**6, "line "),
]
CSV: list[tuple[Change, str]] = [
    *COMMON,
    (line(1, "image_id", "image"), "no column 'image_id'"),
    (line(1, "Tuberculosis", "TB"), "no column 'Tuberculosis'"),
    (line(1, "COPD", "Pneumonia"), "two columns 'Pneumonia'"),
    (line(1, "COPD", "Other diseases"), "two columns 'Other diseases'"),
    (append(1), ": 'image_id' is no film's id"),
    (lambda content: content.split(b"\n")[0], "names no film"),
    (lambda content: content[:-40], "fields, the header"),
    (lambda content: content[:-4] + b",0,1\n", "fields, the header"),
    *[
        (lambda content, value=value: content[:-2] + value.encode() + b"\n", f"is {value!r}, not")
        for value in ("2", "yes", "1e400", "nan", "inf", "-1", "\uff0d1", "", " ", "1\0", "9" * 30)
    ],
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), CSV)
@pytest.mark.parametrize("file", [TRAIN, TEST])
def test_wrong_label_file(miniature: VinDrOptions, file: str, change: Change, said: str) -> None:
    """Whatever is wrong in a label file is one line that names the file and the place."""
    path = miniature.root / file
    path.write_bytes(change(path.read_bytes()))
    refused(miniature, path, said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: [rows[0].replace("rad_id", "reader"), *rows[1:]], "no column 'rad_id'"),
        (lambda rows: [*rows[:50], rows[2], *rows[51:]], "line 51: reader 'R2' has read film 0000"),
        (lambda rows: [*rows[:50], *rows[51:]], f"line 3: film {1:032x} has 2"),
        (lambda rows: [*rows, rows[2].replace(",R2,", ",R3,")], "has 4 readers, not 3"),
    ],
)  # fmt: skip
def test_wrong_readers(
    miniature: VinDrOptions, change: Callable[[list[str]], list[str]], said: str
) -> None:
    """A film that is not read by three different readers is refused."""
    path = miniature.root / TRAIN
    path.write_text("\n".join(change(path.read_text().splitlines())))
    refused(miniature, path, said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *COMMON,
        (line(2, " 0 1", " 0 2"), "line 2: '0 2 0 0 0 0' is not 6 labels"),
        (line(2, " 0 1", " 1"), "line 2: '1 0 0 0 0' is not 6 labels"),
        (line(2, " 0 1", " 0 0 1"), "line 2: '0 0 1 0 0 0 0' is not 6 labels"),
        (line(2, " 0 1", " 0 \uff0d1"), "line 2: "),
        (line(2, " 0 1", " 0 nan"), "line 2: "),
        (line(2, f"{1:032x}", "f" * 32), "line 2: film ffff"),
        (line(2, "train_jpeg/", "../train/"), "line 2: '../train/"),
        (line(2, "train_jpeg/", "/train/"), "line 2: '/train/"),
        (line(2, "train_jpeg/", "train\\"), "line 2: 'train\\\\"),
        (lambda content: b"image 1 2 3\n" + content, "line 1: 'image' is no film's id"),
        (lambda _: b" \n\n", "names no film"),
    ],
)
def test_wrong_list(miniature: VinDrOptions, change: Change, said: str) -> None:
    """Whatever is wrong in a list is one line that names the list and the place."""
    options = listed(miniature)
    path = miniature.root / "train list.txt"
    path.write_bytes(change(path.read_bytes()))
    refused(options, path, said)


def test_film_in_two_lists(miniature: VinDrOptions) -> None:
    """A film in two lists is refused at its second place."""
    options = listed(miniature)
    path = miniature.root / "test list.txt"
    path.write_text(path.read_text() + f"\n{FIRST}.png 1 1 0 0 0 0")
    refused(options, path, f"line 26: film {FIRST} stands above already, or in another list")


@pytest.mark.parametrize("kind", ["missing", "folder", "no gzip", "cut gzip"])
@pytest.mark.parametrize("file", [TRAIN, TEST, "list.txt.gz"])
def test_unreadable_file(miniature: VinDrOptions, file: str, kind: str) -> None:
    """A file that is missing, a folder, or a broken archive is one line that names it."""
    path = miniature.root / file
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif path.suffix == ".gz" and kind != "missing":
        packed = gzip.compress(f"{FIRST} 0 0 0 0 0 1\n".encode() * 99)
        path.write_bytes(packed[:30] if kind == "cut gzip" else b"plain")
    files = {"train": file} if path.suffix == ".gz" else {}
    refused(changed(miniature, split_files=files), path, "cannot read")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: content.replace(b"\n", b"\r"),
        lambda content: content + b"\n \n",
        lambda content: content.replace(b"\n", b",\n"),
        lambda content: content.replace(b",1", b",1.0"),
        lambda content: content.replace(b"Other disease,", b"Other diseases,"),
        lambda content: b"\n".join(
            b",".join(reversed(row.split(b","))) for row in content.strip().split(b"\n")
        ),
    ],
)
def test_harmless_forms(miniature: VinDrOptions, change: Change) -> None:
    """A byte order mark, any line end, blank lines, columns more or moved change nothing."""
    before = table(miniature).frame
    for file in (TRAIN, TEST):
        path = miniature.root / file
        path.write_bytes(change(path.read_bytes()))
    pd.testing.assert_frame_equal(table(miniature).frame, before)


def test_film_in_both_files(miniature: VinDrOptions) -> None:
    """A film in the training and the test file is refused."""
    path = miniature.root / TEST
    path.write_text(path.read_text().replace(TESTED, FIRST))
    refused(miniature, path, f"film {FIRST} is in ")


def test_labels_of_a_list_and_options(miniature: VinDrOptions) -> None:
    """Lists with six labels are refused where 28, or another count of readers, is asked for."""
    path = miniature.root / "train list.txt"
    refused(listed(miniature, labels="all-28"), path, "line 1: '1 1 0 0 0 0' is not 28 labels")
    refused(listed(miniature, readers="majority"), path, "leaves no choice of readers")


def real_lists() -> dict[str, Path]:
    splits = Path(str(REAL)) / "annotations" / "ark_splits"
    return {part: splits / f"VinDrCXR_{part}_pe_global_one.txt.gz" for part in ("train", "test")}


@real
@pytest.mark.parametrize("kaggle", [False, True])
def test_real_lists(tmp_path: Path, kaggle: bool) -> None:
    """The authors' lists, alone or beside Kaggle's real file, give the published numbers."""
    notes = Path(str(REAL)) / "annotations"
    (tmp_path / "train").mkdir()
    if kaggle:
        text = gzip.decompress((notes / "vinbigdata-train.csv.gz").read_bytes())
        (tmp_path / plugin.KAGGLE).write_bytes(text)
    full = table(VinDrOptions(root=tmp_path, split_files=real_lists()))
    assert len(full) == 18000
    for split, count, positives in (
        ("train", 15000, [1038, 291, 919, 750, 4377, 10606]),
        ("test", 3000, [111, 80, 246, 164, 657, 2051]),
    ):
        rows = full.rows(split)
        assert len(rows) == count
        assert full.targets()[rows].sum(axis=0).tolist() == positives
        assert count == SPEC.card.rows[split]
        contradictions = (full.targets()[rows][:, 5] == 1) & full.targets()[rows][:, :5].any(axis=1)
        assert contradictions.sum() == (93 if split == "train" else 0)
    assert list(SPEC.card.positives["test"].values()) == positives
    if kaggle:
        ids = set(pd.read_csv(notes / "vinbigdata-train.csv.gz")["image_id"])
        train = full.frame.loc[full.rows("train"), "image"]
        assert set(train.str.slice(6, 38)) == ids


@real
def test_real_readers(tmp_path: Path) -> None:
    """Real votes of three readers in the official form: pleural effusion is the authors' own.

    Kaggle's file has each reader's boxes for 14 of the 28 labels; six films differ, which Kaggle
    gives as "No finding" and the lists as both.
    """
    notes = Path(str(REAL)) / "annotations"
    boxes = pd.read_csv(notes / "vinbigdata-train.csv.gz")
    votes = pd.crosstab([boxes["image_id"], boxes["rad_id"]], boxes["class_name"]).clip(upper=1)
    votes = votes.reindex(columns=list(ALL), fill_value=0).sample(frac=1, random_state=0)
    assert len(votes) == 45000
    for folder in ("annotations", "train"):
        (tmp_path / folder).mkdir()
    votes.to_csv(tmp_path / TRAIN)
    (tmp_path / TEST).write_text(f"image_id,{','.join(ALL)}\n{'f' * 32}{',1' * 28}")
    lists = table(VinDrOptions(root=tmp_path, split_files={"train": real_lists()["train"]}))
    theirs = lists.frame.set_index("image")
    counts = {}
    for readers in plugin.NEEDED:
        options = VinDrOptions(root=tmp_path, labels="all-28", readers=readers)
        frame = table(options).frame.set_index("image").iloc[:15000]
        counts[readers] = frame[["Pleural effusion", "No finding"]].sum().tolist()
        if readers == "any":
            differ = frame["Pleural effusion"] != theirs["Pleural effusion"].reindex(frame.index)
            assert differ.sum() == 6
            assert theirs.loc[frame.index[differ], "No finding"].eq(1).all()
    assert counts == {"any": [1032, 10606], "majority": [634, 10606], "consensus": [439, 10606]}
