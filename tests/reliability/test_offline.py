"""Nothing is fetched or told unless asked for, and no plugin runs that nobody named."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ark_framework import bundle, cli

HOME = Path(__file__).parents[2]
# Python asks its audit hooks before every look-up and every connection, whoever wants one.
SITE = """
import sys

def hook(event, given):
    outside = event in ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg")
    if event.startswith("socket.get") and event != "socket.gethostname":
        raise PermissionError(f"{event} {given}")
    if outside and isinstance(given[1], tuple):  # a pair of host and port, not a file's name
        raise PermissionError(f"{event} {given[1]}")

sys.addaudithook(hook)
"""
WORK = """
import json, sys
from ark_framework import cli
print(json.dumps([cli.run(args) for args in json.loads(sys.argv[1])]))
"""


def alone(folder: Path, commands: list[list[str]]) -> list[int]:
    """Run commands in a process that has no network, and return their exit codes."""
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "sitecustomize.py").write_text(SITE)
    words = [sys.executable, "-c", WORK, json.dumps(commands)]
    if shutil.which("unshare"):
        cut = ["unshare", "-r", "-n"]
        if subprocess.run([*cut, "true"], check=False, capture_output=True).returncode == 0:
            words = [*cut, *words]  # for libraries that do not ask Python
    path = os.pathsep.join([str(folder / "site"), str(HOME)])
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


def timm_run(small: Callable[..., dict[str, Any]], folder: Path, init: str) -> dict[str, Any]:
    """Write a configuration with one of timm's models."""
    model = {"backbone": "timm", "options": {"name": "resnet10t"}, "init": init, "features": 8}
    config = {**small(cycles=1, limit=24), "model": model}
    (folder / "run.yaml").write_text(json.dumps(config))
    return config


def test_nothing_needs_the_network(
    small: Callable[..., dict[str, Any]], tmp_path: Path, ledger
) -> None:
    """Training, exporting, predicting, comparing, pages and lists."""
    config = timm_run(small, tmp_path, "random")
    film, run, export = tmp_path / "film.png", str(tmp_path / "run"), str(tmp_path / "export")
    Image.new("L", (64, 64), 90).save(film)
    data = ["-c", str(tmp_path / "run.yaml")]
    study = {key: config[key] for key in ("plugins", "data", "store", "runtime", "limit")}
    study |= {"models": {"mine": export}, "datasets": ["phantom-north"], "protocols": ["probe"]}
    (tmp_path / "study.yaml").write_text(json.dumps(study))
    commands = [
        ["train", *data, "--out", run],
        ["export", run, "--out", export],
        ["predict", export, str(film), "--workers", "1", "--out", str(tmp_path / "table.csv")],
        ["compare", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "study")],
        ["data", "labels", "-c", str(tmp_path / "labels.yaml"), "--html", str(tmp_path / "l.html")],
        ["plugins", "list"],
        ["doctor"],
    ]
    told = {key: config[key] for key in ("plugins", "data")}
    (tmp_path / "labels.yaml").write_text(json.dumps(told))
    codes = alone(tmp_path, commands)
    assert codes[:-1] == [0] * (len(commands) - 1)
    assert codes[-1] in (0, 5)  # what doctor finds here is not ours to say
    for _ in commands:
        ledger.survived("no network")


