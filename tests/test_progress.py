"""Whatever takes a while says how far it is and how long it may take."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ark_framework import store
from ark_framework.cli import packing, prediction
from ark_framework.cli.packing import PackingBar
from ark_framework.durations import left, spoken
from ark_framework.transfer import training


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0 s"), (0.4, "0 s"), (119, "119 s"), (180, "3 min"), (7200, "2 h"), (200_000, "2 days")],
)
def test_durations(seconds: float, said: str) -> None:
    """As people say them."""
    assert spoken(seconds) == said


def test_what_is_left() -> None:
    """As much time as was taken, for as much work; nothing at the ends, where it is not known."""
    assert left(1, 4, seconds=60) == ", about 3 min left"
    assert left(0, 4, seconds=60) == left(4, 4, seconds=60) == left(9, 4, seconds=60) == ""


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which every look is a minute after the last."""
    minutes = iter(range(0, 10**6, 60))
    for module in (packing, prediction):
        monkeypatch.setattr(module, "monotonic", lambda: next(minutes))


@pytest.mark.usefixtures("ticking")
def test_lines_in_a_log() -> None:
    """Where there is no terminal a line now and then has the time that is left."""
    file = io.StringIO()
    with PackingBar(Console(file=file, width=200)) as bar:
        for done in (1, 2, 3):
            bar.show("scoring rsna", done, 3)
    first, second, last = file.getvalue().splitlines()
    assert first == "scoring rsna: 1/3"  # no time has been seen yet
    assert second.startswith("scoring rsna: 2/3, about ")
    assert last == "scoring rsna: 3/3"


def test_a_bar_on_a_terminal() -> None:
    """There it is one bar, with a column for the time, and it is taken away when all is done."""
    file = io.StringIO()
    with PackingBar(Console(file=file, force_terminal=True, width=100)) as bar:
        assert list(bar.each("abc", "reading tables")) == ["a", "b", "c"]
    said = file.getvalue()
    assert "reading tables" in said
    assert "3/3" in said
    assert ":--" in said


def test_one_thing_needs_no_bar() -> None:
    """Of one alone nothing is said."""
    file = io.StringIO()
    with PackingBar(Console(file=file)) as bar:
        assert list(bar.each(["a"], "verifying")) == ["a"]
    assert file.getvalue() == ""


@pytest.mark.usefixtures("ticking")
def test_predicting(capfd: pytest.CaptureFixture[str]) -> None:
    """`ark predict` says how many of how many films, beside the table."""
    pd = pytest.importorskip("pandas")
    output = prediction.Output(out=None, as_json=False, max_bad=0, total=8)
    with output.opened() as file:
        output.add(pd.DataFrame({"image": ["a", "b"]}), {}, file)
    said = capfd.readouterr().err
    assert said.startswith("predicted 2 of 8 films, about ")


def test_a_checksum_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large store is read for minutes by `ark data verify`: it says so, in MB."""
    path = tmp_path / "images.npy"
    path.write_bytes(bytes(3_000_000))
    monkeypatch.setattr(store, "READ", 1_000_000)
    seen: list[tuple[int, int]] = []
    whole = store.checksum(path, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert whole == store.checksum(path)


def test_fine_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training of hours says where it is, and what is left at most."""
    seconds = iter(range(0, 10**6, 30))
    monkeypatch.setattr(training, "perf_counter", lambda: next(seconds))
    said: list[str] = []
    where: Any = SimpleNamespace(where="rsna", steps=10)
    one: Any = SimpleNamespace(
        objective=where, say=said.append, step=5, began=0, total=15, clock=-30, spoke=-30
    )
    training.Training._tell(one)
    one.step, one.spoke = 6, 25
    training.Training._tell(one)  # too soon after the last
    assert said == ["rsna: step 5 of at most 15, about 60 s left"]


def test_an_audit_counts_pairs(small: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """Two stores are three comparisons: each with itself, and with the other."""
    from ark_framework.audit import Audited, audit
    from ark_framework.config import parse
    from ark_framework.preparation import prepare

    prepared = prepare(parse(small()))
    two = list(prepared.corpora.values())[:2]
    seen: list[tuple[int, int]] = []
    audit(
        [Audited(table=each.table, store=each.store, index=np.asarray(each.index)) for each in two],
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
