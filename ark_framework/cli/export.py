"""``ark export``: a run's teacher into a folder for others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ark_framework.cli import candidates
from ark_framework.cli.plain import echo

if TYPE_CHECKING:
    from ark_framework.exposure import Exposure
    from ark_framework.story.card import About


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path), shell_complete=candidates.runs)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to write.")
@click.option(
    "--fairness",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of ark fairness on RUN, for the card.",
)
def export(run: Path, out: Path, fairness: Path | None) -> None:
    """Write a run's teacher with its heads, preprocessing and a model card.

    RUN is a run's folder or one of its checkpoints.  The card is filled from the run: data and
    their terms, leaks, test scores with intervals, limits, citations.  timm reads the backbone of
    the folder as local-dir:OUT where it is a timm model.

    \b
    ark export runs/first --out models/first
    ark export runs/first --out models/first --fairness fairness/first
    """
    from ark_framework import bundle, exposure, pretrained
    from ark_framework.story.card import card

    model = pretrained.load(run)
    folder = run if run.is_dir() else run.parent.parent
    trained = exposure.load(folder)
    told = card(model.blueprint, _about(run, folder, trained, fairness))
    bundle.write(out, model.model, model.blueprint, card=told, trained=trained)
    names = ", ".join(task.name for task in model.tasks) or "none"
    echo(f"heads: {names}")
    kept = [part.dataset for part in trained.parts if part.access == "credentialed"]
    if kept:
        echo(
            f"{', '.join(kept)}: under a data-use agreement; no trace of its films is in the "
            "folder, but ask whether its weights may be shared"
        )
    echo(f"model: {out}")


def _about(run: Path, folder: Path, trained: Exposure, fairness: Path | None) -> About:
    """Gather what the card says; a folder that is no run, such as another export, says little."""
    from ark_framework.errors import ConfigError
    from ark_framework.story import results, runs
    from ark_framework.story.card import About

    title = folder.absolute().name
    found = None
    if fairness is not None:
        if not (fairness / results.FINDINGS).is_file():
            raise ConfigError(f"--fairness {fairness}: no {results.FINDINGS}; see ark fairness")
        found = results.audited(fairness, title).findings
    known = runs.read(folder, title) if runs.is_run(folder) else None
    last = run.is_dir() or run.name == "last.pt"
    terms = [f"{part.dataset} ({part.access})" for part in trained.parts]
    return About(title=title, terms=terms, run=known, tested=last, findings=found)
