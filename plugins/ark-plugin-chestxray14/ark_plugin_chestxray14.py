"""NIH ChestX-ray14 for Ark: 112,120 frontal films, fourteen findings mined from reports.

Reads the files as the NIH gives them out: ``Data_Entry_2017*.csv``, the two official lists, and
the films in ``images/`` or ``images_001/images/`` … ``images_012/images/``.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from ark_framework import DataError, DatasetCard, DatasetSpec, LabelSchema, hookimpl

LABELS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia",
    "Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening",
    "Hernia",
)  # fmt: skip
# The corrected edition first: ages in the first one go up to 414 years.
ENTRIES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
LISTS = (("train", Path("train_val_list.txt")), ("test", Path("test_list.txt")))
FILM = r"[0-9]{8}_[0-9]{3}\.png"
# What each column that is read must look like.
COLUMNS = {
    "Image Index": FILM,
    "Finding Labels": r".+",
    "Patient ID": r"[0-9]{1,8}",
    "Patient Age": r"(?:[0-9]{1,4}[YMWD]?)?",
    "Patient Gender": r"[MF]?",
    "View Position": r"(?:PA|AP)?",
}
PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}


class ChestXray14Options(BaseModel):
    """Where the files are; relative paths start at ``root``.

    Args:
        root: The folder that holds the CSV, the two lists and the image folders.
        split_files: Lists of films by split, in place of the two official ones: a film a line,
            its file name first; what follows on the line is not read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path
    split_files: dict[Literal["train", "val", "test"], Path] = Field(default_factory=dict)


def read(options: ChestXray14Options) -> pd.DataFrame:
    """Return one row per line of the CSV; a film in none of the lists has no split.

    Raises:
        DataError: a file or image folder that is missing, or a line that is not as it should be.
    """
    path, entries = _entries(options.root)
    film, patient = entries["Image Index"], entries["Patient ID"].astype("int64").astype(str)
    lists = [(s, options.root / file) for s, file in options.split_files.items() or LISTS]
    folders, ages = _folders(options.root), entries["Patient Age"].unique()
    table = pd.DataFrame(
        {
            "image": [f"{folders.get(name, 'images')}/{name}" for name in film],
            "split": _splits(lists, film, path),
            "patient": patient,
            "sex": entries["Patient Gender"].replace("", None),
            "age": entries["Patient Age"].map({age: _years(age) for age in ages}),
            "view": entries["View Position"].replace("", None),
            "source_id": "nih:" + film,
            "source_patient": "nih:" + patient,
        }
    )
    return table.join(_findings(entries["Finding Labels"], path)).reset_index(drop=True)


def _entries(root: Path) -> tuple[Path, pd.DataFrame]:
    paths = [root / name for name in ENTRIES if (root / name).exists()]
    if not paths:
        raise DataError(f"chestxray14: neither {ENTRIES[0]} nor {ENTRIES[1]} is in {root}")
    frame = _csv(paths[0], tuple(COLUMNS))
    for name, form in COLUMNS.items():
        odd = [text for text in frame[name].unique() if not re.fullmatch(form, text)]
        _refuse(paths[0], frame[name].isin(odd), frame[name], f"is not a valid {name}")
    film = frame["Image Index"]
    _refuse(paths[0], film.duplicated(), film, "stands above already")
    # A row that has slipped, or been sorted by one column alone, would mix up the patients.
    wrong = film.str[:8].astype("int64") != frame["Patient ID"].astype("int64")
    _refuse(paths[0], wrong, film, "is not a film of the patient in that line")
    return paths[0], frame


