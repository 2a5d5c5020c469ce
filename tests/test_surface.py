"""What plugins and scripts rely on changes only on purpose."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ark_framework import config, discovery, hooks, specs

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "tests" / "assets" / "surface.json"


def surface() -> dict[str, Any]:
    """Return the surface as it is now."""
    spec = importlib.util.spec_from_file_location("ark_docs", ROOT / "docs" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Any] = module.surface()
    return found


def test_the_surface_is_as_it_was() -> None:
    """A change that is meant is accepted with ``python docs/generate.py --surface``."""
    kept = json.loads(KEPT.read_text("utf-8"))
    now = surface()
    changed = {part for part in {*kept, *now} if kept.get(part) != now.get(part)}
    assert {part: now.get(part) for part in changed} == {part: kept.get(part) for part in changed}


def test_a_change_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook, field, choice or key that comes or goes is a difference, and a default that moves."""
    before = surface()

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class HeadSpec(specs.HeadSpec):
        input: specs.HeadInput = "pooled"
        added: int = 0

    HeadSpec.__module__ = specs.__name__
    monkeypatch.setattr(specs, "HeadSpec", HeadSpec)
    monkeypatch.setattr(specs, "Blank", specs.Uncertain)
    monkeypatch.setattr(hooks, "ark_added", lambda event: event, raising=False)
    fields_of_log = config.LogConfig.model_fields
    kept = dict(fields_of_log)  # a deleted key would come back as the last one
    fields_of_log.pop("every")
    try:
        after = surface()
    finally:
        fields_of_log.clear()
        fields_of_log.update(kept)
    assert after["hooks"]["ark_added"] == ["event"]
    fields = after["specs"]["HeadSpec"]
    assert fields["added"] == "int = 0"
    assert fields["input"] != before["specs"]["HeadSpec"]["input"]
    assert after["types"]["Blank"] != before["types"]["Blank"]
    assert set(before["config"]) - set(after["config"]) == {"log.every"}


def test_the_policy_names_the_api() -> None:
    """The page speaks of the entry-point group that is looked for."""
    text = (ROOT / "docs" / "reference" / "stability.md").read_text("utf-8")
    assert set(re.findall(r"`(ark_framework\.v\d+)`", text)) == {discovery.GROUP}
