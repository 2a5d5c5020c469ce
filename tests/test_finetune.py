"""Fine-tuning: validation alone decides, order is a function of the index, resuming is exact."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from pydantic import ValidationError
from timm.optim._param_groups import param_groups_layer_decay
from torch import nn
from torchvision.transforms import functional

from ark_framework import config as configuration
from ark_framework import registry
from ark_framework.builtin.timm_encoder import TimmEncoder
from ark_framework.builtin.tiny import TinyConv
from ark_framework.config import ModelConfig, OptimConfig, RuntimeConfig
from ark_framework.corpus import Corpus, open_corpus
from ark_framework.errors import CheckpointError, ConfigError, DataError, Interrupted, RunError
from ark_framework.metrics import auroc
from ark_framework.model import ArkModel, HeadPlan
from ark_framework.runtime import Runtime, open_runtime
from ark_framework.specs import LabelSchema
from ark_framework.transfer import training
from ark_framework.transfer.candidate import TASK
from ark_framework.transfer.finetune import Finetuned, finetune
from ark_framework.transfer.layers import layered_optimizer, rates
from ark_framework.transfer.protocol import PUBLISHED, FinetuneConfig
from ark_framework.transfer.splits import Split, folds, official
from ark_framework.transfer.tencrop import logits, probabilities, ten_crops
from ark_framework.transfer.training_films import TrainingFilms
from ark_framework.views import center

Small = Callable[..., dict[str, Any]]
Opened = Callable[..., Corpus]
RUNTIME = open_runtime(RuntimeConfig(device="cpu", threads=1))
BRIEF = {"epochs": 3, "batch_size": 16, "views": {"size": 24}}


@pytest.fixture
def opened(small: Small) -> Opened:
    """Return ``opened(name, films)``: a phantom hospital's corpus."""

    def make(name: str = "north", films: int = 120) -> Corpus:
        plugins = registry.load(("ark-phantom",))
        spec = plugins.dataset(f"phantom-{name}")
        told: dict[str, Any] = {spec.name: {"films": films}}
        return open_corpus(spec, plugins, configuration.parse(small(data=told)), roots={})

    return make


def parse(*layers: Mapping[str, Any]) -> FinetuneConfig:
    """Settings laid over the defaults, as a study does it."""
    values = configuration.merge(FinetuneConfig().model_dump(mode="json"), *layers)
    return FinetuneConfig.model_validate_json(json.dumps(values))


def tiny() -> nn.Module:
    return TinyConv(width=8)


def resnet() -> nn.Module:
    return TimmEncoder("resnet18", in_chans=1)


def model_for(
    schema: LabelSchema, backbone: Callable[[], nn.Module] = tiny, *, size: int = 24
) -> ArkModel:
    """A fresh model with one head; equal at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = HeadPlan(spec=registry.load(()).head("linear", kind=schema.kind), schema=schema)
        return ArkModel(
            backbone(),
            {TASK: head},
            config=ModelConfig(projector="none"),
            size=size,
        ).train()


def tuned(
    corpus: Corpus,
    folder: Path,
    *,
    split: Split | None = None,
    model: ArkModel | None = None,
    seed: int = 0,
    stop: threading.Event | None = None,
    say: Callable[[str], None] | None = None,
    runtime: Runtime = RUNTIME,
    **changes: Any,
) -> Finetuned:
    return finetune(
        model or model_for(corpus.schema),
        corpus,
        split or official(corpus),
        parse(BRIEF, changes),
        seed=seed,
        folder=folder,
        runtime=runtime,
        say=say,
        stop=stop,
    )


def relabelled(corpus: Corpus, targets: np.ndarray) -> Corpus:
    frame = corpus.table.frame.copy()
    frame[list(corpus.schema.labels)] = targets
    return replace(corpus, table=replace(corpus.table, frame=frame))


def contrary(corpus: Corpus) -> Corpus:
    """With every label in training and none in validation: the more it learns, the worse."""
    targets, split = np.zeros_like(corpus.table.targets()), official(corpus)
    targets[split.train] = 1
    return relabelled(corpus, targets)


class After(threading.Event):
    """Set from the given step on."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def is_set(self) -> bool:
        self.left -= 1
        return self.left <= 0


