"""``ark plugins new``: a plugin's package, written to be filled in."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from ark_framework import scaffold
from ark_framework.cli.plain import echo


@click.command("new")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(scaffold.KINDS),
    default="dataset",
    show_default=True,
    help="What it provides.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The package's folder, new or empty; ark-plugin-NAME when absent.",
)
def new(name: str, kind: str, out: Path | None) -> None:
    """Write a new plugin's package, with three marked places to fill in.

    It can be installed and passes `ark plugins check` as it is written.

    \b
    ark plugins new mine
    ark plugins new focal --kind loss --out somewhere/focal
    """
    made = scaffold.plan(name, kind=kind)
    folder = out or Path(made.distribution)
    scaffold.write(made, folder)
    echo(f"wrote {folder}; to fill in, in {made.module}.py:")
    for place in made.places:
        echo(f"  {place}")
    echo("next, before or after that:")
    # pip takes a bare word for a name on an index, so a folder is shown with its separator.
    where = folder if folder.is_absolute() else f"./{folder.as_posix()}"
    echo(f"  pip install -e {shlex.quote(str(where))}")
    echo(f"  ark plugins check {made.plugin}")
    echo(f"  {made.trial}")
