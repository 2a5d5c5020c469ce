"""The folder-and-CSV dataset: any columns, three kinds of labels, errors that name the place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydantic import ValidationError

from ark_framework import DataError
from ark_framework.annotations import AnnotationTable, validate
from ark_framework.builtin.table import SPEC, TableOptions, read_mask, schema

REAL = os.environ.get("ARK_REAL_DATA")


def table(options: TableOptions) -> AnnotationTable:
    return validate(SPEC.read(options), dataset=SPEC.name, schema=schema(options))


def options(root: Path, lines: list[str], **values: Any) -> TableOptions:
    (root / "labels.csv").write_text("\n".join(lines))
    return TableOptions.model_validate({"root": root, **values})


def test_fixture(tmp_path: Path) -> None:
    """The miniature reads back: labels, blank = not annotated, patients whole, files there."""
    given = SPEC.fixture(tmp_path)
    mini = table(given)
    assert mini.schema.labels == ("left", "right")
    assert (len(mini.rows("train")), len(mini.rows("test"))) == (32, 16)
    assert np.isnan(mini.targets()).sum() == 1
    assert mini.frame["patient"].value_counts().eq(2).all()
    assert all((tmp_path / image).is_file() for image in mini.frame["image"])


def test_multilabel(tmp_path: Path) -> None:
    """Columns are found by name in any order; 1, 0, blank and -1 keep their meaning."""
    lines = ["b,path,x,a,who,when,how", "1,u/1.png,z,-1.0,7,val,PA", "0,u/2.png,z,,8,valid,"]
    given = options(
        tmp_path, lines, labels=["a", "b"], image="path", patient="who", split="when", view="how"
    )
    read = table(given)
    np.testing.assert_array_equal(read.targets(), [[-1, 1], [np.nan, 0]])
    assert read.frame["split"].tolist() == ["val", "val"]
    assert read.frame["patient"].tolist() == ["7", "8"]
    assert read.frame["view"].tolist() == ["PA", None]


def test_names_that_are_no_paths(tmp_path: Path) -> None:
    """``files`` says where an image lies; it must say it of the image."""
    lines = ["case,a,who", "0017,1,p", "u/18,0,q"]
    told = {"labels": ["a"], "image": "case", "patient": "who"}
    read = table(options(tmp_path, lines, files="xr/{image}.dcm", **told))
    assert read.frame["image"].tolist() == ["xr/0017.dcm", "xr/u/18.dcm"]
    with pytest.raises(ValidationError, match=r"files needs \{image\} in it"):
        options(tmp_path, lines, files="xr/", **told)


def test_sexes(tmp_path: Path) -> None:
    """Male/female in any case are understood, unknown is missing, anything else is refused."""
    lines = ["image,a,g", "1.png,1,female", "2.png,0,M", "3.png,0,Unknown", "4.png,0,"]
    given = options(tmp_path, lines, labels=["a"], sex="g")
    assert table(given).frame["sex"].tolist() == ["F", "M", None, None]
    with pytest.raises(DataError, match=r"sex of .*labels.csv, line 6, .2.,"):
        table(options(tmp_path, [*lines, "5.png,1,2"], labels=["a"], sex="g"))


def test_groups(tmp_path: Path) -> None:
    """A named column becomes a grouping as text, blank = missing; others are left out."""
    lines = ["image,a,scanner,site", "x.png,1,7,north", "y.png,0,,south"]
    made = table(options(tmp_path, lines, labels=["a"], groups=["scanner"]))
    assert made.groupings == ["scanner"]
    assert made.frame["group:scanner"].tolist() == ["7", None]
    assert "site" not in " ".join(made.frame.columns)
    with pytest.raises(DataError, match="no column 'scaner'; did you mean 'scanner'"):
        SPEC.read(options(tmp_path, lines, labels=["a"], groups=["scaner"]))


def test_no_split_is_train(tmp_path: Path) -> None:
    """Without a split column every image is a training image."""
    read = table(options(tmp_path, ["image,a", "1.png,1", "2.png,0"], labels=["a"]))
    assert read.rows("train").tolist() == [0, 1]


def test_drawn_test_split(tmp_path: Path) -> None:
    """A share of the patients is drawn as test, whole; a part of the table splits as the whole."""
    lines = ["image,who,a", *(f"{n}.png,p{n // 2},1" for n in range(400))]
    values = {"labels": ["a"], "patient": "who", "test_fraction": 0.25}
    frame = table(options(tmp_path, lines, **values)).frame
    assert frame.groupby("patient")["split"].nunique().eq(1).all()
    assert 70 <= frame["split"].eq("test").sum() <= 130
    part = table(options(tmp_path, lines[:101], **values)).frame
    assert part["split"].tolist() == frame["split"].tolist()[:100]
    with pytest.raises(ValidationError, match="no split column"):
        TableOptions.model_validate({"root": tmp_path, **values, "split": "when"})


def test_multiclass_by_name(tmp_path: Path) -> None:
    """One column of class names becomes one column per class; blank = not annotated."""
    lines = ["image,class", "1.png,None", "2.png,flu", "3.png,"]
    given = options(
        tmp_path, lines, kind="multiclass", labels=["flu", "None"], label_column="class"
    )
    np.testing.assert_array_equal(table(given).targets(), [[0, 1], [1, 0], [np.nan, np.nan]])
    wrong = options(
        tmp_path, lines, kind="multiclass", labels=["flue", "None"], label_column="class"
    )
    with pytest.raises(DataError, match=r"line 3: class 'flu' is not .* did you mean 'flue'"):
        table(wrong)


def test_multiclass_by_columns(tmp_path: Path) -> None:
    """Class columns are taken as they are and must be exclusive."""
    given = options(tmp_path, ["image,a,b", "1.png,1,0"], kind="multiclass", labels=["a", "b"])
    assert table(given).targets().tolist() == [[1, 0]]
    (tmp_path / "labels.csv").write_text("image,a,b\n1.png,1,1")
    with pytest.raises(DataError, match="exactly one class"):
        table(given)


def test_masks(tmp_path: Path) -> None:
    """Masks come in the order of the option, above 127 is in, and a missing one is named."""
    (tmp_path / "m").mkdir()
    left = np.zeros((4, 6), np.uint8)
    left[:, :3], left[0, 5] = 255, 127
    Image.fromarray(left).save(tmp_path / "m" / "1_l.png")
    Image.fromarray(255 - left).save(tmp_path / "m" / "1_r.png")
    masks = {"right": "m/{stem}_r.png", "left": "m/{stem}_l.png"}
    given = options(tmp_path, ["image", "films/1.png"], kind="mask", masks=masks)
    row = next(table(given).frame.itertuples(index=False))
    got = read_mask(row, given)
    assert schema(given).labels == ("right", "left")
    np.testing.assert_array_equal(got, [255 - left > 127, left > 127])
    Image.fromarray(left[:2]).save(tmp_path / "m" / "1_l.png")
    with pytest.raises(DataError, match="another size"):
        read_mask(row, given)
    (tmp_path / "m" / "1_l.png").unlink()
    with pytest.raises(DataError, match=r"films/1\.png has no mask of 'left'.*1_l\.png"):
        table(given)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"labels": ["ab"]}, "no column 'ab'; did you mean 'abc'"),
        ({"labels": ["abc"], "patient": "who"}, "no column 'who'; it has 'image', 'abc'"),
        ({"labels": ["abc"], "csv": "other.csv"}, "other.csv"),
        ({"labels": ["abc"], "csv": "empty.csv"}, "empty.csv"),
    ],
)
def test_wrong_csv(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    """A missing CSV or column is one line that names the file, the column and what there is."""
    (tmp_path / "empty.csv").touch()
    with pytest.raises(DataError) as error:
        table(options(tmp_path, ["image,abc", "1.png,1"], **values))
    assert said in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_label_that_is_no_number(tmp_path: Path) -> None:
    """A label value that is no number is refused with its image and value."""
    with pytest.raises(
        DataError, match=r"label 'a' of .*labels.csv, line 2 \(image '1\.png'\) is 'yes'"
    ):
        table(options(tmp_path, ["image,a", "1.png,yes"], labels=["a"]))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"labels": ["a"], "masks": {"a": "m"}},
        {"kind": "mask", "labels": ["a"]},
        {"labels": ["a"], "label_column": "b"},
        {"labels": ["a", "a"]},
        {"labels": ["view"]},
        {"labels": ["a"], "colour": "red"},
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, values: dict[str, Any]) -> None:
    """Options that contradict each other are refused before any file is read."""
    with pytest.raises(ValidationError):
        TableOptions.model_validate({"root": tmp_path, **values})


def test_gzip_and_absolute(tmp_path: Path) -> None:
    """The CSV may be gzipped and lie outside the image folder."""
    pd.DataFrame({"image": ["1.png"], "a": [1]}).to_csv(tmp_path / "l.csv.gz", index=False)
    read = table(TableOptions(root=tmp_path / "films", csv=tmp_path / "l.csv.gz", labels=("a",)))
    assert read.targets().tolist() == [[1]]


@pytest.mark.skipif(REAL is None, reason="ARK_REAL_DATA is not set")
def test_real_masks(tmp_path: Path) -> None:
    """57 real films with drawn lungs: every mask has its film's size and a plausible area."""
    root = Path(str(REAL)) / "covid_lungs"
    films = sorted(path.name for path in (root / "images").iterdir())
    csv = tmp_path / "films.csv"
    csv.write_text("\n".join(["image", *(f'"images/{name}"' for name in films)]))
    given = TableOptions(root=root, csv=csv, kind="mask", masks={"lungs": "masks/{stem}.png"})
    rows = list(table(given).frame.itertuples(index=False))
    assert len(rows) == 57
    for row in rows:
        mask = read_mask(row, given)
        with Image.open(root / row.image) as film:
            assert mask.shape == (1, film.height, film.width)
        assert 0.03 < mask.mean() < 0.7