def test_it_learns(opened: Opened, tmp_path: Path) -> None:
    """A label that is plain to see is learned in seconds, on films not trained on."""
    corpus = opened("north", 240)
    bright = np.array([corpus.store.images[row, 0, :, :16].mean() for row in corpus.index])
    labels = np.full((len(bright), len(corpus.schema.labels)), np.nan)
    dark = np.array([corpus.store.images[row, 0, :, 16:].mean() for row in corpus.index])
    labels[:, 0] = bright - dark > np.median(bright - dark)
    corpus = relabelled(corpus, labels)
    done = tuned(corpus, tmp_path, epochs=15, flip=0.0, optim={"name": "adamw", "lr": 0.003})
    test = official(corpus).test
    assert auroc(done.probabilities, labels[test])[0] > 0.85
    assert done.val_curve[-1].loss < done.val_curve[0].loss
    assert done.probabilities.shape == (len(test), labels.shape[1])
    assert done.probabilities.dtype == np.float64


def test_exclusive_classes_sum_to_one(opened: Opened, tmp_path: Path) -> None:
    """Exclusive classes are trained by cross-entropy and answered by softmax."""
    done = tuned(opened("south"), tmp_path)
    np.testing.assert_allclose(done.probabilities.sum(axis=1), 1.0, atol=1e-12)


def test_the_head_alone(opened: Opened, tmp_path: Path) -> None:
    """With a frozen backbone its tensors, batch norm's included, keep their bytes."""
    corpus = opened()
    model = model_for(corpus.schema, resnet)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    tuned(corpus, tmp_path, model=model, freeze="backbone", epochs=1, select="last")
    moved = {name for name, each in model.state_dict().items() if not each.equal(before[name])}
    assert moved == {f"heads.{TASK}.weight", f"heads.{TASK}.bias"}


def test_test_labels_play_no_part(opened: Opened, tmp_path: Path) -> None:
    """With the test labels permuted everything comes out the same; with the validation's, not."""
    corpus = opened()
    split, raw = official(corpus), corpus.table.targets()

    def done(name: str, rows: np.ndarray | None = None) -> Finetuned:
        labels = raw.copy()
        if rows is not None:
            labels[rows] = labels[np.random.default_rng(0).permutation(rows)]
        return tuned(relabelled(corpus, labels), tmp_path / name, optim={"lr": 0.1}, epochs=6)

    plain, test, val = done("plain"), done("test", split.test), done("val", split.val)
    assert test.val_curve == plain.val_curve
    assert np.array_equal(test.probabilities, plain.probabilities)
    assert val.val_curve != plain.val_curve


def test_the_lowest_validation_loss_is_taken(opened: Opened, tmp_path: Path) -> None:
    """They are those of a run that ended at that epoch, and of one interrupted after it."""
    corpus = contrary(opened())
    told: dict[str, Any] = {"schedule": "constant", "optim": {"lr": 0.02}, "keep": True}
    long = tuned(corpus, tmp_path / "long", epochs=8, **told)
    losses = [each.loss for each in long.val_curve]
    assert long.best_epoch == int(np.argmin(losses)) + 1 < len(losses) == long.epochs
    short = tuned(corpus, tmp_path / "short", epochs=long.best_epoch, select="last", **told)
    assert np.array_equal(short.probabilities, long.probabilities)
    after = After(6 * long.best_epoch + 1)
    with pytest.raises(Interrupted):
        tuned(corpus, tmp_path / "cut", epochs=8, stop=after, **told)
    assert tuned(corpus, tmp_path / "cut", epochs=8, **told).best_epoch == long.best_epoch
    names = ("long", "short", "cut")
    weights = {(tmp_path / name / "model.safetensors").read_bytes() for name in names}
    assert len(weights) == 1


