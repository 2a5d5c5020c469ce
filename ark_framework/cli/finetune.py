"""``ark finetune``: train a model on one dataset, all layers or its head alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ark_framework.cli import candidates
from ark_framework.cli.studying import layers, study, studying
from ark_framework.cli.words import WordsCommand


@click.command("finetune", cls=WordsCommand)
@click.argument(
    "models", nargs=-1, required=True, metavar="MODEL...", shell_complete=candidates.models
)
@studying
@click.option("--published", is_flag=True, help="The published protocol, at its constant rate.")
@click.option("--head-only", is_flag=True, help="Leave the backbone as it is.")
@click.option("--epochs", type=click.IntRange(min=1), help="At most.")
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), help="Peak learning rate.")
@click.option("--tencrop", is_flag=True, help="Test on ten crops of each film.")
@click.option("--keep", is_flag=True, help="Keep the fine-tuned weights.")
def finetune(
    models: tuple[str, ...],
    data: tuple[str, ...],
    out: Path,
    as_json: bool,
    gpus: int | None,
    published: bool,
    head_only: bool,
    epochs: int | None,
    lr: float | None,
    tencrop: bool,
    keep: bool,
    **given: Any,
) -> int:
    """Fine-tune each MODEL's backbone on each dataset; validation alone selects.

    A MODEL is a run, an import, an export, a file of weights, random:ARCH or timm:ARCH.
    NAME=MODEL names it.  Every other setting is a --set finetune.KEY=VALUE.

    \b
    ark finetune runs/first random:runs/first --plugins ark-rsna --seeds 5 --out tuned/rsna
    """
    from ark_framework.transfer.protocol import PUBLISHED
    from ark_framework.transfer.settings import parse

    told: dict[str, Any] = {"freeze": "backbone"} if head_only else {}
    told |= {"epochs": epochs} if epochs is not None else {}
    told |= {"optim": {"lr": lr}} if lr is not None else {}
    told |= {name: True for name, flag in (("tencrop", tencrop), ("keep", keep)) if flag}
    file, flags, *assigned = layers(models, **given)
    config = parse(
        {"finetune": dict(PUBLISHED)} if published else {},
        file,
        flags,
        {"protocols": ["finetune"], "finetune": told},
        *assigned,
    )
    return study(config, out=out, data=data, as_json=as_json, processes=gpus)
