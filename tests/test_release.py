"""What a release is made of: versions that agree, workflows that run what is there, the image."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import ark_framework
from ark_framework.story.card import PAPER

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def release() -> ModuleType:
    place = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
    assert place
    assert place.loader
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


def test_versions_agree() -> None:
    """What people read is the package's version, or not released yet."""
    assert release().version(ROOT) == ark_framework.__version__
    assert release().wrong(ROOT, None) == []


def test_a_wrong_tag_is_refused(tmp_path: Path) -> None:
    """Of another version, or with a changelog that was not closed, nothing is released."""
    (tmp_path / "ark_framework").mkdir()
    (tmp_path / "ark_framework" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CITATION.cff").write_text("version: 1.2.3\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.3 (a day)\n\n## 1.2.2\n")
    wrong = release().wrong
    assert wrong(tmp_path, "v1.2.3") == []
    assert len(wrong(tmp_path, "v1.2.4")) == 1
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n")
    assert wrong(tmp_path, None) == []
    assert len(wrong(tmp_path, "v1.2.3")) == 1
    (tmp_path / "CITATION.cff").write_text("version: 1.0.0\n")
    assert len(wrong(tmp_path, "v1.2.3")) == 2


def test_the_citation() -> None:
    """What cites us has what the format asks for, and the paper whose method this is."""
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(told)
    (paper,) = told["references"]
    assert f"doi.org/{paper['doi']}" in PAPER
    assert paper["title"] in PAPER
    assert all(each["family-names"] in PAPER for each in paper["authors"])


def loaded(path: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(path.read_text("utf-8"))
    return found


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in loaded(path)["jobs"].values():
        yield from job["steps"]


def test_the_workflows_run_the_makefile() -> None:
    """Every `make` of a workflow is a target, and hardly anything else is run."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    ran: set[str] = set()
    for path in WORKFLOWS:
        for step in steps(path):
            command = step.get("run", "")
            if command.startswith("make "):
                ran |= {word for word in command.split()[1:] if "=" not in word}
            elif command:
                assert command == "mkdir dist && cp all/${PACKAGE}-[0-9]* dist/"
    assert ran == {"lint", "test", "docs", "wheels", "release-check"}
    assert ran <= targets


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_workflows_may_do_little(path: Path) -> None:
    """They read; what writes is one job, without the code; no address, no secret, no expression."""
    told, text = loaded(path), path.read_text("utf-8")
    assert told["permissions"] == {"contents": "read"}
    for job in told["jobs"].values():
        more = job.get("permissions", {})
        assert set(more) <= {"id-token", "pages"}
        used = [step.get("uses", "") for step in job["steps"]]
        assert not (more and any(each.startswith("actions/checkout") for each in used))
        assert job["timeout-minutes"] <= 120
        for step in job["steps"]:
            assert re.fullmatch(r"([\w-]+/[\w-]+@(v\d+|release/v1))?", step.get("uses", ""))
            assert "${{" not in step.get("run", "")
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False
    assert "secrets." not in text
    assert "://" not in text


def test_the_pythons() -> None:
    """The matrix is what the package says that it runs on."""
    told = loaded(ROOT / ".github" / "workflows" / "ci.yml")
    matrix = told["jobs"]["test"]["strategy"]["matrix"]["python"]
    said = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text("utf-8"))
    assert matrix == said == ["3.11", "3.12", "3.13"]


def test_every_package_is_released() -> None:
    """A job for the core and for each first-party plugin, by the names of their files."""
    told = loaded(ROOT / ".github" / "workflows" / "release.yml")
    packages = told["jobs"]["publish"]["strategy"]["matrix"]["package"]
    own = sorted(path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml"))
    assert packages == ["ark_framework", *(name.replace("-", "_") for name in own)]


def test_the_image() -> None:
    """It holds what it installs and no data, does not run as root, and starts `ark`."""
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    kept = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert kept[1] == "*"
    assert [line[1:] for line in kept if line.startswith("!")] == copied
    assert all((ROOT / each).exists() for each in copied)
    user = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert user[-1].isdigit()
    assert int(user[-1]) > 0
    assert lines[-2:] == ['ENTRYPOINT ["ark"]', 'CMD ["--help"]']
    assert lines.index("FROM ${BASE}") == next(
        place + 1 for place, line in enumerate(lines) if line.startswith("ARG BASE=")
    )


@pytest.mark.skipif(not shutil.which("hadolint"), reason="hadolint is not installed")
def test_the_image_is_linted() -> None:
    """The linter has nothing to say."""
    subprocess.run(["hadolint", str(ROOT / "Dockerfile")], check=True)