def test_patience(opened: Opened, tmp_path: Path) -> None:
    """It ends that many epochs after the lowest loss, and takes the same weights as without."""
    corpus = contrary(opened())
    told: dict[str, Any] = {"schedule": "constant", "optim": {"lr": 0.02}, "epochs": 30}
    done = tuned(corpus, tmp_path / "a", patience=2, **told)
    assert done.epochs == len(done.val_curve) == done.best_epoch + 2 < 30


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_interrupted_at_any_step(
    opened: Opened, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within and at the end of epochs, and by Ctrl-C, it ends as if it had not been."""
    corpus = opened()

    def drawing() -> nn.Module:  # at every step, and with running statistics
        backbone = TinyConv(width=8)
        backbone.stem.append(nn.Sequential(nn.BatchNorm2d(8), nn.Dropout(0.3)))
        return backbone

    def model() -> ArkModel:
        return model_for(corpus.schema, drawing)

    told: dict[str, Any] = {
        "optim": {"name": name, "lr": 0.02},
        "keep": True,
        "layer_decay": 0.7,
        "patience": 9,
    }
    whole = tuned(corpus, tmp_path / "whole", model=model(), **told)
    films = TrainingFilms.batch

    def breaks(self: TrainingFilms, step: int) -> Any:
        if step == 12:
            raise KeyboardInterrupt
        return films(self, step)

    said: list[str] = []
    for steps in (2, 4, 3):  # of six a epoch: within one, at its end, within the next
        cut: dict[str, Any] = {"model": model(), "stop": After(steps), "say": said.append}
        with pytest.raises(Interrupted, match="goes on from there"):
            tuned(corpus, tmp_path / "cut", **cut, **told)
    monkeypatch.setattr(TrainingFilms, "batch", breaks)
    with pytest.raises(KeyboardInterrupt):
        tuned(corpus, tmp_path / "cut", model=model(), **told)
    monkeypatch.setattr(TrainingFilms, "batch", films)
    done = tuned(corpus, tmp_path / "cut", model=model(), say=said.append, **told)
    starts = [int(line.split("at step ")[1].split()[0]) for line in said if "going on" in line]
    assert starts[:2] == [2, 6]
    assert starts[-1] in (9, 12)
    assert done.val_curve == whole.val_curve
    assert np.array_equal(done.probabilities, whole.probabilities)
    names = sorted(path.name for path in (tmp_path / "cut").iterdir())
    assert names == ["model.safetensors", "probabilities.npy", "result.json"]
    for file in ("model.safetensors", "probabilities.npy"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_finished_folder_is_read(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is computed again, nothing is changed; another protocol or seed is refused."""
    corpus = opened()
    first = tuned(corpus, tmp_path / "a")
    monkeypatch.setattr(training, "Training", None)
    monkeypatch.setattr("ark_framework.transfer.finetune.Training", None)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()}
    again = tuned(corpus, tmp_path / "a")
    assert np.array_equal(again.probabilities, first.probabilities)
    assert replace(again, probabilities=first.probabilities) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()} == before
    with pytest.raises(ConfigError, match="begun with other seed"):
        tuned(corpus, tmp_path / "a", seed=1)
    with pytest.raises(ConfigError, match="begun with other epochs, patience"):
        tuned(corpus, tmp_path / "a", epochs=4, patience=2)
    with pytest.raises(ConfigError, match="begun with other precision"):
        tuned(corpus, tmp_path / "a", runtime=replace(RUNTIME, precision="bf16"))
    model = model_for(corpus.schema, lambda: TinyConv(width=4))
    with pytest.raises(ConfigError, match="begun with other initial weights"):
        tuned(corpus, tmp_path / "a", model=model)
    (tmp_path / "a" / "probabilities.npy").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is damaged"):
        tuned(corpus, tmp_path / "a")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04cut"])
def test_a_damaged_checkpoint(opened: Opened, tmp_path: Path, content: bytes) -> None:
    """One line that names the file."""
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last\.pt"):
        tuned(opened(), tmp_path)


def test_steps_are_exact(opened: Opened, tmp_path: Path) -> None:
    """An exact number of steps is taken, whatever that is in epochs; patience contradicts it."""
    done = tuned(opened(), tmp_path, steps=8, select="last")
    assert (done.steps, done.epochs, done.best_epoch, done.val_curve) == (8, 2, 2, ())
    with pytest.raises(ValidationError, match="steps is exact"):
        parse(PUBLISHED, {"steps": 8})


def test_without_validation_films(opened: Opened, tmp_path: Path) -> None:
    """It says that it neither stops early nor selects."""
    corpus, said = opened(), list[str]()
    split = replace(official(corpus), val=np.zeros(0, dtype=np.int64))
    done = tuned(corpus, tmp_path, split=split, patience=1, say=said.append)
    assert done.epochs == done.best_epoch == BRIEF["epochs"]
    assert any("no validation films" in line for line in said)


def test_what_cannot_be_done(opened: Opened, tmp_path: Path) -> None:
    """Films too small for the views or for ten crops, and nothing to train on, are said."""
    corpus = opened()
    with pytest.raises(ConfigError, match="not enlarged"):
        tuned(corpus, tmp_path, views={"size": 48})
    with pytest.raises(ConfigError, match="tencrop needs films larger"):
        tuned(corpus, tmp_path, views={"size": 32}, tencrop=True)
    blank = relabelled(corpus, np.full((len(corpus.index), 6), np.nan))
    with pytest.raises(DataError, match="none of 85 training films"):
        tuned(blank, tmp_path)


