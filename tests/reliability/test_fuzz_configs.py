"""Whatever a configuration says: one line, or a configuration that is written and read the same."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oneline import assert_one_line

from ark_framework import config as configuration
from ark_framework import yamlfile
from ark_framework.config import RunConfig
from ark_framework.errors import ConfigError
from ark_framework.text import printable
from ark_framework.transfer.settings import parse as study

SOUND = RunConfig().model_dump(mode="json")
TEXT = st.text(max_size=12) | st.sampled_from(
    [
        "",
        "~",
        "null",
        "1e3",
        "010",
        "1:30",
        "yes",
        "<<",
        "=",
        "- a",
        "a: b",
        "#",
        "2024-01-31",
        "&a",
    ]
)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT
    | st.sampled_from([0, 1, -1, 10**30, float("nan"), float("inf"), 1e-300])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
WRITTEN = configuration.dump(RunConfig())
QUICK = settings(max_examples=60, deadline=None, derandomize=True)
LONG = settings(
    max_examples=3000, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


def _paths(values: Any, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [above] if above else []
    for key, value in values.items() if isinstance(values, dict) else ():
        found += _paths(value, (*above, key))
    return found


def judge(values: dict[str, Any]) -> bool:
    """Return whether values are taken, and check what became of them."""
    try:
        made = configuration.parse(values)
    except ConfigError as error:
        assert_one_line(printable(str(error)))
        return False
    written = configuration.dump(made)
    assert configuration.dump(configuration.parse(yamlfile.parse(written))) == written
    return True


def _one_changed(path: tuple[str, ...], value: Any) -> None:
    values = copy.deepcopy(SOUND)
    held = values
    for key in path[:-1]:
        held = held[key]
    held[path[-1]] = value
    judge(values)


def _yaml(text: str) -> None:
    try:
        made = yamlfile.parse(text)
    except ValueError as error:
        assert_one_line(printable(str(error)))
        return
    assert json.dumps(yamlfile.parse(yamlfile.dump(made))) == json.dumps(made)
    if isinstance(made, dict):
        judge(made)


def _assigned(text: str) -> None:
    try:
        made = configuration.assignment(text)
    except ConfigError as error:
        assert_one_line(printable(str(error)))
        return
    judge(configuration.merge(SOUND, made))


def _mutated(cuts: list[tuple[int, int, str]]) -> None:
    text = WRITTEN
    for start, length, put in cuts:
        at = start % len(text) if text else 0
        text = text[:at] + put + text[at + length :]
    _yaml(text)


CUTS = st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 40), TEXT), min_size=1, max_size=4)
ASSIGNED = st.builds(
    "{}={}".format, TEXT | st.sampled_from([".".join(path) for path in _paths(SOUND)]), TEXT
) | st.text(max_size=20)


@QUICK
@given(st.dictionaries(TEXT | st.sampled_from([*SOUND]), VALUES, max_size=5))
def test_any_values(values: dict[str, Any]) -> None:
    """At the top of it."""
    judge(values)


@QUICK
@given(st.sampled_from(_paths(SOUND)), VALUES)
def test_any_value_in_a_sound_one(path: tuple[str, ...], value: Any) -> None:
    """In place of one that was right."""
    _one_changed(path, value)


@QUICK
@given(CUTS)
def test_any_cut_of_a_sound_file(cuts: list[tuple[int, int, str]]) -> None:
    """As an editor leaves it."""
    _mutated(cuts)


@QUICK
@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    """As no editor leaves it."""
    _yaml(text)


@QUICK
@given(ASSIGNED)
def test_any_set(text: str) -> None:
    """After ``--set``."""
    _assigned(text)


@QUICK
@given(st.dictionaries(TEXT | st.sampled_from(["models", "probe", "folds"]), VALUES, max_size=4))
def test_any_study(values: dict[str, Any]) -> None:
    """Of ``ark compare``."""
    try:
        study(values)
    except ConfigError as error:
        assert_one_line(printable(str(error)))


@pytest.mark.long
@LONG
@given(st.data())
def test_at_length(data: st.DataObject) -> None:
    """All of these, many times."""
    kind = data.draw(st.integers(0, 3))
    if kind == 0:
        _one_changed(data.draw(st.sampled_from(_paths(SOUND))), data.draw(VALUES))
    elif kind == 1:
        _mutated(data.draw(CUTS))
    elif kind == 2:
        _yaml(data.draw(st.text(max_size=200)))
    else:
        _assigned(data.draw(ASSIGNED))


def test_the_ledger_has_it(ledger) -> None:
    """The number of draws that were judged, as each counts for one kind."""
    assert judge(SOUND)
    ledger.survived("fuzzed configuration")
