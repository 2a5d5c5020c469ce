"""An audit as tables of text, for a page, a terminal and Markdown alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ark_framework.fairness.results import Findings
from ark_framework.fairness.summary import part
from ark_framework.fairness.words import MEANINGS, MEASURES, named, people, reason
from ark_framework.statistics import Difference
from ark_framework.transfer.cells import GLUE, Cell, Sheet, bounds, cells, gain, number, p_value

GAP_NOTES = (
    "The first group's value minus the second's, with 95 % intervals that draw whole patients. "
    "Bold: distinguished from none. p is Holm's, over all tests of a model, dataset and grouping; "
    "only AUROC, FNR and FPR are tested, for the others depend on how common a finding is.",
    MEANINGS,
)
TRAINING_NOTES = (
    "AUROC on the tested sex, mean over folds. Same: trained on that sex; other: trained on the "
    "other. The difference has the corrected resampled t test's interval (Nadeau and Bengio 2003) "
    "and Holm's p over the labels and tested sexes of a model and dataset. Bold: distinguished.",
    "As published: Mann and Whitney's p, not corrected, which takes folds that share films for "
    "independent (**** 0.00001, *** 0.0001, ** 0.001, * 0.01, ns above). Delta: Cliff's, of same "
    "over other, from -1 to 1.",
)


def datasets(found: Findings) -> list[str]:
    """Return the datasets of which anything is said."""
    names = dict.fromkeys(dataset for _, dataset in found.about)
    for frame in (found.scores, found.gaps, found.thresholds, found.training, found.folds):
        names |= dict.fromkeys(frame["dataset"])
    return [*names]


def sheets(found: Findings) -> tuple[Sheet, ...]:
    """Return all tables, in the order of a page."""
    return tuple(sheet for dataset in datasets(found) for sheet in _sheets(found, dataset))


def short(found: Findings) -> tuple[Sheet, ...]:
    """Return what a terminal has room for: gaps between women and men, and training on one sex."""
    made: list[Sheet] = []
    for dataset in datasets(found):
        made += gap_sheets(found, dataset, attributes=("sex",))
        made += training_sheets(found, dataset)
    return tuple(made)


def _sheets(found: Findings, dataset: str) -> Iterator[Sheet]:
    yield from count_sheets(found, dataset)
    yield from gap_sheets(found, dataset)
    yield from score_sheets(found, dataset)
    yield from threshold_sheets(found, dataset)
    yield from training_sheets(found, dataset)
    yield from sweep_sheets(found, dataset)


def count_sheets(found: Findings, dataset: str) -> Iterator[Sheet]:
    """Yield how many films and patients each group has, by split."""
    counts = part(found.counts, dataset=dataset)
    if not len(counts):
        return
    splits = list(dict.fromkeys(counts["split"]))
    rows = []
    for (attribute, group), of in counts.groupby(["attribute", "group"], sort=False):
        texts = []
        for split in splits:
            sizes = part(of, split=split)
            told = f"{sizes['films'].sum():,.0f} ({sizes['patients'].sum():,.0f})"
            texts.append(told if len(sizes) else "-")
        rows.append(cells(str(group), named(str(attribute)), *texts))
    yield Sheet(
        title=f"{dataset}: films (patients)",
        columns=("group", "grouping", *splits),
        rows=tuple(rows),
        notes=("Missing: films of which nobody says it; they are in no group.",),
    )


def gap_sheets(
    found: Findings, dataset: str, *, attributes: Sequence[str] | None = None
) -> Iterator[Sheet]:
    """Yield a table of gaps for each grouping, those with alarms first."""
    gaps = part(found.gaps, dataset=dataset)
    keys = ["label", "first", "second", "model"]
    for attribute, family in gaps.groupby("attribute", sort=False):
        if attributes is not None and attribute not in attributes:
            continue
        measures = [each for each in MEASURES if each in set(family["measure"])]
        ranked = [
            (not rows["alarm"].any(), _cells_of(keys, rows, measures))
            for _, rows in family.groupby(keys, sort=False)
        ]
        yield Sheet(
            title=f"{dataset}: gaps by {named(str(attribute))}",
            columns=("label", "gap", "model", *(MEASURES[each] for each in measures), "not tested"),
            rows=tuple(row for _, row in sorted(ranked, key=lambda each: each[0])),
            notes=GAP_NOTES,
        )


def _cells_of(keys: list[str], rows: pd.DataFrame, measures: list[str]) -> tuple[Cell, ...]:
    label, first, second, model = (str(rows[key].iloc[0]) for key in keys)
    by_measure = {str(row["measure"]): row for _, row in rows.iterrows()}
    made = [_gap(by_measure[each]) if each in by_measure else Cell(text="-") for each in measures]
    return (
        *cells(label, f"{first}{GLUE}minus{GLUE}{second}", model),
        *made,
        Cell(text=_notes(rows)),
    )


def _gap(row: pd.Series) -> Cell:
    told = gain(Difference(value=row["value"], low=row["low"], high=row["high"]))
    text = f"{told}, p{GLUE}{p_value(row['p_holm'])}" if math.isfinite(row["p_holm"]) else told
    return Cell(text=text, place="best" if row["alarm"] else "")


def score_sheets(found: Findings, dataset: str) -> Iterator[Sheet]:
    """Yield a table for each grouping: everything measured of each label, group and model."""
    scores = part(found.scores, dataset=dataset)
    keys = ["label", "group", "model"]
    for attribute, family in scores.groupby("attribute", sort=False):
        measures = [each for each in MEASURES if each in set(family["measure"])]
        rows = []
        for (label, group, model), of in family.groupby(keys, sort=False):
            values = of.set_index("measure")[["value", "low", "high"]].T.to_dict("list")
            texts = [_value(*values.get(each, [math.nan] * 3)) for each in measures]
            sizes = (f"{of[each].iloc[0]:,.0f}" for each in ("films", "patients", "positives"))
            rows.append(cells(*map(str, (label, group, model)), *sizes, *texts, _notes(of)))
        by = "everybody" if attribute == "all" else f"by {named(str(attribute))}"
        heads = ("films", "patients", "positives", *(MEASURES[each] for each in measures))
        yield Sheet(
            title=f"{dataset}: {by}",
            columns=(*keys, *heads, "not scored"),
            rows=tuple(rows),
            notes=("95 % intervals draw whole patients.", MEANINGS),
        )


def _value(value: float, low: float, high: float) -> str:
    return f"{number(value)} {bounds(low, high)}".strip()


def _notes(rows: pd.DataFrame) -> str:
    """Return why measures are not there, each reason once."""
    reasons: dict[str, list[str]] = {}
    for measure, note in zip(rows["measure"], rows["note"], strict=True):
        if note:
            reasons.setdefault(reason(note), []).append(MEASURES.get(measure, measure))
    return "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items()) or "-"


def threshold_sheets(found: Findings, dataset: str) -> Iterator[Sheet]:
    """Yield the cuts, and what they give on the validation films that chose them."""
    rows = part(found.thresholds, dataset=dataset)
    if not len(rows):
        return
    rates = ("cut", "sensitivity", "specificity")
    yield Sheet(
        title=f"{dataset}: cuts, chosen on validation films",
        columns=("label", "for", "model", "policy", *rates, "positives", "negatives", "note"),
        rows=tuple(
            cells(
                row["label"],
                row["group"],
                row["model"],
                row["policy"],
                *(number(row[each]) for each in rates),
                *(f"{row[each]:,.0f}" for each in ("positives", "negatives")),
                row["note"] or "-",
            )
            for _, row in rows.iterrows()
        ),
        notes=("Scores at or above the cut are called. Rates and counts are of validation films.",),
    )


def training_sheets(found: Findings, dataset: str) -> Iterator[Sheet]:
    """Yield the verdicts of training on one sex, those that are distinguished first."""
    rows = part(found.training, dataset=dataset)
    if not len(rows):
        return
    rows = rows.sort_values("distinguished", ascending=False, kind="stable")
    yield Sheet(
        title=f"{dataset}: training on one sex",
        columns=(
            *("label", "tested on", "model", "same", "other", "same minus other"),
            *(f"Holm's{GLUE}p", "as published", "delta", "folds", "note"),
        ),
        rows=tuple(_verdict(row) for _, row in rows.iterrows()),
        notes=TRAINING_NOTES,
    )


def _verdict(row: pd.Series) -> tuple[Cell, ...]:
    told = gain(Difference(value=row["difference"], low=row["low"], high=row["high"]))
    stars = row["stars"] if isinstance(row["stars"], str) else ""
    return (
        *cells(row["label"], people("sex", row["tested_on"]), row["model"]),
        *cells(number(row["same"]), number(row["cross"])),
        Cell(text=told, place="best" if row["distinguished"] else ""),
        *cells(p_value(row["p_holm"]), f"{p_value(row['mann_whitney_p'])} {stars}".strip()),
        *cells(f"{row['delta']:+.2f}" if math.isfinite(row["delta"]) else "-"),
        *cells(f"{row['folds']:.0f}", reason(row["note"]) if row["note"] else "-"),
    )


def sweep_sheets(found: Findings, dataset: str) -> Iterator[Sheet]:
    """Yield the mean AUROC by share of women in training, where more than two were tried."""
    folds = part(found.folds, dataset=dataset)
    if folds["share"].nunique() < 3:
        return
    folds = folds.sort_values(["tested_on", "share"], kind="stable")
    heads = [
        f"{people('sex', sex)} tested: {100 * share:g} % women"
        for sex, share in zip(folds["tested_on"], folds["share"], strict=True)
    ]
    order = pd.unique(part(found.folds, dataset=dataset)["label"])
    table = folds.assign(head=heads).pivot_table("auroc", ["label", "model"], "head", dropna=False)
    table = table.reindex(columns=list(dict.fromkeys(heads))).reindex(order, level="label")
    overall = table.dropna().groupby("model", sort=False).mean()
    yield Sheet(
        title=f"{dataset}: shares of women in training",
        columns=("label", "model", *map(str, table)),
        rows=(
            *(cells(*map(str, key), *map(number, row)) for key, row in _rows(table)),
            *(
                cells("mean of labels with all of it", str(model), *map(number, row))
                for model, row in _rows(overall)
            ),
        ),
        notes=(
            f"Mean AUROC over folds; every share has as many training films. {_stopped(folds)}",
        ),
    )


def _rows(table: pd.DataFrame) -> Iterator[tuple[Any, list[float]]]:
    return zip(table.index, table.to_numpy(dtype=np.float64).tolist(), strict=True)


def _stopped(folds: pd.DataFrame) -> str:
    folds = folds.drop_duplicates(["model", "label", "fold", "share"])  # tested on two sexes
    stopped = int((~folds["converged"]).sum())
    if not stopped:
        return "All probes converged."
    return f"{stopped:,} of {len(folds):,} probes stopped before they converged."
