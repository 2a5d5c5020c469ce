"""NIH ChestX-ray14 for Ark: 112,120 frontal films, fourteen findings mined from reports.

Reads the files as the NIH gives them out: ``Data_Entry_2017*.csv``, the two official lists, and
the films in ``images/`` or ``images_001/images/`` … ``images_012/images/``.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import BaseModel, ConfigDict

from ark_framework import DataError, DatasetCard, DatasetSpec, LabelSchema, hookimpl

LABELS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia",
    "Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening",
    "Hernia",
)  # fmt: skip
# The corrected edition first: ages in the first one go up to 414 years.
ENTRIES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
COLUMNS = (
    "Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender",
    "View Position",
)  # fmt: skip
PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}


class ChestXray14Options(BaseModel):
    """``root``: the folder that holds the CSV, the two lists and the image folders."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path


def read(options: ChestXray14Options) -> pd.DataFrame:
    """Return one row per line of the CSV; a film in neither official list has no split.

    Raises:
        DataError: a file, column or image folder that is missing, or a finding that is not one
            of the fourteen.
    """
    path, entries = _entries(options.root)
    image, patient = entries["Image Index"], entries["Patient ID"].astype("int64").astype(str)
    folders = _folders(options.root)
    table = pd.DataFrame(
        {
            "image": [f"{folders.get(name, 'images')}/{name}" for name in image],
            "split": image.map(_splits(options.root)),
            "patient": patient,
            "sex": entries["Patient Gender"],
            "age": _years(entries["Patient Age"]),
            "view": entries["View Position"],
            "source_id": "nih:" + image,
            "source_patient": "nih:" + patient,
        }
    )
    return table.join(_findings(entries["Finding Labels"], path))


def _entries(root: Path) -> tuple[Path, pd.DataFrame]:
    paths = [root / name for name in ENTRIES if (root / name).is_file()]
    if not paths:
        raise DataError(f"chestxray14: neither {ENTRIES[0]} nor {ENTRIES[1]} is in {root}")
    try:
        # "OriginalImage[Width,Height]" breaks in two at its comma, and the first edition's header
        # has a name more than its rows have fields: so by name, and never an index column.
        frame = pd.read_csv(paths[0], dtype=str, index_col=False, usecols=lambda c: c in COLUMNS)
    except (OSError, ValueError) as error:
        raise DataError(f"chestxray14: cannot read {paths[0]}: {error}".split("\n")[0]) from error
    for name in COLUMNS:
        if name not in frame.columns:
            raise DataError(f"chestxray14: {paths[0]} has no column {name!r}")
    blank = frame[["Image Index", "Finding Labels"]].isna().any(axis=1)
    blank |= ~frame["Patient ID"].str.fullmatch(r"\d+", na=False)
    if blank.any():
        line = int(blank.to_numpy().argmax()) + 2
        raise DataError(
            f"chestxray14: {paths[0]}, line {line}, lacks an image, its findings or a numeric "
            "patient; is the file whole?"
        )
    return paths[0], frame


def _splits(root: Path) -> dict[str, str]:
    splits: dict[str, str] = {}
    for file, split in (("train_val_list.txt", "train"), ("test_list.txt", "test")):
        try:
            names = (root / file).read_text(encoding="utf-8").split()
        except (OSError, ValueError) as error:
            raise DataError(f"chestxray14: cannot read the list {root / file}: {error}") from error
        both = next((name for name in names if splits.get(name, split) != split), None)
        if both:
            raise DataError(f"chestxray14: {both} is in both official lists of {root}")
        splits.update(dict.fromkeys(names, split))
    return splits


def _folders(root: Path) -> dict[str, str]:
    parts = [root / "images", *sorted(root.glob("images_[0-9]*/images"))]
    parts = [part for part in parts if part.is_dir()]
    if not parts:
        raise DataError(
            f"chestxray14: no images/ and no images_001/images/ in {root}; unpack them there"
        )
    found: dict[str, str] = {}
    for part in parts:
        with os.scandir(part) as files:
            found.update(dict.fromkeys((f.name for f in files), part.relative_to(root).as_posix()))
    return found


def _findings(column: pd.Series, path: Path) -> pd.DataFrame:
    marks = column.str.get_dummies("|")
    unknown = [name for name in marks.columns if name not in (*LABELS, "No Finding")]
    if unknown:
        line = marks[unknown[0]].to_numpy().argmax() + 2
        raise DataError(
            f"chestxray14: {path}, line {line}: unknown finding {unknown[0]!r}; the findings are "
            f"{', '.join(LABELS)}, No Finding"
        )
    return marks.reindex(columns=list(LABELS), fill_value=0).astype("float64")


def _years(ages: pd.Series) -> pd.Series:
    # "58", "058Y", "013M"; nobody is older than 120, so the file's 412Y is a slip: missing.
    parts = ages.str.strip().str.extract(r"^(\d+)([YMWD]?)$")
    years = pd.to_numeric(parts[0]) / parts[1].map(PER_YEAR)
    return years.where(years <= 120)


def fixture(folder: Path) -> ChestXray14Options:
    """Write 72 drawn films of 36 patients: each finding is a bright spot at its own place."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(14)
    rows, lists = [], {"train_val_list.txt": "", "test_list.txt": ""}
    for film in range(72):
        patient, places = (
            film // 2 + 1,
            {film % 16} | ({(film * 5) % 14} if film % 3 == 0 else set()),
        )
        marks = [LABELS[place] for place in sorted(places) if place < len(LABELS)]
        pixels = rng.normal(70, 12, (64, 64))
        for place in sorted(places & set(range(len(LABELS)))):
            top, left = 16 * (place // 4) + 3, 16 * (place % 4) + 3
            pixels[top : top + 10, left : left + 10] += 130
        name = f"{patient:08d}_{film % 2:03d}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "images" / name)
        sex, view = "MF"[patient % 2], ("PA", "AP")[film % 3 == 0]
        found = "|".join(marks) or "No Finding"
        rows.append(f"{name},{found},{film % 2},{patient},{30 + patient},{sex},{view},64,64,1,1")
        lists["test_list.txt" if patient > 24 else "train_val_list.txt"] += name + "\n"
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    )
    (folder / ENTRIES[0]).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    for file, names in lists.items():
        (folder / file).write_text(names, encoding="utf-8")
    return ChestXray14Options(root=folder)


SPEC = DatasetSpec(
    name="chestxray14",
    schema=LabelSchema(name="nih-14", kind="multilabel", labels=LABELS),
    options=ChestXray14Options,
    read=read,
    fixture=fixture,
    card=DatasetCard(
        title="NIH ChestX-ray14",
        home="https://nihcc.app.box.com/v/ChestXray-NIHCC",
        licence="No restriction on use; name the NIH Clinical Center, link the download, cite.",
        access="open",
        citation=(
            "Wang X, Peng Y, Lu L, Lu Z, Bagheri M, Summers RM. ChestX-ray8: Hospital-scale Chest "
            "X-ray Database and Benchmarks on Weakly-Supervised Classification and Localization "
            "of Common Thorax Diseases. CVPR 2017."
        ),
        rows={"train": 86524, "test": 25596},
    ),
)


@hookimpl
def ark_datasets() -> list[DatasetSpec]:
    """Return ``chestxray14``."""
    return [SPEC]
