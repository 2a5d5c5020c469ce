"""A new plugin's package is right as it is written, and writing it harms nothing."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ark_framework import cli, scaffold
from ark_framework.errors import ConfigError
from ark_framework.testing import check_plugin

TEMPLATES = Path(scaffold.__file__).parent / "templates"
# Small enough for a test, from the phantom's films on.
QUICK = ["cycles=1", "store.size=32", "views.size=24", "store.workers=1", "log.tensorboard=false"]
QUICK += ["data.phantom-north.films=96", "data.phantom-north.size=32"]


def done(*words: str, cwd: Path, **changes: str) -> str:
    """Run a module of this Python, which must succeed; return what it said."""
    result = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=cwd, env={**os.environ, **changes}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One package of every kind, ``ark-new-<kind>``, by kind."""
    home = tmp_path_factory.mktemp("packages")
    for kind in scaffold.KINDS:
        scaffold.write(scaffold.plan(f"new-{kind}", kind=kind), home / kind)
    return {kind: home / kind for kind in scaffold.KINDS}


@pytest.fixture(scope="module")
def site(packages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip has installed all of them into."""
    folder = tmp_path_factory.mktemp("site")
    words = ("pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation")
    done(*words, "--target", str(folder), *map(str, packages.values()), cwd=folder)
    return folder


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Python, and what it starts, finds them."""
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))
    return site


def code_of(package: Path) -> str:
    """The module of a package."""
    (module,) = package.glob("ark_plugin_*.py")
    return module.read_text("utf-8")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("kind", scaffold.KINDS)
def test_it_keeps_every_rule(kind: str) -> None:
    """Installed from its folder, it passes the conformance kit, and something was checked."""
    results = check_plugin(f"ark-new-{kind}")
    assert [result for result in results if not result.ok] == []
    assert {result.name.split()[0] for result in results} >= {"plugin"}
    assert kind == "schema" or any(result.name.startswith(kind) for result in results)


