"""The reference pages come from the code, say something of all of it, and are current."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
from pydantic import Field

from ark_framework import config, hooks, specs

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """The generator, which is no part of any package."""
    spec = importlib.util.spec_from_file_location("ark_docs", ROOT / "docs" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_are_current(generate: ModuleType) -> None:
    """What is checked in is what would be written now; if not: ``python docs/generate.py``."""
    assert generate.stale() == []


def test_a_stale_page_is_named(
    generate: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """``--check`` exits 1 naming the page, and writes nothing; without it the page is mended."""
    monkeypatch.setattr(generate, "REFERENCE", tmp_path)
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    (tmp_path / "hooks.md").write_text("old\n")
    assert generate.main(["--check"]) == 1
    assert "docs/reference/hooks.md" in capsys.readouterr().err
    assert (tmp_path / "hooks.md").read_text() == "old\n"


def test_every_hook_has_an_entry() -> None:
    """Each hook specification has a heading, its arguments and a sentence."""
    text = (REFERENCE / "hooks.md").read_text("utf-8")
    for name, hook in vars(hooks).items():
        if hasattr(hook, f"{hooks.PROJECT}_spec"):
            entry = re.search(
                rf"^### `{name}`\n\n`{name}\((.*)\).*`\n\n(\w.*)$", text, re.MULTILINE
            )
            assert entry, name
            assert all(each in entry[1] for each in hook.__code__.co_varnames)


def test_every_spec_field_has_an_entry() -> None:
    """Each field of each exported spec has its type and a sentence."""
    text = (REFERENCE / "specs.md").read_text("utf-8")
    kinds = [each for each in vars(specs).values() if isinstance(each, type)]
    kinds = [each for each in kinds if dataclasses.is_dataclass(each)]
    assert len(kinds) == 6
    for kind in kinds:
        section = text.partition(f"## `{kind.__name__}`")[2].partition("\n## ")[0]
        for field in dataclasses.fields(kind):
            found = re.search(rf"^- \*\*`{field.name}`\*\* `(.+?)`: .*\w", section, re.MULTILINE)
            assert found, f"{kind.__name__}.{field.name}"
            assert found[1].startswith(str(field.type))


def test_every_key_has_an_entry() -> None:
    """A configuration written in full has no key that the page lacks."""
    text = (REFERENCE / "config.md").read_text("utf-8")

    def missing(section: config.Section, path: str) -> list[str]:
        found = []
        for name in type(section).model_fields:
            value = getattr(section, name)
            if isinstance(value, config.Section):
                found += missing(value, f"{path}{name}.")
            elif f"- **`{path}{name}`** " not in text:
                found.append(path + name)
        return found

    assert missing(config.RunConfig(), "") == []
    assert missing(config.TaskConfig(dataset="x"), "tasks[].") == []


def test_a_hook_without_a_docstring_is_refused(
    generate: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written without a description."""
    monkeypatch.setattr(hooks.ark_heads, "__doc__", None)
    with pytest.raises(generate.Undescribed, match="ark_heads"):
        generate.hooks_page()


def test_a_field_without_a_description_is_refused(
    generate: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spec's field that its docstring forgot is named; so is a key, a column and a check."""
    text = (specs.HeadSpec.__doc__ or "").replace("        kinds: ", "        others: ")
    monkeypatch.setattr(specs.HeadSpec, "__doc__", text)
    with pytest.raises(generate.Undescribed, match=r"HeadSpec\.kinds"):
        generate.specs_page()
    monkeypatch.setitem(config.LogConfig.model_fields, "every", Field(default=1))
    with pytest.raises(generate.Undescribed, match=r"LogConfig\.every"):
        generate.config_page()
    check = next(iter(generate.testing.CHECKS["head"]))
    monkeypatch.setattr(check, "__doc__", None)
    with pytest.raises(generate.Undescribed, match=check.__name__):
        generate.conformance_page()


def test_choices_are_listed() -> None:
    """A type with a name of its own says what it may be."""
    text = (REFERENCE / "specs.md").read_text("utf-8")
    for name in ("Kind", "LossKind", "HeadInput", "Uncertain", "Blank", "Access"):
        line = re.search(rf"^- `{name}`: (.*)$", text, re.MULTILINE)
        assert line, name
        assert re.findall(r"`(\w+)`", line[1]) == list(get_args(getattr(specs, name)))


def test_the_site_builds(tmp_path: Path) -> None:
    """Every page is in the navigation and every link leads somewhere: a warning is an error."""
    pytest.importorskip("mkdocs", reason="needs the docs extra: pip install -e '.[docs]'")
    pytest.importorskip("material", reason="needs the docs extra: pip install -e '.[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "reference" / "hooks.html").read_text("utf-8")
    assert "ark_run_started" in page
    assert not re.findall(r'<(?:link|script|img)[^>]+(?:href|src)="https?://', page)
