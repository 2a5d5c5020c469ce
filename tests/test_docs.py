"""What the documentation says is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from ark_framework import errors
from ark_framework.builtin.table import TableOptions

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "plugins/*/*.md")
    for path in ROOT.glob(pattern)
)


def test_exit_codes() -> None:
    """The page has every error class with its own code."""
    text = (ROOT / "docs" / "reference" / "exit-codes.md").read_text()
    listed = {
        name: int(code)
        for code, names in re.findall(r"^\| (\d+) \|.*\| (.*) \|$", text, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    kinds = errors.ArkError.__subclasses__()
    assert listed == {kind.__name__: kind.exit_code for kind in kinds}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links(page: Path) -> None:
    """A relative link leads to a file."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_readme_begins_with_the_two_commands() -> None:
    """First the demo, then the tests."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert [block.strip() for block in blocks[:2]] == ["make demo", "make test"]


def test_the_folder_how_to() -> None:
    """Its options are the built-in dataset's."""
    text = (ROOT / "docs" / "how-to" / "folder-with-csv.md").read_text()
    block = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert block
    options = yaml.safe_load(block[1])["data"]["table"]
    assert TableOptions.model_validate(options).labels == ("effusion", "nodule")


def test_the_phantom_figures_are_of_this_generator() -> None:
    """Whoever changes the drawing measures again."""
    from ark_framework.builtin.phantom import VERSION, generator_hash

    text = (ROOT / "docs" / "explanation" / "phantom.md").read_text()
    assert f"`{VERSION}-{generator_hash()}`" in text
