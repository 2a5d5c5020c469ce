"""The RSNA Pneumonia Detection Challenge for Ark: 26,684 films in three exclusive classes.

Reads the challenge's files as they are given out: ``stage_2_detailed_class_info.csv`` and the
DICOM films in ``stage_2_train_images/``.  The films are NIH films under new names; with a mapping
file each gets its NIH identity.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from ark_framework import DataError, DatasetCard, DatasetSpec, LabelSchema, hookimpl

LABELS = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")
CLASSES, FILMS = "stage_2_detailed_class_info.csv", "stage_2_train_images"
TAGS = ("PatientSex", "PatientAge", "ViewPosition")
FILM = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
DEFLATED = "1.2.840.10008.1.2.1.99"
NIH_FILM = r"[0-9]{8}_[0-9]{3}\.png"
# What the columns of a CSV of headers must look like.
HEADERS = {
    "PatientID": FILM,
    "PatientSex": r"[MFO]?",
    "PatientAge": r"(?:[0-9]{1,4}[YMWD]?)?",
    "ViewPosition": r"[A-Z]*",
}
PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}


class RsnaOptions(BaseModel):
    """Where the files are and how the split is drawn; relative paths start at ``root``.

    Args:
        root: The folder with the class file and ``stage_2_train_images/``.
        films: How the films there end: ``dcm`` as given out, or ``png`` where somebody has
            converted them to ``<patientId>.png``.
        nih_mapping: Which NIH film each film is: a CSV with ``rsna_patientId``, ``nih_image`` and
            perhaps ``mse``, or the JSON list that the RSNA gives out.
        max_mse: A match whose ``mse`` is not below this is taken as unknown.
        headers: A CSV of the DICOM headers, instead of opening each film.
        split_files: Lists of films by split, instead of the drawn split: a film a line, its id
            first; what follows on the line is not read.
        test_fraction: Share of the patients that becomes the test split; there is no official one.
        split_seed: Which patients.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path
    films: Literal["dcm", "png"] = "dcm"
    nih_mapping: Path | None = None
    max_mse: float = Field(default=10.0, gt=0)
    headers: Path | None = None
    split_files: dict[Literal["train", "val", "test"], Path] = Field(default_factory=dict)
    test_fraction: float = Field(default=0.15, ge=0, lt=1)
    split_seed: int = 0


def read(options: RsnaOptions) -> pd.DataFrame:
    """Return one row per film of the class file, split by lists or else by patient.

    Raises:
        DataError: a file that is missing, or a line that is not as it should be.
    """
    classes = _classes(options.root / CLASSES)
    film = classes.index.to_series()
    nih = film.map(_mapping(options)).astype("string")
    nih_patient = nih.str.extract(r"^(\d+)_")[0].str.lstrip("0")
    patient = nih_patient.fillna(film)
    header = _headers(options, list(film)).reindex(film)
    table = pd.DataFrame(
        {
            "image": FILMS + "/" + film + "." + options.films,
            "split": _listed(options, film) if options.split_files else _drawn(options, patient),
            "patient": patient,
            "sex": header["PatientSex"].where(header["PatientSex"].isin(["M", "F"])),
            "age": _years(header["PatientAge"]),
            "view": header["ViewPosition"],
            "source_id": "nih:" + nih,
            "source_patient": "nih:" + nih_patient,
        }
    )
    for label in LABELS:
        table[label] = (classes == label).astype("float64")
    return table.reset_index(drop=True)


def _classes(path: Path) -> pd.Series:
    frame = _csv(path, ("patientId", "class"))
    film, label = frame["patientId"], frame["class"]
    _refuse(path, ~film.str.fullmatch(FILM), film, "is not a patientId")
    _refuse(path, ~label.isin(LABELS), label, f"is no class; the classes are {', '.join(LABELS)}")
    # A film stands there once per box; all its lines must agree.
    once = ~frame.duplicated()
    _refuse(path, film[once].duplicated(), film[once], "has another class above")
    return frame[once].set_index("patientId")["class"]


def _mapping(options: RsnaOptions) -> dict[str, str]:
    if options.nih_mapping is None:
        return {}
    path = options.root / options.nih_mapping
    json_list = ".json" in path.suffixes
    frame = _json(path) if json_list else _csv(path, ("rsna_patientId", "nih_image"), ("mse",))
    film, image = frame["rsna_patientId"], frame["nih_image"]
    _refuse(path, ~film.str.fullmatch(FILM), film, "is not a patientId")
    _refuse(path, ~image.str.fullmatch(NIH_FILM), image, "is not an NIH film")
    _refuse(path, film.duplicated(), film, "stands above already")
    if "mse" in frame.columns:
        error = pd.to_numeric(frame["mse"], errors="coerce")
        _refuse(path, ~error.between(0, 1e9), frame["mse"], "is not an error, mse")
        film, image = film[error < options.max_mse], image[error < options.max_mse]
    return dict(zip(film, image, strict=True))


