"""Models under test, the datasets they meet, their embeddings and their own heads' scores."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from sklearn.metrics import roc_auc_score

from ark_framework import config as configuration
from ark_framework import load
from ark_framework.cli.studying import layers
from ark_framework.corpus import Corpus
from ark_framework.errors import CheckpointError, ConfigError, DataError, Interrupted
from ark_framework.launch import train
from ark_framework.runtime import open_runtime
from ark_framework.specs import LabelSchema
from ark_framework.transfer import embed as embedding
from ark_framework.transfer.candidate import Candidate, open_candidate
from ark_framework.transfer.datasets import Datasets
from ark_framework.transfer.embed import Extractor
from ark_framework.transfer.evaluate import answers, evaluate
from ark_framework.transfer.splits import folds
from ark_framework.transfer.vectors import Vectors

Small = Callable[..., dict[str, Any]]
RUNTIME = open_runtime(configuration.RuntimeConfig(device="cpu"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_run: dict[str, Any]) -> Path:
    return train(small_run, out=tmp_path_factory.mktemp("runs") / "first").folder


@pytest.fixture(scope="module")
def small_run(shared_stores: Path) -> dict[str, Any]:
    films = {"films": 120, "size": 32}
    return {
        "plugins": ["ark-phantom"],
        "leaks": "drop",
        "data": {f"phantom-{name}": films for name in ("north", "south", "east")},
        "cycles": 2,
        "batch_size": 16,
        "store": {"size": 32, "folder": str(shared_stores), "workers": 1},
        "views": {"size": 24},
        "model": {"backbone": "tiny", "options": {"width": 4}, "features": 8, "init": "random"},
        "optim": {"lr": 0.01},
        "log": {"tensorboard": False},
        "eval": {"every": 0},
    }


def opened(values: dict[str, Any], name: str, candidate: Candidate) -> Corpus:
    return Datasets(config=configuration.parse(values)).open(name, candidate)


def extractor(folder: Path, **more: Any) -> Extractor:
    return Extractor(folder=folder, runtime=RUNTIME, **more)


def test_a_run_is_opened_with_its_weights(run: Path) -> None:
    """The candidate is the run's teacher, tensor for tensor, and its name the folder's."""
    candidate = open_candidate(str(run))
    theirs = load(run).model.state_dict()
    assert candidate.name == "first"
    assert all(
        torch.equal(each, theirs[name]) for name, each in candidate.model().state_dict().items()
    )


def test_random_weights_follow_the_seed_and_no_other_do(run: Path) -> None:
    """``random:`` is another model for every seed and the same for the same; a run is one."""
    drawn, kept = open_candidate("random:tiny", size=24), open_candidate(str(run))
    assert drawn.key(seed=0) == drawn.key(seed=0) != drawn.key(seed=1)
    assert kept.key(seed=0) == kept.key(seed=1)
    like = open_candidate(f"random:{run}")
    assert like.film == kept.film
    assert like.key() != kept.key()


def test_another_view_of_films_is_another_model() -> None:
    """The same weights seeing more of a film have another key: finished work is not theirs."""
    small, large = (open_candidate("random:tiny", size=size, resize=32) for size in (24, 32))
    weights = [each.model(seed=1).state_dict() for each in (small, large)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert small.key(seed=1) != large.key(seed=1)


def test_a_local_file_of_timm_weights(tmp_path: Path) -> None:
    """``timm:ARCH=FILE`` is that architecture with the file's tensors, and its past unknown."""
    model = timm.create_model("resnet18", num_classes=0)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    candidate = open_candidate(f"timm:resnet18={tmp_path / 'weights.pth'}", size=32)
    found = candidate.model().backbone.state_dict()
    assert torch.equal(found["model.conv1.weight"], model.state_dict()["conv1.weight"])
    assert candidate.film.size == candidate.film.resize == 32
    assert not candidate.trained.complete


def test_models_are_named_without_their_paths() -> None:
    """By NAME=, the end of a path, or the architecture; one name twice is refused."""
    words = ["mine=runs/a", "runs/b", "random:runs/b", "timm:resnet18=/data/w.pth"]
    models = layers(words)[1]["models"]
    assert models == {
        "mine": "runs/a",
        "b": "runs/b",
        "random:b": "random:runs/b",
        "timm:resnet18": "timm:resnet18=/data/w.pth",
    }
    with pytest.raises(ConfigError, match="two models are called 'a'"):
        layers(["runs/a", "other/a"])


