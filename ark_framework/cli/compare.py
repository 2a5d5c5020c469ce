"""``ark compare``: models by datasets by protocols, from one file."""

from __future__ import annotations

from pathlib import Path

import click

from ark_framework.cli import candidates
from ark_framework.cli.studying import layers, study
from ark_framework.cli.torchrun import gpus as several
from ark_framework.cli.words import WordsCommand


@click.command("compare", cls=WordsCommand)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the results; what is finished there is not done again.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=candidates.keys,
    help="One setting, such as seeds=5; YAML values.",
)
@click.option(
    "--data",
    multiple=True,
    metavar="NAME=PATH...",
    shell_complete=candidates.places,
    help="Where a dataset lies, for this command.",
)
@click.option(
    "--store", type=click.Path(path_type=Path, file_okay=False), help="Folder of packed films."
)
@several
@click.option("--json", "as_json", is_flag=True, help="Print the outcomes as JSON.")
def compare(
    file: Path,
    out: Path,
    assignments: tuple[str, ...],
    data: tuple[str, ...],
    store: Path | None,
    as_json: bool,
    gpus: int | None,
) -> int:
    """Compare the models of FILE on its datasets, under its protocols.

    Writes tables with differences and intervals, few-shot curves and what was trained on what, as
    a page, Markdown and CSV.  The same command goes on where it was interrupted.

    \b
    ark compare study.yaml --out studies/first --set seeds=5
    """
    from ark_framework.transfer.settings import parse

    config = parse(*layers((), file=file, assignments=assignments, store=store))
    return study(config, out=out, data=data, as_json=as_json, processes=gpus)
