"""``ark predict``: a row per film, whatever the films; zero-shot scores; saliency maps."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from torch import Tensor, nn

import ark_framework
from ark_framework import bundle
from ark_framework.blueprint import Blueprint, Preprocessing, TaskHead
from ark_framework.cli import run
from ark_framework.config import ModelConfig
from ark_framework.errors import ConfigError, MachineError
from ark_framework.model import ArkModel, HeadPlan
from ark_framework.pretrained import Pretrained
from ark_framework.registry import load as registry
from ark_framework.specs import LabelSchema
from ark_framework.transfer import films, saliency
from ark_framework.transfer.zeroshot import Part, parse_score, score

TASKS = (
    TaskHead(name="vindr", kind="multilabel", labels=("Tuberculosis", "Nodule", "Nodule+Mass")),
    TaskHead(name="rsna", kind="multiclass", labels=("Normal", "Not normal", "Opacity")),
    TaskHead(name="head_2", kind="multilabel", labels=("a=b", "output_1"), named=False),
)
OUTPUTS = [f"{task.name}:{label}" for task in TASKS for label in task.labels]


def blueprint(backbone: str = "tiny", **options: object) -> Blueprint:
    return Blueprint(
        backbone=backbone,
        options=options or {"width": 4},
        projector="mlp",
        features=8,
        tasks=TASKS,
        preprocessing=Preprocessing(size=24, resize=32, fit="pad", normalize="imagenet"),
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder."""
    folder = tmp_path_factory.mktemp("models") / "small"
    plan = blueprint()
    bundle.write(folder, plan.build(seed=3), plan, card="a")
    return folder


def draw(path: Path, seed: int, *, shape: tuple[int, int] = (40, 50)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    if path.suffix.lower() in (".png", ".jpg"):
        Image.fromarray(pixels).save(path)
        return path
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), pydicom.Dataset(), file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.Rows, dataset.Columns = shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation, dataset.PixelData = 0, pixels.tobytes()
    dataset.save_as(path)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four films at several depths and of several kinds, and what is none."""
    monkeypatch.chdir(tmp_path)
    below = tmp_path / "films"
    for seed, name in enumerate(("b.png", "c/d/e.JPG", "a/f.dcm", "a/1.2.840")):
        draw(below / name, seed)
    (below / "notes.txt").write_text("no film", encoding="utf-8")
    (below / "._b.png").write_bytes(b"what another system leaves beside a file")
    return below


def test_the_model_answers(model: Path, folder: Path) -> None:
    """A table holds what ``load(...).predict`` gives, for every film below a folder, in order."""
    assert run(["predict", str(model), "films", "--out", "table.csv"]) == 0
    table = pd.read_csv("table.csv")
    names = [f"films/{name}" for name in ("b.png", "a/1.2.840", "a/f.dcm", "c/d/e.JPG")]
    assert table["image"].tolist() == names
    assert table.columns.tolist() == ["image", *OUTPUTS, "problem"]
    wanted = ark_framework.load(model).predict(names)
    for task in TASKS:
        shown = table[[f"{task.name}:{label}" for label in task.labels]]
        np.testing.assert_allclose(shown, wanted[task.name], rtol=1e-8)
    exclusive = table.filter(like="rsna:").sum(axis=1)
    np.testing.assert_allclose(exclusive, 1.0, rtol=1e-8)
    assert not np.allclose(table.filter(like="vindr:").sum(axis=1), 1.0)


def test_a_broken_film_loses_no_other(
    model: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One of three cannot be read: its row has the reason, the rest their numbers, exit 3."""
    first, last = draw(folder / "x.png", 5), draw(folder / "z.png", 6)
    broken = folder / "y.png"
    broken.write_bytes(first.read_bytes()[:400])
    given = ["predict", str(model), *map(str, (first, broken, last)), "--out"]
    assert run([*given, "table.csv"]) == 3
    said = capfd.readouterr().err.splitlines()
    (error,) = [line for line in said if line.startswith("error: ")]
    assert "1 of 3 films cannot be read" in error
    assert str(broken) in error
    table = pd.read_csv("table.csv")
    assert table["problem"].notna().tolist() == [False, True, False]
    assert table[OUTPUTS].isna().all(axis=1).tolist() == [False, True, False]
    alone = ark_framework.load(model).predict([first, last])["rsna"]
    np.testing.assert_allclose(table.filter(like="rsna:").iloc[[0, 2]], alone, rtol=1e-6)
    assert run([*given, "allowed.csv", "--max-bad", "1"]) == 0
    assert "1 of 3 films cannot be read" in capfd.readouterr().err
    assert Path("allowed.csv").read_text() == Path("table.csv").read_text()


