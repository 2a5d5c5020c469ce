"""``ark predict --masks``: masks at a film's own size, where they belong, a row for each film."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ark_framework.blueprint import Blueprint, Preprocessing, TaskHead
from ark_framework.bundle import write as write_bundle
from ark_framework.cli import run
from ark_framework.images import fit_square, read_image
from ark_framework.masks import fit as fit_masks
from ark_framework.transfer import mask_files, segmenter
from ark_framework.transfer.candidate import open_candidate
from ark_framework.transfer.mask_files import MaskFolder, unfit
from ark_framework.transfer.segmenter import Segmenter

SIZE = 32
NAMES = ("left lung+right lung", "heart")
FITS = ("squash", "pad", "crop")
SHAPES = {"wide": (90, 200), "tall": (201, 96), "small": (20, 33)}  # (H, W)


def build(fit: str = "squash") -> Segmenter:
    """Build a network whose encoder is tiny and whose masks mean nothing."""
    made = open_candidate("random:tiny", size=SIZE)
    film = replace(made.plan.preprocessing, fit=fit)
    made = replace(made, blueprint=replace(made.plan, preprocessing=film))
    return segmenter.build(made, NAMES, size=SIZE, width=8)


def keep(folder: Path, made: Segmenter) -> Path:
    segmenter.save(folder, made, made.network.state_dict())
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kept network."""
    return keep(tmp_path_factory.mktemp("models") / "tiny", build())


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def noise(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Films of three shapes."""
    monkeypatch.chdir(tmp_path)
    for seed, (name, shape) in enumerate(SHAPES.items()):
        save(tmp_path / "films" / f"{name}.png", noise(shape, seed))
    return tmp_path / "films"


def ellipse(shape: tuple[int, int], place: tuple[float, float]) -> np.ndarray:
    """Return a mask off the middle, its place and size as shares of the film's short side."""
    short = min(shape)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float) + 0.5
    y, x = (y - shape[0] / 2) / short - place[0], (x - shape[1] / 2) / short - place[1]
    found: np.ndarray = (x / 0.2) ** 2 + (y / 0.3) ** 2 < 1
    return found


def seen(shape: tuple[int, int], fit: str) -> np.ndarray:
    """Return the part of a film that reaches the network."""
    every = np.ones(shape, dtype=bool)
    if fit == "crop":
        side = min(shape)
        top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
        every[:] = False
        every[top : top + side, left : left + side] = True
    return every


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(90, 200), (201, 96), (120, 120), (901, 700)])
def test_a_mask_goes_there_and_back(shape: tuple[int, int], fit: str) -> None:
    """Fitted and brought back a mask lies where it lay, and nothing where the film was cut."""
    place = (0.0, 0.35) if shape[1] > shape[0] else (0.35, 0.0)  # a crop cuts through it
    true = ellipse(shape, place)
    square = fit_masks(true[None], 128, fit)[0]
    back = unfit(square.astype(np.float32), shape, fit) >= 0.5
    assert back.shape == shape
    assert iou(back, true & seen(shape, fit)) > 0.94
    assert not back[~seen(shape, fit)].any()


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(90, 200), (201, 96)])
def test_no_half_pixel_is_lost(shape: tuple[int, int], fit: str) -> None:
    """A ramp over the film comes back as itself, so nothing is shifted or stretched."""
    for axis in (0, 1):
        ramp = np.indices(shape)[axis].astype(np.uint8)
        square = fit_square(ramp, 64, fit)[0].astype(np.float32)
        back = unfit(square, shape, fit)
        rows, columns = np.nonzero(seen(shape, fit))
        inner = slice(rows.min() + 8, rows.max() - 8), slice(columns.min() + 8, columns.max() - 8)
        error = (back - ramp)[inner]
        assert np.abs(error).max() < 1  # grey values are whole
        assert abs(error.mean()) < 0.1