def test_a_fresh_model_keeps_the_backbone_and_draws_its_head(run: Path) -> None:
    """For a task: the teacher's backbone to the bit, no projector, a new head by the seed."""
    candidate = open_candidate(str(run))
    schema = LabelSchema(name="s", kind="multilabel", labels=("a", "b"))
    one, two = candidate.for_task(schema, seed=0), candidate.for_task(schema, seed=1)
    teacher = load(run).model.backbone.state_dict()
    for name, tensor in one.backbone.state_dict().items():
        assert torch.equal(tensor, teacher[name])
    assert one.training
    assert one.heads["task"].weight.shape == (2, one.widths["pooled"])
    assert not torch.equal(one.heads["task"].weight, two.heads["task"].weight)


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ("runs/none", CheckpointError, "no model at 'runs/none'"),
        ("random:tinny", ConfigError, "did you mean 'tiny'"),
        ("timm:tiny", ConfigError, "timm has no model 'tiny'"),
    ],
)
def test_what_is_not_there_is_said(source: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        open_candidate(source)


def test_folds_are_by_patient_and_cover_each_film_once(run: Path, small_run: Any) -> None:
    """Every film is tested once a repeat; no patient is in two parts; repeats deal anew."""
    corpus = opened(small_run, "phantom-north", open_candidate(str(run)))
    patient = corpus.table.groups()
    made = list(folds(corpus, 4, repeats=2, seed=3))
    for repeat in (made[:4], made[4:]):
        tested = np.concatenate([split.test for split in repeat])
        assert sorted(tested) == list(range(len(corpus.table)))
    for split in made:
        parts = [set(patient[rows]) for rows in (split.train, split.val, split.test)]
        assert len(set.union(*parts)) == sum(map(len, parts))
        assert all(parts)
    assert not np.array_equal(made[0].test, made[4].test)
    with pytest.raises(ConfigError, match="from 3 to"):
        next(folds(corpus, 2))


def test_embeddings_are_the_models_and_are_computed_once(
    run: Path, small_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``ark_framework.load(...).embed`` gives them; the second call reads the file."""
    candidate = open_candidate(str(run))
    corpus = opened(small_run, "phantom-north", candidate)
    rows = np.array([5, 3, 40])
    found = extractor(tmp_path).embed(candidate, corpus, rows)
    views = corpus.images(rows)[:, :, 4:28, 4:28].astype(np.float32) / 255
    np.testing.assert_allclose(found, load(run).embed(views), atol=1e-5)
    pooled = extractor(tmp_path, features="pooled").embed(candidate, corpus, rows)
    assert pooled.shape[1] != found.shape[1]
    monkeypatch.setattr(Extractor, "_extract", None)
    np.testing.assert_array_equal(extractor(tmp_path).embed(candidate, corpus, rows), found)


def test_an_interrupted_extraction_goes_on(run: Path, small_run: Any, tmp_path: Path) -> None:
    """What was embedded before the interruption is not embedded again, and nothing differs."""
    candidate = open_candidate(str(run))
    corpus = opened(small_run, "phantom-south", candidate)
    rows = np.arange(100)
    whole = extractor(tmp_path / "whole").embed(candidate, corpus, rows)
    stop = threading.Event()
    stop.set()
    stopped = extractor(tmp_path / "parts", batch_size=16, stop=stop)
    with pytest.raises(Interrupted, match="stopped at 16 of"):
        stopped.embed(candidate, corpus, rows)
    stop.clear()
    kept = np.load(next((tmp_path / "parts").glob("*.part.npy")), mmap_mode="r+")
    kept[0] = 7.0  # had it been computed again, this would be gone
    kept.flush()
    del kept
    found = stopped.embed(candidate, corpus, rows)
    assert (found[0] == 7.0).all()
    np.testing.assert_allclose(found[1:], whole[1:], atol=1e-5)


def test_films_of_another_side_are_refused(run: Path, small_run: Any, tmp_path: Path) -> None:
    corpus = opened(small_run, "phantom-north", open_candidate(str(run)))
    other = open_candidate("random:tiny", size=16, resize=16)
    with pytest.raises(DataError, match="packed at 32 pixels"):
        extractor(tmp_path).embed(other, corpus, np.arange(3))


@pytest.mark.parametrize("suffix", [".npz", ".csv"])
def test_a_table_made_elsewhere_is_a_model_too(
    run: Path, small_run: Any, tmp_path: Path, suffix: str
) -> None:
    """What ``write`` wrote comes back film by film, in any order, whatever names are used."""
    candidate = open_candidate(str(run))
    corpus = opened(small_run, "phantom-north", candidate)
    rows = np.arange(len(corpus.table))
    features = extractor(tmp_path / "cache").embed(candidate, corpus, rows)
    out = tmp_path / f"table{suffix}"
    embedding.write(out, corpus, rows, features)
    table = open_candidate(str(out))
    some = np.array([7, 2, 90])
    np.testing.assert_allclose(
        extractor(tmp_path).embed(table, corpus, some), features[some], rtol=1e-6
    )
    with pytest.raises(ConfigError, match="a table of embeddings"):
        table.model()
    names = [Path(image).stem for image in corpus.table.frame["image"]]
    np.savez(tmp_path / "stems.npz", **dict(zip(names, features, strict=True)))
    stems = Vectors.read(tmp_path / "stems.npz")
    np.testing.assert_allclose(stems.of(corpus.table, some), features[some], rtol=1e-6)


def test_a_wrong_table_is_one_line(tmp_path: Path, run: Path, small_run: Any) -> None:
    """A film without a vector, a name twice, a missing number and no table at all."""
    corpus = opened(small_run, "phantom-north", open_candidate(str(run)))
    images = corpus.table.frame["image"].tolist()
    np.savez(tmp_path / "short.npz", ids=images[:50], features=np.ones((50, 2), np.float32))
    with pytest.raises(DataError, match="no vector for 10 of 60 films"):
        Vectors.read(tmp_path / "short.npz").of(corpus.table, np.arange(60))
    for text, said in (
        ("id,a\nx,1\nx,2\n", "stands there twice"),
        ("id,a\nx,1\ny,\n", "'y' is not finite"),
        ("id,a\nx,one\n", "not a table"),
    ):
        (tmp_path / "wrong.csv").write_text(text)
        with pytest.raises(DataError, match=said):
            Vectors.read(tmp_path / "wrong.csv")


def test_scores_of_a_models_own_head(run: Path, small_run: Any) -> None:
    """Equal to scikit-learn's on the predictions kept; none of the test films was trained on."""
    candidate = open_candidate(str(run))
    corpus = opened(small_run, "phantom-north", candidate)
    found = evaluate(
        candidate, corpus, "test", answers(candidate.plan.tasks, corpus), runtime=RUNTIME
    )
    frame = found.predictions
    for label in corpus.schema.labels:
        known = frame[label].isin([0, 1])
        truth, scores = frame.loc[known, label], frame.loc[known, f"p:{label}"]
        expected = roc_auc_score(truth, scores) if truth.nunique() == 2 else np.nan
        np.testing.assert_allclose(found.outcome.labels[label]["auroc"], expected, rtol=1e-12)
    assert found.outcome.trained_on["films"] == {"yes": 0, "no": len(frame), "unknown": 0}
    assert found.unseen is None
    trained = evaluate(
        candidate, corpus, "train", answers(candidate.plan.tasks, corpus), runtime=RUNTIME
    )
    assert trained.outcome.trained_on["films"]["yes"] > 0.9 * trained.outcome.films


def test_exclusive_classes_have_an_accuracy(run: Path, small_run: Any) -> None:
    candidate = open_candidate(str(run))
    corpus = opened(small_run, "phantom-south", candidate)
    found = evaluate(
        candidate, corpus, "test", answers(candidate.plan.tasks, corpus), runtime=RUNTIME
    )
    frame, labels = found.predictions, list(corpus.schema.labels)
    chances = frame[[f"p:{label}" for label in labels]].to_numpy()
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    right = (chances.argmax(1) == frame[labels].to_numpy().argmax(1)).mean()
    assert found.outcome.score == pytest.approx(right)
    assert "accuracy" in set(found.table["metric"])


def test_heads_answer_by_name_or_as_told(run: Path, small_run: Any) -> None:
    """The dataset's own head; another where it is named; means of outputs; else it is refused."""
    candidate = open_candidate(str(run))
    tasks = candidate.plan.tasks
    east = opened(small_run, "phantom-east", candidate)
    assert str(answers(tasks, east)["apical opacity"].parts[0]) == "phantom-east:apical opacity"
    told = answers(
        tasks, east, given=["apical opacity=phantom-north:opacity+phantom-south:opacity"]
    )
    assert len(told["apical opacity"].parts) == 2
    with pytest.raises(ConfigError, match="no head has the labels of phantom-east"):
        answers([task for task in tasks if task.name != "phantom-east"], east)
    with pytest.raises(ConfigError, match="has no label 'edema'"):
        answers(tasks, east, given=["edema=phantom-north:edema"])


def test_ten_crops_change_the_scores_and_not_their_number(run: Path, small_run: Any) -> None:
    candidate = open_candidate(str(run))
    corpus = opened(small_run, "phantom-east", candidate)
    how = answers(candidate.plan.tasks, corpus)
    one = evaluate(candidate, corpus, "test", how, runtime=RUNTIME).predictions
    ten = evaluate(candidate, corpus, "test", how, runtime=RUNTIME, tencrop=True).predictions
    assert len(one) == len(ten)
    assert not np.allclose(one["p:apical opacity"], ten["p:apical opacity"])


def test_the_commands(
    run: Path, small_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``ark eval`` and ``ark embed`` write what they say; an old file is not overwritten."""
    from ark_framework.cli import run as ark

    told = {name: small_run[name] for name in ("plugins", "data", "store")}
    (tmp_path / "run.yaml").write_text(json.dumps(told))
    common = ["-c", str(tmp_path / "run.yaml"), "--tasks", "phantom-east"]
    assert ark(["eval", str(run), *common, "--out", str(tmp_path / "scores"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["phantom-east"]
    table = pd.read_csv(tmp_path / "scores" / "phantom-east-test.csv")
    assert told["auroc"] == pytest.approx(
        table.set_index(["label", "metric"]).loc[("mean", "auroc"), "value"]
    )
    out = str(tmp_path / "east.npz")
    assert ark(["embed", str(run), *common, "--out", out]) == 0
    assert len(np.load(out)["ids"]) == 120
    capsys.readouterr()
    assert ark(["embed", str(run), *common, "--out", out]) == 2
    assert "name a new .npz" in capsys.readouterr().err
