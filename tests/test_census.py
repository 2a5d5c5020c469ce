"""Counts of annotation tables against pandas, by hand and on the real full-size label files."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ark_framework import LabelSchema, cli
from ark_framework.annotations import AnnotationTable, validate
from ark_framework.cli.census import census, entries, tables, union
from ark_framework.cli.matrix import alike, layout, matrix, notes

REAL = os.environ.get("ARK_REAL_DATA")
needs_real = pytest.mark.skipif(not REAL, reason="ARK_REAL_DATA is not set")


def made(name: str, frame: dict[str, Any], labels: tuple[str, ...], **schema: Any) -> Any:
    """A validated table from columns; images are numbered."""
    rows = max(len(column) for column in frame.values())
    frame = {"image": [f"{row}.png" for row in range(rows)], "split": "train", **frame}
    kind = {"kind": "multilabel", "name": name, "labels": labels, **schema}
    return validate(pd.DataFrame(frame), dataset=name, schema=LabelSchema(**kind))


@pytest.fixture
def drawn() -> AnnotationTable:
    """Three hundred rows with everything that a table may hold."""
    rng = np.random.default_rng(7)
    return made(
        "drawn",
        {
            "split": rng.choice(["train", "val", "test", None], 300),
            "patient": rng.choice([*map(str, range(80)), None], 300),
            "sex": rng.choice(["M", "F", None], 300),
            "view": rng.choice(["PA", "AP", "LATERAL", None], 300),
            "age": rng.choice([*range(0, 100, 3), np.nan], 300),
            "a": rng.choice([0, 1, -1, np.nan], 300, p=[0.5, 0.2, 0.1, 0.2]),
            "b_c": rng.choice([0, 1], 300),
        },
        ("a", "b_c"),
    )


def test_census_against_pandas(drawn: AnnotationTable) -> None:
    """Every count of every split is what a pandas cross table says."""
    found = census(drawn)
    frame = drawn.frame.assign(split=drawn.frame["split"].fillna("unused"))
    assert {name: counts["films"] for name, counts in found.items()} == dict(
        frame["split"].value_counts()
    )
    for name, part in frame.groupby("split"):
        counts = found[str(name)]
        assert counts["patients"] == part["patient"].nunique() + part["patient"].isna().sum()
        for of in ("sex", "view"):
            assert counts[of] == part[of].fillna("missing").value_counts().to_dict()
        for label in ("a", "b_c"):
            values = part[label].value_counts(dropna=False)
            one = counts["labels"][label]
            keys = {"positive": 1, "negative": 0, "uncertain": -1, "missing": np.nan}
            assert {key: one[key] for key in keys} == {
                key: values.get(value, 0) for key, value in keys.items()
            }
            known = part[label][part[label].isin([0, 1])]
            assert one["prevalence"] == pytest.approx(known.mean())
        ages = part["age"]
        assert counts["age"]["median"] == ages.median()
        assert counts["age"]["missing"] == ages.isna().sum()
        bins = pd.cut(ages, range(0, 101, 10), right=False).value_counts(sort=False)
        assert list(counts["age"]["decades"].values()) == bins.tolist()


def test_decades() -> None:
    """Each age is in one bin; what nobody can be stays in sight; infinity is not an age."""
    ages = [0, 9.99, 10, 119, 120, 414, -2, np.inf, np.nan]
    age = census(made("d", {"age": ages, "a": [1] * 9}, ("a",)))["train"]["age"]
    counts = {decade: count for decade, count in age["decades"].items() if count}
    assert counts == {"<0": 1, "0-9": 2, "10-19": 1, "110-119": 1, "120+": 2}
    assert list(age["decades"])[-2:] == ["110-119", "120+"]
    assert age["missing"] == 2
    assert census(made("d", {"a": [1]}, ("a",)))["train"]["age"] == {}


def test_nothing_annotated() -> None:
    """Where nothing is known a prevalence is none, and it is not an error."""
    column = np.array([np.nan, -1, np.nan])
    assert entries(column)["prevalence"] is None
    laid = tables("d", census(made("d", {"a": [np.nan, -1]}, ("a",))))
    assert [table.row_count for table in laid] == [1, 1]


def test_union_against_pandas() -> None:
    """Shared films and patients count once, and an identity beats a dataset's own number."""
    one = made(
        "one",
        {
            "source_id": ["nih:a", "nih:b", None, None],
            "source_patient": ["nih:1", "nih:1", "nih:2", None],
            "patient": ["1", "1", "2", "3"],
            "sex": ["M", None, "F", None],
            "age": [10, np.nan, 30, 95],
            "x": [1, 0, 1, 0],
        },
        ("x",),
    )
    two = made(
        "two",
        {
            "split": ["train", "test", "train", "train"],
            "source_id": ["nih:a", "nih:b", None, None],
            "source_patient": ["nih:1", "nih:1", "nih:2", None],
            "patient": ["p", "p", "q", "3"],  # "3" is another's 3
            "sex": ["F", "F", "M", "M"],
            "age": [11, 21, 31, 41],
            "x": [1, 0, 1, 0],
        },
        ("x",),
    )
    found = union([one, two])
    both = pd.concat([one.frame.assign(of="one"), two.frame.assign(of="two")], ignore_index=True)
    key = both["source_id"].fillna(both["of"] + both["image"])
    person = both["source_patient"].fillna(both["of"] + both["patient"])
    assert found["all"]["rows"] == len(both)
    assert found["all"]["films"] == key.nunique() == 6
    assert found["all"]["shared_films"] == (both.groupby(key)["of"].nunique() > 1).sum() == 2
    assert found["all"]["patients"] == person.nunique() == 4
    assert found["all"]["shared_patients"] == 2
    # The first that is known: film b has no sex and no age in "one".
    assert found["all"]["sex"] == {"M": 3, "F": 2, "missing": 1}
    assert (
        found["all"]["age"]["decades"] | {"20-29": 1, "40-49": 1, "10-19": 1}
        == (found["all"]["age"]["decades"])
    )
    # In train film b is in "one" alone.
    assert (found["train"]["films"], found["train"]["shared_films"]) == (6, 1)
    assert (found["test"]["films"], found["test"]["shared_films"]) == (1, 0)


