"""The documentation's code runs, and prints what the pages say it prints.

Every tutorial and how-to page is run, and of the others those with a block that has no mark.

A page is a folder.  Its ``python`` blocks share one namespace, its ``sh`` blocks begin in the
folder; a block with a ``title`` is that file.  ``pip install`` goes to a place of the page's own.
A ``text`` or ``console`` block directly below one that ran is its output, ``...`` standing for
anything.  ``<!-- not run: reason -->`` above a block keeps it from being run.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"
GUIDES = {page for folder in ("tutorial", "how-to") for page in (DOCS / folder).glob("*.md")}
SHIM = Path(__file__).parent / "assets" / "pip_shim.py"
FENCE = re.compile(
    r"(?P<above>[^\n]*)\n+(?P<indent> *)```(?P<language>\w+)(?P<info>[^\n]*)\n"
    r"(?P<code>.*?)\n?(?P=indent)```(?=\n|$)",
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class Block:
    language: str
    code: str
    line: int
    title: str | None = None
    skipped: bool = False
    output: str | None = None  # of the block itself, as the page says


def blocks(text: str) -> Iterator[Block]:
    """Yield what is to be run or written, with the output that the page shows below it."""
    found = list(FENCE.finditer("\n" + text))
    for match, after in zip_longest(found, found[1:]):
        title = re.search(r'title="([^"]+)"', match["info"])
        if match["language"] not in ("python", "sh") and not title:
            continue
        shown = after and after["language"] in ("text", "console") and after.start() == match.end()
        indent = re.compile(rf"^{match['indent']}", re.MULTILINE)
        yield Block(
            language=match["language"],
            code=indent.sub("", match["code"]) + "\n",
            line=text.count("\n", 0, match.start("language") - 1) + 1,
            title=title[1] if title else None,
            skipped=bool(re.match(r"<!-- not run: .+ -->", match["above"])),
            output=after["code"] if after and shown else None,
        )


def unmarked(page: Path) -> bool:
    """Whether a page has code that is to be run."""
    return any(not block.skipped for block in blocks(page.read_text("utf-8")))


def matches(said: str, printed: str) -> bool:
    """Whether the output is as the page says; ``...`` is any text, also across lines."""
    pattern = ".*".join(map(re.escape, said.strip().split("...")))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


class Page:
    """One page's folder, and what its blocks leave for those below."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "page"}
        shims = folder / ".bin"
        shims.mkdir()
        (folder / ".site").mkdir()
        (shims / "pip").write_text(f"#!/bin/sh\nexec '{sys.executable}' '{SHIM}' \"$@\"\n")
        (shims / "pip").chmod(0o755)

    def environment(self) -> dict[str, str]:
        """Return what the page's commands see."""
        path = [str(self.folder / ".bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        return {
            "PATH": os.pathsep.join(path),
            "PYTHONPATH": str(self.folder / ".site"),
            "ARK_CONFIG_HOME": str(self.folder / ".config"),
            "ARK_STORE": str(self.folder / ".stores"),
            "ARK_DOCS_SITE": str(self.folder / ".site"),
            "COLUMNS": "100",
            "NO_COLOR": "1",
        }

    def run(self, block: Block) -> str:
        """Run or write one block and return what it printed."""
        if block.title:
            path = self.folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code, encoding="utf-8")
            return ""
        if block.language == "python":
            printed = io.StringIO()
            importlib.invalidate_caches()
            with contextlib.redirect_stdout(printed):
                code = compile(block.code, f"line {block.line}", "exec")
                exec(code, self.names)  # noqa: S102 - the documentation's own examples
            return printed.getvalue()
        return self._shell(block)

    def _shell(self, block: Block) -> str:
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", block.code],
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == 0, f"line {block.line}:\n{block.code}\n{done.stdout}"
        return done.stdout


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A page's folder as the working folder; what it imported is forgotten afterwards."""
    made = Page(tmp_path)
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / ".site")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield made
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


PAGES = sorted(GUIDES | {page for page in DOCS.rglob("*.md") if unmarked(page)})


@pytest.mark.slow
@pytest.mark.timeout(600)  # a page may install, check and train
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_the_page_runs(path: Path, page: Page) -> None:
    """Every block runs in order, and prints what the page shows."""
    found = list(blocks(path.read_text("utf-8")))
    assert found, "no code on the page"
    for block in found:
        if block.skipped:
            continue
        printed = page.run(block)
        if block.output is not None:
            assert matches(block.output, printed), f"line {block.line} printed:\n{printed}"


def test_a_page_that_is_wrong_fails(page: Page) -> None:
    """A failing command, a failing assertion and another output are all noticed."""
    text = "# Page\n\n```sh\nfalse\ntrue\n```\n\n```python\nassert x\n```\n"
    text += "\n```sh\necho one two\n```\n\n```text\none ...\n```\n"
    shell, python, echo = blocks(text)
    with pytest.raises(AssertionError, match="line 3"):
        page.run(shell)
    with pytest.raises(NameError):
        page.run(python)
    assert echo.output
    assert matches(echo.output, page.run(echo))
    assert not matches(echo.output, "two")


def test_marks_are_read() -> None:
    """A title makes a file, a mark keeps from running, and text below prose is no output."""
    text = 'Prose:\n```yaml title="a.yaml"\nx: 1\n```\n\n<!-- not run: needs a GPU -->\n'
    text += (
        "```sh\nark demo\n```\n\nSuch as\n\n```text\na.csv\n```\n\n<!--\n```python\n1\n```\n-->\n"
    )
    first, second, third = blocks(text)
    assert (first.title, first.code, first.skipped) == ("a.yaml", "x: 1\n", False)
    assert (second.skipped, second.output, third.skipped) == (True, None, False)
