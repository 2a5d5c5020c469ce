"""MIMIC-CXR-JPG for Ark: 377,110 films of 65,379 patients, fourteen observations from reports.

Reads the split, the labels of one of the two labelers and the metadata as PhysioNet gives them
out, and joins them by name: labels on subject and study, views on the film.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import warnings
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from ark_framework import DataError, DatasetCard, DatasetSpec, LabelSchema, hookimpl

# The order of the official files, which is the alphabet's and not that of CheXpert.
LABELS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum",
    "Fracture", "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other",
    "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip
# What each text column that is read must look like.
COLUMNS = {
    "dicom_id": r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}",
    "subject_id": r"[0-9]{8}",
    "study_id": r"[0-9]{8}",
    "split": r"(?>train|validate|test)",
    "ViewPosition": r"[A-Za-z0-9 /-]{0,40}+",
    "gender": r"[MF]?+",
}
SPLITS = {"train": "train", "validate": "val", "test": "test"}
SEXES = {"M": "M", "F": "F"}


class MimicOptions(BaseModel):
    """Where the files are and what is made of them; relative paths start at ``root``.

    Args:
        root: The folder with ``files/`` and the CSV files.
        labeler: Whose labels are read.
        uncertain: What an uncertain label becomes in training, see ``LabelSchema``.
        blank: What a label of which the report says nothing becomes in training.
        views: ``frontal`` leaves all but PA and AP films out of every split.
        patients: The ``patients.csv.gz`` of MIMIC-IV, for sex and age.
        split_files: Lists of films instead of the official splits, by split.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path
    labeler: Literal["chexpert", "negbio"] = "chexpert"
    uncertain: Literal["ignore", "zeros", "ones", "soft"] = "ones"
    blank: Literal["ignore", "zeros"] = "zeros"
    views: Literal["all", "frontal"] = "all"
    patients: Path | None = None
    split_files: dict[Literal["train", "val", "test"], Path] = Field(default_factory=dict)


def schema(options: MimicOptions) -> LabelSchema:
    """Return the fourteen labels with the policies of the options."""
    return LabelSchema(
        name="mimic-14",
        kind="multilabel",
        labels=LABELS,
        uncertain=options.uncertain,
        blank=options.blank,
    )


def read(options: MimicOptions) -> pd.DataFrame:
    """Return one row per film of the split file; where its study has no label row it has no label.

    Raises:
        DataError: a file or column that is missing, or a line that is not as in the official file.
    """
    path = _file(options.root, "split")
    films = _csv(path, ("dicom_id", "study_id", "subject_id", "split"))
    film, study, subject = films["dicom_id"], films["study_id"], films["subject_id"]
    _once(path, film)
    folder = "files/p" + subject.str[:2] + "/p" + subject + "/s" + study + "/"
    table = pd.DataFrame(
        {
            "image": folder + film + ".jpg",
            "split": films["split"].map(SPLITS),
            "patient": subject,
            "view": _views(options, film),
        }
    )
    table = table.join(_persons(options, subject)).join(_labels(options, subject + "/" + study))
    if options.split_files:
        table["split"] = _listed(film, options)
    if options.views == "frontal":
        table["split"] = table["split"].where(table["view"].isin(["PA", "AP"]))
    return table


def _file(root: Path, part: str) -> Path:
    # Release 2.1.0 still calls these files 2.0.0.
    names = [f"mimic-cxr-{release}-{part}.csv" for release in ("2.1.0", "2.0.0")]
    for name in [f"{name}{ending}" for name in names for ending in (".gz", "")]:
        if (root / name).is_file():
            return root / name
    raise DataError(f"mimic: no {names[1]}.gz and no {names[1]} in {root}")


def _views(options: MimicOptions, film: pd.Series) -> pd.Series:
    path = _file(options.root, "metadata")
    frame = _csv(path, ("dicom_id", "ViewPosition"))
    view = _lookup(path, frame[["ViewPosition"]], frame["dicom_id"], film)["ViewPosition"]
    return view.where(view != "LL", "LATERAL").where(view != "")


def _persons(options: MimicOptions, subject: pd.Series) -> pd.DataFrame:
    if options.patients is None:
        return pd.DataFrame(index=subject.index)
    path = options.root / options.patients
    frame = _csv(path, ("subject_id", "gender", "anchor_age"))
    found = _lookup(path, frame, frame["subject_id"], subject)
    age = found["anchor_age"].where(found["anchor_age"].between(0, 120))
    return pd.DataFrame({"sex": found["gender"].map(SEXES), "age": age})


def _labels(options: MimicOptions, study: pd.Series) -> pd.DataFrame:
    path = _file(options.root, options.labeler)
    frame = _csv(path, ("subject_id", "study_id", *LABELS))
    return _lookup(path, frame[list(LABELS)], frame["subject_id"] + "/" + frame["study_id"], study)


