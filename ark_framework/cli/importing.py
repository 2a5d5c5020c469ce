"""``ark import``: published weights into a folder that ``ark_framework.load`` reads."""

from __future__ import annotations

from pathlib import Path

import click

from ark_framework.cli.plain import echo


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to write.")
@click.option(
    "--heads",
    help="Names of the heads, in the file's order: mimic=14,mine=Nodule|Mass.",
)
@click.option(
    "--size", type=click.IntRange(min=16, max=4096), help="Side of the films, over the file's."
)
def import_(file: Path, out: Path, heads: str | None, size: int | None) -> None:
    """Turn published weights into a model folder, and say what became of them.

    Takes a Swin Transformer of any size: flat or wrapped, of this method, of timm or of SimMIM.
    Nothing that a file may carry is run.

    \b
    ark import ark6_teacher.pth.tar --out models/ark6
    """
    from ark_framework import bundle
    from ark_framework.published import import_file
    from ark_framework.story.card import About, card

    imported = import_file(file, names=heads, side=size)
    about = About(
        title=f"Imported from {file.name}",
        terms=["the terms are those of whoever gave out the weights, and of their datasets"],
    )
    told = card(imported.blueprint, about)
    bundle.write(out, imported.model, imported.blueprint, card=told)
    for line in imported.report():
        echo(line)
    echo(f"model: {out}")