def test_a_loss_that_is_not_finite(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named by epoch and step, and the last checkpoint is from before it."""
    films = TrainingFilms.batch

    def spoils(self: TrainingFilms, step: int) -> Any:
        views, part = films(self, step)
        return (views * torch.nan if step == 14 else views), part

    monkeypatch.setattr(TrainingFilms, "batch", spoils)
    corpus = opened()
    model = model_for(corpus.schema)
    with pytest.raises(RunError, match="not finite in epoch 3, at step 15 of 18"):
        tuned(corpus, tmp_path, model=model, select="last")
    assert all(each.isfinite().all() for each in model.parameters())
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    state = torch.load(tmp_path / "last.pt", weights_only=True)["state"]
    assert state["step"] in (6, 12)
    assert all(each.isfinite().all() for each in state["model"].values())


def test_a_stop_saves_nothing_broken(opened: Opened, tmp_path: Path) -> None:
    """Asked to stop after a loss that was not finite, it raises that instead of saving."""
    told: dict[str, Any] = {"optim": {"lr": 1e30}, "warmup": 0.0, "select": "last"}
    with pytest.raises(RunError, match="not finite in epoch 1"):
        tuned(opened(), tmp_path, stop=After(4), **told)
    assert not (tmp_path / "last.pt").exists()


def test_missing_labels_are_left_out(opened: Opened, tmp_path: Path) -> None:
    """Films without any label change nothing, and a label that is never known stays untrained."""
    corpus = opened()
    split, labels = official(corpus), corpus.table.targets()
    blank = labels.copy()
    blank[split.train[::3]] = np.nan
    blank[:, 0] = np.nan
    told: dict[str, Any] = {"freeze": "backbone", "select": "last", "epochs": 1}
    model = model_for(corpus.schema)
    head: Any = model.heads[TASK]
    before = head.weight.detach().clone()
    with_blanks = tuned(relabelled(corpus, blank), tmp_path / "a", model=model, **told)
    moved = (head.weight != before).any(dim=1)
    assert moved.tolist() == [False] + [True] * 5
    known = split.train[~np.isnan(blank[split.train]).all(axis=1)]
    fewer = replace(split, train=known)
    without = tuned(relabelled(corpus, blank), tmp_path / "b", split=fewer, **told)
    assert np.array_equal(with_blanks.probabilities, without.probabilities)


def test_each_epoch_takes_each_film_once(opened: Opened) -> None:
    """In even batches, in another order each time, and as a function of the step alone."""
    corpus = opened()
    rows = official(corpus).train[:65]
    taken: list[np.ndarray] = []
    images = corpus.images

    class Watched:
        schema, table, name = corpus.schema, corpus.table, corpus.name

        def images(self, chosen: np.ndarray) -> np.ndarray:
            taken.append(chosen)
            return images(chosen)

    def films(flip: float = 0.5) -> TrainingFilms:
        views = FinetuneConfig().views.model_copy(update={"size": 24})
        told: dict[str, Any] = {"task": TASK, "seed": 3, "device": torch.device("cpu")}
        return TrainingFilms(
            Watched(),  # type: ignore[arg-type]
            rows,
            batch_size=64,
            views=views,
            flip=flip,
            **told,
        )

    one = films()
    batches = [one.batch(step) for step in range(4)]
    assert [len(each) for each in taken] == [32, 33, 32, 33]
    first, second = np.concatenate(taken[:2]), np.concatenate(taken[2:])
    assert sorted(first) == sorted(second) == sorted(rows)
    assert first.tolist() != second.tolist()
    assert films().batch(3)[0].equal(batches[3][0])
    always, never = films(1.0).batch(0)[0], films(0.0).batch(0)[0]
    torch.testing.assert_close(always, never.flip(-1), atol=1e-4, rtol=0)
    mirrored = (batches[0][0] - always).abs().flatten(1).amax(1) < 1e-4
    assert 0 < int(mirrored.sum()) < 32


def test_layer_decay_is_timms(opened: Opened) -> None:
    """For a small Swin the rates are those that timm gives the model with its own head."""
    told: dict[str, Any] = {"embed_dim": 16, "depths": (1, 2, 1), "num_heads": (1, 1, 1)}
    told |= {"img_size": 32, "window_size": 4, "patch_size": 2}
    name, schema = "swin_tiny_patch4_window7_224", opened().schema
    theirs = timm.create_model(name, num_classes=len(schema.labels), in_chans=1, **told)
    expected: dict[str, float] = {}
    for group in param_groups_layer_decay(theirs, layer_decay=0.6):
        for key, each in theirs.named_parameters():
            if any(each is other for other in group["params"]):
                expected[key] = group["lr_scale"]
    model = model_for(schema, lambda: TimmEncoder(name, in_chans=1, kwargs=told), size=32)
    found = rates(model, 0.6)
    assert {f"backbone.model.{key}" for key in expected if not key.startswith("head")} == {
        key for key in found if not key.startswith("heads.")
    }
    for key, rate in expected.items():
        ours = f"heads.{TASK}.{key[8:]}" if key.startswith("head.") else f"backbone.model.{key}"
        assert found[ours] == pytest.approx(rate), key
    assert len(set(found.values())) == 6  # the stem, four blocks and the head


def test_layer_decay_by_child(opened: Opened) -> None:
    """Another backbone's layers are its children and the entries of its lists."""
    model = model_for(opened().schema)
    config = OptimConfig(weight_decay=0.1)
    optimizer = layered_optimizer(model, config, 0.5)
    found = {
        name: (group["lr_scale"], group["weight_decay"])
        for name, each in model.named_parameters()
        for group in optimizer.param_groups
        if any(each is other for other in group["params"])
    }
    assert len(found) == sum(len(g["params"]) for g in optimizer.param_groups)
    assert found["backbone.stem.1.weight"] == (0.5**5, 0.1)
    assert found["backbone.stages.0.0.first.bias"] == (0.5**4, 0.0)
    assert found["backbone.stages.2.2.first.weight"] == (0.5**2, 0.1)
    assert found["backbone.norm.weight"] == (0.5, 0.0)
    assert found[f"heads.{TASK}.weight"] == (1.0, 0.1)


def test_ten_crops_are_torchvisions(opened: Opened) -> None:
    """Probabilities are the plain mean over the ten crops, in torchvision's order."""
    corpus = opened("south")
    rows, model = official(corpus).test, model_for(corpus.schema).eval()
    told: dict[str, Any] = {"size": 24, "batch_size": 7, "runtime": RUNTIME}
    found = logits(model, TASK, corpus, rows, tencrop=True, **told)
    films = torch.from_numpy(corpus.images(rows))
    crops = functional.ten_crop(films, [24, 24])
    for ours, theirs in zip(ten_crops(films, 24), crops, strict=True):
        assert ours.equal(theirs.float() / 255)
    with torch.no_grad():
        each = [model(crop.float() / 255, TASK).double().softmax(dim=1) for crop in crops]
        single = model(center(films, 24), TASK).double().sigmoid()
    mean = probabilities(found, "multiclass")
    np.testing.assert_allclose(mean, torch.stack(each).mean(0), atol=1e-6)
    assert np.abs(mean - each[4].numpy()).max() > 1e-4
    one = probabilities(logits(model, TASK, corpus, rows, tencrop=False, **told), "multilabel")
    np.testing.assert_allclose(one, single.numpy(), atol=1e-6)


def test_the_rate(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As published it is 0.01 at every step; by default it rises and falls to zero."""
    taken: list[float] = []
    lowest: list[float] = []
    move = training.Training._move

    def watched(self: training.Training, loss: torch.Tensor) -> None:
        taken.append(max(group["lr"] for group in self.optimizer.param_groups))
        lowest.append(min(group["lr"] for group in self.optimizer.param_groups))
        move(self, loss)

    monkeypatch.setattr(training.Training, "_move", watched)
    corpus = opened()
    published = parse(PUBLISHED)
    assert (published.optim.lr, published.patience, published.select) == (0.01, 10, "val")
    assert (published.views.rotate, published.views.scale, published.flip) == (7, (0.08, 1), 0.5)
    tuned(corpus, tmp_path / "a", **{**PUBLISHED, **BRIEF})
    assert taken == lowest == [0.01] * 18
    del taken[:], lowest[:]
    told: dict[str, Any] = {"warmup": 0.1, "optim": {"lr": 0.2}, "layer_decay": 0.5}
    tuned(corpus, tmp_path / "b", epochs=10, select="last", **told)
    assert lowest == pytest.approx([each * 0.5**5 for each in taken])
    total = len(taken)
    assert total == 60
    assert taken[:6] == pytest.approx([0.2 / 6 + i * (0.2 - 0.2 / 6) / 6 for i in range(6)])
    cosine = [0.1 * (1 + math.cos(math.pi * (i - 6) / (total - 6))) for i in range(6, total)]
    assert taken[6:] == pytest.approx(cosine)


def test_folds_are_taken_too(opened: Opened, tmp_path: Path) -> None:
    """A split by patient trains as an official one does."""
    corpus = opened("east")
    split = next(folds(corpus, 5))
    done = tuned(corpus, tmp_path, split=split, epochs=1)
    assert done.probabilities.shape == (len(split.test), 1)