def test_all_broken(model: Path, folder: Path) -> None:
    """A batch without one readable film still gives its rows."""
    (folder / "b.png").write_bytes(b"nothing")
    assert run(["predict", str(model), "films/b.png", "--out", "t.csv"]) == 3
    assert pd.read_csv("t.csv")["problem"].tolist() == ["is no image of a kind that is read"]


def test_nothing_is_written_over(
    model: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A table stays unless it is given up, and also when what would replace it fails."""
    given = ["predict", str(model), "films", "--out", "table.csv"]
    Path("table.csv").write_text("mine", encoding="utf-8")
    assert run(given) == 2
    assert "--overwrite" in capfd.readouterr().err
    (folder.parent / "empty").mkdir()
    assert run([*given, "empty", "--overwrite"]) == 3
    assert Path("table.csv").read_text() == "mine"
    assert run([*given, "--overwrite"]) == 0
    assert len(pd.read_csv("table.csv")) == 4
    assert not list(folder.parent.glob(".*.part"))


def test_lists_and_json(model: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A table's own image column is a list; JSON is an object a line; only chosen heads show."""
    Path("films.csv").write_text("id,image\n1,films/b.png\n2,films/gone.png\n", encoding="utf-8")
    Path("films.txt").write_text("\nfilms/a/f.dcm\n", encoding="utf-8")
    for name, count in (("films.csv", 2), ("films.txt", 1)):
        given = ["--list", name, "--json", "--tasks", "rsna", "--max-bad", "1"]
        capfd.readouterr()
        assert run(["predict", str(model), *given]) == 0
        rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
        assert len(rows) == count
        assert all(set(row) == {"image", *OUTPUTS[3:6], "problem"} for row in rows)
        assert rows[0]["problem"] is None
        assert sum(rows[0][name] for name in OUTPUTS[3:6]) == pytest.approx(1)
        assert count == 1 or rows[1]["problem"] == "no such file"
        assert count == 1 or rows[1]["rsna:Normal"] is None


def test_unnamed_heads_are_said(
    model: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Heads whose names are not known are said once, and never in the table."""
    capfd.readouterr()
    assert run(["predict", str(model), "films"]) == 0
    said = capfd.readouterr()
    assert said.err == "names not known: heads head_2 and their labels\n"
    assert said.out.startswith("image,vindr:Tuberculosis")


def test_constant_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more films are taken than a window holds, and workers give what one process gives."""
    monkeypatch.setattr(films, "WINDOW_BYTES", 0)
    monkeypatch.setattr(films, "ALONE", 2)
    taken = itertools.count()
    endless = (f"films/{name}" for name in itertools.cycle(("b.png", "gone.png", "a/f.dcm")))
    counted = (name for name in endless if next(taken) >= 0)
    film = blueprint().preprocessing
    found = list(itertools.islice(films.decoded(counted, film, batch=1, workers=2), 6))
    assert next(taken) <= 9
    for start in (0, 3):
        for each, name in zip(
            found[start : start + 3], ("b.png", "gone.png", "a/f.dcm"), strict=True
        ):
            (alone,) = films.decoded([f"films/{name}"], film, batch=1)
            assert each.names == alone.names
            assert each.problems == alone.problems
            assert np.array_equal(each.pixels, alone.pixels)
    assert found[1].problems == {"films/gone.png": "no such file"}


def test_score_is_a_mean(model: Path, folder: Path) -> None:
    """A score is the mean of its parts; one output under its own name stays one column."""
    given = ["--score", "tb=vindr:Tuberculosis + rsna:Opacity", "--score", "vindr:Nodule"]
    assert run(["predict", str(model), "films", "--tasks", "vindr", *given, "--out", "t.csv"]) == 0
    table = pd.read_csv("t.csv")
    assert table.columns.tolist() == ["image", *OUTPUTS[:3], "tb", "problem"]
    found = ark_framework.load(model).predict(table["image"].tolist())
    mean = (found["vindr"]["Tuberculosis"] + found["rsna"]["Opacity"]) / 2
    np.testing.assert_allclose(table["tb"], mean, rtol=1e-8)


def test_score_misses_where_a_part_does() -> None:
    """A mean over what is left would be another score."""
    frame = pd.DataFrame({"Tuberculosis": [0.2, np.nan], "Nodule": [0.4, 0.4]})
    wanted = parse_score("x=vindr:Tuberculosis+vindr:Nodule", TASKS)
    found = score({"vindr": frame}, wanted)
    assert found.name == "x"
    assert found.iloc[0] == pytest.approx(0.3)
    assert np.isnan(found.iloc[1])


@pytest.mark.parametrize(
    ("text", "name", "parts"),
    [
        ("vindr:Nodule", "vindr:Nodule", ["vindr:Nodule"]),
        ("n=vindr:Nodule+Mass+vindr:Nodule", "n", ["vindr:Nodule+Mass", "vindr:Nodule"]),
        ("head_2:a=b", "head_2:a=b", ["head_2:a=b"]),
        ("x=head_2:a=b + rsna:Not normal", "x", ["head_2:a=b", "rsna:Not normal"]),
    ],
)
def test_scores_are_read(text: str, name: str, parts: list[str]) -> None:
    """Labels may hold the signs that join and name."""
    found = parse_score(text, TASKS)
    assert (found.name, [str(part) for part in found.parts]) == (name, parts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vindr:Tuberculosi", "no label 'Tuberculosi'; did you mean 'Tuberculosis'"),
        ("x=vindr:Nodule+vinder:Nodule", "no task 'vinder'; did you mean 'vindr'"),
        ("rsna:Zebra", "there are Normal, Not normal, Opacity"),
        ("Nodule", "is not TASK:LABEL"),
        ("x=vindr:Nodule+", "is not TASK:LABEL"),
        ("=vindr:Nodule", "no name"),
    ],
)
def test_unknown_scores_are_refused(text: str, message: str) -> None:
    """A name that is not known comes with those that are."""
    with pytest.raises(ConfigError, match=message) as caught:
        parse_score(text, TASKS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "--list"),
        (["films", "--tasks", "vindr,rsn"], "did you mean 'rsna'"),
        (["gone.png"], "gone.png: no such file or folder"),
        (["films", "--score", "image=vindr:Nodule"], "another column"),
        (["films", "--score", "vindr:Nodule=rsna:Normal"], "another column"),
        (["films", "--saliency", "maps"], "--for"),
        (["films", "--saliency", "maps", "--for", "vindr:Nodul"], "did you mean 'Nodule'"),
        (["films", "--saliency", "maps", "--for", "rsna:Normal+vindr:Nodule"], "one output"),
        (["films", "--out", "gone/t.csv"], "a folder that exists"),
    ],
)
def test_usage(
    given: list[str], message: str, model: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is asked wrongly ends with 2 and one line, and writes nothing."""
    if "--saliency" in given:
        pytest.importorskip("captum", reason="the saliency extra is not installed")
    capfd.readouterr()
    assert run(["predict", str(model), *given]) == 2
    said = capfd.readouterr()
    assert said.err.startswith("error: ")
    assert message in said.err.splitlines()[-1]
    assert said.out == ""
    assert [path.name for path in folder.parent.iterdir()] == ["films"]


class Corners(nn.Module):
    """A map of two channels: how bright the film is there, and how dark."""

    in_chans = 1

    def forward_maps(self, x: Tensor) -> list[Tensor]:
        bright = nn.functional.avg_pool2d(x, 4)
        return [torch.cat([bright, 1 - bright], dim=1)]

    def pool(self, last: Tensor) -> Tensor:
        return last.mean(dim=(2, 3))


def test_known_answer() -> None:
    """A head that looks at the bright channel, or the dark one, is shown to look there."""
    pytest.importorskip("captum", reason="the saliency extra is not installed")
    task = TaskHead(name="light", kind="multilabel", labels=("dark", "bright"))
    plan = HeadPlan(
        spec=registry(()).heads["linear"],
        schema=LabelSchema(name="light", kind="multilabel", labels=task.labels),
    )
    made = ArkModel(
        Corners(), {"light": plan}, config=ModelConfig(projector="none", normalize="none"), size=24
    )
    made.load_state_dict(
        {
            "heads.light.weight": torch.tensor([[0.0, 1.0], [1.0, 0.0]]),
            "heads.light.bias": torch.zeros(2),
        }
    )
    views = torch.zeros(2, 1, 24, 24)
    views[0, :, :4, 20:] = 1.0  # above on the right
    views[1, :, 20:, :4] = 1.0  # below on the left
    seen = Pretrained(made, blueprint_of(task))
    bright = saliency.grad_cam(seen, views, Part("light", "bright"))
    assert bright.shape == (2, 6, 6)
    for heat, corner in zip(bright, ((0, 5), (5, 0)), strict=True):
        assert np.unravel_index(heat.argmax(), heat.shape) == corner
        assert np.count_nonzero(heat) == 1
    dark = saliency.grad_cam(seen, views, Part("light", "dark"))
    assert dark[0, 0, 5] == 0
    assert np.count_nonzero(dark[0]) == 35
    picture = np.asarray(saliency.overlay(views[0, 0].numpy(), bright[0])).astype(int)
    assert picture.shape == (528, 528, 3)
    assert picture[10, -10, 0] - picture[10, -10, 2] > 100  # warm
    assert picture[-10, 10].max() == 0  # the film's own black


def blueprint_of(task: TaskHead) -> Blueprint:
    return Blueprint(
        backbone="tiny", options={}, projector="none", features=2, tasks=(task,),
        preprocessing=Preprocessing(size=24, resize=24, fit="squash", normalize="none"),
    )  # fmt: skip


VIT = {"img_size": 64, "depth": 1}
SWIN = {"img_size": 64, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4}


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("tiny", {"width": 4}),
        ("timm", {"name": "resnet10t"}),
        ("timm", {"name": "vit_tiny_patch16_224", "kwargs": VIT}),
        ("timm", {"name": "swin_tiny_patch4_window7_224", "kwargs": SWIN}),
    ],
    ids=["tiny", "resnet", "vit", "swin"],
)
def test_grad_cam_is_the_formula(backbone: str, options: dict[str, object]) -> None:
    """Whatever the backbone, the map is Selvaraju's equations 1 and 2, written out."""
    pytest.importorskip("captum", reason="the saliency extra is not installed")
    film = Preprocessing(size=64, resize=64, fit="squash", normalize="imagenet")
    plan = replace(blueprint(backbone, **options), preprocessing=film)
    seen = Pretrained(plan.build(seed=1), plan)
    views = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    found = saliency.grad_cam(seen, views, Part("rsna", "Not normal"))
    made = seen.model
    last = made.encode(views).map.detach().requires_grad_()
    logits = made.heads["rsna"](made.projector(made.encoder.pool(last)))
    (slope,) = torch.autograd.grad(logits[:, 1].sum(), last)
    wanted = torch.einsum("bc,bchw->bhw", slope.mean((2, 3)), last).relu().detach().numpy()
    assert wanted.max() > 0
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * wanted.max())


