"""The core and every first-party plugin as people get them: wheels in a clean environment."""

from __future__ import annotations

import email
import json
import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import ark_framework

REPO = Path(__file__).parents[1]
PACKAGES = sorted(path.parent for path in REPO.glob("plugins/*/pyproject.toml"))
EXAMPLES = sorted(path.parent for path in REPO.glob("examples/*/pyproject.toml"))
EVERY = (REPO, *PACKAGES, *EXAMPLES)


def project(folder: Path) -> dict[str, object]:
    found: dict[str, object] = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))[
        "project"
    ]
    return found


def points(folder: Path) -> dict[str, str]:
    found: dict[str, dict[str, str]] = project(folder)["entry-points"]  # type: ignore[assignment]
    return found["ark_framework.v1"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of the core, the plugins and the examples."""
    folder = tmp_path_factory.mktemp("dist")
    for package in EVERY:
        words = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
        subprocess.run(words, cwd=package, check=True, capture_output=True)
    return folder


def environment(home: Path) -> Path:
    """Make an environment with all that is installed here but ours; return its ``bin``."""
    venv.create(home, with_pip=False, symlinks=True)
    site = next((home / "lib").glob("python*/site-packages"))
    # Links to all that is installed but ours, so that torch need not be downloaded again.
    others = home / "others"
    others.mkdir()
    for place in map(Path, sys.path):
        for entry in place.iterdir() if place.name == "site-packages" else ():
            ours = entry.name.lower().startswith(("ark", "__editable__", "_editable"))
            if not ours and entry.suffix != ".pth" and not (others / entry.name).exists():
                (others / entry.name).symlink_to(entry)
    (site / "others.pth").write_text(f"{others}\n", encoding="utf-8")
    return home / "bin"


def pip(bin_: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run pip for an environment, without the network."""
    line = [sys.executable, "-m", "pip", "--python", str(bin_ / "python"), *words]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def install(bin_: Path, files: Sequence[Path]) -> None:
    done = pip(bin_, "install", "-q", "--no-deps", "--no-index", *map(str, files))
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def clean(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with wheels of ours and, beside them, whatever else is installed here."""
    home = tmp_path_factory.mktemp("clean")
    bin_ = environment(home / "venv")
    install(bin_, sorted(built.glob("*.whl")))
    return bin_


def said(clean: Path, *words: str) -> str:
    surroundings = {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(clean / words[0]), *words[1:]],
        capture_output=True, text=True, check=False, env=surroundings, cwd=clean.parents[1],
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
    assert "<svg" in (clean.parents[1] / "stats.html").read_text("utf-8")


def files(built: Path, package: Path) -> tuple[Path, Path]:
    """Return a package's wheel and sdist."""
    name = str(project(package)["name"]).replace("-", "_")
    (wheel,) = built.glob(f"{name}-*.whl")
    (sdist,) = built.glob(f"{name}-*.tar.gz")
    return wheel, sdist


@pytest.mark.parametrize("package", EVERY, ids=lambda package: package.name)
def test_what_a_package_holds(built: Path, package: Path) -> None:
    """A licence in both; in the wheel no test; in a plugin's sdist its tests; one version."""
    wheel, sdist = files(built, package)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (place,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        told = email.message_from_bytes(archive.read(place))
        (licence,) = (name for name in names if name.endswith("/licenses/LICENSE"))
        assert archive.read(licence) == (REPO / "LICENSE").read_bytes()
    assert told["License-Expression"] == "Apache-2.0"
    assert told["Description-Content-Type"] == "text/markdown"
    assert not [name for name in names if "tests/" in name or "__pycache__" in name]
    version = project(package).get("version") or ark_framework.__version__
    assert told["Version"] == version
    with tarfile.open(sdist) as archive:
        inside = [name.partition("/")[2] for name in archive.getnames()]
        assert not [each for each in archive.getmembers() if each.issym() or each.islnk()]
    assert {"LICENSE", "README.md", "pyproject.toml"} <= set(inside)
    assert any(name.startswith("tests/") for name in inside) == (package != REPO)
    assert not [name for name in inside if name.endswith((".png", ".dcm", ".pt", ".npy", ".npz"))]


@pytest.mark.parametrize("package", EVERY, ids=lambda package: package.name)
def test_a_version_has_one_place(package: Path) -> None:
    """The core's is in the code; a plugin's in its project file, and not in its module too."""
    if package == REPO:
        assert project(package)["dynamic"] == ["version"]
        return
    assert "dynamic" not in project(package)
    for module in package.glob("*.py"):
        assert "__version__" not in module.read_text("utf-8")


def test_the_index_would_take_them(built: Path) -> None:
    """``twine check --strict`` finds nothing: metadata whole, every description renders."""
    pytest.importorskip("twine")
    words = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir())]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_wheel_of_an_sdist_is_the_wheel(built: Path, tmp_path: Path) -> None:
    """Whoever builds from the sdist gets the same files."""
    for package in (REPO, PACKAGES[0]):
        wheel, sdist = files(built, package)
        with tarfile.open(sdist) as archive:
            archive.extractall(tmp_path, filter="data")
        words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
        subprocess.run(words, cwd=tmp_path / sdist.name.removesuffix(".tar.gz"), check=True,
                       capture_output=True)  # fmt: skip
        with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(tmp_path / wheel.name) as other:
            assert sorted(one.namelist()) == sorted(other.namelist())
            for name in one.namelist():
                assert one.read(name) == other.read(name), name


def test_nothing_of_ours_is_missing(clean: Path) -> None:
    """``pip check`` names none of ours: every dependency is there, in the version asked for."""
    done = pip(clean, "check")
    ours = [line for line in done.stdout.splitlines() if line.startswith("ark")]
    # What only examples ask for need not be installed here.
    extra = ("ark-plugin-hf-vision", "ark-plugin-mlflow")
    assert not [line for line in ours if not line.startswith(extra)]


@pytest.mark.parametrize("order", ["core first", "plugin first"])
def test_any_order(built: Path, tmp_path: Path, order: str) -> None:
    """Core and plugin are installed in any order; until both are there, one line says so."""
    bin_ = environment(tmp_path / "venv")
    core, plugin = (files(built, each)[0] for each in (REPO, PACKAGES[-1]))
    first, second = (core, plugin) if order == "core first" else (plugin, core)
    install(bin_, [first])
    done = pip(bin_, "check")
    missing = "requires ark-framework, which is not installed" in done.stdout
    assert missing == (order == "plugin first")
    if order == "core first":
        named = [
            each["name"] for each in json.loads(said(bin_, "ark", "plugins", "list", "--json"))
        ]
        assert named == ["ark-builtin", "ark-phantom", "ark-table"]
    install(bin_, [second])
    assert "requires ark-framework" not in pip(bin_, "check").stdout
    name = next(iter(points(PACKAGES[-1])))
    assert name in said(bin_, "ark", "plugins", "list")
    assert name in said(bin_, "ark", "plugins", "show", name)
