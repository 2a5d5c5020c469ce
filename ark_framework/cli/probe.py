"""``ark probe``: linear classifiers, few-shot ones and nearest neighbors on embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ark_framework.cli import candidates
from ark_framework.cli.studying import layers, study, studying
from ark_framework.cli.words import WordsCommand


@click.command("probe", cls=WordsCommand)
@click.argument(
    "models", nargs=-1, required=True, metavar="MODEL...", shell_complete=candidates.models
)
@studying
@click.option("--shots", multiple=True, type=int, metavar="K...", help="Few-shot: films a label.")
@click.option(
    "--fractions", multiple=True, type=float, metavar="SHARE...", help="Of training patients."
)
@click.option("--knn", is_flag=True, help="Nearest neighbors too.")
@click.option(
    "--features",
    type=click.Choice(["projected", "pooled"]),
    help="The projection (the default), or the features before it.",
)
def probe(
    models: tuple[str, ...],
    data: tuple[str, ...],
    out: Path,
    as_json: bool,
    gpus: int | None,
    shots: tuple[int, ...],
    fractions: tuple[float, ...],
    knn: bool,
    features: str | None,
    **given: Any,
) -> int:
    """Fit classifiers on each MODEL's embeddings, which are computed once and kept.

    A MODEL is a run, an import, an export, a file of weights, random:ARCH, timm:ARCH, or a table
    of embeddings made elsewhere (.npz or .csv: a film's name and its vector).  NAME=MODEL names it.

    \b
    ark probe runs/first random:runs/first --plugins ark-rsna --shots 1 4 16 --out probes/rsna
    """
    from ark_framework.transfer.settings import parse

    told: dict[str, Any] = {}
    if shots:
        told["shots"] = list(shots)
    if fractions:
        told["fractions"] = list(fractions)
    if features:
        told["features"] = features
    protocols = ["probe"] if fractions or not shots else []
    protocols += (["few-shot"] if shots else []) + (["knn"] if knn else [])
    file, flags, *assigned = layers(models, **given)
    config = parse(file, flags, {"protocols": protocols, "probe": told}, *assigned)
    return study(config, out=out, data=data, as_json=as_json, processes=gpus)
