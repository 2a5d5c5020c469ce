"""``ark train``: pretrain on every classification dataset of the named plugins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ark_framework.cli.console import console as open_console
from ark_framework.cli.packing import PackingBar
from ark_framework.cli.plan import show
from ark_framework.cli.settings import gather, roots, settings
from ark_framework.cli.words import WordsCommand


@click.command("train", cls=WordsCommand)
@settings
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option(
    "--init-from",
    type=click.Path(path_type=Path),
    help="A run or checkpoint whose weights the student starts from.",
)
@click.option("--dry-run", is_flag=True, help="Read, pack and plan, then stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(
    data: tuple[str, ...],
    out: Path | None,
    resume: bool,
    init_from: Path | None,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Pretrain one encoder on many datasets, cycle after cycle.

    \b
    ark train --plugins ark-chestxray14 ark-rsna
    ark train --plugins ark-phantom --leaks drop --out runs/first --set cycles=5
    ark train --out runs/first --resume
    """
    from ark_framework.cli.progress import Progress
    from ark_framework.cli.scores import table
    from ark_framework.launch import train as pretrain
    from ark_framework.preparation import prepare

    console = open_console(stderr=as_json)
    # A bare --resume goes on with what the run's folder says.
    config = None if resume and not any(given.values()) else gather(**given)
    places = roots(data)
    with PackingBar(console) as packing:
        if dry_run:
            prepared = prepare(
                config or gather(**given), roots=places, progress=packing, say=console.print
            )
            show(console, prepared.plan, as_json=as_json)
            return
        result = pretrain(
            config,
            out=out,
            resume=resume,
            init_from=init_from,
            roots=places,
            watching=(Progress(console),),
            progress=packing,
            say=console.print,
        )
    if as_json:
        click.echo(
            json.dumps(
                {"out": str(result.folder), "scores": [vars(each) for each in result.scores]},
                default=dict,
            )
        )
        return
    console.print(table(result.scores))
    console.print(f"run: {result.folder}")
