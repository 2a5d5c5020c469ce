"""``ark segment`` on every mask dataset's miniature, its mistakes, and its going on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from ark_framework import cli, registry
from ark_framework.specs import DatasetSpec
from ark_framework.transfer import segmentation, segmenter

BRIEF = ("--set", "segment.steps=2", "--set", "segment.width=8", "--set", "segment.select=last")
QUICK = (*BRIEF, "--set", "runtime.threads=1", "--size", "32")
SETS = {
    "montgomery": ("left_lung+right_lung",),
    "jsrt": ("left_lung+right_lung", "heart", "left_clavicle+right_clavicle"),
    "vindr-ribcxr": (),
}


def options(dataset: str, tmp_path: Path) -> tuple[DatasetSpec, list[str]]:
    """Write a dataset's miniature; return its spec and the words that read it."""
    spec = registry.load((f"ark-{dataset}",)).dataset(dataset)
    folder = tmp_path / "films"
    folder.mkdir()
    told = spec.fixture(folder).model_dump(mode="json", exclude_defaults=True, exclude={"root"})
    words = ["--plugins", f"ark-{dataset}", "--data", f"{dataset}={folder}"]
    for name, value in told.items():
        words += ["--set", f"data.{dataset}.{name}={json.dumps(value)}"]
    return spec, words


@pytest.mark.parametrize("dataset", SETS)
def test_the_miniatures_run(dataset: str, tmp_path: Path) -> None:
    """Official layouts go in; scores by structure, films' own scores and pictures come out."""
    spec, words = options(dataset, tmp_path)
    out, networks = tmp_path / "out", SETS[dataset]
    told = ["--structures", *networks] if networks else []
    assert cli.run(["segment", "random:tiny", *words, *told, *QUICK, "--out", str(out)]) == 0
    outcomes = pd.read_csv(out / "outcomes.csv")
    schema: Any = spec.schema
    wanted = networks or schema.labels
    assert outcomes["label"].dropna().tolist() == list(wanted)
    assert outcomes["dice"].between(0, 1).all()
    known = dataset != "vindr-ribcxr"  # the others say how large a film is
    assert set(outcomes["unit"]) == {"mm" if known else "pixels"}
    files = sorted((out / "predictions").iterdir())
    intervals = pd.read_csv(out / "intervals" / files[0].name)
    assert set(intervals["metric"]) == {"dice", "dice_set", "iou", "hd95"}
    assert len(files) == len(networks or [0])
    films = pd.read_csv(files[0])
    name = films.columns[films.columns.str.endswith(":dice")][0]
    label = name.removesuffix(":dice")
    mean = outcomes.loc[outcomes["label"] == label, "dice"].item()
    assert films[name].mean() == pytest.approx(mean, abs=1e-6)
    assert len(films) == outcomes["films"].iloc[0]
    for picture in (out / "pictures").iterdir():
        with Image.open(picture) as shown:
            assert min(shown.size) > 256
    assert "Segmentation" in (out / "table.md").read_text("utf-8")
    assert "Segmentation" in (out / "compare.html").read_text("utf-8")


def phantom(*more: str, out: Path) -> list[str]:
    films = ("--set", "data.phantom-organs.films=60", "--set", "data.phantom-organs.size=32")
    words = ["segment", "random:tiny", "--plugins", "ark-phantom", "--tasks", "phantom-organs"]
    return [*words, *films, *QUICK, *more, "--out", str(out)]


def test_done_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command trains nothing again and changes no finished file; more seeds add theirs."""
    assert cli.run(phantom("--films", "4", out=tmp_path)) == 0
    done = {
        path: path.read_bytes()
        for name in ("pieces", "predictions", "pictures")
        for path in (tmp_path / name).iterdir()
    }
    assert len(list((tmp_path / "pieces").iterdir())) == 2
    steps = []
    loss = segmentation.Segmentation.loss

    def counted(self: segmentation.Segmentation, step: int) -> Any:
        steps.append(step)
        return loss(self, step)

    monkeypatch.setattr(segmentation.Segmentation, "loss", counted)
    assert cli.run(phantom("--films", "4", out=tmp_path)) == 0
    assert not steps
    assert cli.run(phantom("--films", "4", "--seeds", "2", out=tmp_path)) == 0
    assert len(steps) == 4
    assert all(path.read_bytes() == content for path, content in done.items())


def test_networks_are_kept_for_predictions(tmp_path: Path) -> None:
    """With --keep each network lies in a folder of its own that loads and finds masks."""
    assert cli.run(phantom("--keep", "--structures", "lungs=left lung+right lung,heart",
                           out=tmp_path)) == 0  # fmt: skip
    (folder,) = (tmp_path / "models").iterdir()
    assert segmenter.load(folder).structures == ("lungs", "heart")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["random:vit_tiny_patch16_224"], "vit_tiny_patch16_224 cannot segment: UperNet needs"),
        (["random:tiny", "--structures", "lung"], "no structure 'lung'"),
        (["random:tiny", "--structures", "heart", "--tasks", "phantom-organs", "phantom-ribs"],
         "phantom-ribs: no structure 'heart'"),
        (["random:tiny", "--structures", "jsrt:heart"], "no mask dataset 'jsrt'"),
        (["random:tiny", "--tasks", "phantom-north"], "phantom-north has labels and no masks"),
        (["random:tiny", "--set", "segment.loss=bce"], "'bce' serves multilabel, multiclass, not"),
    ],
)  # fmt: skip
def test_mistakes_are_told(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says what is wrong, with the exit code of a wrong configuration."""
    films = ["--set", "data.phantom-organs.films=60", "--set", "data.phantom-organs.size=32"]
    plugin = [] if "--tasks" in words else ["--tasks", "phantom-organs"]
    size = ["--size", "224"] if "vit" in words[0] else ["--size", "32"]
    command = ["segment", *words, "--plugins", "ark-phantom", *plugin, *films, *BRIEF, *size]
    assert cli.run([*command, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in error
    assert not (tmp_path / "pieces").exists()