def _json(path: Path) -> pd.DataFrame:
    try:
        entries = json.loads(_text(path))
        pairs = [(str(each.get("subset_img_id")), str(each.get("img_id"))) for each in entries]
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"rsna: {path} is no JSON list of objects: {error}") from error
    if not pairs:
        raise DataError(f"rsna: {path} is an empty list")
    index = pd.RangeIndex(1, len(pairs) + 1, name="entry")
    return pd.DataFrame(pairs, index, ["rsna_patientId", "nih_image"], dtype="object")


def _headers(options: RsnaOptions, films: list[str]) -> pd.DataFrame:
    if options.headers is not None:
        path = options.root / options.headers
        frame = _csv(path, tuple(HEADERS))
        for name, form in HEADERS.items():
            _refuse(path, ~frame[name].str.fullmatch(form), frame[name], f"is not a valid {name}")
        film = frame["PatientID"]
        _refuse(path, film.duplicated(), film, "stands above already")
        return frame.where(frame != "").set_index("PatientID")
    if options.films == "png":
        return pd.DataFrame(index=films, columns=TAGS, dtype="string")
    # One after the other: the parsing holds the interpreter, and eight threads took twice as long.
    headers = (_header(options.root / FILMS, film) for film in films)
    return pd.DataFrame(headers, index=films, columns=TAGS, dtype="string")


def _header(folder: Path, film: str) -> tuple[str | None, ...]:
    from pydicom import dcmread
    from pydicom.filereader import read_file_meta_info

    try:
        if "/" in film:
            raise ValueError("leads out of the folder; the core says so")
        path = folder / f"{film}.dcm"
        if not path.is_file() or read_file_meta_info(path).TransferSyntaxUID == DEFLATED:
            return (None,) * len(TAGS)  # pydicom would wait for a pipe, and unpack any flood
        header = dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS))
    except Exception:
        # A missing or broken film is named by the store; here it only lacks sex, age and view.
        return (None,) * len(TAGS)
    # The raw bytes: ages are written "49", which is no valid age string and would warn.
    found = [header.get_item(tag) for tag in TAGS]
    raw = [element.value if element is not None else None for element in found]
    return tuple(value.decode("ascii", "replace").strip(" \0") if value else None for value in raw)


def _years(ages: pd.Series) -> pd.Series:
    # "49" or "049Y"; five films say 148 to 155 years, which nobody is: missing.
    parts = ages.str.strip().str.extract(r"^(\d+)([YMWD]?)$")
    years = pd.to_numeric(parts[0]) / parts[1].map(PER_YEAR)
    return years.where(years <= 120)


def _drawn(options: RsnaOptions, patients: pd.Series) -> list[str]:
    # A hash and not a shuffle: half of the films split as they do in the whole.
    texts = (f"{options.split_seed}:{patient}".encode() for patient in patients)
    shares = (
        int.from_bytes(blake2b(text, digest_size=8).digest(), "big") / 2**64 for text in texts
    )
    return ["test" if share < options.test_fraction else "train" for share in shares]


def _listed(options: RsnaOptions, films: pd.Series) -> list[str | None]:
    splits: dict[str, str] = {}
    for split, file in options.split_files.items():
        path = options.root / file
        lines = enumerate(io.StringIO(_text(path), newline=None), start=1)
        fields = {number: line.replace(",", " ").split() for number, line in lines}
        names = {number: line[0].rpartition("/")[2] for number, line in fields.items() if line}
        if not names:
            raise DataError(f"rsna: {path} lists no film")
        listed = pd.Series(names, dtype="object").str.replace(r"\.(?:png|dcm)$", "", regex=True)
        _refuse(path, ~listed.isin(films), listed, f"is no film of {CLASSES}")
        _refuse(path, listed.duplicated(), listed, "stands above already")
        _refuse(path, listed.isin(splits), listed, "is in two of the lists")
        splits.update(dict.fromkeys(listed, split))
    return [splits.get(film) for film in films]


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
        raise DataError(f"rsna: {path}, line {line}: is not UTF-8 text") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"rsna: cannot read {path}: {error}") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"rsna: {path}, line {line}: has a NUL byte; is the file whole?")
    return text


