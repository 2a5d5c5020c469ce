"""The end of ``ark probe``, ``ark finetune`` and ``ark compare``: Table 2, Figure 2, and files."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from ark_framework.cli.console import sheet as open_sheet

if TYPE_CHECKING:
    from rich.console import Console

    from ark_framework.transfer.cells import Cell, Sheet
    from ark_framework.transfer.compare import Comparison, Curve
    from ark_framework.transfer.outcome import Outcome
    from ark_framework.transfer.settings import StudyConfig

HEADING = "Models compared"
RESEARCH = "Research use only; not for diagnosis."
FILES = ("table.md", "table.csv", "outcomes.csv", "compare.html")


def finish(
    console: Console, outcomes: Sequence[Outcome], config: StudyConfig, out: Path, *, as_json: bool
) -> None:
    """Compare a study's models, write what others need, and print the tables.

    Files that an earlier run of the same study wrote are replaced: all of them are derived.
    """
    from ark_framework.transfer.compare import compare
    from ark_framework.transfer.sheets import sheets

    count = config.folds.count if config.folds else 5
    found = compare(outcomes, out=out, folds=count)
    out.mkdir(parents=True, exist_ok=True)
    write(found, outcomes, config, out)
    if as_json:
        click.echo(json.dumps([each.to_json() for each in outcomes], indent=1))
    else:
        for sheet in sheets(found):
            _show(console, sheet)
    where = ", ".join(str(out / name) for name in FILES)
    console.print(f"written: {where}", highlight=False, markup=False, soft_wrap=True)


def write(found: Comparison, outcomes: Sequence[Outcome], config: StudyConfig, out: Path) -> None:
    """Write the long tables, the Markdown and the page, each in one piece.

    Raises:
        MachineError: the disk refuses.
    """
    from ark_framework.run import write_text
    from ark_framework.transfer.files import markdown, outcome_frame, table_frame
    from ark_framework.transfer.sheets import sheets

    about = [*_about(found, outcomes)]
    tables = sheets(found)
    write_text(out / "outcomes.csv", outcome_frame(outcomes).to_csv(index=False))
    write_text(out / "table.csv", table_frame(found).to_csv(index=False))
    written = markdown(HEADING, about, tables) + _listed(settings(config))
    write_text(out / "table.md", written)
    write_text(out / "compare.html", html(found, about, config))


def html(found: Comparison, about: Sequence[str], config: StudyConfig) -> str:
    """Return the page."""
    from ark_framework.report import chart, page
    from ark_framework.transfer import sheets

    drawn = {model: None for curve in found.curves for model in curve.lines}
    styles = {model: chart.style(index) for index, model in enumerate(drawn)}
    external = sheets.external_sheet(found)
    return page.render(
        "compare.html",
        heading=HEADING,
        about=about,
        scores=list(sheets.score_sheets(found)),
        curves=list(sheets.curve_sheets(found)),
        others=[*([external] if external else []), sheets.exposure_sheet(found)],
        charts=[_chart(curve, styles) for curve in found.curves],
        styles=styles,
        settings=settings(config),
    )


def settings(config: StudyConfig) -> dict[str, str]:
    """Return what was set, for the protocols that ran; not where data and stores lie."""
    told = config.model_dump(mode="json")
    taken = ["models", "plugins", "datasets", "protocols", "seeds", "folds", "limit", "validation"]
    if {"probe", "few-shot", "knn"} & {*config.protocols}:
        taken.append("probe")
    if "finetune" in config.protocols:
        taken.append("finetune")
    if "segment" in config.protocols:
        taken.append("segment")
    for protocol in ("finetune", "segment"):
        told[protocol]["views"].pop("size")  # the model's own is taken
    shown = dict(_flat({name: told[name] for name in taken}))
    return {
        name: _bare(text) if name.startswith("models.") else text for name, text in shown.items()
    }


def _bare(word: str) -> str:
    """Leave out of a path whose disk it is on: a page is for others too."""
    head, sign, path = word.rpartition("=" if "=" in word else ":")
    return f"{head}{sign}{Path(path).name}" if "/" in path else word


def _about(found: Comparison, outcomes: Sequence[Outcome]) -> Iterator[str]:
    datasets = dict.fromkeys(each.dataset for each in outcomes)
    yield RESEARCH
    yield f"{len(found.models)} models, {len(datasets)} datasets, {len(outcomes):,} results."
    typed = shlex.join(map(_bare, sys.argv[1:]))
    yield f"{datetime.now().astimezone():%Y-%m-%d %H:%M %z}: ark {typed}"
    named = (f"{name} {version(name)}" for name in ("ark-framework", "torch", "numpy", "scipy"))
    yield f"{', '.join(named)}, Python {platform.python_version()}"


def _chart(curve: Curve, styles: Mapping[str, dict[str, str]]) -> dict[str, Any]:
    from ark_framework.report import chart
    from ark_framework.transfer.cells import bounds, number
    from ark_framework.transfer.sheets import UNITS, tick, title

    lines = {
        model: [chart.Mean(p.x, p.mean, p.low, p.high) for p in points]
        for model, points in curve.lines.items()
    }
    made = chart.chart(lines, styles)
    for each in made["x"]:
        each["text"] = tick(curve.over, each["value"])
    for line in made["lines"]:
        for point in line["points"]:
            mean = point["of"]
            told = f"{tick(curve.over, mean.x)}: {number(mean.mean)} {bounds(mean.low, mean.high)}"
            point["text"] = told.strip()
    size = {"width": chart.WIDTH, "height": chart.HEIGHT}
    return {
        "title": title(curve),
        "metric": curve.first.metric,
        "axis": UNITS[curve.over],
        **made,
        **size,
    }


def _show(console: Console, sheet: Sheet) -> None:
    made = open_sheet(*map(escape, sheet.columns), title=escape(sheet.title))
    for row in sheet.rows:
        made.add_row(*map(_cell, row))
    console.print(made)
    for note in sheet.notes:
        console.print(f"[dim]{escape(note)}[/dim]", highlight=False, soft_wrap=True)


def _cell(cell: Cell) -> str:
    tag = {"best": "bold", "second": "underline"}.get(cell.place)
    return f"[{tag}]{escape(cell.text)}[/{tag}]" if tag else escape(cell.text)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted names; what is not set is left out."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        elif value is not None:
            yield f"{prefix}{name}", str(value)


def _listed(told: Mapping[str, str]) -> str:
    lines = "\n".join(f"{name}: {value}" for name, value in told.items())
    return f"## Settings\n\n```text\n{lines}\n```\n"
