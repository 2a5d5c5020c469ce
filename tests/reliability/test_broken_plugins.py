"""Plugins that are broken: named with version and cause, and only where they were asked for."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus_plugins import DATASET, HEAD, PLUGINS, SOUND
from oneline import refused, some

from ark_framework import cli
from ark_framework.config import parse
from ark_framework.corpus import read_table
from ark_framework.registry import load

Install = Callable[..., str]
RUN = {
    "cycles": 2,
    "batch_size": 8,
    "store": {"size": 32, "workers": 1},
    "views": {"size": 24},
    "model": {"backbone": "tiny", "options": {"width": 4}, "features": 8, "init": "random"},
    "eval": {"every": 0, "test": False},
    "log": {"tensorboard": False, "every": 1},
    "runtime": {"threads": 1, "device": "cpu"},
}


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., list[str]]:
    """Return ``command(plugin)``: the words that train on it."""

    def words(*plugins: str, out: str = "run", settings: tuple[str, ...] = ()) -> list[str]:
        config = {**RUN, "plugins": list(plugins)}
        config["store"] = {"size": 32, "workers": 1, "folder": str(tmp_path / "stores")}
        if settings:  # an encoder of the plugin's own, without options
            config["model"] = {"features": 8}
        (tmp_path / "run.yaml").write_text(json.dumps(config))
        sets = [word for each in settings for word in ("--set", each)]
        return ["train", "-c", str(tmp_path / "run.yaml"), "--out", str(tmp_path / out), *sets]

    return words


def test_the_sound_one_trains(install: Install, command: Callable[..., list[str]]) -> None:
    """Else each of these would be refused for nothing."""
    install("sound", SOUND)
    assert cli.run(command("ark-sound")) == 0


@pytest.mark.parametrize("case", some(PLUGINS))
def test_a_broken_plugin_is_named(
    case: str,
    install: Install,
    command: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    ledger,
) -> None:
    """In a line, with the cause; where the plugin's code is at fault, with its version."""
    plugin = PLUGINS[case]
    install("broken", plugin.code)
    said = plugin.said.replace("{name}", "broken")
    error = refused(command("ark-broken", settings=plugin.settings), plugin.exits, capfd, said)
    if plugin.exits == 4:
        assert "ark-broken (ark-plugin-broken 1.5)" in error
    assert not list((tmp_path / "run").rglob("*.pt"))
    ledger.refused("plugin")


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ("nowhere_at_all", "ModuleNotFoundError"),
        ("{module}:absent", "has no 'absent'"),
        ("not a module", "cannot be imported"),
        ("", "entry_points.txt"),
        (".relative", "cannot be imported"),
        ("{module}.below", "ModuleNotFoundError"),
    ],
)
def test_an_entry_point_leads_nowhere(
    point: str,
    said: str,
    install: Install,
    command: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    ledger,
) -> None:
    """The metadata of the distribution says it."""
    module = install("lost", SOUND)
    info = tmp_path / "site" / f"{module}-1.5.dist-info" / "entry_points.txt"
    line = f"ark-lost = {point.replace('{module}', module)}"
    info.write_text(f"[ark_framework.v1]\n{line}\n")
    code = (2, 4) if not point else 4
    refused(command("ark-lost"), code, capfd, *([said] if point else ["ark-lost"]))
    ledger.refused("plugin: entry point")


