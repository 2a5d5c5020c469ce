"""The RSNA Pneumonia Detection Challenge for Ark: 26,684 films in three exclusive classes.

Reads the challenge's files as they are given out: ``stage_2_detailed_class_info.csv`` and the
DICOM films in ``stage_2_train_images/``.  The films are NIH films under new names; with a mapping
file each gets its NIH identity.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from ark_framework import DataError, DatasetCard, DatasetSpec, LabelSchema, hookimpl

LABELS = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")
CLASSES, FILMS = "stage_2_detailed_class_info.csv", "stage_2_train_images"
TAGS = ("PatientSex", "PatientAge", "ViewPosition")
PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}


class RsnaOptions(BaseModel):
    """Where the files are and how the split is drawn; relative paths start at ``root``.

    Args:
        root: The folder with the class file and ``stage_2_train_images/``.
        nih_mapping: Which NIH film each film is: a CSV with ``rsna_patientId``, ``nih_image`` and
            perhaps ``mse``, or the JSON list that the RSNA gives out.
        max_mse: A match whose ``mse`` is not below this is taken as unknown.
        headers: A CSV of the DICOM headers, instead of opening each film.
        test_fraction: Share of the patients that becomes the test split; there is no official one.
        split_seed: Which patients.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path
    nih_mapping: Path | None = None
    max_mse: float = Field(default=10.0, gt=0)
    headers: Path | None = None
    test_fraction: float = Field(default=0.15, ge=0, lt=1)
    split_seed: int = 0


def read(options: RsnaOptions) -> pd.DataFrame:
    """Return one row per film of the class file, split into train and test by patient.

    Raises:
        DataError: a file or column that is missing, or a film of an unknown class or of two.
    """
    classes = _classes(options.root / CLASSES)
    film = classes.index.to_series()
    nih = film.map(_mapping(options)).astype("string")
    nih_patient = nih.str.extract(r"^(\d+)_")[0].str.lstrip("0")
    patient = nih_patient.fillna(film)
    header = _headers(options, list(film)).reindex(film)
    table = pd.DataFrame(
        {
            "image": FILMS + "/" + film + ".dcm",
            "split": [_split(name, options) for name in patient],
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


def _csv(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, dtype=str, index_col=False)
    except (OSError, ValueError) as error:
        raise DataError(f"rsna: cannot read {path}: {error}".split("\n")[0]) from error
    for name in columns:
        if name not in frame.columns:
            raise DataError(f"rsna: {path} has no column {name!r}")
    return frame


def _classes(path: Path) -> pd.Series:
    frame = _csv(path, ("patientId", "class"))
    wrong = ~frame["class"].isin(LABELS) | frame["patientId"].isna()
    if wrong.any():
        line = int(wrong.to_numpy().argmax())
        raise DataError(
            f"rsna: {path}, line {line + 2}: unknown class {frame['class'][line]!r}; the classes "
            f"are {', '.join(LABELS)}"
        )
    # A film stands there once per box; all its lines must agree.
    frame = frame.drop_duplicates(["patientId", "class"])
    twice = frame["patientId"].duplicated()
    if twice.any():
        line = int(frame.index[twice][0])
        raise DataError(
            f"rsna: {path}, line {line + 2}: film {frame['patientId'][line]!r} is "
            f"{frame['class'][line]!r} here and another class above"
        )
    return frame.set_index("patientId")["class"]


def _mapping(options: RsnaOptions) -> dict[str, str]:
    if options.nih_mapping is None:
        return {}
    path = options.root / options.nih_mapping
    if path.suffix == ".json":
        return _json_mapping(path)
    frame = _csv(path, ("rsna_patientId", "nih_image"))
    if "mse" in frame.columns:
        frame = frame[pd.to_numeric(frame["mse"], errors="coerce") < options.max_mse]
    return dict(zip(frame["rsna_patientId"], frame["nih_image"], strict=True))


def _json_mapping(path: Path) -> dict[str, str]:
    try:
        frame = pd.read_json(path, orient="records", dtype=False)
        return dict(zip(frame["subset_img_id"], frame["img_id"], strict=True))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"rsna: {path} is no JSON list of subset_img_id and img_id: {error}".split("\n")[0]
        ) from error


def _headers(options: RsnaOptions, films: list[str]) -> pd.DataFrame:
    if options.headers is not None:
        path = options.root / options.headers
        frame = _csv(path, ("PatientID", *TAGS))
        return frame.drop_duplicates("PatientID").set_index("PatientID")
    paths = [options.root / FILMS / f"{film}.dcm" for film in films]
    # One after the other: the parsing holds the interpreter, and eight threads took twice as long.
    return pd.DataFrame(map(_header, paths), index=films, columns=TAGS, dtype="string")


def _header(path: Path) -> tuple[str | None, ...]:
    from pydicom import dcmread

    try:
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


def _split(patient: str, options: RsnaOptions) -> str:
    # A hash and not a shuffle: half of the films split as they do in the whole.
    digest = blake2b(f"{options.split_seed}:{patient}".encode(), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    return "test" if share < options.test_fraction else "train"


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
    ),
)


@hookimpl
def ark_datasets() -> list[DatasetSpec]:
    """Return ``rsna``."""
    return [SPEC]
