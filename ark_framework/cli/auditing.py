"""The run and the end of ``ark fairness``: the tables of a terminal, and files for others."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ark_framework.cli.pages import RESEARCH, flat, listed, origin, show
from ark_framework.report.command import bare
from ark_framework.text import file_stem

if TYPE_CHECKING:
    from rich.console import Console

    from ark_framework.fairness.results import Findings
    from ark_framework.fairness.settings import FairnessConfig
    from ark_framework.fairness.study import Subject

ROWS = 40  # of a table that a terminal shows; longer ones are on the page


def run(
    console: Console, config: FairnessConfig, *, out: Path, roots: Mapping[str, Path]
) -> Findings:
    """Audit with a progress bar, and write every film's predictions as they come."""
    from ark_framework.cli.packing import PackingBar
    from ark_framework.fairness.study import Study, findings
    from ark_framework.interruption import stoppable
    from ark_framework.ranks import open_ranks

    first = open_ranks().first
    subjects = []
    with PackingBar(console) as progress:
        study = Study(
            config=config,
            roots=roots,
            progress=progress,
            embedding=progress.embedding,
            say=lambda line: console.print(line, highlight=False, soft_wrap=True),
        )
        with stoppable(study.stop):
            for subject in study.run():
                if first:
                    (out / "predictions").mkdir(parents=True, exist_ok=True)
                    _keep(subject, out / "predictions")
                subjects.append(subject)
    return findings(subjects, study.notes, settings(config))


def finish(console: Console, found: Findings, out: Path) -> None:
    """Write the tables, the page and Markdown, and print the summary and what alarms.

    Files that an earlier audit wrote are replaced: all of them are derived.

    Raises:
        MachineError: the disk refuses.
    """
    from ark_framework.fairness import page, sheets
    from ark_framework.fairness.results import TABLES
    from ark_framework.fairness.summary import summary
    from ark_framework.run import write_text
    from ark_framework.transfer.files import markdown

    told = [*_about(found)]
    for name in TABLES:
        write_text(out / f"{name}.csv", getattr(found, name).to_csv(index=False))
    write_text(out / "fairness.json", json.dumps(plain(found), indent=1) + "\n")
    write_text(out / "fairness.html", page.html(found, told))
    accounts = summary(found)
    lines = [line for each in accounts for line in (each.title, *(x.text for x in each.lines))]
    text = markdown(page.HEADING, [*told, *lines, *found.notes], sheets.sheets(found))
    write_text(out / "fairness.md", text + listed(found.settings))
    for each in accounts:
        console.print(each.title, style="bold", highlight=False, soft_wrap=True)
        for line in each.lines:
            style = {"alarm": "bold red", "caution": "yellow"}.get(line.tone, "")
            console.print(line.text, style=style, highlight=False, soft_wrap=True)
    for sheet in sheets.short(found):
        if len(sheet.rows) <= ROWS:
            show(console, sheet)
    console.print(
        f"written: {out / 'fairness.html'}, and the tables beside it",
        highlight=False,
        soft_wrap=True,
    )


def settings(config: FairnessConfig) -> dict[str, str]:
    """Return what was set; not where data and stores lie."""
    told = config.model_dump(mode="json")
    for name in ("data", "store", "runtime"):
        told.pop(name)
    shown = dict(flat(told))
    paths = ("models.", "exclusive.files")
    return {name: bare(text) if name.startswith(paths) else text for name, text in shown.items()}


def plain(found: Findings) -> dict[str, Any]:
    """Return all of it as plain data; NaN as ``None``, a cut that calls nobody as ``"inf"``."""
    from ark_framework.fairness.results import TABLES

    about = [
        {"model": model, "dataset": dataset, **told}
        for (model, dataset), told in found.about.items()
    ]
    tables = {name: json.loads(getattr(found, name).to_json(orient="records")) for name in TABLES}
    for row, cut in zip(tables["thresholds"], found.thresholds["cut"], strict=True):
        if math.isinf(cut):  # JSON has none
            row["cut"] = str(cut)
    return {"about": about, "notes": found.notes, "settings": dict(found.settings), **tables}


def _keep(subject: Subject, folder: Path) -> None:
    """Write what a model says of every film, and of those of training on one sex."""
    from ark_framework.run import write_text

    said = subject.predictions
    name = _file_of(said.dataset, said.model)
    write_text(folder / f"{name}.csv", said.frame.to_csv(index=False))
    if subject.exclusive is not None:
        beside = folder / f".{name}.npz"
        subject.exclusive.save(beside)
        beside.replace(folder / f"{name}_one-sex.npz")


def _file_of(dataset: str, model: str) -> str:
    """Name a file by both; what had to be spelled otherwise or cut is told apart by a digest."""
    said = f"{dataset}_{model}"
    name = file_stem(dataset, model)
    return name if name == said else f"{name}-{hashlib.sha256(said.encode()).hexdigest()[:8]}"


def _about(found: Findings) -> Iterator[str]:
    models = dict.fromkeys(model for model, _ in found.about)
    datasets = dict.fromkeys(dataset for _, dataset in found.about)
    yield RESEARCH
    yield f"Models: {', '.join(models)}. Datasets: {', '.join(datasets)}."
    yield from origin("scipy")