def test_union_of_one(drawn: AnnotationTable) -> None:
    """A dataset without identities is its own union."""
    alone, together = census(drawn), union([drawn])
    for split, counts in alone.items():
        assert {key: together[split][key] for key in counts if key != "labels"} == {
            key: value for key, value in counts.items() if key != "labels"
        }
    assert together["all"]["films"] == len(drawn)


def test_matrix() -> None:
    """Names meet without case, '_' and spaces; kinds and counts are the training split's."""
    one = made(
        "one",
        {"split": ["train"] * 3 + ["test"], "Pleural_Thickening": [1, 0, -1, 1], "Mass": [1] * 4},
        ("Pleural_Thickening", "Mass"),
    )
    two = made(
        "two",
        {"pleural  thickening": [1, 0], "Other": [0, 1]},
        ("pleural  thickening", "Other"),
        kind="multiclass",
    )
    masks = made("masks", {"patient": ["1"]}, ("mass",), kind="mask")
    found = matrix([one, two, masks])
    shown = {row["label"]: row["cells"] for row in found["labels"]}
    assert list(shown) == ["Pleural Thickening", "Mass", "Other"]
    pleural = shown["Pleural Thickening"]
    assert pleural["one"]["label"] == "Pleural_Thickening"
    assert [pleural["one"][key] for key in ("positive", "negative", "uncertain")] == [1, 1, 1]
    assert (pleural["two"]["kind"], pleural["two"]["positive"]) == ("multiclass", 1)
    assert shown["Mass"]["masks"] == {"label": "mass", "kind": "mask"}
    assert found["datasets"]["one"] == {"kind": "multilabel", "films": 3}
    columns = layout(found).columns
    cells = [list(column.cells) for column in columns]
    assert cells[1][:2] == ["1 / 2, 1 uncertain", "3 / 3"]
    assert cells[2][0] == "exclusive class, 1 / 2"
    assert cells[3][1] == "mask"


def test_two_labels_of_one_dataset_stay_two() -> None:
    """Where a dataset itself tells two spellings apart, no count is lost."""
    labels = ("A_b", "a b", "A  B")
    found = matrix([made("one", {label: [1] for label in labels}, labels)])
    assert [row["cells"]["one"]["label"] for row in found["labels"]] == list(labels)
    assert len({row["label"] for row in found["labels"]}) == 3


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ("Effusion", "Pleural Effusion", True),
        ("Nodule", "Nodule/Mass", True),
        ("Edema", "Oedema", True),
        ("Normal", "No Lung Opacity / Not Normal", True),
        ("Pneumonia", "Pneumothorax", False),
        ("Lung Lesion", "Lung Opacity", False),
        ("Pleural Thickening", "Pleural Effusion", False),
    ],
)
def test_alike(one: str, two: str, expected: bool) -> None:
    """Look-alikes of different datasets are pointed out; a dataset's own are not doubted."""
    assert alike({one: {"a"}, two: {"b"}}) == ([[one, two]] if expected else [])
    assert alike({one: {"a"}, two: {"a"}}) == []


