"""CheXpert for Ark: 223,648 films, fourteen observations that were mined from reports.

Reads ``train.csv`` and ``valid.csv`` as Stanford gives them out, in the full distribution or the
small one, and on request the labels of the test set that was published in 2022.
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
from pydantic import BaseModel, ConfigDict, Field, field_validator

from ark_framework import DataError, DatasetCard, DatasetSpec, LabelSchema, hookimpl

LABELS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
# The five of the competition: of some others valid.csv has one film or none.
COMPETITION = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
ABOUT = ("Sex", "Age", "Frontal/Lateral", "AP/PA")
TEST_2022 = ("test_labels.csv", "groundtruth.csv", "test.csv")
SEXES = {"Male": "M", "Female": "F", "Unknown": None, "": None}
SIDES = {"Frontal": None, "Lateral": "LATERAL"}
VIEWS = {name: name for name in ("AP", "PA", "LL", "RL")} | {"": None}
TRAIN_POSITIVES = (
    22381, 10798, 27000, 105581, 9186, 52246, 14783, 6039, 33376, 19448, 86187, 3523, 9040, 116001,
)  # fmt: skip
VALID_POSITIVES = (38, 109, 68, 126, 1, 45, 33, 8, 80, 8, 67, 1, 0, 107)
FOLDER = re.compile(r"CheXpert-v1\.0[\w.-]*/")


class ChexpertOptions(BaseModel):
    """Where the files are and what is made of them; relative paths start at ``root``.

    Args:
        root: The folder with ``train.csv``, or the one above it.
        test: ``valid``: ``valid.csv`` is the test split; ``2022``: it is the validation split, and
            the films published in 2022 are the test split.
        uncertain: What an uncertain label becomes in training, see ``LabelSchema``.
        blank: What a label of which the report says nothing becomes in training.
        views: ``frontal`` leaves lateral films out of every split.
        split_files: Lists of films instead of those splits, by split.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path
    test: Literal["valid", "2022"] = "valid"
    uncertain: Literal["ignore", "zeros", "ones", "soft"] = "soft"
    blank: Literal["ignore", "zeros"] = "zeros"
    views: Literal["all", "frontal"] = "all"
    split_files: dict[Literal["train", "val", "test"], Path] = Field(default_factory=dict)

    @field_validator("test", mode="before")
    @classmethod
    def _year(cls, value: Any) -> Any:
        # YAML reads 2022 as a number.
        return str(value) if isinstance(value, int) else value


def schema(options: ChexpertOptions) -> LabelSchema:
    """Return the fourteen labels with the policies of the options."""
    return LabelSchema(
        name="chexpert-14",
        kind="multilabel",
        labels=LABELS,
        report=COMPETITION,
        uncertain=options.uncertain,
        blank=options.blank,
    )


def read(options: ChexpertOptions) -> pd.DataFrame:
    """Return one row per line of ``train.csv``, ``valid.csv`` and perhaps the test labels.

    Raises:
        DataError: a file or column that is missing, or a line that is not as in the official file.
    """
    base = _base(options.root)
    parts = [
        _films(base / "train.csv", "train", "train"),
        _films(base / "valid.csv", "valid", "test" if options.test == "valid" else "val"),
    ]
    if options.test == "2022":
        found = [base / name for name in TEST_2022 if (base / name).is_file()]
        if not found:
            raise DataError(f"chexpert: none of {', '.join(TEST_2022)} is in {base}")
        parts.append(_films(found[0], "test", "test", about=()))
    table = pd.concat(parts, ignore_index=True)
    if options.split_files:
        table["split"] = _listed(table["image"], options)
    if options.views == "frontal":
        table.loc[table["view"] == "LATERAL", "split"] = None
    if base != options.root:
        table["image"] = f"{base.name}/" + table["image"]
    return table


def _base(root: Path) -> Path:
    if (root / "train.csv").is_file():
        return root
    found = sorted(path.parent for path in root.glob("CheXpert-v1.0*/train.csv"))
    if len(found) == 1:
        return found[0]
    raise DataError(
        f"chexpert: no train.csv in {root}, and in {len(found)} folders CheXpert-v1.0* below it; "
        "give the folder that holds it as root"
    )


def _films(path: Path, folder: str, split: str, *, about: tuple[str, ...] = ABOUT) -> pd.DataFrame:
    frame = _csv(path, ("Path", *about, *LABELS))
    images = _images(path, frame["Path"], folder)
    start = len(folder) + 1
    columns: dict[str, Any] = {
        "image": images,
        "split": [split] * len(images),
        "patient": [image[start : start + 12] for image in images],
    }
    if about:
        side = _meaning(path, frame["Frontal/Lateral"], SIDES)
        columns["sex"] = _meaning(path, frame["Sex"], SEXES)
        columns["view"] = np.where(side == "LATERAL", side, _meaning(path, frame["AP/PA"], VIEWS))
    else:
        columns["view"] = ["LATERAL" if "_lateral" in image else None for image in images]
    table = pd.DataFrame(columns, dtype=object)
    if about:
        table["age"] = frame["Age"].where(frame["Age"].between(0, 120))
    return table.join(frame[list(LABELS)])


