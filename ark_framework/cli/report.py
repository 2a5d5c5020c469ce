"""``ark report``: what runs and studies have left, as one page."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ark_framework.cli import candidates
from ark_framework.cli.plain import echo
from ark_framework.cli.words import WordsCommand


@click.command("report", cls=WordsCommand)
@click.argument(
    "folders",
    nargs=-1,
    required=True,
    metavar="RUN...",
    type=click.Path(path_type=Path),
    shell_complete=candidates.runs,
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page, a new .html file; report.html in the first folder by default, which is "
    "written anew.",
)
@click.option("--films", is_flag=True, help="Show some test films, where their terms allow it.")
@click.option("--json", "as_json", is_flag=True, help="Print where the page is as JSON.")
def report(folders: tuple[Path, ...], out: Path | None, films: bool, as_json: bool) -> None:
    """Write one page about each RUN: what it was trained on, how it went, how good it is.

    A RUN is a run's folder, or one that ark probe, finetune, segment, compare, eval or fairness
    wrote with --out.  Several are shown side by side.  The page needs no network and names no film
    and no patient.

    \b
    ark report runs/first
    ark report runs/first runs/second tuned/rsna fairness/first --out report.html
    """
    from ark_framework.cli.console import console as open_console
    from ark_framework.report import page as files
    from ark_framework.story import page
    from ark_framework.story.folders import open_folders

    found = open_folders(folders)
    if out is not None:
        files.check(out)
    place = out or folders[0] / page.FILE
    console = open_console(stderr=as_json)
    with console.status("reading") as status:
        html = page.html(found, folder=place.parent, films=films, say=status.update)
    if out is None:
        files.replace(place, html)
    else:
        files.write(place, html)
    if as_json:
        echo(json.dumps({"report": str(place)}))
        return
    console.print(f"report: {place}", highlight=False, markup=False, soft_wrap=True)
