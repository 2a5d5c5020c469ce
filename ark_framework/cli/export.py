"""``ark export``: a run's teacher into a folder for others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ark_framework.cli.plain import echo
from ark_framework.errors import ArkError

if TYPE_CHECKING:
    from ark_framework.exposure import Exposure
    from ark_framework.pretrained import Pretrained


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to write.")
def export(run: Path, out: Path) -> None:
    """Write a run's teacher with its heads, preprocessing and a model card.

    RUN is a run's folder or one of its checkpoints.  timm reads the backbone of the folder as
    local-dir:OUT where it is a timm model.

    \b
    ark export runs/first --out models/first
    """
    from ark_framework import bundle, exposure, pretrained

    model = pretrained.load(run)
    folder = run if run.is_dir() else run.parent.parent
    trained = exposure.load(folder)
    source = bundle.Source(title=folder.absolute().name, datasets=_terms(model, trained))
    bundle.write(out, model.model, model.blueprint, source=source, trained=trained)
    names = ", ".join(task.name for task in model.tasks) or "none"
    echo(f"heads: {names}")
    kept = [part.dataset for part in trained.parts if part.access == "credentialed"]
    if kept:
        echo(
            f"{', '.join(kept)}: under a data-use agreement; no trace of its films is in the "
            "folder, but ask whether its weights may be shared"
        )
    echo(f"model: {out}")


def _terms(model: Pretrained, trained: Exposure) -> list[str]:
    """Return a line per dataset: its card's, or its name where its plugin is not here."""
    from ark_framework import registry

    try:
        known = registry.load(model.blueprint.plugins).datasets
    except ArkError:
        known = {}
    lines = []
    for part in trained.parts:
        spec = known.get(part.dataset)
        about = f"{spec.card.title}: {spec.card.licence} {spec.card.home}" if spec else part.dataset
        lines.append(f"{about} ({part.access})")
    return lines