def _images(path: Path, paths: pd.Series, folder: str) -> list[str]:
    """Return the films' paths below the folder of ``train.csv``, and refuse any other path."""
    films = paths.tolist()
    prefix = FOLDER.match(films[0])
    images = [film.removeprefix(prefix[0]) for film in films] if prefix else films
    good = rf"{folder}/patient\d{{5}}/study\d{{1,3}}+/view\d{{1,2}}+_(?>frontal|lateral)\.jpg"
    # All at once: half of the time of one after the other, with 223,414 films.
    if not re.fullmatch(rf"(?:{good}\n)*+", "\n".join(images) + "\n", re.A):
        row = next(row for row, image in enumerate(images) if not re.fullmatch(good, image, re.A))
        raise DataError(
            f"chexpert: {path}, line {row + 2}: {_short(films[row])} is not a path such as "
            f"CheXpert-v1.0/{folder}/patient00001/study1/view1_frontal.jpg"
        )
    if len(set(images)) < len(images):
        row = int(paths.duplicated().to_numpy().argmax())
        raise DataError(
            f"chexpert: {path}, line {row + 2}: film {films[row]} stands in line "
            f"{films.index(films[row]) + 2} already"
        )
    return images


def _meaning(path: Path, column: pd.Series, meaning: dict[str, str | None]) -> np.ndarray:
    found = list(column.cat.categories)
    wrong = column.isin([name for name in found if name not in meaning])
    if "" not in meaning:
        wrong |= column.isna()
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        value = str(column.astype(object).fillna("")[row])
        raise DataError(
            f"chexpert: {path}, line {row + 2}: {column.name} is {_short(value)}, not one of "
            + ", ".join(filter(None, meaning))
        )
    # The code of a blank is -1, and so the last.
    return np.array([*(meaning[name] for name in found), None], dtype=object)[column.cat.codes]


def _csv(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read numbers as such, which is fast; where that fails look for the line."""
    data = _bytes(path)
    end = data.find(b"\n")
    if end in (-1, len(data) - 1):
        raise DataError(f"chexpert: {path} lists no film")
    header = data[:end].decode().split(",")
    if "Study" in header and "Path" not in header:
        raise DataError(
            f"chexpert: {path} lists studies; the films need the test_labels.csv that lists films"
        )
    for name in columns:
        if header.count(name) != 1:
            count = "two columns" if name in header else "no column"
            raise DataError(f"chexpert: {path} has {count} {name!r}")
    if data.split(b"\n", 2)[1].count(b",") >= len(header):
        raise _fault(
            path, data
        )  # pandas would make an index of the fields more, which may take long
    kinds: dict[str, Any] = dict.fromkeys(header, object)
    kinds |= dict.fromkeys({"Sex", "Frontal/Lateral", "AP/PA"} & set(header), "category")
    kinds |= dict.fromkeys({*LABELS, "Age"} & set(header), "float32")
    blank = {name: [""] for name, kind in kinds.items() if kind is not object}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            frame = pd.read_csv(
                io.BytesIO(data), dtype=kinds, na_values=blank, keep_default_na=False,
                quoting=csv.QUOTE_NONE, skip_blank_lines=False,
            )  # fmt: skip
    except (ValueError, OverflowError, Warning):
        raise _fault(path, data) from None
    # A shorter row passes as one with blanks; a longer first one would become an index.
    commas = np.count_nonzero(np.frombuffer(data, np.uint8) == ord(","))
    whole = commas == (len(frame) + 1) * (len(header) - 1)
    whole &= isinstance(frame.index, pd.RangeIndex)
    values = frame[list(LABELS)].to_numpy()
    known = np.isnan(values) | (values == 0) | (values == 1) | (values == -1)
    if not (whole and known.all()):
        raise _fault(path, data)
    return frame


def _bytes(path: Path) -> bytes:
    """Return a file as UTF-8 with lines that end in a newline, without what no list has in it."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("is no regular file")
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        data = data.removeprefix(codecs.BOM_UTF8)
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"chexpert: {path}, line {line}: this is not UTF-8 text") from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"chexpert: cannot read {path}: {error}".split("\n")[0]) from error
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if data.endswith(b"\n\n"):
        data = data.rstrip(b"\n")
    for mark in (b"\0", b'"'):
        if mark in data:
            line = data.count(b"\n", 0, data.index(mark)) + 1
            raise DataError(f"chexpert: {path}, line {line}: no official file has {mark!r} in it")
    if not data.strip():
        raise DataError(f"chexpert: {path} is empty")
    return data