def test_notes() -> None:
    """It is said that matching is for reading, and which labels look alike."""
    one = made("one", {"Effusion": [1]}, ("Effusion",))
    two = made("two", {"Pleural Effusion": [1]}, ("Pleural Effusion",))
    said = notes(matrix([one, two]))
    assert "no label is merged" in said[1]
    assert "'Effusion' and 'Pleural Effusion'" in said[2]
    assert len(notes(matrix([one]))) == 2


def full(folder: Path) -> tuple[list[str], pd.DataFrame]:
    """The options that read the full NIH and RSNA lists without films, and NIH's own rows."""
    assert REAL
    source = Path(REAL) / "annotations"
    nih, rsna = folder / "nih", folder / "rsna"
    (nih / "images").mkdir(parents=True)
    (rsna / "stage_2_train_images").mkdir(parents=True)
    entry = "Data_Entry_2017_v2020.csv"
    (nih / entry).write_bytes(gzip.decompress((source / f"{entry}.gz").read_bytes()))
    rows = pd.read_csv(nih / entry, index_col=False)
    lists = {"train_val_list.txt": ("train", "val"), "test_list.txt": ("test",)}
    names: dict[str, str] = {}
    for file, parts in lists.items():
        paths = [source / "ark_splits" / f"Xray14_{part}_official.txt.gz" for part in parts]
        text = "".join(gzip.decompress(path.read_bytes()).decode() for path in paths)
        films = [line.split()[0] for line in text.splitlines()]
        (nih / file).write_text("\n".join(films), encoding="utf-8")
        names |= dict.fromkeys(films, "test" if "test" in file else "train")
    matches = pd.read_csv(source / "rsna_nih_matches.csv.gz")
    matches.to_csv(rsna / "matches.csv", index=False)
    matches.rename(columns={"rsna_patientId": "patientId", "rsna_class": "class"}).to_csv(
        rsna / "stage_2_detailed_class_info.csv", index=False
    )
    headers = source / "kaggle_stage_2_train_images_dicom_headers.csv.gz"
    given = ["--plugins", "ark-chestxray14", "ark-rsna"]
    given += ["--data", f"chestxray14={nih}", f"rsna={rsna}"]
    given += ["--set", "data.rsna.nih_mapping=matches.csv", "--set", f"data.rsna.headers={headers}"]
    return given, rows.assign(split=rows["Image Index"].map(names))


@needs_real
def test_real_lists(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The counts of 112,120 NIH films, and of them and RSNA's as one, are those of the files."""
    pytest.importorskip("ark_plugin_chestxray14")
    pytest.importorskip("ark_plugin_rsna")
    given, rows = full(tmp_path)
    assert cli.run(["data", "stats", *given, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    nih = found["datasets"]["chestxray14"]
    for split, part in rows.groupby("split"):
        counts = nih[str(split)]
        assert counts["films"] == len(part)
        assert counts["patients"] == part["Patient ID"].nunique()
        assert counts["sex"] == part["Patient Gender"].value_counts().to_dict()
        assert counts["view"] == part["View Position"].value_counts().to_dict()
        decades = (part["Patient Age"] // 10).value_counts().sort_index()
        assert [n for n in counts["age"]["decades"].values() if n] == decades.tolist()
        for label, one in counts["labels"].items():
            pattern = rf"(?:^|\|){label}(?:\||$)"
            assert one["positive"] == part["Finding Labels"].str.contains(pattern).sum()
            assert one["positive"] + one["negative"] == len(part)
    # Known from the literature, so that the oracle above is not only compared with itself.
    assert nih["test"]["labels"]["Effusion"]["positive"] == 4658
    assert nih["train"]["labels"]["Hernia"]["positive"] == 141
    matches = pd.read_csv(tmp_path / "rsna" / "matches.csv")
    sure = matches[matches["mse"] < 10]["nih_image"]
    together = found["union"]["all"]
    assert together["rows"] == len(rows) + len(matches)
    assert together["shared_films"] == sure.nunique()
    assert together["films"] == len(rows) + len(matches) - len(sure)
    assert together["shared_patients"] == sure.str.split("_").str[0].nunique()
    # A film that is not matched is of a patient that nobody knows.
    assert together["patients"] == rows["Patient ID"].nunique() + len(matches) - len(sure)
