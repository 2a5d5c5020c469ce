"""``ark fairness``: whom a model fails, and whether training on one sex is enough for the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ark_framework.cli import candidates
from ark_framework.cli.plain import echo
from ark_framework.cli.settings import reading, roots
from ark_framework.cli.studying import given, layers
from ark_framework.cli.torchrun import divided
from ark_framework.cli.torchrun import gpus as several
from ark_framework.cli.words import WordsCommand

if TYPE_CHECKING:
    from rich.console import Console


@click.command("fairness", cls=WordsCommand)
@click.argument(
    "models", nargs=-1, required=True, metavar="MODEL...", shell_complete=candidates.models
)
@reading
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the page, the tables and every film's predictions.",
)
@click.option(
    "--answers",
    type=click.Choice(["heads", "probe"]),
    help="The models' own heads, or probes on their embeddings; by default the heads where every "
    "model has one for the dataset.",
)
@click.option("--head", help="The head to take; the dataset's own by default.")
@click.option(
    "--by",
    multiple=True,
    metavar="NAME...",
    help="Groupings: sex, age, view, a plugin's own, or crossed as sex+age; all by default.",
)
@click.option(
    "--cuts",
    type=click.Choice(["target-specificity", "youden", "fixed"]),
    help="How validation chooses above which score a finding is called (target-specificity).",
)
@click.option(
    "--at", type=click.FloatRange(0, 1), help="The specificity (0.9), or the fixed cut (0.5)."
)
@click.option("--cuts-by", metavar="NAME", help="A grouping whose groups have cuts of their own.")
@click.option(
    "--least",
    type=click.IntRange(min=5),
    metavar="N",
    help="Patients that a rate must rest on, or it is not scored (10).",
)
@click.option(
    "--folds",
    type=click.IntRange(min=0),
    help="Dealings for training on one sex at a time (20); 0 leaves it out.",
)
@click.option(
    "--fold-files",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of Larrazabal's published folds, instead of dealings.",
)
@click.option(
    "--shares",
    multiple=True,
    type=click.FloatRange(0, 1),
    metavar="SHARE...",
    help="Shares of women among the training films (0 1).",
)
@click.option("--size", type=click.IntRange(min=16), help="Side that random: and timm: see.")
@click.option("--resize", type=click.IntRange(min=16), help="Side that films are fitted to.")
@several
@click.option("--json", "as_json", is_flag=True, help="Print the tables as JSON.")
def fairness(
    models: tuple[str, ...],
    data: tuple[str, ...],
    out: Path,
    as_json: bool,
    gpus: int | None,
    answers: str | None,
    head: str | None,
    by: tuple[str, ...],
    cuts: str | None,
    at: float | None,
    cuts_by: str | None,
    least: int | None,
    folds: int | None,
    fold_files: Path | None,
    shares: tuple[float, ...],
    **options: Any,
) -> int:
    """Audit each MODEL on each dataset: AUROC, false negatives and positives by subgroup.

    A MODEL is what ark probe takes, or predictions: a CSV with a film's name in the column image
    and scores in columns p:LABEL, or a folder of such files, as ark eval writes them for val and
    test.  Cuts are chosen on validation films alone.  What is shown stands in --out, too.

    \b
    ark fairness runs/first --plugins ark-chestxray14 --by sex age sex+age --out fairness/first
    """
    from ark_framework.cli.auditing import finish, plain, run
    from ark_framework.fairness.settings import FairnessConfig
    from ark_framework.transfer.settings import checked

    told = given(answers=answers, head=head, by=list(by) or None, least=least)
    told["cuts"] = given(policy=cuts, at=at, by=cuts_by)
    files = None if fold_files is None else str(fold_files)
    told["exclusive"] = given(folds=folds, files=files, shares=list(shares) or None)
    file, flags, *assigned = layers(models, **options)
    config = checked(FairnessConfig, file, flags, told, *assigned, where="fairness")

    def work(console: Console) -> None:
        found = run(console, config, out=out, roots=roots(data))
        if console.quiet:
            return
        finish(console, found, out)
        if as_json:
            echo(json.dumps(plain(found), indent=1))

    return divided(work, processes=gpus, device=config.runtime.device, as_json=as_json)
