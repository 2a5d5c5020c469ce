"""``ark embed MODEL FILMS…``: a vector of each film that can be read, by its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ark_framework import bundle
from ark_framework.blueprint import Blueprint, Preprocessing
from ark_framework.cli import run
from ark_framework.pretrained import load


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder of a small model without heads."""
    plan = Blueprint(
        backbone="tiny", options={"width": 4}, projector="mlp", features=8, tasks=(),
        preprocessing=Preprocessing(size=24, resize=32, fit="pad", normalize="imagenet"),
    )  # fmt: skip
    folder = tmp_path / "model"
    bundle.write(folder, plan.build(seed=3), plan, card="# A model")
    return folder


@pytest.fixture
def films(tmp_path: Path) -> list[Path]:
    """Five films in two folders."""
    paths = [tmp_path / "films" / f"ward-{n % 2}" / f"{n}.png" for n in range(5)]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (40, 36), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return sorted(paths)


def test_vectors_are_the_models(
    model: Path, films: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Names are the files'; the vectors are what ``load(...).embed`` gives, in both forms."""
    folder = str(tmp_path / "films")
    for name, features in (("a.npz", "projected"), ("b.csv", "pooled")):
        out = str(tmp_path / name)
        assert run(["embed", str(model), folder, "--features", features, "--out", out]) == 0
    assert "5 films, 8 numbers each" in capfd.readouterr().out
    loaded = load(model)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert found["ids"].tolist() == [str(path) for path in films]
        np.testing.assert_allclose(found["features"], loaded.embed(films), atol=1e-5)
    table = pd.read_csv(tmp_path / "b.csv", index_col="id")
    np.testing.assert_allclose(table, loaded.embed(films, projected=False), atol=1e-5)


def test_a_film_that_cannot_be_read(
    model: Path, films: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It ends with exit code 3 and no file, or is left out where that is allowed."""
    films[2].write_text("not a film")
    out = tmp_path / "a.npz"
    words = ["embed", str(model), str(tmp_path / "films"), "--out", str(out)]
    assert run(words) == 3
    assert films[2].name in capfd.readouterr().err
    assert not out.exists()
    assert run([*words, "--max-bad", "1"]) == 0
    with np.load(out, allow_pickle=False) as found:
        assert found["ids"].tolist() == [str(path) for path in films if path != films[2]]


def test_films_and_a_dataset_are_two_things(
    model: Path, films: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Both at once are refused before anything is loaded."""
    words = ["embed", str(model), str(films[0]), "--out", str(tmp_path / "a.npz")]
    assert run([*words, "--plugins", "ark-phantom"]) == 2
    assert run([*words, "--size", "64"]) == 2
    assert "films are of no dataset" in capfd.readouterr().err
