"""The conformance kit, and what a store holds after runs over the phantom world."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from ark_plugin_mlflow import RUN_FILE
from mlflow.tracking import MlflowClient

from ark_framework import config, hookimpl, train
from ark_framework.errors import RunError
from ark_framework.events import StepsFlushed
from ark_framework.testing import conformance

# SQLAlchemy 2.1 on MLflow's own tables.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

test_conformance = conformance("ark-mlflow")

FILMS = {"films": 120, "size": 32}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def settings(place: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A run of a second or two; nothing of the user's is touched."""
    monkeypatch.setenv("ARK_CONFIG_HOME", str(place / "config"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    changes = {
        "plugins": ["ark-phantom", "ark-mlflow"],
        "data": {f"phantom-{name}": FILMS for name in ("north", "south", "east")},
        "cycles": 2,
        "batch_size": 16,
        "store": {"size": 32, "folder": str(place / "stores"), "workers": 1},
        "views": {"size": 24},
        "model": {"options": {"width": 4}, "features": 8},
        "eval": {"every": 1},
        "log": {"every": 4, "tensorboard": False},
        "checkpoint": {"every": 5},
        "runtime": {"threads": 1, "device": "cpu"},
    }
    return config.merge(config.recipe("demo"), changes)


class Crash:
    """Ends a run between two checkpoints, as a crash would: nothing is saved or said."""

    @hookimpl
    def ark_steps_flushed(self, event: StepsFlushed) -> None:
        if event.steps[-1].step == 7:
            raise KeyboardInterrupt


def lines(folder: Path, event: str) -> list[dict[str, Any]]:
    found = map(json.loads, (folder / "metrics.jsonl").read_text("utf-8").splitlines())
    return [line for line in found if line["event"] == event]


def expected(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every metric that ``metrics.jsonl`` gives, as MLflow should have it."""
    found: dict[str, list[tuple[int, float]]] = {}

    def add(key: str, step: int, value: float) -> None:
        found.setdefault(key, []).append((step, value))

    for line in lines(folder, "step"):
        for name in ("loss", "task_loss", "consistency_loss"):
            add(f"{name}/{line['task']}", line["step"], line[name])
        for name in ("consistency_weight", "lr"):
            add(name, line["step"], line[name])
    for line in lines(folder, "task"):
        add("momentum", line["step"], line["momentum"])
    for line in (*lines(folder, "cycle"), *lines(folder, "run")):
        for score in line["scores"]:
            key = f"auroc/{score['split']}/{score['model']}/{score['task']}"
            add(key, line["step"], score["auroc"])
    return found


def stored(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}")


def test_store_agrees_with_the_log(place: Path, settings: dict[str, Any]) -> None:
    """A run that crashed and went on is one MLflow run with each value of the log, once."""
    folder = place / "first"
    with pytest.raises(KeyboardInterrupt):
        train(settings, out=folder, watching=(Crash(),))
    client, run = stored(folder), (folder / RUN_FILE).read_text().strip()
    assert client.get_run(run).info.status == "RUNNING"
    assert max(each.step for each in client.get_metric_history(run, "lr")) == 7
    train(out=folder, resume=True)
    assert (folder / RUN_FILE).read_text().strip() == run
    experiment = client.get_experiment_by_name("ark")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert [each.info.run_id for each in runs] == [run]
    assert (runs[0].info.status, runs[0].info.run_name) == ("FINISHED", "first")
    wanted = expected(folder)
    assert {
        "loss/phantom-north",
        "auroc/val/teacher/phantom-east",
        "auroc/test/teacher/phantom-east",
    } <= set(wanted)
    assert set(runs[0].data.metrics) == set(wanted)
    for key, values in wanted.items():
        history = client.get_metric_history(run, key)
        assert sorted((each.step, each.value) for each in history) == values, key


def test_plan_is_in_the_parameters(place: Path, settings: dict[str, Any]) -> None:
    """The numbers of the plan can be searched for; its lists stay in ``plan.json``."""
    folder = place / "first"
    plan = json.loads((folder / "plan.json").read_text())
    params = stored(folder).get_run((folder / RUN_FILE).read_text().strip()).data.params
    assert params["total_steps"] == str(plan["total_steps"])
    assert params["learning_rate.peak"] == str(plan["learning_rate"]["peak"])
    assert params["tasks.phantom-south.rows"] == str(plan["tasks"][1]["rows"])
    assert not {key for key in params if key.startswith("visits")}


def test_a_failed_run_says_so(
    place: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a store named by ``MLFLOW_TRACKING_URI``, beside another run; its end is FAILED."""
    store = place / "first" / "mlflow" / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "broken")
    wild = config.merge(settings, {"optim": {"name": "sgd", "lr": 1e30}})
    with pytest.raises(RunError):
        train(wild, out=place / "second")
    assert not (place / "second" / "mlflow").exists()
    run = stored(place / "first").get_run((place / "second" / RUN_FILE).read_text().strip())
    assert (run.info.status, run.info.run_name) == ("FAILED", "second")


def test_no_store_stops_no_run(
    place: Path,
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Training matters more than its log: the observer is left out with one warning."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nosuch://store")
    with caplog.at_level(logging.WARNING, logger="ark_framework"):
        result = train(config.merge(settings, {"cycles": 1}), out=place / "third")
    assert result.scores
    said = [r.getMessage() for r in caplog.records if r.name.startswith("ark_framework")]
    assert len(said) == 1
    assert "observer ark_plugin_mlflow failed in ark_run_started and is detached" in said[0]
