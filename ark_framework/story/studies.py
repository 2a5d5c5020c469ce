"""Sections on studies: Table 2, Figure 2, Figure 3 and evaluations, from their folders."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ark_framework.fairness import page as fairness_page
from ark_framework.fairness.sheets import datasets
from ark_framework.fairness.summary import summary
from ark_framework.story.links import Links
from ark_framework.story.parts import (
    Figure,
    Fold,
    Panel,
    Part,
    Picture,
    Pictures,
    Said,
    Section,
    Source,
    Table,
    Text,
    Title,
)
from ark_framework.story.results import FINDINGS, OUTCOMES, Audited, Evaluated, Study
from ark_framework.story.scores import METRICS
from ark_framework.transfer import charts
from ark_framework.transfer.cells import Sheet, bounds, cells, number
from ark_framework.transfer.compare import Comparison, compare
from ark_framework.transfer.intervals import MEAN
from ark_framework.transfer.outcome import Outcome
from ark_framework.transfer.sheets import (
    TITLES,
    curve_sheets,
    exposure_sheet,
    external_sheet,
    score_sheets,
)


def studied(study: Study, links: Links, *, films: bool) -> Section:
    """Return a comparison's tables and curves: Table 2 and Figure 2 of the paper."""
    found = compare(study.outcomes, out=study.path, folds=study.folds)
    table, raw = (links.to(study.name, study.path, name) for name in ("table.csv", OUTCOMES))
    of = (table, raw)
    parts: list[Part] = [Text(text=_about(found, study), tone="soft")]
    parts += [Table(sheet=sheet, sources=of) for sheet in score_sheets(found)]
    if found.curves:
        parts += [_curves(found, of)]
        parts += [
            Fold(
                title="The numbers of the curves",
                parts=[Table(sheet=sheet, sources=of) for sheet in curve_sheets(found)],
            )
        ]
    external = external_sheet(found)
    others = [*([external] if external else []), exposure_sheet(found)]
    parts += [Table(sheet=sheet, sources=of) for sheet in others]
    parts += list(_pictures(study, links, films=films))
    parts.append(Fold(title="Settings", parts=[_settings(study.settings, raw)]))
    protocols = dict.fromkeys(TITLES.get(each.protocol, each.protocol) for each in study.outcomes)
    said = ", ".join(protocols) if len(protocols) < 3 else "Models compared"
    return Section(name="study", title=f"{said}: {study.name}", parts=parts)


def audit(audited: Audited, links: Links) -> Section:
    """Return an audit: whom the model fails, and training on one sex; Figure 3 of the paper."""
    found = audited.findings
    raw = links.to(audited.name, audited.path, FINDINGS)

    def of(*names: str) -> tuple[Source, ...]:
        return tuple(links.to(audited.name, audited.path, f"{name}.csv") for name in names)

    parts: list[Part] = [Said(title=each.title, lines=each.lines) for each in summary(found)]
    for dataset in datasets(found):
        drawn = fairness_page.part_of(found, dataset)
        parts.append(Title(text=dataset))
        for name, title, files in (
            ("rates", "False negatives by sex", ("scores", "gaps")),
            ("areas", "Trained on one sex (Figure 3)", ("folds", "training")),
        ):
            if drawn[name]:
                parts += [Title(text=title), _panels(drawn[name], of(*files))]
        every = of("gaps", "scores", "thresholds", "training", "folds", "counts")
        parts += [Table(sheet=sheet, sources=_fitting(sheet, every)) for sheet in drawn["open"]]
        folded = [Table(sheet=sheet, sources=_fitting(sheet, every)) for sheet in drawn["folded"]]
        if folded:
            parts.append(Fold(title=f"{dataset}: every group, cut and count", parts=folded))
    if found.notes:
        parts.append(Fold(title="Notes", parts=[Text(text=note) for note in found.notes]))
    parts.append(Fold(title="Settings", parts=[_settings(found.settings, raw)]))
    return Section(name="fairness", title=f"Whom it fails: {audited.name}", parts=parts)


def evaluation(evaluated: Evaluated, links: Links) -> Section:
    """Return the scores of a model's heads on splits of datasets."""
    parts: list[Part] = []
    for name, (outcome, table) in evaluated.found.items():
        files = (f"{name}.csv", f"predictions/{name}.csv")
        sources = tuple(links.to(evaluated.name, evaluated.path, file) for file in files)
        parts.append(Table(sheet=_evaluation(outcome, table), sources=sources, foot=1))
    return Section(name="eval", title=f"Heads scored: {evaluated.name}", parts=parts)


