"""``ark demo``: pretrain on the phantom world, and compare with logistic regression on pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ark_framework.cli.console import console as open_console
from ark_framework.cli.packing import PackingBar
from ark_framework.errors import MachineError

# A label above this AUROC no longer tells one model from another.
CERTAIN = 0.98

if TYPE_CHECKING:
    from rich.console import Console

    from ark_framework.events import TaskScore
    from ark_framework.preparation import Prepared


@click.command("demo")
@click.option(
    "--out", type=click.Path(path_type=Path), help="The run's folder; runs/demo-TIME by default."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the run.")
def demo(out: Path | None, seed: int) -> None:
    """Train on drawn films, no data needed: about five minutes on two cores.

    The films are drawn by a program.  Nothing here is medicine.  The run is kept, and a page about
    it is written: the last line says where.

    \b
    ark demo --out runs/demo
    """
    from ark_framework.run import default_name

    _run(open_console(), out or Path("runs") / f"demo-{default_name()}", seed)


def _run(console: Console, out: Path, seed: int) -> None:
    from ark_framework import config as configuration
    from ark_framework.cli.plan import show
    from ark_framework.cli.progress import Progress
    from ark_framework.cli.scores import table
    from ark_framework.launch import train
    from ark_framework.preparation import prepare
    from ark_framework.run import refuse_used

    refuse_used(out)
    config = configuration.parse({**configuration.recipe("demo"), "seed": seed})
    with PackingBar(console) as packing:
        prepared = prepare(config, progress=packing, say=console.print)
    show(console, prepared.plan, as_json=False)
    console.print(
        f"the teacher's first momentum is {config.teacher.momentum}, not 0.9: a demo "
        "makes few teacher updates"
    )
    result = train(config, out=out, watching=(Progress(console),), say=console.print)
    console.print(table(result.scores, _baseline(console, prepared)))
    console.print(_certain(result.scores), highlight=False, soft_wrap=True)
    console.print("drawn films, research software: these numbers say nothing about patients")
    console.print(f"report: {_report(out)}", highlight=False, soft_wrap=True)


def _report(out: Path) -> Path:
    """Write the page about the run into its folder; its films are drawn, so some are shown."""
    from ark_framework.report.page import replace
    from ark_framework.story import page
    from ark_framework.story.folders import open_folders

    place = out / page.FILE
    replace(place, page.html(open_folders([out]), folder=out, films=True))
    return place


def _certain(scores: Sequence[TaskScore]) -> str:
    """Say how many labels are so easy that they tell nothing."""
    student = [
        value for each in scores if each.model == "student" for value in each.labels.values()
    ]
    return f"{sum(value > CERTAIN for value in student)} of {len(student)} labels above {CERTAIN}"


def _baseline(console: Console, prepared: Prepared) -> dict[str, float] | None:
    from ark_framework.baseline import pixel_logistic
    from ark_framework.metrics import score

    found: dict[str, float] = {}
    try:
        for task in prepared.plan.tasks:
            corpus = prepared.corpora[task.dataset]
            rows = {split: corpus.rows(split) for split in ("train", "val", "test")}
            targets = corpus.table.targets()
            scores = pixel_logistic(
                corpus.images(rows["train"]),
                targets[rows["train"]],
                corpus.images(rows["val"]),
                targets[rows["val"]],
                corpus.images(rows["test"]),
                schema=corpus.schema,
            )
            found[task.name] = score(
                task=task.name,
                model="pixels",
                split="test",
                scores=scores,
                targets=targets[rows["test"]],
                schema=corpus.schema,
            ).auroc
    except MachineError as error:
        console.print(f"no pixel baseline: {error}")
        return None
    return {name: value for name, value in found.items() if not math.isnan(value)}
