"""Parts of several packages in one run, by their names in a configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ark_plugin_first import SPEC

from ark_framework import ConfigError, config, train


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A dataset with its schema, a head, two losses and a backbone, each of another package."""
    monkeypatch.setenv("ARK_CONFIG_HOME", str(tmp_path / "config"))
    SPEC.fixture(tmp_path / "first")
    changes = {
        "plugins": [
            "ark-first", "ark-phantom", "ark-label-query", "ark-focal", "ark-asymmetric",
            "ark-hf-vision",
        ],
        "tasks": [
            {"dataset": "first", "head": "label-query", "loss": "asymmetric"},
            {"dataset": "phantom-north", "loss": "focal-alpha"},
            {"dataset": "phantom-south", "head": "label-query"},
        ],
        "losses": {"multiclass": "focal"},
        "data": {
            "first": {"root": str(tmp_path / "first")},
            **{f"phantom-{name}": {"films": 120, "size": 32} for name in ("north", "south")},
        },
        "cycles": 1,
        "batch_size": 16,
        "store": {"size": 32, "folder": str(tmp_path / "stores"), "workers": 1},
        "views": {"size": 28},
        "model": {
            "backbone": "hf-vision",
            "options": {
                "config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
            },
            "features": 8,
        },
        "log": {"every": 4, "tensorboard": False},
        "runtime": {"threads": 1, "device": "cpu"},
    }  # fmt: skip
    return config.merge(config.recipe("demo"), changes)


def test_one_run(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Each task trains with what was named for it, and is scored; the run says whose it was."""
    result = train(settings, out=tmp_path / "run")
    plan = json.loads((result.folder / "plan.json").read_text())
    assert [(task["name"], task["head"], task["loss"]) for task in plan["tasks"]] == [
        ("first", "label-query", "asymmetric"),
        ("phantom-north", "linear", "focal-alpha"),
        ("phantom-south", "label-query", "focal"),
    ]
    scored = {each.task for each in result.scores if each.model == "teacher"}
    assert scored == {"first", "phantom-north", "phantom-south"}
    plugins = json.loads((result.folder / "run.json").read_text())["plugins"]
    assert {"ark-plugin-first", "ark-plugin-focal", "ark-plugin-hf-vision"} <= {
        each["distribution"] for each in plugins
    }


def test_a_loss_of_another_kind(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Refused before there is a run, with a line that names the loss and both kinds."""
    wrong = config.merge(settings, {"losses": {"multiclass": "asymmetric"}})
    with pytest.raises(ConfigError, match="'asymmetric' serves multilabel, not multiclass"):
        train(wrong, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