def _evaluation(outcome: Outcome, table: pd.DataFrame) -> Sheet:
    metrics = [name for name in METRICS if name in set(table["metric"])]
    rows = []
    for label, of in table.groupby("label", sort=False):
        by = {str(row["metric"]): row for _, row in of.iterrows()}
        counts = (by["auroc"][name] for name in ("positives", "negatives"))
        told = ("" if label == MEAN else f"{n:,.0f}" if n == n else "0" for n in counts)
        rows.append(cells(str(label), *told, *(_area(by.get(name)) for name in metrics)))
    seen, split = outcome.trained_on.get("films", {}), outcome.setting.get("split", "")
    return Sheet(
        title=f"{outcome.model} on {outcome.dataset}, {split}: {outcome.films:,} films",
        columns=("label", "positives", "negatives", *(f"{METRICS[n]} [95 %]" for n in metrics)),
        rows=tuple(rows),
        notes=(
            f"Trained on: {seen.get('yes', 0):,} of these films, not on {seen.get('no', 0):,}, "
            f"unknown for {seen.get('unknown', 0):,}.",
        ),
    )


def _area(row: pd.Series | None) -> str:
    if row is None:
        return "-"
    return f"{number(row['value'])} {bounds(row['low'], row['high'])}".strip()


def _about(found: Comparison, study: Study) -> str:
    datasets = dict.fromkeys(each.dataset for each in study.outcomes)
    told = f"{len(found.models)} models on {', '.join(datasets)}: {len(study.outcomes):,} results."
    if any(each.protocol == "finetune" for each in study.outcomes):
        told += " Fine-tuning on targets is the paper's Table 2."
    return f"{told} Curves over few films are its Figure 2." if found.curves else told


def _curves(found: Comparison, sources: tuple[Source, ...]) -> Figure:
    styles = charts.styles(found)
    panels = []
    for curve in found.curves:
        drawn = charts.chart_of(curve, styles)
        title = f"{drawn['title']}: {drawn['metric']}"
        panels.append(Panel(kind="means", title=title, chart=drawn, across=drawn["axis"]))
    note = (
        "Means with 95 % t intervals over draws of the training films, or over seeds where the "
        "training films are counted; the horizontal axis is logarithmic."
    )
    return Figure(panels=panels, styles=styles, sources=sources, note=note)


def _panels(drawn: Mapping[str, Any], sources: tuple[Source, ...]) -> Figure:
    panels = [
        Panel(kind=each["kind"], title=each["title"], chart=each["chart"])
        for each in drawn["panels"]
    ]
    return Figure(
        panels=panels,
        groups=drawn["groups"],
        note=drawn["note"],
        narrowest=drawn["narrowest"],
        sources=sources,
    )


def _fitting(sheet: Sheet, every: tuple[Source, ...]) -> tuple[Source, ...]:
    """Return the file that a table of an audit is made of."""
    gaps, scores, thresholds, training, folds, counts = every
    for word, source in (
        ("gaps by", gaps),
        ("cuts, chosen", thresholds),
        ("training on one sex", training),
        ("films (patients)", counts),
        ("shares of women", folds),
    ):
        if word in sheet.title:
            return (source,)
    return (scores,)


def _settings(told: Mapping[str, str], source: Source) -> Table:
    rows = tuple(cells(name, value) for name, value in told.items())
    sheet = Sheet(title="Settings", columns=("setting", "value"), rows=rows)
    return Table(sheet=sheet, sources=(source,), sorted=False)


def _pictures(study: Study, links: Links, *, films: bool) -> Iterator[Part]:
    """Yield the sheets of overlays that segmentation drew, where films may be shown."""
    for each in study.outcomes:
        path = study.path / "pictures" / f"{Path(each.predictions).stem}.png"
        if not path.is_file():
            continue
        title = f"{each.model} on {each.dataset}: from the worst to the best"
        source = links.to(study.name, study.path, f"pictures/{path.name}")
        if not films:
            yield Text(
                text=f"Overlays of {each.model} on {each.dataset}: left out; --films shows them.",
                tone="lacking",
            )
        elif study.access.get(each.dataset.partition("/")[0], "credentialed") == "credentialed":
            yield Text(
                text=f"Overlays of {each.dataset} are left out: its films may not be passed on.",
                tone="lacking",
            )
        else:
            data = base64.b64encode(path.read_bytes()).decode()
            picture = Picture(
                data=f"data:image/png;base64,{data}",
                alt=f"Films of {each.dataset} with masks as drawn and as found",
            )
            yield Pictures(title=title, pictures=[picture], sources=(source,), wide=True)
