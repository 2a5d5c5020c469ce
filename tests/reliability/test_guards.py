"""Without any one of its guards the framework fails its tests: they are not there for show."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from guards import GUARDS, Guard

import ark_framework

PACKAGE = Path(ark_framework.__file__).parent
ROOT = Path(__file__).parents[2]


def suite(guard: Guard, site: Path) -> subprocess.CompletedProcess[str]:
    """Run a guard's tests over the package in ``site``."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-n", "0",
         "-m", "long or not long", *guard.tests],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"},
        check=False, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_guard_stands_once(guard: Guard) -> None:
    """The list is of the code as it is."""
    assert (PACKAGE / guard.file).read_text("utf-8").count(guard.code) == 1


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_without_a_guard_the_tests_fail(guard: Guard, tmp_path: Path) -> None:
    """The package is copied, one guard taken out, and its tests are run."""
    site = tmp_path / "site"
    shutil.copytree(PACKAGE, site / "ark_framework", ignore=shutil.ignore_patterns("__pycache__"))
    broken = site / "ark_framework" / guard.file
    broken.write_text(broken.read_text("utf-8").replace(guard.code, guard.without), "utf-8")
    done = suite(guard, site)
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-2000:]  # tests failed
    assert re.search(r"\d (failed|error)", done.stdout)  # an error is what a fixture found after
