"""The end of ``ark probe``, ``ark finetune`` and ``ark compare``: Table 2, Figure 2, and files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ark_framework.cli.pages import RESEARCH, flat, listed, origin, show
from ark_framework.cli.plain import echo
from ark_framework.report.command import bare

if TYPE_CHECKING:
    from rich.console import Console

    from ark_framework.transfer.compare import Comparison
    from ark_framework.transfer.outcome import Outcome
    from ark_framework.transfer.settings import StudyConfig

HEADING = "Models compared"
FILES = ("table.md", "table.csv", "outcomes.csv", "compare.html")
RESULTS = "outcomes.json"  # all of it, which `ark report` reads


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
        echo(json.dumps([each.to_json() for each in outcomes], indent=1))
    else:
        for sheet in sheets(found):
            show(console, sheet)
    where = ", ".join(str(out / name) for name in FILES)
    console.print(f"written: {where}", highlight=False, soft_wrap=True)


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
    write_text(out / RESULTS, json.dumps(plain(outcomes, config), indent=1) + "\n")
    write_text(out / "outcomes.csv", outcome_frame(outcomes).to_csv(index=False))
    write_text(out / "table.csv", table_frame(found).to_csv(index=False))
    written = markdown(HEADING, about, tables) + listed(settings(config))
    write_text(out / "table.md", written)
    write_text(out / "compare.html", html(found, about, config))


def plain(outcomes: Sequence[Outcome], config: StudyConfig) -> dict[str, Any]:
    """Return a study's outcomes, settings and its datasets' terms of access as plain data."""
    from ark_framework import registry

    known = registry.load(config.plugins).datasets
    names = dict.fromkeys(each.dataset.partition("/")[0] for each in outcomes)
    return {
        "folds": config.folds.count if config.folds else 5,
        "access": {name: known[name].card.access for name in names if name in known},
        "settings": settings(config),
        "outcomes": [each.to_json() for each in outcomes],
    }


def html(found: Comparison, about: Sequence[str], config: StudyConfig) -> str:
    """Return the page."""
    from ark_framework.report import page
    from ark_framework.transfer import charts, sheets

    styles = charts.styles(found)
    external = sheets.external_sheet(found)
    return page.render(
        "compare.html",
        heading=HEADING,
        about=about,
        scores=list(sheets.score_sheets(found)),
        curves=list(sheets.curve_sheets(found)),
        others=[*([external] if external else []), sheets.exposure_sheet(found)],
        charts=[charts.chart_of(curve, styles) for curve in found.curves],
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
    shown = dict(flat({name: told[name] for name in taken}))
    return {
        name: bare(text) if name.startswith("models.") else text for name, text in shown.items()
    }


def _about(found: Comparison, outcomes: Sequence[Outcome]) -> Iterator[str]:
    datasets = dict.fromkeys(each.dataset for each in outcomes)
    yield RESEARCH
    yield f"{len(found.models)} models, {len(datasets)} datasets, {len(outcomes):,} results."
    yield from origin("scipy")