def _lookup(path: Path, frame: pd.DataFrame, keys: pd.Series, wanted: pd.Series) -> pd.DataFrame:
    """Return the rows of the wanted keys, a row of blanks where the file has none."""
    _once(path, keys)
    rows = pd.Index(keys).get_indexer(pd.Index(wanted))
    if (rows < 0).all():
        raise DataError(f"mimic: {path} has no line of any film in the split file")
    return frame.reindex(rows).set_axis(wanted.index, axis=0)


def _once(path: Path, keys: pd.Series) -> None:
    twice = keys.duplicated()
    if twice.any():
        row = int(twice.to_numpy().argmax())
        raise DataError(
            f"mimic: {path}, line {row + 2}: {keys[row]} stands in line "
            f"{int((keys == keys[row]).to_numpy().argmax()) + 2} already"
        )


def _csv(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read numbers as such, which is fast; where that fails look for the line."""
    text = _text(path)
    lines = text.split("\n")
    header = lines[0].replace('"', "").split(",")
    for name in columns:
        if header.count(name) != 1:
            count = "two columns" if name in header else "no column"
            raise DataError(f"mimic: {path} has {count} {name!r}")
    if len(lines) == 1:
        raise DataError(f"mimic: {path} has no line but its header")
    _check_fields(path, lines, len(header), quoted='"' in text)
    numbers = [name for name in columns if name not in COLUMNS]
    kinds: dict[str, Any] = dict.fromkeys(columns, object) | dict.fromkeys(numbers, "float32")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            frame = pd.read_csv(
                io.BytesIO(text.encode()), usecols=list(columns), dtype=kinds,
                na_values={name: [""] for name in numbers}, keep_default_na=False,
                skip_blank_lines=False,
            )  # fmt: skip
    except (ValueError, OverflowError, Warning):
        raise _wrong_number(path, lines, numbers) from None
    values = frame[[name for name in numbers if name in LABELS]].to_numpy()
    if not (np.isnan(values) | (values == 0) | (values == 1) | (values == -1)).all():
        raise _wrong_number(path, lines, numbers)
    _check_texts(path, frame[[name for name in columns if name in COLUMNS]])
    return frame


def _text(path: Path) -> str:
    """Return a file's text with lines that end in a newline, and none after the last."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("is no regular file")
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        data = data.removeprefix(codecs.BOM_UTF8)
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"mimic: {path}, line {line}: this is not UTF-8 text") from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"mimic: cannot read {path}: {error}".split("\n")[0]) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"mimic: {path}, line {line}: no official file has a NUL in it")
    if not text.strip():
        raise DataError(f"mimic: {path} is empty")
    return text


def _check_fields(path: Path, lines: list[str], width: int, *, quoted: bool) -> None:
    # Only descriptions in the metadata have commas, and so quotation marks.
    reader = csv.reader(lines, strict=True)
    counts = map(len, reader) if quoted else (line.count(",") + 1 for line in lines)
    number = 0
    try:
        for number, count in enumerate(counts, 1):
            if quoted and reader.line_num != number:
                raise DataError(f"mimic: {path}, line {number}: a quotation mark is not closed")
            if count != width:
                raise DataError(
                    f"mimic: {path}, line {number}: {count} fields, where the header has {width}"
                )
    except csv.Error as error:
        raise DataError(f"mimic: {path}, line {number + 1}: {error}") from error


def _wrong_number(path: Path, lines: list[str], numbers: list[str]) -> DataError:
    frame = pd.read_csv(
        io.StringIO("\n".join(lines)), dtype=str, na_filter=False, skip_blank_lines=False
    )
    for name in numbers:
        found = pd.to_numeric(frame[name], errors="coerce")
        wrong = ~(found.isin([0, 1, -1]) if name in LABELS else found.notna())
        wrong &= frame[name] != ""
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            allowed = "1.0, 0.0, -1.0 or blank" if name in LABELS else "a number"
            return DataError(
                f"mimic: {path}, line {row + 2}: {name!r} is {_short(frame[name][row])}, not "
                + allowed
            )
    return DataError(f"mimic: {path} is not a table as PhysioNet gives it out")


def _check_texts(path: Path, frame: pd.DataFrame) -> None:
    for name, column in frame.items():
        # All at once: half of the time of one after the other, with 377,110 films.
        pattern = COLUMNS[str(name)]
        if not re.fullmatch(rf"(?:{pattern}\n)*+", "\n".join(column) + "\n"):
            row = int((~column.str.fullmatch(pattern)).to_numpy().argmax())
            raise DataError(
                f"mimic: {path}, line {row + 2}: {_short(column[row])} is no {name} of the "
                "official form"
            )


def _short(value: str) -> str:
    text = repr(value)
    return text if len(text) < 100 else f"{text[:80]}… ({len(text)} characters)"