def _csv(path: Path, names: tuple[str, ...], perhaps: tuple[str, ...] = ()) -> pd.DataFrame:
    """Return columns of a CSV by name, all text; the index is the number of the line."""
    rows: dict[int, list[str]] = {}
    for number, line in enumerate(io.StringIO(_text(path), newline=None), start=1):
        try:
            # Each line by itself: a quote that is left open swallows no other.
            row = next(csv.reader([line], strict=True), None)
        except csv.Error as error:
            raise DataError(f"rsna: {path}, line {number}: {error}") from error
        if row:
            rows[number] = row
    header = rows.pop(next(iter(rows), 0), [])
    names += tuple(name for name in perhaps if name in header)
    for name in names:
        if header.count(name) != 1:
            count = "two columns" if name in header else "no column"
            raise DataError(f"rsna: {path} has {count} {name!r}")
    if not rows:
        raise DataError(f"rsna: {path} has no rows")
    # A row may end in commas more, but nothing else may differ.
    width = max(number for number, name in enumerate(header, start=1) if name)
    for number, row in rows.items():
        if len(row) < width or any(row[width:]):
            raise DataError(
                f"rsna: {path}, line {number}: {len(row)} fields, the header has {width}"
            )
    columns = {name: [row[header.index(name)] for row in rows.values()] for name in names}
    return pd.DataFrame(columns, index=pd.Index(rows), dtype="object")


def _refuse(path: Path, wrong: pd.Series, values: pd.Series, why: str) -> None:
    """Raise for the first line of a file that is wrong."""
    if wrong.any():
        row = int(wrong.to_numpy(dtype=bool).argmax())
        place = values.index.name or "line"
        shown = repr(str(values.iloc[row])[:60])
        raise DataError(f"rsna: {path}, {place} {values.index[row]}: {shown} {why}")


def fixture(folder: Path) -> RsnaOptions:
    """Write 72 drawn films of 36 NIH patients: an opacity is a bright spot low, others are high."""
    (folder / FILMS).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(26684)
    classes, boxes = ["patientId,class"], ["patientId,x,y,width,height,Target"]
    matches = ["rsna_patientId,nih_image,mse"]
    for number in range(72):
        film, label, patient = f"{number:08x}-0000-4000-8000-{number:012x}", number % 3, number // 2
        pixels = rng.normal(70, 12, (64, 64))
        top, left = (0, 6, 38)[label], int(rng.integers(4, 40))
        pixels[top : top + 20, left : left + 20] += 130 * (label > 0)
        _write_film(folder / FILMS / f"{film}.dcm", pixels.clip(0, 255).astype(np.uint8), patient)
        box = f"{left}.0,{top}.0,20.0,20.0,1" if label == 2 else ",,,,0"
        # One line per box, as in the official files: every opacity stands there twice.
        classes += [f"{film},{LABELS[label]}"] * (1 + (label == 2))
        boxes += [f"{film},{box}"] * (1 + (label == 2))
        matches.append(f"{film},{patient + 1:08d}_{number % 2:03d}.png,{40 if number == 0 else 1}")
    for name, lines in (
        (CLASSES, classes), ("stage_2_train_labels.csv", boxes), ("nih.csv", matches)
    ):  # fmt: skip
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return RsnaOptions(root=folder, nih_mapping=Path("nih.csv"), test_fraction=0.3)


def _write_film(path: Path, pixels: np.ndarray, patient: int) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.SOPClassUID = SecondaryCaptureImageStorage
    film.SOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    film.Modality, film.PatientID = "CR", path.stem
    film.PatientSex, film.PatientAge = "MF"[patient % 2], f"{30 + patient:03d}Y"
    film.ViewPosition = ("PA", "AP")[patient % 3 == 0]
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
    film.Rows, film.Columns = pixels.shape
    film.BitsAllocated = film.BitsStored = 8
    film.HighBit, film.PixelRepresentation = 7, 0
    film.PixelData = pixels.tobytes()
    film.save_as(path, enforce_file_format=True)


SPEC = DatasetSpec(
    name="rsna",
    schema=LabelSchema(name="rsna-3", kind="multiclass", labels=LABELS),
    options=RsnaOptions,
    read=read,
    fixture=fixture,
    card=DatasetCard(
        title="RSNA Pneumonia Detection Challenge (2018)",
        home="https://www.kaggle.com/c/rsna-pneumonia-detection-challenge",
        licence="Challenge rules: academic research and education, other non-commercial use.",
        access="registered",
        citation=(
            "Shih G, Wu CC, Halabi SS, et al. Augmenting the National Institutes of Health Chest "
            "Radiograph Dataset with Expert Annotations of Possible Pneumonia. Radiology: "
            "Artificial Intelligence 2019;1(1):e180041."
        ),
        rows={"all": 26684},
        positives={"all": dict(zip(LABELS, (8851, 11821, 6012), strict=True))},
    ),
)


@hookimpl
def ark_datasets() -> list[DatasetSpec]:
    """Return ``rsna``."""
    return [SPEC]
