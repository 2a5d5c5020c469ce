"""Three people who know nothing but the documentation, each as the script of what they type.

A script begins in an empty folder that holds what it says is given, and every command of it must
succeed.  With the real films (``ARK_REAL_DATA``) the last two take those.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import timm
import torch
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from ark_framework import bundle, registry
from ark_framework.blueprint import Blueprint, Preprocessing, TaskHead
from ark_framework.builtin.phantom.case import HOSPITALS, Case, make_case
from ark_framework.builtin.phantom.film import draw
from ark_framework.published.heads import SIX

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # they train

HERE = Path(__file__).parent
REAL = os.environ.get("ARK_REAL_DATA")
Walk = Callable[..., str]


@pytest.fixture
def walk(tmp_path: Path) -> Walk:
    """Return ``walk(script, **variables)``: run it to its end and return all that it printed."""

    def run(script: str, **variables: str) -> str:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        own = {"PATH": path, "ARK_CONFIG_HOME": str(tmp_path / ".config"), "NO_COLOR": "1"}
        own |= {"ARK_STORE": str(tmp_path / ".stores"), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
        done = subprocess.run(
            ["bash", "-e", "-u", "-o", "pipefail", str(HERE / script)],
            cwd=tmp_path,
            env={**os.environ, **own, **variables},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


def test_own_folders(walk: Walk, tmp_path: Path) -> None:
    """Both clinics are trained on and scored, and the report speaks of both."""
    north, south = ["filename,mrn,gender,age,cardiomegaly,effusion"], []
    for number in range(80):
        case = make_case(HOSPITALS["north"], 20_000_000 + number)
        name = _film(tmp_path / "north-clinic", "films", number, case)
        seen = [int(each in case.findings) for each in ("enlarged heart", "effusion")]
        sex = "Female" if case.female else "Male"
        north.append(f"{name},{case.patient},{sex},{case.age},{seen[0]},{seen[1]}")
        case = make_case(HOSPITALS["south"], 30_000_000 + number)
        name = _film(tmp_path / "south-clinic", "xrays", number, case)
        part = "testing" if case.patient % 4 == 0 else "training"
        south.append(f"{name},{case.patient},{part},{_reading(case)}")
    (tmp_path / "north-clinic" / "radiology.csv").write_text("\n".join(north) + "\n")
    head = "image_path,subject,set,reading\n"
    (tmp_path / "south-clinic" / "reads.csv").write_text(head + "\n".join(south) + "\n")

    said = walk("own_folders.sh")
    assert said.count("\n  ok") == 2
    run = tmp_path / "runs" / "first"
    for clinic in ("north-clinic", "south-clinic"):
        assert len(pd.read_csv(run / "predictions" / f"{clinic}-test.csv")) > 5
        assert clinic in (run / "report.html").read_text("utf-8")
    assert bundle.is_bundle(tmp_path / "models" / "first")


def test_dicom_folder(walk: Walk, tmp_path: Path) -> None:
    """Each film has a row in every table, with both models, and no problem."""
    if REAL:
        source = Path(REAL) / "rsna_pneumonia" / "stage_2_train_images"
        for number, film in enumerate(sorted(source.glob("*.dcm"))[:24]):
            place = tmp_path / "scans" / f"day-{number % 3}"
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(film, place)
    else:
        for number in range(24):
            _dicom(tmp_path / "scans" / f"day-{number % 3}" / f"{number:04d}.dcm", number)
    _published(tmp_path / "published.pth.tar")
    _exported(tmp_path / "models" / "mine")

    walk("dicom_folder.sh")
    table, mine = (pd.read_csv(tmp_path / name) for name in ("published.csv", "mine.csv"))
    assert len(table) == len(mine) == 24
    assert table["problem"].isna().all()
    assert mine["problem"].isna().all()
    np.testing.assert_allclose(table.filter(like="rsna:").sum(axis=1), 1, rtol=1e-6)
    assert table["tb"].between(0, 1).all()
    with np.load(tmp_path / "published.npz", allow_pickle=False) as found:
        assert found["ids"].tolist() == table["image"].tolist()
        assert found["features"].shape == (24, 1376)
    assert len(pd.read_csv(tmp_path / "mine-vectors.csv")) == 24


def test_compare_on_nih(walk: Walk, tmp_path: Path) -> None:
    """The difference has an interval, the audit its sentences, and one page holds both."""
    nih = tmp_path / "nih"
    if REAL:
        nih = Path(REAL) / "nih_64px"
    else:
        registry.load(["ark-chestxray14"]).dataset("chestxray14").fixture(nih)

    said = walk("compare_on_nih.sh", NIH=str(nih))
    assert "best minus it" in said
    table = (tmp_path / "probes" / "table.md").read_text("utf-8")
    assert "Were the test films trained on?" in table
    assert "By sex" in (tmp_path / "audits" / "fairness.md").read_text("utf-8")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert all(name in page for name in ("one", "other", "chestxray14", "By sex"))
    if REAL:
        assert "paired bootstrap by patient" in table


def _reading(case: Case) -> str:
    if "effusion" in case.findings:
        return "effusion"
    return "other" if case.findings else "clear"


def _film(root: Path, folder: str, number: int, case: Case) -> str:
    path = root / folder / f"{number:04d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw(case, 64)).save(path)
    return f"{folder}/{path.name}"


def _dicom(path: Path, number: int) -> None:
    """Write a drawn film of 12 bits, every other one inverted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = draw(make_case(HOSPITALS["north"], 20_000_000 + number), 96).astype(np.uint16) << 4
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film = FileDataset("", pydicom.Dataset(), file_meta=meta, preamble=b"\0" * 128)
    film.SOPClassUID, film.Modality, film.SamplesPerPixel = meta.MediaStorageSOPClassUID, "DX", 1
    film.Rows, film.Columns = pixels.shape
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
    film.PhotometricInterpretation = "MONOCHROME1" if number % 2 else "MONOCHROME2"
    film.PixelData = (4095 - pixels if number % 2 else pixels).tobytes()
    film.save_as(path)


def _published(path: Path) -> None:
    """Write a small Swin with random weights, in the layout of the published files."""
    kwargs = {"img_size": 64, "embed_dim": 8, "depths": [2, 1], "num_heads": [1, 2]}
    backbone = timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=0, window_size=4, **kwargs
    )
    state = dict(backbone.state_dict())
    state["projector.weight"], state["projector.bias"] = torch.randn(1376, 16), torch.zeros(1376)
    for index, head in enumerate(SIX):
        state[f"omni_heads.{index}.weight"] = torch.randn(len(head.labels), 1376) / 150
        state[f"omni_heads.{index}.bias"] = torch.zeros(len(head.labels))
    torch.save({"teacher": state, "epoch": 49}, path)


def _exported(folder: Path) -> None:
    plan = Blueprint(
        backbone="tiny",
        options={"width": 4},
        projector="linear",
        features=8,
        tasks=(TaskHead(name="clinic", kind="multilabel", labels=("effusion", "nodule")),),
        preprocessing=Preprocessing(size=40, resize=48, fit="squash", normalize="imagenet"),
    )
    bundle.write(folder, plan.build(seed=1), plan, card="# Mine")
