"""``ark recipes``: the named settings that come with ark, to read, to change and to compare."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import click

from ark_framework import config as configuration
from ark_framework.cli import candidates
from ark_framework.cli.plain import echo
from ark_framework.errors import ConfigError


@click.group("recipes")
def recipes() -> None:
    """List, copy and compare recipes: named settings, for --recipe.

    \b
    ark recipes list
    """


@recipes.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def list_(as_json: bool) -> None:
    """List the recipes: what each is, and where its numbers come from.

    \b
    ark recipes list
    """
    found = {name: about(name) for name in configuration.recipes()}
    if as_json:
        echo(json.dumps(found, indent=1))
        return
    width = max(map(len, found))
    for name, line in found.items():
        echo(f"{name:<{width}}  {line}")


@recipes.command("copy")
@click.argument("name", shell_complete=candidates.recipes)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def copy(name: str, file: Path) -> None:
    """Write recipe NAME into FILE, a new .yaml file, with its comments; ark train -c takes it.

    \b
    ark recipes copy ark6 mine.yaml
    """
    if file.suffix.lower() not in (".yaml", ".yml") or not file.parent.is_dir():
        raise ConfigError(f"{file}: name a .yaml file in a folder that exists")
    if file.exists():
        raise ConfigError(f"{file} exists and is not overwritten; name another file")
    file.write_text(text(name), encoding="utf-8")
    echo(f"wrote {file}; to train with it: ark train -c {file}")


@recipes.command("diff")
@click.argument("one", shell_complete=candidates.recipes_or_files)
@click.argument("other", shell_complete=candidates.recipes_or_files)
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
def diff(one: str, other: str, as_json: bool) -> None:
    """Show the settings that differ; ONE and OTHER are recipes or files, as -c takes them.

    \b
    ark recipes diff ark6 ark6-plus
    """
    left, right = _flat(one), _flat(other)
    keys = [key for key in {**left, **right} if left.get(key) != right.get(key)]
    if as_json:
        found = [{"key": key, one: left.get(key), other: right.get(key)} for key in keys]
        echo(json.dumps(found, indent=1))
        return
    if not keys:
        echo(f"{one} and {other} are the same settings")
        return
    rows = [("", one, other), *((key, _said(left, key), _said(right, key)) for key in keys)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        echo("  ".join(cells).rstrip())


def text(name: str) -> str:
    """Return a recipe as it stands, with its comments.

    Raises:
        ConfigError: there is no such recipe.
    """
    configuration.recipe(name)
    return (resources.files("ark_framework") / "recipes" / f"{name}.yaml").read_text("utf-8")


def about(name: str) -> str:
    """Return the first sentence of a recipe's comment."""
    comment = re.match(r"(?:#.*\n)+", text(name))
    words = " ".join((comment[0] if comment else "").replace("#", " ").split())
    sentence = re.match(r".*?\.(?= [A-Z-]|$)", words)
    return sentence[0] if sentence else words


def _flat(source: str) -> dict[str, Any]:
    """Return every setting that a recipe or a file comes to, by its dotted key."""
    if source in configuration.recipes():
        values = configuration.recipe(source)
    elif Path(source).suffix.lower() in (".yaml", ".yml") or Path(source).exists():
        under = configuration.recipe("default")  # as ark train -c lays it
        values = configuration.merge(under, configuration.load_yaml(Path(source)))
    else:
        values = configuration.recipe(source)  # which says what is near
    return dict(_leaves(configuration.parse(values).model_dump(mode="json")))


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _said(settings: Mapping[str, Any], key: str) -> str:
    return json.dumps(settings[key], ensure_ascii=False) if key in settings else "-"
