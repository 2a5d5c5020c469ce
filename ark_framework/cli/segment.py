"""``ark segment``: train UperNet on a model's encoder, on each mask dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ark_framework.cli import candidates
from ark_framework.cli.studying import layers, study, studying
from ark_framework.cli.words import WordsCommand


@click.command("segment", cls=WordsCommand)
@click.argument(
    "models", nargs=-1, required=True, metavar="MODEL...", shell_complete=candidates.models
)
@studying
@click.option(
    "--structures",
    multiple=True,
    metavar="[DATASET:][NAME=]A+B,C...",
    help="What a network finds: + makes structures one mask, a comma separates masks, a further "
    "word is a further network. Without it one network finds everything that a dataset has.",
)
@click.option("--published", is_flag=True, help="The published protocol.")
@click.option("--epochs", type=click.IntRange(min=1), help="At most.")
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), help="Peak learning rate.")
@click.option("--loss", help="dice, bce-dice, or a plugin's loss for masks.")
@click.option(
    "--films",
    multiple=True,
    type=click.IntRange(min=2),
    metavar="N",
    help="Also train on N training films alone, without validation. May be repeated.",
)
@click.option("--keep", is_flag=True, help="Keep the networks, for: ark predict --masks.")
def segment(
    models: tuple[str, ...],
    data: tuple[str, ...],
    out: Path,
    as_json: bool,
    gpus: int | None,
    structures: tuple[str, ...],
    published: bool,
    epochs: int | None,
    lr: float | None,
    loss: str | None,
    films: tuple[int, ...],
    keep: bool,
    **given: Any,
) -> int:
    """Train UperNet on each MODEL's encoder for each mask dataset; validation alone selects.

    A MODEL is a run, an import, an export, a file of weights, random:ARCH or timm:ARCH; NAME=MODEL
    names it.  Its encoder must have a pyramid of maps, as Swin, ConvNeXt and ResNet do.  Scores are
    Dice, IoU and HD95, film by film.  Every other setting is a --set segment.KEY=VALUE.

    \b
    ark segment runs/first random:runs/first --plugins ark-jsrt --seeds 3 --out masks/jsrt \\
      --structures left_lung+right_lung heart left_clavicle+right_clavicle
    """
    from ark_framework.transfer.protocol import PUBLISHED_MASKS
    from ark_framework.transfer.settings import parse

    told: dict[str, Any] = {"epochs": epochs, "loss": loss, "size": given["size"]}
    told |= {"structures": list(structures) or None, "films": sorted(set(films)) or None}
    told |= {"keep": keep or None, "optim": {"lr": lr} if lr is not None else None}
    file, flags, *assigned = layers(models, **given)
    config = parse(
        {"segment": dict(PUBLISHED_MASKS)} if published else {},
        file,
        flags,
        {
            "protocols": ["segment"],
            "segment": {name: value for name, value in told.items() if value is not None},
        },
        *assigned,
    )
    return study(config, out=out, data=data, as_json=as_json, processes=gpus)
