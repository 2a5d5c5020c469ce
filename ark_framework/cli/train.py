"""``ark train``: pretrain on every classification dataset of the named plugins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ark_framework.cli.console import console as open_console
from ark_framework.cli.packing import PackingBar
from ark_framework.cli.plan import show
from ark_framework.cli.settings import gather, roots, settings
from ark_framework.cli.torchrun import gpus as several
from ark_framework.cli.torchrun import inside, one_voice, relaunch
from ark_framework.cli.words import WordsCommand

if TYPE_CHECKING:
    from ark_framework.config import RunConfig


@click.command("train", cls=WordsCommand)
@settings
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option(
    "--init-from",
    type=click.Path(path_type=Path),
    help="A run or checkpoint whose weights the student starts from.",
)
@several
@click.option("--dry-run", is_flag=True, help="Read, pack and plan, then stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(
    data: tuple[str, ...],
    out: Path | None,
    resume: bool,
    init_from: Path | None,
    dry_run: bool,
    as_json: bool,
    gpus: int | None,
    **given: Any,
) -> int:
    """Pretrain one encoder on many datasets, cycle after cycle.

    \b
    ark train --plugins ark-chestxray14 ark-rsna
    ark train --plugins ark-phantom --leaks drop --out runs/first --set cycles=5
    ark train --out runs/first --resume
    ark train --plugins ark-chexpert ark-mimic --recipe ark6 --gpus 8
    """
    with one_voice():
        # A bare --resume goes on with what the run's folder says.
        config = None if resume and not any(given.values()) else gather(**given)
        if dry_run:
            return _plan(config or gather(**given), roots(data), as_json=as_json)
        if gpus is not None and not inside():
            return relaunch(gpus, device=_device(config, out, given))
        return _pretrain(
            config, as_json=as_json, out=out, resume=resume, init_from=init_from, roots=roots(data)
        )


def _device(config: RunConfig | None, out: Path | None, given: dict[str, Any]) -> str | None:
    from ark_framework.run import reopen

    told = config or (reopen(out)[1] if out else gather(**given))
    return told.runtime.device


def _plan(config: RunConfig, places: dict[str, Path], *, as_json: bool) -> int:
    from ark_framework.preparation import prepare

    console = open_console(stderr=as_json, quiet=not _first())
    with PackingBar(console) as packing:
        prepared = prepare(config, roots=places, progress=packing, say=console.print)
        show(console, prepared.plan, as_json=as_json)
    return 0


def _pretrain(config: RunConfig | None, *, as_json: bool, **about: Any) -> int:
    from ark_framework.cli.progress import Progress
    from ark_framework.cli.scores import table
    from ark_framework.launch import train as pretrain

    console = open_console(stderr=as_json, quiet=not _first())
    with PackingBar(console) as packing:
        result = pretrain(
            config,
            watching=(Progress(console),),
            progress=packing,
            say=console.print,
            **about,
        )
    if as_json and not console.quiet:
        click.echo(
            json.dumps(
                {"out": str(result.folder), "scores": [vars(each) for each in result.scores]},
                default=dict,
            )
        )
        return 0
    console.print(table(result.scores))
    console.print(f"run: {result.folder}")
    return 0


def _first() -> bool:
    from ark_framework.ranks import open_ranks

    return open_ranks().first