@pytest.mark.long
def test_pretrained_weights_are_fetched_when_asked_for(
    small: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch, ledger
) -> None:
    """Then alone, which is why it fails here: the library tries for most of a minute."""
    timm_run(small, tmp_path, "pretrained")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))  # not what was fetched before
    args = ["train", "-c", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run")]
    assert alone(tmp_path, [args]) == [5]
    ledger.refused("no network")


PLUGIN = """
from pathlib import Path

Path({marker!r}).write_text("ran")

from ark_framework import hookimpl


@hookimpl
def ark_heads():
    return []
"""


@pytest.fixture
def marker(install: Callable[..., str], tmp_path: Path) -> Path:
    """The file that an installed plugin leaves when it runs."""
    path = tmp_path / "ran"
    install("loud", PLUGIN.replace("{marker!r}", repr(str(path))))
    return path


UNNAMED = [
    ["--help"],
    ["train", "--help"],
    ["plugins", "list"],
    ["plugins", "list", "--json"],
    ["plugins", "show", "ark-phantom"],
    ["data", "list"],
    ["data", "list", "--plugins", "ark-phantom"],
    ["config", "show"],
    ["config", "show", "--plugins", "ark-phantom"],
    ["doctor"],
    ["plugins", "show", "ark-lout"],  # a near miss is a name in a message
]


@pytest.mark.parametrize("args", UNNAMED)
def test_a_plugin_that_nobody_names_does_not_run(args: list[str], marker: Path, ledger) -> None:
    """Listing, help and diagnosis read what is installed, and import none of it."""
    cli.run(args)
    assert not marker.exists()
    ledger.survived("plugin that nobody named")


def test_it_runs_when_it_is_named(marker: Path) -> None:
    """Else the tests around this one would pass for nothing."""
    assert cli.run(["plugins", "show", "ark-loud"]) == 0
    assert marker.read_text() == "ran"


def test_training_with_others_does_not_run_it(
    marker: Path, small: Callable[..., dict[str, Any]], tmp_path: Path, ledger
) -> None:
    """Nor does a model that lists it and does not need it."""
    (tmp_path / "run.yaml").write_text(json.dumps(small(cycles=1, limit=24)))
    run = str(tmp_path / "run")
    assert cli.run(["train", "-c", str(tmp_path / "run.yaml"), "--out", run]) == 0
    assert cli.run(["export", run, "--out", str(tmp_path / "export")]) == 0
    config = tmp_path / "export" / "config.json"
    values = json.loads(config.read_text())
    values["ark"]["plugins"] = ["ark-loud"]
    config.write_text(json.dumps(values))
    bundle.read(tmp_path / "export")
    assert not marker.exists()
    ledger.survived("plugin that nobody named")


def test_completion_does_not_run_it(marker: Path, tmp_path: Path, ledger) -> None:
    """What a shell asks while somebody types."""
    site = str(marker.parent / "site")
    for typed, word in (
        ("ark pl", "1"),
        ("ark plugins show a", "3"),
        ("ark train --plugins ", "3"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", "from ark_framework.cli import main; main()"],
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([site, str(HOME)]),
                "_ARK_COMPLETE": "bash_complete",
                "COMP_WORDS": typed,
                "COMP_CWORD": word,
            },
        )
        assert not marker.exists(), done.stderr
        ledger.survived("plugin that nobody named")


@pytest.mark.parametrize("names", ["ark-loud", "loud", "ark-plugin-loud", "all", "x, ALL"])
@pytest.mark.parametrize("args", [["plugins", "show", "ark-loud"], ["plan", "--plugins", "loud"]])
def test_a_disabled_plugin_does_not_run(
    names: str, args: list[str], marker: Path, monkeypatch, capfd, ledger
) -> None:
    """Even when it is named: whoever runs a machine has the last word."""
    monkeypatch.setenv("ARK_DISABLE_PLUGINS", names)
    assert cli.run(args) == 4
    assert "is disabled by ARK_DISABLE_PLUGINS" in capfd.readouterr().err
    assert not marker.exists()
    ledger.refused("disabled plugin")


def test_disabling_leaves_the_rest(marker: Path, monkeypatch, ledger) -> None:
    """The built-ins are not third parties'."""
    monkeypatch.setenv("ARK_DISABLE_PLUGINS", "all")
    assert cli.run(["plugins", "show", "ark-phantom"]) == 0
    assert cli.run(["plugins", "list"]) == 0
    assert not marker.exists()
    ledger.survived("disabled plugin")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one address of their own")
def test_ranks_meet_where_nobody_else_can_come(ledger) -> None:
    """The store of the processes of one machine listens on that machine's own address alone."""
    from ark_framework.cli.rendezvous import Here

    here = Here("test")
    found = here.next_rendezvous().bootstrap_store_info
    assert (found.master_addr, found.master_port) == ("127.0.0.1", here.master_port)
    with socket.create_connection(("127.0.0.1", here.master_port), timeout=5):
        pass
    with socket.socket() as other:  # on every address of this machine but that one it is free
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.2", here.master_port))
    ledger.survived("a stranger on the network")
