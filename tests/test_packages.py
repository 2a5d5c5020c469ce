"""The core and every first-party plugin as people get them: wheels in a clean environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
PACKAGES = sorted(path.parent for path in REPO.glob("plugins/*/pyproject.toml"))


def project(folder: Path) -> dict[str, object]:
    found: dict[str, object] = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))[
        "project"
    ]
    return found


def points(folder: Path) -> dict[str, str]:
    found: dict[str, dict[str, str]] = project(folder)["entry-points"]  # type: ignore[assignment]
    return found["ark_framework.v1"]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with wheels of ours and, beside them, whatever else is installed here."""
    folder = tmp_path_factory.mktemp("clean")
    for package in (REPO, *PACKAGES):
        words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        subprocess.run(words, cwd=package, check=True, capture_output=True)
    home = folder / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    site = next((home / "lib").glob("python*/site-packages"))
    # Links to all that is installed but ours, so that torch need not be downloaded again.
    others = folder / "others"
    others.mkdir()
    for place in map(Path, sys.path):
        for entry in place.iterdir() if place.name == "site-packages" else ():
            ours = entry.name.lower().startswith(("ark", "__editable__", "_editable"))
            if not ours and entry.suffix != ".pth" and not (others / entry.name).exists():
                (others / entry.name).symlink_to(entry)
    (site / "others.pth").write_text(f"{others}\n", encoding="utf-8")
    wheels = [str(wheel) for wheel in folder.glob("*.whl")]
    words = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q"]
    subprocess.run([*words, "--no-deps", "--no-index", *wheels], check=True, capture_output=True)
    return home / "bin"


def said(clean: Path, *words: str) -> str:
    surroundings = {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(clean / words[0]), *words[1:]],
        capture_output=True, text=True, check=False, env=surroundings, cwd=clean.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ten_plugins() -> None:
    """The paper's ten datasets are ten distributions, each named as its entry point says."""
    assert len(PACKAGES) == 10
    for folder in PACKAGES:
        name = folder.name.removeprefix("ark-plugin-")
        module = folder.name.replace("-", "_")
        assert project(folder)["name"] == folder.name
        assert points(folder) == {f"ark-{name}": module}
        assert (folder / f"{module}.py").is_file()
        readme = " ".join((folder / "README.md").read_text("utf-8").split())
        assert "Research use only" in readme
        assert "Checked against" in readme


def test_all_are_listed(clean: Path) -> None:
    """In the clean environment ``ark plugins list`` shows each plugin, its version, no problem."""
    listed = {
        each["name"]: each for each in json.loads(said(clean, "ark", "plugins", "list", "--json"))
    }
    for folder in PACKAGES:
        for name in points(folder):
            assert listed[name]["distribution"] == folder.name
            assert listed[name]["version"] == project(folder)["version"]
            assert not listed[name]["problem"]


def test_the_wheels_are_whole(clean: Path) -> None:
    """From the wheels alone a plugin passes the kit and its miniature makes a page."""
    assert "0 failed" in said(clean, "ark", "plugins", "check", "ark-shenzhen")
    where = said(clean, "python", "-c", "import ark_framework; print(ark_framework.__file__)")
    assert clean.parent.as_posix() in where
    code = "from pathlib import Path; import ark_plugin_shenzhen as p; p.SPEC.fixture(Path('mini'))"
    said(clean, "python", "-c", code)
    words = ("ark", "data", "stats", "--plugins", "ark-shenzhen", "--data", "shenzhen=mini")
    said(clean, *words, "--html", "stats.html")
    assert "<svg" in (clean.parent / "stats.html").read_text("utf-8")
