"""The cycle and its two comparators, on a world small enough to check by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import ark_framework
from ark_framework import config as configuration
from ark_framework.batches import StoreBatches
from ark_framework.errors import CheckpointError, ConfigError
from ark_framework.launch import train
from ark_framework.metrics import auroc
from ark_framework.preparation import build_student, make_losses, prepare
from ark_framework.runtime import open_runtime

Small = Callable[..., dict[str, Any]]


def test_the_surface(small: Small, tmp_path: Path) -> None:
    """``ark_framework.train`` takes a mapping; the folder holds what is documented."""
    result = ark_framework.train(small(cycles=1), out=tmp_path / "run")
    assert result.folder == tmp_path / "run"
    names = {path.relative_to(result.folder).as_posix() for path in result.folder.rglob("*")}
    assert {"config.yaml", "plan.json", "run.json", "metrics.jsonl", "train.log"} <= names
    assert {"checkpoints/last.pt", "predictions/phantom-east-test.csv"} <= names
    about = json.loads((result.folder / "run.json").read_text())
    assert about["status"] == "finished"
    assert about["research_use_only"] is True
    assert about["data"]["phantom-north"]["reader"].startswith("1-")
    again = configuration.parse(configuration.load_yaml(result.folder / "config.yaml"))
    assert again == result.prepared.config


def test_predictions_give_the_scores(small: Small, tmp_path: Path) -> None:
    """The saved probabilities, scored anew, are the table's numbers."""
    result = train(small(cycles=2), out=tmp_path / "run")
    for each in result.scores:
        frame = pd.read_csv(result.folder / "predictions" / f"{each.task}-test.csv")
        labels = list(each.labels)
        scores = frame[[f"{each.model}:{label}" for label in labels]].to_numpy()
        np.testing.assert_allclose(
            auroc(scores, frame[labels].to_numpy()), list(each.labels.values()), atol=1e-12
        )


@pytest.mark.parametrize("strategy", ["cyclic", "concurrent", "sequential"])
def test_each_strategy_trains(small: Small, tmp_path: Path, strategy: str) -> None:
    """Every strategy takes its steps, and its teacher is not its student."""
    result = train(small(strategy=strategy), out=tmp_path / "run")
    assert {each.task for each in result.scores} == {
        f"phantom-{n}" for n in ("north", "south", "east")
    }
    content = torch.load(result.folder / "checkpoints" / "last.pt", weights_only=True)
    weights = "projector.0.weight"
    assert not content["student"][weights].equal(content["teacher"][weights])
    lines = [
        json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()
    ]
    order = list(dict.fromkeys(each["task"] for each in lines if each["event"] == "step"))
    joined = "phantom-north+phantom-south+phantom-east"
    assert order == ([joined] if strategy == "concurrent" else joined.split("+"))


def test_a_concurrent_batch_holds_the_same_of_each(small: Small) -> None:
    """Each film is in one part, and each part's loss is by its own head alone."""
    prepared = prepare(configuration.parse(small(strategy="concurrent", batch_size=12)))
    runtime = open_runtime(prepared.config.runtime)
    batches = StoreBatches(
        prepared.plan, prepared.corpora, rows=prepared.rows, config=prepared.config, runtime=runtime
    )
    views = next(iter(batches(prepared.plan.visits[0], 0)))
    assert [(p.films.start, p.films.stop) for p in views.parts] == [(0, 4), (4, 8), (8, 12)]
    student, losses = build_student(prepared), make_losses(prepared, runtime.device)
    features = student.encode(views.student)
    part = views.parts[1]
    losses.of_part(student.classify(part.task, features, part.films), part).backward()
    for name, head in student.heads.items():
        moved = [parameter.grad is not None for parameter in head.parameters()]
        assert all(moved) == any(moved) == (name == part.task)


def test_one_pass_sees_each_film_once(small: Small) -> None:
    """Within a cycle; and the next cycle takes them in another order."""
    prepared = prepare(configuration.parse(small()))
    batches = StoreBatches(
        prepared.plan,
        prepared.corpora,
        rows=prepared.rows,
        config=prepared.config,
        runtime=open_runtime(prepared.config.runtime),
    )
    seen = []
    for visit in (prepared.plan.visits[0], prepared.plan.visits[3]):
        rows = [batches._chosen(0, visit.passes, step, visit.steps) for step in range(visit.steps)]
        seen.append(np.concatenate(rows))
    assert sorted(seen[0]) == sorted(seen[1]) == sorted(prepared.rows["phantom-north"])
    assert seen[0].tolist() != seen[1].tolist()


def test_batches_are_a_function_of_the_index(small: Small) -> None:
    """Started in the middle of a visit they are those of one started at its beginning."""
    prepared = prepare(configuration.parse(small()))

    def made(start: int) -> list[torch.Tensor]:
        batches = StoreBatches(
            prepared.plan,
            prepared.corpora,
            rows=prepared.rows,
            config=prepared.config,
            runtime=open_runtime(prepared.config.runtime),
        )
        return [views.student for views in batches(prepared.plan.visits[4], start)]

    assert all(a.equal(b) for a, b in zip(made(0)[3:], made(3), strict=True))