def test_their_own_tests_pass(packages: dict[str, Path], site: Path) -> None:
    """With a package's settings: of each the kit's cases, and at least one test of its own."""
    # All in one process, since each would import torch; their settings are the same text.
    texts = [(package / "pyproject.toml").read_text("utf-8") for package in packages.values()]
    assert len({text.partition("[tool.pytest")[2] for text in texts}) == 1
    home = packages["dataset"]
    words = ("pytest", "-q", "-rA", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir=..")
    tests = [str(package / "tests") for package in packages.values()]
    said = done(*words, "-c", "pyproject.toml", *tests, cwd=home, PYTHONPATH=str(site))
    for kind in packages:
        begins = rf"PASSED \S*test_ark_plugin_new_{kind}\.py::"
        assert re.search(rf"{begins}test_conformance\[", said)
        assert re.search(rf"{begins}(?!test_conformance)", said)


@pytest.mark.parametrize("name", ["a", "x" * 40])
def test_it_is_linted(name: str, tmp_path: Path) -> None:
    """However short or long the name: a line's length and its folding depend on it."""
    for kind in scaffold.KINDS:
        scaffold.write(scaffold.plan(name, kind=kind), tmp_path / kind)
        done("ruff", "check", "--no-cache", ".", cwd=tmp_path / kind)
        done("ruff", "format", "--no-cache", "--check", ".", cwd=tmp_path / kind)


@pytest.mark.parametrize("kind", scaffold.KINDS)
def test_three_places(kind: str, packages: dict[str, Path]) -> None:
    """They are numbered in the code, once each, and told in the README."""
    code = code_of(packages[kind])
    assert re.findall(r"^\s*# (\d+)\. ", code, re.MULTILINE) == ["1", "2", "3"]
    places = scaffold.plan("other", kind=kind).places
    assert [place[:2] for place in places] == ["1.", "2.", "3."]
    for place in places:
        assert place in (packages[kind] / "README.md").read_text("utf-8")
        assert place.split(". ")[1].split(" ")[0] in code


@pytest.mark.parametrize("kind", scaffold.KINDS)
def test_it_is_a_whole_package(kind: str, packages: dict[str, Path]) -> None:
    """Its files are these, its settings parse, and no placeholder is left in any of them."""
    package, module = packages[kind], f"ark_plugin_new_{kind}"
    files = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert files == {
        "pyproject.toml", "README.md", "LICENSE", ".gitignore", ".github/workflows/test.yml",
        f"{module}.py", f"tests/test_{module}.py",
    }  # fmt: skip
    project = tomllib.loads((package / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["name"] == f"ark-plugin-new-{kind}"
    assert project["entry-points"] == {"ark_framework.v1": {f"ark-new-{kind}": module}}
    steps = yaml.safe_load((package / ".github/workflows/test.yml").read_text("utf-8"))
    said = " ".join(step.get("run", "") for step in steps["jobs"]["test"]["steps"])
    for word in ("pip install", "ruff check", "ruff format --check", "pytest"):
        assert word in said
    assert not [name for name in files if "$" in (package / name).read_text("utf-8")]


def test_an_author_fills_in_the_dataset(
    packages: dict[str, Path],
    install: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Other labels, other columns, another card: under 40 lines, and all holds without more."""
    before = code = code_of(packages["dataset"])
    labels = tuple(f"Finding {number}" for number in range(14))
    for old, new in {
        '("effusion", "nodule")': repr(labels),
        '"labels.csv"': '"meta/entry 2020.csv"',
        '{"image": "file", "patient": "patient", "split": "split"}': "{'image': 'Path', 'patient': "
        "'Patient ID', 'split': 'fold', 'sex': 'Sex', 'age': 'Age', 'view': 'AP/PA'}",
        '"where it is had"': '"https://example.org"',
        '"new-dataset"': '"mine"',
    }.items():
        assert old in code
        code = code.replace(old, new)
    changed = set(code.splitlines()) - set(before.splitlines())
    assert len(changed) < 40
    install("mine", code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    assert [result for result in check_plugin("mine") if not result.ok] == []
    spec = importlib.import_module("ark_plugin_mine").SPEC
    frame = spec.read(spec.fixture(tmp_path / "mini"))
    assert tuple(frame.columns[6:]) == labels
    assert len({tuple(column) for column in frame[list(labels)].to_numpy().T}) == 14


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("kind", scaffold.KINDS)
def test_the_commands_it_prints_run(
    kind: str,
    packages: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Three: install, check, and a first run with what was written, which names it."""
    monkeypatch.chdir(tmp_path)
    # The name is taken by now, so the words are those of a name that is free.
    assert cli.run(["plugins", "new", f"free-{kind}", "--kind", kind]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith(("pip ", "ark "))]
    assert commands[0] == ["pip", "install", "-e", f"./ark-plugin-free-{kind}"]
    assert commands[1] == ["ark", "plugins", "check", f"ark-free-{kind}"]
    assert len(commands) == 3
    assert (tmp_path / f"ark-plugin-free-{kind}" / "pyproject.toml").is_file()
    words = [word.replace(f"free-{kind}", f"new-{kind}") for word in commands[2][1:]]
    if kind == "dataset":
        spec = importlib.import_module("ark_plugin_new_dataset").SPEC
        spec.fixture(tmp_path / "films")
        words = [word.replace("PATH", str(tmp_path / "films")) for word in words]
    if words[0] == "train":
        words += ["--tasks", "new-dataset"] if kind == "dataset" else []
        words += ["--out", "run", *(word for each in QUICK for word in ("--set", each))]
        words += ["--tasks", "phantom-north"] if kind in ("loss", "backbone") else []
    assert cli.run(words) == 0
    said = capsys.readouterr().out
    if words[0] == "train":
        said = Path("run/plan.json").read_text() + Path("run/config.yaml").read_text()
    assert f"new-{kind}" in said


@pytest.mark.parametrize(
    "name",
    ["", " ", "ark-", "ark-plugin-", "../up", "a/b", "a b", "ünder", "a$b", "-a", "a-", "a\nb", ".",
     "x" * 41, 'a"', "ark-plugin-plugin-x", "plugin-x", "ark-ark-x", "{a}", "a;b"],
)  # fmt: skip
def test_a_name_that_cannot_be_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Is refused in one line, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    assert cli.run(["plugins", "new", "--", name]) == 2
    assert capsys.readouterr().err.startswith("error: plugin name ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["My_Films", "ark-my-films", "ark-plugin-my.films", " my-films "])
def test_a_name_in_any_form(name: str) -> None:
    """All that ``--plugins`` takes for one plugin gives one package."""
    made = scaffold.plan(name, kind="dataset")
    assert (made.name, made.plugin) == ("my-films", "ark-my-films")
    assert (made.distribution, made.module) == ("ark-plugin-my-films", "ark_plugin_my_films")


@pytest.mark.parametrize(
    ("name", "kind", "owner"),
    [
        ("table", "loss", "ark-framework"),
        ("linear", "head", "ark-builtin of ark-framework"),
        ("bce", "loss", "ark-builtin"),
        ("tiny", "backbone", "ark-builtin"),
        ("phantom-north", "dataset", "ark-phantom"),
        ("Theirs", "head", "some-package 1.5"),
        ("renamed", "dataset", "ark-plugin-renamed 1.5"),
    ],
)
def test_a_name_that_is_taken(
    name: str, kind: str, owner: str, install: Callable[..., str]
) -> None:
    """By an installed plugin, by its distribution or by a built-in: the line says by whom."""
    install("theirs", "", distribution="some-package")
    install("other", "", distribution="ark-plugin-renamed")
    with pytest.raises(ConfigError, match=f"is taken.*{owner}"):
        scaffold.plan(name, kind=kind)


def test_a_name_that_only_another_kind_has() -> None:
    """Is free: a head may be called as a loss is."""
    assert scaffold.plan("bce", kind="head").name == "bce"


def test_an_unknown_kind() -> None:
    """Is refused with the nearest one."""
    with pytest.raises(ConfigError, match="did you mean 'dataset'"):
        scaffold.plan("mine", kind="datset")


def _full(folder: Path) -> Path:
    folder.mkdir()
    (folder / ".hidden").write_text("mine")
    return folder / ".hidden"


def _file(folder: Path) -> Path:
    folder.write_text("mine")
    return folder


def _beneath_a_file(folder: Path) -> Path:
    folder.parent.rmdir()
    folder.parent.write_text("mine")
    return folder.parent


def _link_to_nowhere(folder: Path) -> Path:
    (folder.parent / "kept").write_text("mine")
    folder.symlink_to(folder.parent / "nowhere")
    return folder.parent / "kept"


@pytest.mark.parametrize("occupy", [_full, _file, _beneath_a_file, _link_to_nowhere])
def test_nothing_is_overwritten(
    occupy: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where something is in the way the command says so, exits 2 and leaves all as it was."""
    folder = tmp_path / "above" / "out"
    folder.parent.mkdir()
    kept = occupy(folder)
    before = sorted(tmp_path.rglob("*"))
    assert cli.run(["plugins", "new", "mine", "--out", str(folder)]) == 2
    error = capsys.readouterr().err
    assert str(folder) in error
    assert "--out" in error
    assert sorted(tmp_path.rglob("*")) == before
    assert kept.read_text() == "mine"


def test_an_empty_folder_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that was made for it; its path is quoted where a shell would part it."""
    folder = tmp_path / "my films"
    folder.mkdir()
    assert cli.run(["plugins", "new", "mine", "--out", str(folder)]) == 0
    assert (folder / "ark_plugin_mine.py").is_file()
    assert f"pip install -e '{folder}'" in capsys.readouterr().out


def test_the_templates_are_in_the_wheel(tmp_path: Path) -> None:
    """All of them, or the command would fail for whoever has no checkout."""
    repo = Path(scaffold.__file__).parents[2]
    done("hatchling", "build", "-t", "wheel", "-d", str(tmp_path), cwd=repo)
    (wheel,) = tmp_path.glob("*.whl")
    packed = {Path(name).name for name in zipfile.ZipFile(wheel).namelist() if "scaffold" in name}
    assert packed == {"__init__.py", *(path.name for path in TEMPLATES.iterdir())}
    assert len(packed) > 2 * len(scaffold.KINDS)
