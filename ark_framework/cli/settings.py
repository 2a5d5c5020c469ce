"""The options that every command with a configuration shares, and how they become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from ark_framework import config as configuration
from ark_framework.cli import candidates
from ark_framework.config import RunConfig
from ark_framework.errors import ConfigError

Command = TypeVar("Command", bound=Callable[..., Any])


def settings(command: Command) -> Command:
    """Add the configuration options to a click command."""
    return _with(command, _OPTIONS)


def reading(command: Command) -> Command:
    """Add those that say which datasets are read; nothing is trained that could leak."""
    return _with(command, [each for each in _OPTIONS if each not in (_RECIPE, _LEAKS)])


def packing(command: Command) -> Command:
    """Add those that say which datasets are packed, and how; nothing is trained."""
    return _with(command, [each for each in _OPTIONS if each is not _LEAKS])


def _with(command: Command, options: Sequence[Any]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


_RECIPE = click.option(
    "--recipe",
    metavar="NAME",
    shell_complete=candidates.recipes,
    help="Named settings to start from (default, ark5, ark6, ark6-plus, …).",
)
_LEAKS = click.option(
    "--leaks",
    type=click.Choice(["refuse", "drop", "drop-patients", "allow"]),
    help="Training films that are held out in some dataset: refuse to train (the default), "
    "drop them, drop all films of their patients, or allow.",
)
_OPTIONS = (
    click.option(
        "--plugins",
        multiple=True,
        metavar="NAME...",
        shell_complete=candidates.plugins,
        help="Plugins that may speak, in order: a b, a,b or repeated.",
    ),
    click.option(
        "--tasks",
        multiple=True,
        metavar="DATASET...",
        shell_complete=candidates.datasets,
        help="Datasets that train, in order; all of the plugins' by default.",
    ),
    click.option(
        "--data",
        multiple=True,
        metavar="NAME=PATH...",
        shell_complete=candidates.places,
        help="Where a dataset lies, for this command.",
    ),
    click.option(
        "-c",
        "--config",
        "file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="YAML file with settings.",
    ),
    _RECIPE,
    click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="KEY=VALUE",
        shell_complete=candidates.keys,
        help="One setting, such as optim.lr=0.01; YAML values.",
    ),
    click.option(
        "--store", type=click.Path(path_type=Path, file_okay=False), help="Folder of packed films."
    ),
    click.option(
        "--limit",
        type=click.IntRange(min=1),
        metavar="N",
        help="At most N films per split, for a quick try.",
    ),
    _LEAKS,
    click.option(
        "--max-bad",
        type=click.IntRange(min=0),
        metavar="N",
        help="Unreadable films to tolerate per dataset.",
    ),
)


def gather(
    *,
    plugins: Sequence[str],
    tasks: Sequence[str],
    file: Path | None,
    assignments: Sequence[str],
    store: Path | None,
    limit: int | None,
    max_bad: int | None,
    recipe: str | None = None,
    leaks: str | None = None,
    max_bad_steps: int | None = None,
) -> RunConfig:
    """Lay defaults, recipe, file, flags and ``--set`` over one another, later first.

    Raises:
        ConfigError: one line that names the key.
    """
    flags: dict[str, Any] = {}
    packing = {"folder": None if store is None else str(store), "max_bad": max_bad}
    if told := {key: value for key, value in packing.items() if value is not None}:
        flags["store"] = told
    if plugins:
        flags["plugins"] = list(plugins)
    if tasks:
        flags["tasks"] = [{"dataset": name} for name in tasks]
    if limit is not None:
        flags["limit"] = limit
    if leaks is not None:
        flags["leaks"] = leaks
    if max_bad_steps is not None:
        flags["optim"] = {"max_bad_steps": max_bad_steps}
    return configuration.parse(
        configuration.merge(
            configuration.recipe("default" if recipe is None else recipe),
            configuration.load_yaml(file) if file else {},
            flags,
            *(configuration.assignment(text) for text in assignments),
        )
    )


def roots(data: Sequence[str]) -> dict[str, Path]:
    """Read ``NAME=PATH`` words.

    Raises:
        ConfigError: a word has no ``=``.
    """
    found: dict[str, Path] = {}
    for word in data:
        name, equals, path = word.partition("=")
        if not equals or not name or not path:
            raise ConfigError(f"--data {word!r}: write NAME=PATH, such as --data rsna=/data/rsna")
        found[name] = Path(path)
    return found