def _fault(path: Path, data: bytes) -> DataError:
    lines = [line.split(",") for line in data.decode().removesuffix("\n").split("\n")]
    for number, line in enumerate(lines, 1):
        if len(line) != len(lines[0]):
            return DataError(
                f"chexpert: {path}, line {number}: {len(line)} fields, where the header has "
                f"{len(lines[0])}"
            )
    frame = pd.DataFrame(lines[1:], columns=lines[0])
    for name in (name for name in lines[0] if name in (*LABELS, "Age")):
        numbers = pd.to_numeric(frame[name], errors="coerce")
        wrong = ~(numbers.notna() if name == "Age" else numbers.isin([0, 1, -1]))
        wrong &= frame[name] != ""
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            allowed = "a number" if name == "Age" else "1.0, 0.0, -1.0 or blank"
            return DataError(
                f"chexpert: {path}, line {row + 2}: {name!r} is {_short(frame[name][row])}, not "
                + allowed
            )
    return DataError(f"chexpert: {path} is not a table as Stanford gives it out")


def _short(value: str) -> str:
    text = repr(value)
    return text if len(text) < 100 else f"{text[:80]}… ({len(text)} characters)"


def _listed(images: pd.Series, options: ChexpertOptions) -> np.ndarray:
    films = pd.Index(images.str.removesuffix(".jpg"))
    splits = np.full(len(films), None, dtype=object)
    first = re.compile(rf"^(?:{FOLDER.pattern})?([^, \t\n]*).*$", re.M)
    for split, file in options.split_files.items():
        path = options.root / file
        fields = first.findall(_bytes(path).decode().removesuffix("\n"))
        names = [field.removesuffix(".jpg") for field in fields]
        start = int(names[0] == "Path")
        rows = films.get_indexer(pd.Index(names[start:], dtype=object))
        twice = pd.notna(splits[rows]) | pd.Series(rows).duplicated().to_numpy()
        for wrong, what in ((rows < 0, "is in no official file"), (twice, "is listed twice")):
            if wrong.any():
                line = int(wrong.argmax()) + start
                raise DataError(
                    f"chexpert: {path}, line {line + 1}: film {_short(names[line])} {what}"
                )
        splits[rows] = split
    return splits


def fixture(folder: Path) -> ChexpertOptions:
    """Write 80 drawn films of 56 patients, small distribution: each label has its own spot."""
    root = folder / "CheXpert-v1.0-small"
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(223414)
    files: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for film in range(80):
        part = "train" if film < 48 else "valid" if film < 64 else "test"
        patient, study = (film // 2 + 1, film % 2 + 1) if film < 48 else (film + 1, 1)
        side = ("frontal", "lateral")[film % 5 == 4]
        path = f"{part}/patient{patient:05d}/study{study}/view1_{side}.jpg"
        marks = _marks(film, sure=part != "train")
        pixels = rng.normal(70, 12, (64, 64))
        for place in (place for place, mark in enumerate(marks) if mark in ("1.0", "-1.0")):
            top, left = 16 * (place // 4) + 3, 16 * (place % 4) + 3
            pixels[top : top + 10, left : left + 10] += 130
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / path, quality=90)
        sex, age = ("Male", "Female")[patient % 2], 30 + patient
        about = [sex, str(age), side.title(), "" if side == "lateral" else ("PA", "AP")[film % 2]]
        line = [f"{root.name}/{path}", *(about if part != "test" else []), *marks]
        files[part].append(",".join(line))
    for part, name in (("train", "train.csv"), ("valid", "valid.csv"), ("test", TEST_2022[0])):
        header = ",".join(("Path", *(ABOUT if part != "test" else ()), *LABELS))
        (root / name).write_text("\n".join([header, *files[part]]) + "\n", encoding="utf-8")
    return ChexpertOptions(root=root)


def _marks(film: int, *, sure: bool) -> list[str]:
    """Return what stands in a film's line: in training films also uncertain and blank ones."""
    marks = ["" if not sure and (film + place) % 4 == 0 else "0.0" for place in range(len(LABELS))]
    if film % 3 == 0:
        marks[1 + film * 5 % 13] = "1.0" if sure or film % 2 else "-1.0"
    marks[film % len(LABELS)] = "1.0"
    return marks


SPEC = DatasetSpec(
    name="chexpert",
    schema=schema,
    options=ChexpertOptions,
    read=read,
    fixture=fixture,
    card=DatasetCard(
        title="CheXpert",
        home="https://stanfordmlgroup.github.io/competitions/chexpert/",
        licence=(
            "Stanford University Dataset Research Use Agreement: research only, no redistribution."
        ),
        access="registered",
        citation=(
            "Irvin J, Rajpurkar P, Ko M, et al. CheXpert: A Large Chest Radiograph Dataset with "
            "Uncertainty Labels and Expert Comparison. AAAI 2019;33:590-597."
        ),
        rows={"train": 223414, "test": 234},
        positives={
            "train": dict(zip(LABELS, TRAIN_POSITIVES, strict=True)),
            "test": dict(zip(LABELS, VALID_POSITIVES, strict=True)),
        },
        patients=64740,
    ),
)


@hookimpl
def ark_datasets() -> list[DatasetSpec]:
    """Return ``chexpert``."""
    return [SPEC]
