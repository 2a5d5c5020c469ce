"""An audit's page: the summary, Figure 3's two plots for each dataset, and the tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ark_framework.fairness import sheets
from ark_framework.fairness.results import Findings
from ark_framework.fairness.summary import no_finding, part, summary
from ark_framework.fairness.words import SEXES, people, reason
from ark_framework.report import page
from ark_framework.report.bars import Bar, bars
from ark_framework.report.boxes import Row, axis, boxes

HEADING = "Whom a model fails"
RATES_NOTE = (
    "Share of films with the finding that are not called, at the cut chosen on validation films; "
    "whiskers are 95 % intervals. Bold: the gap is distinguished from none (Holm's p below 0.05)."
)
AREAS_NOTE = (
    "AUROC over folds: box from the first to the third quartile with the median, whiskers to the "
    "last value within 1.5 interquartile ranges, dots beyond. Stars as published: Mann and "
    "Whitney's test, not corrected, which takes folds that share films for independent (**** "
    "0.00001, *** 0.0001, ** 0.001, * 0.01, ns above). Bold: distinguished by the corrected test."
)
TRAINED = ("trained on the same sex", "trained on the other sex")


def html(found: Findings, about: Sequence[str]) -> str:
    """Return the page; ``about`` are lines below its heading."""
    return page.render(
        "fairness.html",
        heading=HEADING,
        about=about,
        accounts=summary(found),
        parts=[part_of(found, dataset) for dataset in sheets.datasets(found)],
        notes=found.notes,
        settings=found.settings,
    )


def part_of(found: Findings, dataset: str) -> dict[str, Any]:
    """Return what the page shows of a dataset: figures, and tables open and folded."""
    sex = ("sex",)
    first = [*sheets.gap_sheets(found, dataset, attributes=sex)]
    others = [each for each in sheets.gap_sheets(found, dataset) if each not in first]
    return {
        "dataset": dataset,
        "rates": rates(found, dataset),
        "areas": areas(found, dataset),
        "open": [*first, *sheets.training_sheets(found, dataset)],
        "folded": [
            *others,
            *sheets.score_sheets(found, dataset),
            *sheets.threshold_sheets(found, dataset),
            *sheets.sweep_sheets(found, dataset),
            *sheets.count_sheets(found, dataset),
        ],
    }


def rates(found: Findings, dataset: str) -> dict[str, Any] | None:
    """Return false negatives by sex, a panel for each model; ``None`` without."""
    scores = part(found.scores, dataset=dataset, attribute="sex", measure="fnr")
    clear = {no_finding(found, model, dataset) for model in scores["model"].unique()}
    scores = scores[~scores["label"].isin(clear)]
    groups = sorted(scores["group"].unique())
    alarms = part(found.gaps, dataset=dataset, attribute="sex", measure="fnr", alarm=True)
    panels = []
    for model, rows in scores.groupby("model", sort=False):
        given = {
            str(label): [_bar(part(of, group=group)) for group in groups]
            for label, of in rows.groupby("label", sort=False)
        }
        strong = set(part(alarms, model=model)["label"])
        chart = bars(given, groups=[people("sex", each) for each in groups], strong=strong)
        panels.append({"kind": "bars", "title": f"{model}: FNR", "chart": chart})
    named = [people("sex", group) for group in groups]
    return _figure(panels, named, RATES_NOTE, narrowest=20)


def _bar(row: pd.DataFrame) -> Bar:
    if not len(row):
        return Bar(np.nan, note="no such films")
    value, low, high, note = row[["value", "low", "high", "note"]].iloc[0]
    return Bar(value, low, high, reason(note))


def areas(found: Findings, dataset: str) -> dict[str, Any] | None:
    """Return AUROC over folds, a panel for each model and tested sex; ``None`` without."""
    folds = part(found.folds, dataset=dataset)
    given: dict[tuple[str, str], dict[str, Row]] = {}
    for (model, sex, label), rows in folds.groupby(["model", "tested_on", "label"], sort=False):
        given.setdefault((str(model), str(sex)), {})[str(label)] = _row(found, rows, str(sex))
    scale = axis(row for rows in given.values() for row in rows.values())
    panels = [
        {
            "kind": "boxes",
            "title": f"{model}: AUROC, tested on {people('sex', sex)}",
            "chart": boxes(rows, groups=TRAINED, scale=scale),
        }
        for (model, sex), rows in given.items()
    ]
    return _figure(panels, TRAINED, AREAS_NOTE, narrowest=24)  # women and men side by side


def _figure(
    panels: list[dict[str, Any]], groups: Sequence[str], note: str, *, narrowest: int
) -> dict[str, Any] | None:
    """Return panels with what they have in common; ``narrowest`` is a panel's width in rem."""
    told = {"panels": panels, "groups": groups, "note": note, "narrowest": narrowest}
    return told if panels else None


def _row(found: Findings, rows: pd.DataFrame, sex: str) -> Row:
    own = 1.0 if sex == next(iter(SEXES)) else 0.0
    values = [
        part(rows, share=share)["auroc"].to_numpy(dtype=np.float64) for share in (own, 1 - own)
    ]
    one = rows.iloc[0]
    same = {name: one[name] for name in ("model", "dataset", "label", "tested_on")}
    verdicts = part(found.training, **same)
    if not len(verdicts):
        return Row(values)
    verdict = verdicts.iloc[0]
    stars = verdict["stars"] if isinstance(verdict["stars"], str) else ""
    return Row(values, stars, bool(verdict["distinguished"]), reason(verdict["note"]))