class Bright(nn.Module):
    """Finds what is bright, and what is dark."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, views: Tensor) -> Tensor:
        """Return logits ``(B, 2, S, S)``."""
        logits = 20 * (views.mean(dim=1, keepdim=True) - 0.5)
        return torch.cat([logits, -logits], dim=1)


@pytest.mark.parametrize("fit", FITS)
def test_masks_lie_where_the_film_says(tmp_path: Path, fit: str) -> None:
    """From a file to its masks: each pixel's structure, the films' sizes, areas and pictures."""
    made = replace(build(fit), network=Bright())
    made = replace(made, size=96)
    folder = MaskFolder(tmp_path / "found", made)
    for name, shape in SHAPES.items():
        true = ellipse(shape, (0.0, 0.1)) & seen(shape, fit)
        film = save(tmp_path / f"{name}.png", true * np.uint8(200) + np.uint8(20))
        row = folder.add(str(film))
        assert list(row) == folder.columns
        masks = [read_image(tmp_path / "found" / row[f"mask:{each}"]) for each in NAMES]
        assert all(mask.shape == shape and set(np.unique(mask)) <= {0, 255} for mask in masks)
        bright, dark = (mask == 255 for mask in masks)
        assert iou(bright, true) > 0.9
        assert np.array_equal(dark, ~bright & seen(shape, fit))
        assert row[f"pixels:{NAMES[0]}"] == bright.sum()
        assert row[f"area:{NAMES[0]}"] == pytest.approx(100 * bright.mean())
        with Image.open(tmp_path / "found" / row["overlay"]) as picture:
            assert picture.width >= shape[1]
            shown = np.asarray(picture)[: shape[0], : shape[1]].astype(int)
        tint = np.abs(shown[..., 0] - shown[..., 2])  # grey where no mask is
        assert not tint[~seen(shape, fit)].any()
        assert (tint[bright] > 0).all()


def test_files_of_a_folder(network: Path, films: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The command writes a mask and a picture per film, and a table that names them."""
    given = ["predict", str(network), "films", "--masks", "found", "--out", "areas.csv"]
    assert run(given) == 0
    assert capfd.readouterr().out == "3 films in areas.csv\n"
    table = pd.read_csv("areas.csv").set_index("image")
    stems = ("small", "tall", "wide")
    assert table.index.tolist() == [f"films/{stem}.png" for stem in stems]
    ends = {"mask:heart": "heart", f"mask:{NAMES[0]}": "left_lung+right_lung", "overlay": "overlay"}
    for column, end in ends.items():
        assert table[column].tolist() == [f"{stem}.{end}.png" for stem in stems]
    assert {path.name for path in Path("found").iterdir()} == {
        file for column in ends for file in table[column]
    }
    made = segmenter.load(network)
    for stem, (image, row) in zip(stems, table.iterrows(), strict=True):
        square = torch.tensor(fit_square(read_image(Path(str(image))), SIZE, "squash"))
        chances = made.segment(square[None] / 255.0)[0].numpy()
        for name, plane in zip(NAMES, chances, strict=True):
            mask = read_image(Path("found", row[f"mask:{name}"])) == 255
            assert np.array_equal(mask, unfit(plane, SHAPES[stem], "squash") >= 0.5)
            assert row[f"pixels:{name}"] == mask.sum()
    assert run([*given, "--overwrite"]) == 0


