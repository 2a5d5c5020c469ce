"""The conformance kit, what the head looks at, and whole runs over the phantom world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ark_plugin_label_query import build

from ark_framework import LabelSchema, checkpoint, config, hookimpl, train
from ark_framework.events import StepsFlushed
from ark_framework.preparation import build_student
from ark_framework.testing import conformance

test_conformance = conformance("ark-label-query")

HOSPITALS = ("phantom-north", "phantom-south", "phantom-east")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A run of a second or two, its heads label queries; nothing of the user's is touched."""
    monkeypatch.setenv("ARK_CONFIG_HOME", str(tmp_path / "config"))
    changes = {
        "plugins": ["ark-phantom", "ark-label-query"],
        "tasks": [{"dataset": name, "head": "label-query"} for name in HOSPITALS],
        "data": {name: {"films": 120, "size": 32} for name in HOSPITALS},
        "cycles": 2,
        "batch_size": 16,
        "store": {"size": 32, "folder": str(tmp_path / "stores"), "workers": 1},
        "views": {"size": 24},
        "model": {"options": {"width": 4}, "features": 8},
        "log": {"every": 4, "tensorboard": False},
        "runtime": {"threads": 1, "device": "cpu"},
    }
    return config.merge(config.recipe("demo"), changes)


def weights(folder: Path, model: str = "teacher") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = checkpoint.load(folder)[model]
    return found


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], part: str) -> bool:
    names = [name for name in left if name.startswith(part)]
    assert names
    return all(torch.equal(left[name], right[name]) for name in names)


def test_each_label_looks_for_itself() -> None:
    """A finding in one corner moves the logit of the label whose query looks for it, alone."""
    torch.manual_seed(0)
    head = build(16, LabelSchema(name="two", kind="multilabel", labels=("first", "second")))
    with torch.no_grad():
        for name in ("queries", "weight"):
            getattr(head, name)[1] = 0.0
    maps = torch.zeros(1, 16, 5, 5)
    other = maps.clone()
    other[:, :, 0, 4] = torch.randn(16)
    moved = (head(other) - head(maps)).abs()[0]
    assert moved[0] > 1e-4
    assert moved[1] == 0


def test_place_matters_not_but_presence_does() -> None:
    """A finding gives the same logits wherever it lies, and others than its own mean would."""
    torch.manual_seed(0)
    head = build(16, LabelSchema(name="one", kind="multilabel", labels=("nodule",)))
    with torch.no_grad():
        head.queries *= 100  # an untrained query looks everywhere alike
    maps = torch.randn(1, 16, 4, 4)
    torch.testing.assert_close(head(maps), head(maps.flip(3)))
    spread = maps.mean((2, 3), keepdim=True).expand_as(maps)
    assert (head(maps) - head(spread)).abs() > 1e-3


class Crash:
    """Ends a run between two checkpoints, as a crash would: nothing is saved or said."""

    @hookimpl
    def ark_steps_flushed(self, event: StepsFlushed) -> None:
        if event.steps[-1].step == 19:
            raise KeyboardInterrupt


def test_a_run_goes_on_where_it_crashed(tmp_path: Path, settings: dict[str, Any]) -> None:
    """The resumed run ends with the same bytes, student and teacher, queries included."""
    settings = config.merge(settings, {"checkpoint": {"every": 5}})
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    result = train(settings, out=whole)
    with pytest.raises(KeyboardInterrupt):
        train(settings, out=broken, watching=(Crash(),))
    assert train(out=broken, resume=True).scores == result.scores
    for model in ("student", "teacher"):
        assert same(weights(whole, model), weights(broken, model), "")
    assert {each.task for each in result.scores} == set(HOSPITALS)
    first = build_student(result.prepared).state_dict()
    query = "heads.phantom-east.queries"
    assert json.loads((whole / "plan.json").read_text())["tasks"][2]["head"] == "label-query"
    student, teacher = weights(whole, "student")[query], weights(whole)[query]
    assert not torch.equal(teacher, first[query])
    assert not torch.equal(teacher, student)


def test_consistency_alone_moves_the_projector(tmp_path: Path, settings: dict[str, Any]) -> None:
    """These heads do not read the projection: without consistency the projector learns nothing."""
    quiet = config.merge(settings, {"optim": {"weight_decay": 0.0}, "cycles": 1})
    for peak, still in ((0.0, True), (0.5, False)):
        folder = tmp_path / f"{peak}"
        result = train(config.merge(quiet, {"teacher": {"consistency_peak": peak}}), out=folder)
        first = build_student(result.prepared).state_dict()
        assert same(first, weights(folder, "student"), "projector.") is still
        assert not same(first, weights(folder, "student"), "backbone.")
