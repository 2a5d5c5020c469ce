"""What the documentation says is so."""

from __future__ import annotations

import importlib
import importlib.util
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


def test_the_pictures_are_the_scripts() -> None:
    """What `docs/figures.py` draws now is what the pages show; both schemes are provided for."""
    place = importlib.util.spec_from_file_location("figures", ROOT / "docs" / "figures.py")
    assert place
    assert place.loader
    figures = importlib.util.module_from_spec(place)
    place.loader.exec_module(figures)
    for name, draw in figures.FIGURES.items():
        kept = (ROOT / "docs" / "assets" / name).read_text("utf-8")
        assert draw() == kept, f"run: python docs/figures.py ({name})"
        assert "prefers-color-scheme: dark" in kept


def test_the_picture_names_modules_that_are_there() -> None:
    """Every `module` or `module.name` in the design's picture exists."""
    import xml.etree.ElementTree as Tree

    picture = Tree.parse(  # noqa: S314 - a file of ours
        ROOT / "docs" / "assets" / "design.svg"
    )
    names = [
        name
        for text in picture.iter("{http://www.w3.org/2000/svg}text")
        if text.get("class") == "code" and text.text != "its plugin"
        for name in str(text.text).split(", ")
    ]
    assert len(names) > 10
    for name in names:
        module, _, inside = name.partition(".")
        if module == "timm":
            continue
        found = importlib.import_module(f"ark_framework.{module}")
        if module == "builtin" and inside:
            importlib.import_module(f"ark_framework.{name}")
        elif inside == "visits":
            assert "visits" in found.RunPlan.__dataclass_fields__
        elif inside:
            assert hasattr(found, inside), name


def test_the_readme_fits_on_a_screen() -> None:
    """At most sixty lines; whatever else there is to say stands on a page of the documentation."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 60


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