def test_npz(network: Path, films: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An NPZ for each film holds the very masks, with their names."""
    assert run(["predict", str(network), "films", "--masks", "one"]) == 0
    capfd.readouterr()
    given = ["--masks", "other", "--masks-as", "npz", "--json"]
    assert run(["predict", str(network), "films", *given]) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert len(rows) == len(SHAPES)
    for row in rows:
        stem = Path(row["image"]).stem
        assert (row["masks"], row["overlay"]) == (f"{stem}.npz", f"{stem}.overlay.png")
        with np.load(Path("other", row["masks"])) as kept:
            assert tuple(kept["structures"]) == NAMES
            assert kept["masks"].dtype == np.bool_
            for mask, end in zip(kept["masks"], ("left_lung+right_lung", "heart"), strict=True):
                assert np.array_equal(mask, read_image(Path("one", f"{stem}.{end}.png")) == 255)


def test_no_film_writes_over_another(network: Path, tmp_path: Path) -> None:
    """Names alike, also but for case, and names that look like masks', have their own files."""
    files = ["a/x.png", "b/x.png", "c/X.PNG", "d/x.jpg", "e/x.heart.png", "f/x-2.png"]
    films = [save(tmp_path / file, noise((40, 40), seed)) for seed, file in enumerate(files)]
    out = tmp_path / "t.csv"
    found = tmp_path / "found"
    given = ["predict", str(network), *map(str, films), "--masks", str(found), "--out", str(out)]
    assert run(given) == 0
    table = pd.read_csv(out)
    named = table.filter(regex="mask:|overlay").to_numpy().ravel().tolist()
    assert len({name.casefold() for name in named}) == 3 * len(files)
    assert sorted(path.name for path in found.iterdir()) == sorted(named)


def test_structures_never_share_a_file(tmp_path: Path) -> None:
    """Structures that files would call alike, or overlay, or that are long, or look like a film."""
    long = "+".join(f"left rib {number}" for number in range(1, 30))
    names = ("a/b", "a b", "A.b", "overlay", "b", long)
    made = replace(build(), structures=names, network=Several(len(names)))
    folder = MaskFolder(tmp_path / "found", made)
    rows = [folder.add(str(save(tmp_path / name, noise((9, 9))))) for name in ("x.png", "x.A.png")]
    files = [row[f"mask:{name}"] for row in rows for name in names] + [r["overlay"] for r in rows]
    assert len({file.casefold() for file in files}) == 2 * (len(names) + 1)
    assert all((tmp_path / "found" / file).is_file() for file in files)


class Several(Bright):
    """Finds the same ``count`` times."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, views: Tensor) -> Tensor:
        """Return logits ``(B, count, S, S)``."""
        return super().forward(views)[:, :1].expand(-1, self.count, -1, -1)


def test_a_broken_film_loses_no_other(
    network: Path, films: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its row has the reason and nothing else, no file is written for it, and the end is 3."""
    (films / "broken.png").write_bytes(b"nothing")
    given = ["predict", str(network), "films", "--masks", "found", "--out"]
    assert run([*given, "t.csv"]) == 3
    assert "1 of 4 films cannot be read" in capfd.readouterr().err
    table = pd.read_csv("t.csv").set_index("image")
    row = table.loc["films/broken.png"].dropna()
    assert row.to_dict() == {"problem": "is no image of a kind that is read"}
    assert table.drop(columns="problem").notna().all(axis=1).sum() == 3
    assert len(list(Path("found").iterdir())) == 9
    assert run([*given, "t.csv", "--max-bad", "1", "--overwrite"]) == 0


def test_a_large_film_is_shown_smaller(tmp_path: Path) -> None:
    """A picture's film has 1024 pixels on its long side; a thin legend fits under a small one."""
    masks = np.zeros((2, 500, 2048), dtype=bool)
    masks[0, :, :1024] = True
    picture = np.asarray(mask_files.draw(noise((500, 2048)), masks, NAMES)).astype(int)
    assert picture.shape[1] == 1024
    tint = np.abs(picture[:250, :, 0] - picture[:250, :, 2]) > 0
    assert tint[:, :511].mean() > 0.99
    assert not tint[:, 513:].any()
    narrow = mask_files.draw(noise((20, 10)), masks[:, :20, :10], NAMES)
    assert narrow.width > 100


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["NETWORK", "films"], "give --masks FOLDER"),
        (["HEADS", "films", "--masks", "found"], "does not find masks"),
        (["HEADS", "films", "--masks-as", "npz"], "--masks FOLDER is missing"),
        (["NETWORK", "films", "--masks", "found", "--tasks", "a"], "--tasks is of probabilities"),
        (["NETWORK", "films", "--masks", "found", "--score", "a:b"], "--score is of"),
        (["NETWORK", "films", "--masks", "found", "--saliency", "m"], "--saliency is of"),
        (["NETWORK", "films", "--masks", "found", "--workers", "2"], "--workers is of"),
        (["NETWORK", "films", "--masks", "used"], "used is in use"),
        (["NETWORK", "films", "--masks", "used/file"], "is a file"),
        (["NETWORK", "films", "--masks", "films/found"], "is searched for films"),
    ],
)
def test_usage(
    given: list[str],
    message: str,
    network: Path,
    films: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What does not go together ends with 2 and one line, and writes nothing."""
    task = TaskHead(name="a", kind="multilabel", labels=("b",))
    plan = Blueprint(
        backbone="tiny", options={"width": 4}, projector="none", features=8, tasks=(task,),
        preprocessing=Preprocessing(size=24, resize=24, fit="pad", normalize="none"),
    )  # fmt: skip
    write_bundle(tmp_path / "heads", plan.build(), plan, card="a")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("mine", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    capfd.readouterr()
    words = {"NETWORK": str(network), "HEADS": "heads"}
    assert run(["predict", *(words.get(word, word) for word in given)]) == 2
    said = capfd.readouterr()
    (line,) = said.err.splitlines()
    assert message in line
    assert said.out == ""
    assert sorted(tmp_path.rglob("*")) == before