def _listed(film: pd.Series, options: MimicOptions) -> np.ndarray:
    films = pd.Index(film)
    splits = np.full(len(films), None, dtype=object)
    # The first field of each line, without folder and ending.
    first = re.compile(r"^(?:[^,\s]*/)?([^,./\s]*)[^\n]*$", re.M)
    for split, file in options.split_files.items():
        path = options.root / file
        names = first.findall(_text(path))
        start = int(names[0] in ("image_path", "dicom_id"))
        rows = films.get_indexer(pd.Index(names[start:], dtype=object))
        twice = pd.notna(splits[rows]) | pd.Series(rows).duplicated().to_numpy()
        for wrong, what in ((rows < 0, "is not in the split file"), (twice, "is listed twice")):
            if wrong.any():
                line = int(wrong.argmax()) + start
                raise DataError(
                    f"mimic: {path}, line {line + 1}: film {_short(names[line])} {what}"
                )
        splits[rows] = split
    return splits


def fixture(folder: Path) -> MimicOptions:
    """Write 80 drawn films of 32 patients: each label is a bright spot at its own place."""
    rng = np.random.default_rng(377110)
    labels = ",".join(("subject_id", "study_id", *LABELS))
    tables: dict[str, list[str]] = {
        "split": ["dicom_id,study_id,subject_id,split"],
        "metadata": ["dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition"],
        "chexpert": [labels],
        "negbio": [labels],
    }
    persons = ["subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod"]
    for visit in range(64):
        number, study, marks = visit // 2, 50000000 + visit, _marks(visit)
        split = "train" if number < 16 else "validate" if number < 20 else "test"
        subject = 10000032 + 540000 * number
        if visit % 2 == 0:
            persons.append(f"{subject},{'MF'[number % 2]},{30 + number},2150,2011 - 2013,")
        # One training study has no labels; the labelers differ in doubt.
        if visit != 3:
            tables["chexpert"].append(f"{subject},{study},{','.join(marks)}")
            tables["negbio"].append(f"{subject},{study},{','.join(marks).replace('-', '')}")
        both = visit % 2 == 0 and split == "train"
        for view in ("PA", "LL") if both else (("AP", "LATERAL", "")[number % 3],):
            film = "-".join(f"{value:08x}" for value in rng.integers(0, 2**32, 5))
            tables["split"].append(f"{film},{study},{subject},{split}")
            tables["metadata"].append(f'{film},{subject},{study},"CHEST, {view}",{view}')
            path = folder / f"files/p{subject // 1000000}/p{subject}/s{study}/{film}.jpg"
            _write_film(path, marks, rng)
    files = {f"mimic-cxr-2.0.0-{part}.csv.gz": lines for part, lines in tables.items()}
    for name, lines in (files | {"patients.csv.gz": persons}).items():
        text = "\n".join(lines) + "\n"
        (folder / name).write_bytes(gzip.compress(text.encode(), mtime=0))
    return MimicOptions(root=folder, patients=Path("patients.csv.gz"))


def _write_film(path: Path, marks: list[str], rng: np.random.Generator) -> None:
    pixels = rng.normal(70, 12, (64, 64))
    for place in (place for place, mark in enumerate(marks) if mark in ("1.0", "-1.0")):
        top, left = 16 * (place // 4) + 3, 16 * (place % 4) + 3
        pixels[top : top + 10, left : left + 10] += 130
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def _marks(study: int) -> list[str]:
    """Return what stands in a study's line: one label or two, the second now and then uncertain."""
    marks = ["" if (study + place) % 4 == 0 else "0.0" for place in range(len(LABELS))]
    if study % 3 == 0:
        marks[study * 5 % len(LABELS)] = "-1.0" if study % 2 else "1.0"
    marks[study % len(LABELS)] = "1.0"
    return marks


SPEC = DatasetSpec(
    name="mimic",
    schema=schema,
    options=MimicOptions,
    read=read,
    fixture=fixture,
    card=DatasetCard(
        title="MIMIC-CXR-JPG",
        home="https://physionet.org/content/mimic-cxr-jpg/",
        licence="PhysioNet Credentialed Health Data License: credentialed users only, no sharing.",
        access="credentialed",
        citation=(
            "Johnson AEW, Pollard TJ, Berkowitz SJ, et al. MIMIC-CXR, a de-identified publicly "
            "available database of chest radiographs with free-text reports. Scientific Data "
            "2019;6:317; and MIMIC-CXR-JPG, arXiv:1901.07042; and Goldberger AL, et al. "
            "PhysioBank, PhysioToolkit, and PhysioNet. Circulation 2000;101:e215-e220."
        ),
        rows={"train": 368960, "val": 2991, "test": 5159},
        patients=65379,
    ),
)


@hookimpl
def ark_datasets() -> list[DatasetSpec]:
    """Return ``mimic``."""
    return [SPEC]