def test_another_major(
    install: Install, command: Callable[..., list[str]], capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """A plugin for an API that is not this one's."""
    install("next", SOUND, group="ark_framework.v2")
    refused(command("ark-next"), 4, capfd, "ark-next (ark-plugin-next 1.5)", "plugin API v2")
    ledger.refused("plugin: entry point")


def test_two_distributions_of_one_name(
    install: Install, command: Callable[..., list[str]], capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """Neither is chosen."""
    install("twin", SOUND)
    install("twin", SOUND, distribution="ark-plugin-twin-other")
    refused(command("ark-twin"), 4, capfd, "is the name of 2 installed distributions")
    ledger.refused("plugin: entry point")


def test_two_plugins_of_one_dataset(
    install: Install, command: Callable[..., list[str]], capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """Neither is skipped: both are named."""
    install("early", HEAD + DATASET.format("name='films'"))
    install("late", HEAD + DATASET.format("name='films'"))
    refused(command("ark-early", "ark-late"), 4, capfd, "ark-late", "'films'", "ark-early", "1.5")
    ledger.refused("plugin")


@pytest.mark.parametrize("case", some([case for case in PLUGINS if PLUGINS[case].exits == 4][:12]))
def test_a_broken_plugin_that_is_not_named(
    case: str,
    install: Install,
    command: Callable[..., list[str]],
    capfd: pytest.CaptureFixture[str],
    ledger,
) -> None:
    """It is not imported, and stops nothing; it is listed."""
    install("broken", PLUGINS[case].code)
    install("sound", SOUND)
    assert cli.run([*command("ark-sound"), "--dry-run"]) == 0
    assert cli.run(["plugins", "list"]) == 0
    assert "ark-broken" in capfd.readouterr().out
    ledger.survived("plugin")


@pytest.mark.parametrize("disabled", ["ark-sound", "sound, other", "ALL", "ark-plugin-sound"])
def test_a_disabled_plugin(
    disabled: str,
    install: Install,
    command: Callable[..., list[str]],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    ledger,
) -> None:
    """Refused where it is named, and never imported; the built-ins go on."""
    install("sound", "raise SystemExit(0)")
    monkeypatch.setenv("ARK_DISABLE_PLUGINS", disabled)
    refused(command("ark-sound"), 4, capfd, "ark-sound (ark-plugin-sound 1.5)", "is disabled")
    assert cli.run(["plugins", "list"]) == 0
    ledger.refused("plugin: disabled")


OBSERVERS = {
    "raises": "raise ValueError('observer')",
    "exits": "raise SystemExit(0)",
    "changes the event": "event.steps.append(1)",
    "sets a field": "event.step = 7",
    "draws random numbers": "import numpy, torch, random; numpy.random.seed(1); "
    "torch.manual_seed(1); random.seed(1); torch.rand(9)",
    "prints": "print('loss!' * 9)",
    "makes torch draw on": "import torch; torch.manual_seed(7); torch.randn(1)",
}


def _weights(path: Path) -> dict[str, Any]:
    held = torch.load(path / "checkpoints" / "last.pt", weights_only=True)
    return {
        **held["student"],
        **{f"teacher.{name}": each for name, each in held["teacher"].items()},
    }


@pytest.mark.parametrize("case", some(OBSERVERS))
def test_an_observer_changes_nothing(
    case: str,
    install: Install,
    command: Callable[..., list[str]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    ledger,
) -> None:
    """Whatever it does, the run ends with the same weights, bit for bit."""
    install("sound", SOUND)
    install("seen", f"{HEAD}\n@hookimpl\ndef ark_steps_flushed(event):\n    {OBSERVERS[case]}\n")
    assert cli.run(command("ark-sound", out="alone")) == 0
    with caplog.at_level(logging.WARNING):
        assert cli.run(command("ark-sound", "ark-seen")) == 0
    alone, seen = _weights(tmp_path / "alone"), _weights(tmp_path / "run")
    assert alone.keys() == seen.keys()
    assert all(torch.equal(alone[name], seen[name]) for name in alone)
    failing = case in ("raises", "exits", "changes the event", "sets a field")
    assert ("is detached" in caplog.text) == failing
    ledger.survived("observer")


@pytest.mark.parametrize("where", some(["loss", "hook", "read", "read_image", "import"]))
def test_a_plugin_that_prints_and_draws(
    where: str,
    install: Install,
    command: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    ledger,
) -> None:
    """The answer in JSON stays one, and the run the same, bit for bit."""
    noise = (
        "import random, torch; print('hello'); np.random.seed(3); torch.manual_seed(3); "
        "random.seed(3); torch.rand(3)"
    )
    noisy = {
        "import": HEAD + f"\n{noise}\n" + DATASET.format(""),
        "hook": HEAD + DATASET.format("").replace("    return", f"    {noise}\n    return"),
        "read": SOUND.replace("    rows =", f"    {noise}\n    rows ="),
        "read_image": SOUND.replace("    shade =", f"    {noise}\n    shade ="),
        "loss": HEAD
        + "\nimport torch\ndef build(schema):\n    def mine(o, t):\n"
        + f"        {noise}\n        return (o.sigmoid() - t) ** 2\n    return mine\n"
        + "\n@hookimpl\ndef ark_losses():\n"
        + "    return [LossSpec(name='mine', kinds=('multilabel',), build=build)]\n"
        + DATASET.format("loss='mine'"),
    }[where]
    quiet = noisy.replace(noise, "pass")
    install("films", quiet)
    assert cli.run(command("ark-films", out="quiet")) == 0
    (tmp_path / "site" / "ark_plugin_films.py").write_text(noisy.replace("{name}", "films"))
    sys.modules.pop("ark_plugin_films")
    shutil.rmtree(tmp_path / "stores")
    capfd.readouterr()
    assert cli.run([*command("ark-films"), "--json"]) == 0
    captured = capfd.readouterr()
    assert json.loads(captured.out)["out"] == str(tmp_path / "run")
    assert "hello" in captured.err
    alone, seen = _weights(tmp_path / "quiet"), _weights(tmp_path / "run")
    assert all(torch.equal(alone[name], seen[name]) for name in alone)
    ledger.survived("plugin that prints and draws")


def test_options_are_nobody_elses(install: Install, ledger) -> None:
    """A plugin that changes the options it is given changes its own copy."""
    code = SOUND.replace("    rows =", "    count, options.films = options.films, 9\n    rows =")
    install("greedy", code.replace("rows = range(options.films)", "rows = range(count)"))
    registry = load(["ark-greedy"])
    config = parse({"plugins": ["ark-greedy"]})
    table, options = read_table(registry.dataset("greedy"), registry, config, roots={})
    assert len(table) == options.films == 24
    ledger.survived("plugin")