def test_a_new_run_from_old_weights(small: Small, tmp_path: Path) -> None:
    """Backbone, projector and heads of the same name come from the old teacher."""
    train(small(cycles=1), out=tmp_path / "old")
    said: list[str] = []
    config = small(
        cycles=1,
        tasks=[{"dataset": "phantom-south"}, {"dataset": "phantom-north", "name": "new"}],
        optim={"lr": 1e-12},
        lr={"end": 0.0, "start": 0.0},
    )
    train(config, out=tmp_path / "new", init_from=tmp_path / "old", say=said.append)
    assert any("kept phantom-south, added new, dropped" in line for line in said)
    old, new = (
        torch.load(tmp_path / name / "checkpoints/last.pt", weights_only=True)
        for name in ("old", "new")
    )
    for name in ("projector.0.weight", "heads.phantom-south.weight"):
        torch.testing.assert_close(new["student"][name], old["teacher"][name], atol=1e-6, rtol=0)
    with pytest.raises(CheckpointError, match=r"does not fit.*differs"):
        train(
            small(model={"options": {"width": 8}}),
            out=tmp_path / "wide",
            init_from=tmp_path / "old",
        )


def test_a_head_is_kept_by_its_labels(small: Small, tmp_path: Path) -> None:
    """A head whose labels changed places is begun anew: its outputs would go by wrong names."""
    train(small(cycles=1, tasks=[{"dataset": "phantom-south"}]), out=tmp_path / "old")
    path = tmp_path / "old" / "checkpoints" / "last.pt"
    content = torch.load(path, weights_only=True)
    content["meta"]["tasks"][0]["labels"].reverse()
    torch.save(content, path)
    said: list[str] = []
    config = small(cycles=1, tasks=[{"dataset": "phantom-south"}])
    train(config, out=tmp_path / "new", init_from=tmp_path / "old", say=said.append)
    assert any("kept none, added phantom-south, dropped phantom-south" in line for line in said)


def test_validation_alone_chooses_the_best(small: Small, tmp_path: Path) -> None:
    """``best.pt`` is off by default, and no test film is scored before the end."""
    result = train(
        small(checkpoint={"best": True, "keep": 2}, eval={"every": 1}), out=tmp_path / "run"
    )
    names = {path.name for path in (result.folder / "checkpoints").iterdir()}
    assert names == {"last.pt", "best.pt", "cycle-0002.pt"}
    lines = [
        json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()
    ]
    for line in lines[:-1]:
        assert all(each["split"] == "val" for each in line.get("scores", ()))
    assert {each["split"] for each in lines[-1]["scores"]} == {"test"}


def test_bf16_trains(small: Small, tmp_path: Path) -> None:
    """Autocast changes the numbers a little and leaves the weights in fp32."""
    losses = []
    for precision in ("fp32", "bf16"):
        out = tmp_path / precision
        train(small(cycles=1, runtime={"precision": precision}), out=out)
        lines = (json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines())
        losses.append([each["loss"] for each in lines if each["event"] == "step"])
        content = torch.load(out / "checkpoints/last.pt", weights_only=True)
        assert content["student"]["projector.0.weight"].dtype == torch.float32
    assert losses[0] != losses[1]
    # Later steps drift apart, as any two trainings do.
    np.testing.assert_allclose(losses[0][:5], losses[1][:5], rtol=0.03)


def test_class_weights_and_task_weight(small: Small) -> None:
    """A positive counts as its weight says, and the task's weight scales the whole."""
    plain, heavy = (
        prepare(configuration.parse(small(tasks=[{"dataset": "phantom-east", **more}])))
        for more in ({}, {"class_weights": {"apical opacity": 4.0}, "weight": 0.5})
    )
    device = torch.device("cpu")
    from ark_framework.views import part

    logits = torch.tensor([[0.3], [-0.2], [0.1]])
    piece = part("phantom-east", torch.tensor([[1.0], [0.0], [torch.nan]]))
    first = make_losses(plain, device).of_part(logits, piece)
    second = make_losses(heavy, device).of_part(logits, piece)
    entries = torch.nn.functional.binary_cross_entropy_with_logits(
        logits[:2], torch.tensor([[1.0], [0.0]]), reduction="none"
    )
    assert first == pytest.approx(float(entries.sum() / 2), rel=1e-6)
    assert second == pytest.approx(float((4 * entries[0] + entries[1]) / 2 * 0.5), rel=1e-6)


def test_nothing_to_train() -> None:
    """Without a configuration or without plugins there is one line to read."""
    with pytest.raises(ConfigError, match="give a configuration"):
        train()
    with pytest.raises(ConfigError, match="--plugins"):
        train({"cycles": 1})
