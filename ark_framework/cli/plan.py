"""``ark plan``: what a training run would do, number by number."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ark_framework.cli.console import console as open_console
from ark_framework.cli.console import sheet
from ark_framework.cli.packing import PackingBar
from ark_framework.cli.plain import echo
from ark_framework.cli.settings import gather, roots, settings
from ark_framework.cli.words import WordsCommand

if TYPE_CHECKING:
    from rich.console import Console

    from ark_framework.plan import RunPlan


@click.command("plan", cls=WordsCommand)
@settings
@click.option("--json", "as_json", is_flag=True, help="Print the whole plan as JSON.")
def plan(data: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Print the plan of a run: rows, steps, learning rate, momentum, what is left of the start.

    \b
    ark plan --plugins ark-phantom --leaks drop --set cycles=5
    """
    from ark_framework.preparation import prepare

    console = open_console(stderr=as_json)
    with PackingBar(console) as packing:
        prepared = prepare(gather(**given), roots=roots(data), progress=packing, say=console.print)
    show(console, prepared.plan, as_json=as_json)


def show(console: Console, plan: RunPlan, *, as_json: bool) -> None:
    """Print a plan as tables, or as JSON."""
    if as_json:
        echo(json.dumps(plan.to_json()))
        return
    tasks = sheet("task", "kind", "labels", "head", "loss", "train", "val", "test", "steps/cycle")
    for task in plan.tasks:
        tasks.add_row(
            task.name,
            task.kind,
            str(len(task.labels)),
            task.head,
            task.loss,
            *(str(n) for n in (task.rows, task.val_rows, task.test_rows, task.steps)),
        )
    console.print(tasks)
    course = sheet("at", "step", "learning rate", "momentum", "consistency weight")
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        step = round(share * (plan.total_steps - 1))
        update = plan.update_of(plan.visit_of(step), step)
        course.add_row(
            f"{share:.0%}",
            str(step),
            f"{plan.lr(step):.3g}",
            f"{plan.momentum(update):.5f}",
            f"{plan.consistency_weight(update):.4f}",
        )
    console.print(course)
    console.print(
        f"{plan.strategy}: {plan.cycles} cycles, {plan.total_steps} steps, "
        f"{plan.updates} teacher updates"
    )
    console.print(plan.remains(), soft_wrap=True)
