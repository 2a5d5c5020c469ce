"""Probes of embeddings: against scikit-learn and by hand; studies that go on where they stopped."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ark_framework import config as configuration
from ark_framework.corpus import Corpus
from ark_framework.errors import ConfigError, Interrupted
from ark_framework.runtime import open_runtime
from ark_framework.transfer.candidate import open_candidate
from ark_framework.transfer.datasets import Datasets
from ark_framework.transfer.pieces import predictions_of
from ark_framework.transfer.probe import Probe
from ark_framework.transfer.protocol import ProbeConfig
from ark_framework.transfer.settings import parse
from ark_framework.transfer.splits import Split, folds, official
from ark_framework.transfer.study import Study

RUNTIME = open_runtime(configuration.RuntimeConfig(device="cpu"))


@pytest.fixture(scope="module")
def world(shared_stores: Path) -> dict[str, Any]:
    films = {"films": 160, "size": 32}
    return {
        "plugins": ["ark-phantom"],
        "data": {f"phantom-{name}": films for name in ("north", "south", "east")},
        "store": {"size": 32, "folder": str(shared_stores), "workers": 1},
    }


@pytest.fixture(scope="module")
def north(world: dict[str, Any]) -> Corpus:
    return opened(world, "phantom-north")


@pytest.fixture(scope="module")
def south(world: dict[str, Any]) -> Corpus:
    return opened(world, "phantom-south")


def opened(world: dict[str, Any], name: str) -> Corpus:
    config = configuration.parse({**world, "views": {"size": 24}})
    return Datasets(config=config).open(name, open_candidate("random:tiny", size=24, resize=32))


def features(corpus: Corpus) -> np.ndarray:
    """Vectors that hold the labels, and noise."""
    rng = np.random.default_rng(0)
    labels = np.nan_to_num(corpus.table.targets())
    mixed = labels @ rng.normal(size=(labels.shape[1], 12))
    return (mixed + rng.normal(size=mixed.shape)).astype(np.float32)


def probed(
    corpus: Corpus, splits: list[Split] | None = None, *, of: Corpus | None = None, **more: Any
) -> Probe:
    """A probe of vectors that hold the labels of ``of``, the corpus itself by default."""
    rows = np.arange(len(corpus.table))
    splits = splits or [official(corpus)]
    return Probe(features(of or corpus), corpus, rows, splits, ProbeConfig(**more), RUNTIME)


def relabelled(corpus: Corpus, rows: np.ndarray) -> Corpus:
    """The same corpus with the labels of some rows dealt anew."""
    frame = corpus.table.frame.copy()
    labels = list(corpus.schema.labels)
    shuffled = np.random.default_rng(1).permutation(rows)
    frame.loc[rows, labels] = frame.loc[shuffled, labels].to_numpy()
    return replace(corpus, table=replace(corpus.table, frame=frame))


def test_the_full_probe_is_logistic_regression(north: Corpus) -> None:
    """Scikit-learn's on the same standardized vectors, label by label, unlabelled entries out."""
    probe = probed(north, c=(0.1,))
    (found,) = probe.full()
    x, split = probe.x.numpy(), official(north)
    for c in range(len(north.schema.labels)):
        # Uncertain entries are left out of this schema's training; so are blank ones.
        known = split.train[np.isin(north.table.targets()[split.train, c], (0, 1))]
        model = LogisticRegression(C=0.1, tol=1e-6, max_iter=1000)
        model.fit(x[known], north.table.targets()[known, c])
        expected = model.predict_proba(x[split.test])[:, 1]
        np.testing.assert_allclose(found.scores[:, c], expected, atol=2e-3)
    assert found.setting["converged"]


def test_exclusive_classes_are_fitted_together(south: Corpus) -> None:
    probe = probed(south, c=(1.0,))
    (found,) = probe.full()
    split = official(south)
    model = LogisticRegression(C=1.0, tol=1e-6, max_iter=1000)
    model.fit(probe.x.numpy()[split.train], south.table.targets()[split.train].argmax(1))
    expected = model.predict_proba(probe.x.numpy()[split.test])
    np.testing.assert_allclose(found.scores, expected, atol=2e-3)


def test_validation_chooses_and_test_labels_have_no_say(north: Corpus) -> None:
    """Other test labels change no score; a C that validation prefers is taken."""
    split = official(north)
    (one,) = probed(north).full()
    (two,) = probed(relabelled(north, split.test), of=north).full()
    np.testing.assert_array_equal(one.scores, two.scores)
    assert one.setting["c"] in ProbeConfig().c


