"""The demo: what it prints, and that its world is learned."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ark_framework import cli
from ark_framework import config as configuration
from ark_framework.launch import train

Small = Callable[..., dict[str, Any]]


def test_what_it_prints(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Plan, progress, and a table of student, teacher and pixels for every task."""
    monkeypatch.setattr(configuration, "recipe", lambda name: small(cycles=1))
    assert cli.run(["demo", "--out", str(tmp_path / "run")]) == 0
    said = capfd.readouterr().out
    for name in ("north", "south", "east"):
        assert re.search(rf"phantom-{name} +\d+ +\d of \d +0\.\d+ +0\.\d+ +(0\.\d+|n/a)", said)
    assert re.search(r"\d+ of 10 labels above 0\.98", said)
    assert "first momentum is 0.5, not 0.9" in said
    assert "nothing about patients" in said
    assert said.splitlines()[-1] == f"report: {tmp_path / 'run' / 'report.html'}"
    html = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "Test scores, label by label" in html
    assert html.count("<img") > 20  # drawn films are nobody's
    assert cli.run(["demo", "--out", str(tmp_path / "run")]) == 2
    assert "in use" in capfd.readouterr().err


def test_it_is_kept_where_it_says(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a folder of the user's own the run and its page stay below runs/."""
    monkeypatch.setattr(configuration, "recipe", lambda name: small(cycles=1))
    monkeypatch.chdir(tmp_path)
    assert cli.run(["demo"]) == 0
    last = capfd.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"report: runs/demo-\d{8}-\d{6}/report\.html", last)
    assert Path(last.removeprefix("report: ")).is_file()


@pytest.mark.slow
def test_its_world_is_learned(tmp_path: Path, shared_stores: Path) -> None:
    """A fifth of the demo is enough to see that every task is on its way."""
    config = configuration.merge(
        configuration.recipe("demo"),
        {
            "cycles": 6,
            "store": {"folder": str(shared_stores), "workers": 1},
            "log": {"tensorboard": False},
            "runtime": {"threads": 1, "device": "cpu"},
        },
    )
    scores = train(config, out=tmp_path / "run").scores
    student = {each.task: each.auroc for each in scores if each.model == "student"}
    assert student["phantom-east"] > 0.9
    assert student["phantom-south"] > 0.65
    assert student["phantom-north"] > 0.6
