"""``ark train``: pretrain on every classification dataset of the named plugins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ark_framework.cli import candidates
from ark_framework.cli.console import console as open_console
from ark_framework.cli.packing import PackingBar
from ark_framework.cli.plain import echo
from ark_framework.cli.plan import show
from ark_framework.cli.settings import gather, roots, settings
from ark_framework.cli.torchrun import gpus as several
from ark_framework.cli.torchrun import inside, one_voice, relaunch
from ark_framework.cli.words import WordsCommand

if TYPE_CHECKING:
    from ark_framework.config import RunConfig


@click.command("train", cls=WordsCommand)
@settings
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    shell_complete=candidates.runs,
    help="The run's folder; an unfinished run of the same settings that is there goes on.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out, which must be there.")
@click.option(
    "--init-from",
    type=click.Path(path_type=Path),
    shell_complete=candidates.runs,
    help="A run or checkpoint whose weights the student starts from.",
)
@click.option(
    "--max-bad-steps",
    type=click.IntRange(min=0),
    metavar="N",
    help="Steps to skip, in all, whose loss or gradient is not finite; one more ends the run.",
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
    max_bad_steps: int | None,
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
        config = _asked(out, given, resume=resume, max_bad_steps=max_bad_steps)
        if dry_run:
            return _plan(config or gather(**given), roots(data), as_json=as_json)
        if gpus is not None and not inside():
            return relaunch(gpus, device=_device(config, out, given))
        return _pretrain(
            config, as_json=as_json, out=out, resume=resume, init_from=init_from, roots=roots(data)
        )


def _asked(
    out: Path | None, given: dict[str, Any], *, resume: bool, max_bad_steps: int | None
) -> RunConfig | None:
    """Return what is asked for; ``None`` to go on with what the run's folder says."""
    from ark_framework.run import reopen

    if not resume or any(given.values()):
        return gather(max_bad_steps=max_bad_steps, **given)
    if out is None or max_bad_steps is None:
        return None
    kept = reopen(out)[1]
    optim = kept.optim.model_copy(update={"max_bad_steps": max_bad_steps})
    return kept.model_copy(update={"optim": optim})


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
        echo(
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