def test_folds_in_batch_are_folds_one_by_one(north: Corpus) -> None:
    """Classifiers of all folds at once equal those fitted alone on the same vectors."""
    many = list(folds(north, 4, seed=1))
    together = list(probed(north, many, c=(0.1,)).full())
    for found, split in zip(together, many, strict=True):
        alone = probed(north, many, c=(0.1,))
        alone.splits = [split]
        (single,) = alone.full()
        np.testing.assert_allclose(found.scores, single.scores, atol=2e-3)


def test_few_shots_use_nothing_else(north: Corpus) -> None:
    """Neither validation nor test labels change a score; labels too rare are not scored."""
    split = official(north)
    other = relabelled(relabelled(north, split.test), split.val)
    one, two = (list(probed(each, of=north, shots=(1, 4)).few_shot()) for each in (north, other))
    assert len(one) == 20
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.scores, b.scores)
    (rare,) = {np.isnan(f.scores).all() for f in probed(north, shots=(1000,)).few_shot()}
    assert rare


def test_nearest_neighbors_by_hand(north: Corpus) -> None:
    """For some test films, the weighted mean of the labels that their neighbors have."""
    probe = probed(north, neighbors=5)
    (found,) = probe.nearest()
    split = official(north)
    unit = probe.x.numpy() / np.linalg.norm(probe.x.numpy(), axis=1, keepdims=True)
    for at in (0, 3):
        near = unit[split.train] @ unit[split.test[at]]
        first = np.argsort(-near)[:5]
        weight = np.exp(near[first] / 0.07)
        labels = probe.targets[split.train[first]]
        expected = np.nansum(weight[:, None] * labels, 0) / (
            weight[:, None] * ~np.isnan(labels)
        ).sum(0)
        np.testing.assert_allclose(found.scores[at], expected, rtol=1e-4)


def settings(world: dict[str, Any], **more: Any) -> dict[str, Any]:
    fresh = {"source": "random:tiny", "size": 24, "resize": 32}
    return {
        **world,
        "models": {"a": fresh, "b": {**fresh, "size": 32}},
        "datasets": ["phantom-south"],
        "protocols": ["probe", "few-shot", "knn"],
        "probe": {"shots": [1, 2], "c": [0.1, 1.0]},
        **more,
    }


def test_a_study_goes_on_and_does_nothing_twice(world: dict[str, Any], tmp_path: Path) -> None:
    """Stopped after its first piece and run again, it ends as one that was not; no file moves."""
    config = parse(settings(world))
    whole = Study(config=config, out=tmp_path / "whole").run()
    stopped = Study(config=config, out=tmp_path / "parts")
    stopped.say = lambda _: stopped.stop.set()  # said when a piece is done
    with pytest.raises(Interrupted, match="goes on with what is in"):
        stopped.run()
    pieces = tmp_path / "parts" / "pieces"
    first = {path: path.stat().st_mtime_ns for path in pieces.iterdir()}
    assert len(first) == 1
    assert Study(config=config, out=tmp_path / "parts").run() == whole
    assert {path: path.stat().st_mtime_ns for path in first} == first
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert Study(config=config, out=tmp_path / "parts").run() == whole
    assert before == {
        path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()
    }
    assert all(
        predictions_of(tmp_path / "parts", each).is_file()
        for each in whole
        if each.protocol == "probe"
    )


def test_fine_tuning_in_a_study(world: dict[str, Any], tmp_path: Path) -> None:
    """Two seeds differ; a stop in the middle of a training is gone on with to the same end."""
    tuned = {"epochs": 2, "batch_size": 16, "optim": {"lr": 0.01}}
    config = parse(settings(world, protocols=["finetune"], seeds=2, finetune=tuned))
    whole = Study(config=config, out=tmp_path / "whole").run()
    assert len(whole) == 4
    assert len({each.auroc for each in whole[:2]}) == 2
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        Study(config=config, out=tmp_path / "parts", stop=stop).run()
    assert Study(config=config, out=tmp_path / "parts").run() == whole


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": {}}, "no models"),
        ({"protocols": ["prob"]}, "protocols"),
        ({"probe": {"draws": 3}}, "greater than or equal to 10"),
        ({"probe": {"fractions": [2.0]}}, "at most 1"),
        ({"finetune": {"epoch": 3}}, "did you mean 'epochs'"),
    ],
)
def test_a_wrong_study_is_one_line(
    world: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    values = {**settings(world), **change}
    with pytest.raises(ConfigError, match=said):
        parse(values)


def test_a_study_of_nothing_is_refused(world: dict[str, Any], tmp_path: Path) -> None:
    """A table of embeddings cannot be fine-tuned, and that is all that was asked for."""
    np.savez(tmp_path / "table.npz", ids=["a"], features=np.ones((1, 2), np.float32))
    asked = settings(world, protocols=["finetune"], models={"t": str(tmp_path / "table.npz")})
    with pytest.raises(ConfigError, match="nothing to do"):
        Study(config=parse(asked), out=tmp_path / "out").run()