def _splits(lists: list[tuple[str, Path]], films: pd.Series, source: Path) -> pd.Series:
    """Return the split of each film, missing where no list names it."""
    splits = pd.Series(None, index=films, dtype="object")
    for split, path in lists:
        lines = enumerate(io.StringIO(_text(path), newline=None), start=1)
        fields = {number: line.replace(",", " ").split() for number, line in lines}
        names = {number: line[0].rpartition("/")[2] for number, line in fields.items() if line}
        if not names:
            raise DataError(f"chestxray14: {path} lists no film")
        listed = pd.Series(names, dtype="object").str.removesuffix(".png") + ".png"
        _refuse(path, ~listed.isin(films), listed, f"is no film of {source.name}")
        _refuse(path, listed.duplicated(), listed, "stands above already")
        both = splits.loc[listed].notna().set_axis(listed.index)
        _refuse(path, both, listed, "is in two of the lists")
        splits.loc[listed] = split
    return splits.set_axis(films.index)


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
    known = {*LABELS, "No Finding"}
    found = {text: set(text.split("|")) for text in column.unique()}
    other = column.map({text: min(names - known, default=None) for text, names in found.items()})
    _refuse(path, other.notna(), other, f"is no finding; known: {', '.join(LABELS)}, No Finding")
    both = column.map(
        {text: "No Finding" in names != {"No Finding"} for text, names in found.items()}
    )
    _refuse(path, both, column, "says No Finding and a finding")
    marks = {text: [float(label in names) for label in LABELS] for text, names in found.items()}
    return pd.DataFrame(list(column.map(marks)), index=column.index, columns=list(LABELS))


def _years(age: str) -> float:
    # "58", "058Y", "013M"; nobody is older than 120, so the file's 412Y is a slip: missing.
    number = age.rstrip("YMWD")
    years = float(number or "nan") / PER_YEAR[age[len(number) :]]
    return years if years <= 120 else np.nan


def _text(path: Path) -> str:
    """Return the text of a file, unpacked where it is gzipped."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("is no regular file")
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"chestxray14: {path}, line {line}: is not UTF-8 text") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"chestxray14: cannot read {path}: {error}") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"chestxray14: {path}, line {line}: has a NUL byte; is the file whole?")
    return text


def _csv(path: Path, names: tuple[str, ...]) -> pd.DataFrame:
    """Return columns of a CSV by name, all text; the index is the number of the line."""
    rows: dict[int, list[str]] = {}
    for number, line in enumerate(io.StringIO(_text(path), newline=None), start=1):
        try:
            # Each line by itself: a quote that is left open swallows no other.
            row = next(csv.reader([line], strict=True), None)
        except csv.Error as error:
            raise DataError(f"chestxray14: {path}, line {number}: {error}") from error
        if row:
            rows[number] = row
    header = rows.pop(next(iter(rows), 0), [])
    for name in names:
        if header.count(name) != 1:
            count = "two columns" if name in header else "no column"
            raise DataError(f"chestxray14: {path} has {count} {name!r}")
    if not rows:
        raise DataError(f"chestxray14: {path} has no rows")
    # A header or row may end in commas, as the first edition's do, but nothing else may differ.
    width = max(number for number, name in enumerate(header, start=1) if name)
    for number, row in rows.items():
        if len(row) < width or any(row[width:]):
            raise DataError(
                f"chestxray14: {path}, line {number}: {len(row)} fields, the header has {width}"
            )
    columns = {name: [row[header.index(name)] for row in rows.values()] for name in names}
    return pd.DataFrame(columns, index=pd.Index(rows), dtype="object")


def _refuse(path: Path, wrong: pd.Series, values: pd.Series, why: str) -> None:
    """Raise for the first line of a file that is wrong."""
    if wrong.any():
        row = int(wrong.to_numpy(dtype=bool).argmax())
        shown = repr(str(values.iloc[row])[:60])
        raise DataError(f"chestxray14: {path}, line {values.index[row]}: {shown} {why}")


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
        positives={
            "train": dict(
                zip(
                    LABELS,
                    (
                        8280,
                        1707,
                        8659,
                        13782,
                        4034,
                        4708,
                        876,
                        2637,
                        2852,
                        1378,
                        1423,
                        1251,
                        2242,
                        141,
                    ),
                    strict=True,
                )
            ),
            "test": dict(
                zip(
                    LABELS,
                    (
                        3279,
                        1069,
                        4658,
                        6112,
                        1748,
                        1623,
                        555,
                        2665,
                        1815,
                        925,
                        1093,
                        435,
                        1143,
                        86,
                    ),
                    strict=True,
                )
            ),
        },
        patients=30805,
    ),
)


@hookimpl
def ark_datasets() -> list[DatasetSpec]:
    """Return ``chestxray14``."""
    return [SPEC]