def test_pictures(model: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each readable film has a picture of its own, named in its row; two of one name differ."""
    pytest.importorskip("captum", reason="the saliency extra is not installed")
    draw(folder / "z" / "b.jpg", 9)
    (folder / "a" / "broken.png").write_bytes(b"nothing")
    given = ["predict", str(model), "films", "--max-bad", "1", "--saliency", "maps"]
    given += ["--for", "vindr:Nodule"]
    assert run([*given, "--raw-maps", "--out", "t.csv"]) == 0
    table = pd.read_csv("t.csv").set_index("image")
    assert table["saliency"].dropna().to_dict() == {
        "films/b.png": "b.png",
        "films/a/1.2.840": "1.2.840.png",
        "films/a/f.dcm": "f.png",
        "films/c/d/e.JPG": "e.png",
        "films/z/b.jpg": "b-2.png",
    }
    for name in table["saliency"].dropna():
        with Image.open(Path("maps", name)) as picture:
            assert picture.size == (528, 528)
        assert np.load(Path("maps", name).with_suffix(".npy")).ndim == 2
    assert run(given) == 2
    assert "maps is in use" in capfd.readouterr().err


def test_the_extra_is_named(
    model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without the library, maps end with 5 and what to install."""
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    given = ["--saliency", "maps", "--for", "vindr:Nodule"]
    assert run(["predict", str(model), "films", *given]) == MachineError.exit_code
    assert "pip install 'ark-framework[saliency]'" in capfd.readouterr().err
    assert not Path("maps").exists()
