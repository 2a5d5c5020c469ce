"""Rooms in one order: every import goes to a room above, and no torch above the bar."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import ark_framework

PACKAGE = Path(ark_framework.__file__).parent
PAGE = PACKAGE.parent / "docs" / "explanation" / "architecture.md"
HEAVY = {"torch", "torchvision", "timm"}
# Slow or optional libraries that a function may import when it is called.
EXTRAS = {
    "captum",
    "pydantic",
    "pydicom",
    "pytest",
    "scipy",
    "segmentation_models_pytorch",
    "sklearn",
    "torch",
}


def rooms() -> tuple[list[str], int]:
    """The rooms in order, and how many lie above the bar."""
    text = PAGE.read_text(encoding="utf-8").split("## Rooms")[1].split("## Contracts")[0]
    rows = [line for line in text.splitlines() if line.startswith("|")]
    names = [re.match(r"\| `(\w+)`|\| \*torch", row) for row in rows]
    found = [match for match in names if match]
    bar = next(index for index, match in enumerate(found) if match[1] is None)
    return [match[1] for match in found if match[1]], bar


ORDER, BAR = rooms()


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    """Every imported module's dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                inner = PACKAGE / f"{alias.name}.py"
                package = node.module == "ark_framework" and (
                    inner.exists() or (PACKAGE / alias.name).is_dir()
                )
                yield f"{node.module}.{alias.name}" if package else str(node.module), node


def typing_only(tree: ast.Module) -> set[ast.stmt]:
    """Imports under ``if TYPE_CHECKING``, which nobody executes."""
    blocks = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    return {inner for block in blocks for inner in ast.walk(block) if isinstance(inner, ast.stmt)}


def deferred(tree: ast.Module) -> set[ast.stmt]:
    """Imports inside a function."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    return {inner for each in functions for inner in ast.walk(each) if isinstance(inner, ast.stmt)}


def test_the_page_names_every_room() -> None:
    """No room is missing from the page, and none on it is gone."""
    names = {room(path) for path, _ in sources()}
    assert names == set(ORDER)
    assert len(ORDER) == len(set(ORDER))


def test_imports_go_up() -> None:
    """No circle can exist; packages of one row import among themselves."""
    for path, tree in sources():
        own, later = room(path), deferred(tree)
        for name, node in imports(tree):
            if not name.startswith("ark_framework") or node in typing_only(tree):
                continue
            target = name.split(".")[1] if "." in name else "__init__"
            if target == own or (own in ("cli", "__init__", "builtin") and node in later):
                continue
            assert ORDER.index(target) < ORDER.index(own), f"{path.name} imports {name}"


def test_no_torch_above_the_bar() -> None:
    """What people type to look around, and dataset plugins, stay light."""
    for path, tree in sources():
        if ORDER.index(room(path)) >= BAR:
            continue
        for name, node in imports(tree):
            if name.split(".")[0] in HEAVY:
                # TensorBoard's writer alone: torch ships it.
                assert room(path) == "observers", f"{path.name} imports {name}"
                assert node in deferred(tree)


def test_deferred_imports_are_few() -> None:
    """Inside functions: the command line, specs' builds, ``__getattr__``, and extras."""
    for path, tree in sources():
        if room(path) in ("cli", "builtin", "__init__"):
            continue
        for name, node in imports(tree):
            if node in deferred(tree) and node not in typing_only(tree):
                allowed = name.split(".")[0] in EXTRAS or name == "ark_framework.wording"
                assert allowed, f"{path.name} imports {name} inside a function"


def test_only_the_command_line_prints() -> None:
    """Nothing else writes to the terminal."""
    for path, tree in sources():
        if room(path) == "cli":
            continue
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert not [c for c in calls if ast.unparse(c.func) in ("print", "click.echo")], path


def test_no_drawers_for_odds_and_ends() -> None:
    """A module is named for one noun."""
    names = {path.stem for path, _ in sources()}
    assert not names & {"utils", "util", "common", "helpers", "base", "misc"}


def test_builtins_import_what_third_parties_may() -> None:
    """A built-in plugin needs nothing that an installed one could not have."""
    surface = set(ark_framework.__all__)
    for path, tree in sources():
        if room(path) != "builtin":
            continue
        for name, node in imports(tree):
            if name.startswith("ark_framework") and not name.startswith("ark_framework.builtin"):
                assert name == "ark_framework", f"{path.name} imports {name}"
                assert isinstance(node, ast.ImportFrom)
                assert {alias.name for alias in node.names} <= surface
