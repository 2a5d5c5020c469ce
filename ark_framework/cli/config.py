"""``ark config show``: the configuration that a command line amounts to."""

from __future__ import annotations

from typing import Any

import click

from ark_framework.cli.plain import echo
from ark_framework.cli.settings import gather, settings
from ark_framework.cli.words import WordsCommand


@click.group("config")
def config() -> None:
    """Show the configuration.

    \b
    ark config show --recipe ark6
    """


@config.command("show", cls=WordsCommand)
@settings
def show(data: tuple[str, ...], **given: Any) -> None:
    """Print every setting as YAML: defaults, recipe, file, flags and --set laid together.

    \b
    ark config show --recipe ark6 --set cycles=50
    """
    from ark_framework.config import dump

    del data  # roots are no settings
    echo(dump(gather(**given)).rstrip("\n"))
