"""What was found, in sentences that claim no more than the intervals allow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ark_framework.exposure import NO, UNKNOWN, YES
from ark_framework.fairness import gap_sentences
from ark_framework.fairness.audit import DERIVED
from ark_framework.fairness.predictions import NORMAL
from ark_framework.fairness.results import Findings
from ark_framework.fairness.words import (
    SEXES,
    Line,
    few,
    holm,
    interval,
    many,
    people,
    reason,
)

SOURCES = {
    "heads": "its own heads",
    "probe": "linear probes on its embeddings, fitted to the dataset's training films",
}
SEEN = "Differences on films that a model has seen can be smaller or larger than on new ones."


@dataclass(frozen=True, kw_only=True)
class Account:
    """What is said of one model on one dataset."""

    model: str
    dataset: str
    lines: tuple[Line, ...]

    @property
    def title(self) -> str:
        """Return what the account is of."""
        return f"{self.model} on {self.dataset}"


def summary(found: Findings) -> tuple[Account, ...]:
    """Return an account of each model and dataset, in the order of ``about`` and of the tables."""
    return tuple(
        Account(model=model, dataset=dataset, lines=tuple(_lines(found, model, dataset)))
        for model, dataset in subjects(found)
    )


def subjects(found: Findings) -> list[tuple[str, str]]:
    """Return the models and datasets of which anything is said."""
    pairs = dict.fromkeys(found.about)
    for frame in (found.scores, found.gaps, found.training, found.folds):
        pairs |= dict.fromkeys(zip(frame["model"], frame["dataset"], strict=True))
    return [*pairs]


def part(frame: pd.DataFrame, **equal: Any) -> pd.DataFrame:
    """Return the rows where columns have these values."""
    for name, value in equal.items():
        frame = frame[frame[name] == value]
    return frame


def no_finding(found: Findings, model: str, dataset: str) -> str:
    """Return the label of films without findings; empty where there is none."""
    told = found.about.get((model, dataset), {}).get("underdiagnosis")
    if told is not None:
        return str(told)
    labels = part(found.scores, model=model, dataset=dataset)["label"].unique()
    return next((each for each in labels if each.casefold() in (*NORMAL, DERIVED)), "")


def _lines(found: Findings, model: str, dataset: str) -> Iterator[Line]:
    about = found.about.get((model, dataset), {})
    gaps = part(found.gaps, model=model, dataset=dataset)
    scores = part(found.scores, model=model, dataset=dataset)
    clear = no_finding(found, model, dataset)
    yield from _source(found, dataset, about)
    if "sex" not in gaps["attribute"].to_numpy():
        yield Line(text="Women and men are not compared on these films; see the notes.")
    for attribute, family in gaps.groupby("attribute", sort=False):
        yield from gap_sentences.lines(str(attribute), family, scores, clear)
    if clear:
        yield from _underdiagnosis(clear, scores, gaps)
    verdicts = part(found.training, model=model, dataset=dataset)
    for sex, rows in verdicts.groupby("tested_on", sort=False):
        yield from _training(str(sex), rows)
    yield from _exposure(about)


def _source(found: Findings, dataset: str, about: Mapping[str, Any]) -> Iterator[Line]:
    if "answers" not in about:
        return
    sizes = part(found.counts, dataset=dataset, attribute="all", split="test")
    size = ""
    if len(sizes):
        films, patients = sizes["films"].iloc[0], sizes["patients"].iloc[0]
        size = f", on {many(films, 'test film')} of {many(patients, 'patient')}"
    yield Line(text=f"Scores are from {SOURCES.get(about['answers'], 'a predictions file')}{size}.")


def _underdiagnosis(clear: str, scores: pd.DataFrame, gaps: pd.DataFrame) -> Iterator[Line]:
    """Yield the share of films with findings that are called free of them, of all and by sex."""
    rates = part(scores, label=clear, measure="fpr")
    rates = rates[rates["attribute"].isin(["all", "sex"]) & rates["value"].notna()]
    if not len(rates):
        return
    told = (
        f"{people(each['attribute'], each['group'])} {each['value']:.2f}"
        f"{interval(each['low'], each['high'])} of {many(each['negatives'], 'film')}"
        for _, each in rates.iterrows()
    )
    text = f"Underdiagnosis, films with findings that are called free of them: {', '.join(told)}."
    gap = part(gaps, label=clear, measure="fpr", attribute="sex")
    if len(gap) == 1 and math.isfinite(value := gap["value"].iloc[0]):
        row = gap.iloc[0]
        size = f"{value:+.2f}{interval(row['low'], row['high'])}"
        text += f" {people('sex', row['first']).capitalize()} minus {people('sex', row['second'])}:"
        text += f" {size}{_verdict(row)}."
    if clear == DERIVED:
        text += (
            " It is derived: a film counts as free of findings where it has none of the judged "
            "labels. It depends on the mix of findings, so it is described and not tested."
        )
    yield Line(text=text)


def _verdict(gap: pd.Series) -> str:
    if not math.isfinite(gap["p_holm"]):
        return ""
    said = "distinguished" if gap["alarm"] else "not distinguished"
    return f", {said} ({holm(gap['p_holm'])})"


def _training(sex: str, verdicts: pd.DataFrame) -> Iterator[Line]:
    """Yield for how many labels it matters which sex a probe was trained on."""
    other = next((name for code, name in SEXES.items() if code != sex), "")
    whom = people("sex", sex)
    tested = verdicts[verdicts["p_holm"].notna()]
    apart = tested[tested["distinguished"]].sort_values("p_holm", kind="stable")
    if len(tested):
        yield Line(
            text=f"Tested on {whom}, probes trained on {whom} and probes trained on {other} are "
            f"distinguished for {len(apart):,} of {many(len(tested), 'label')}"
            f"{':' if len(apart) else ', which is not the same as no difference.'}"
        )
    for _, row in apart.iterrows():
        yield Line(
            text=f"{row['label']}: AUROC {row['same']:.2f} against {row['cross']:.2f}, difference "
            f"{row['difference']:+.2f}{interval(row['low'], row['high'])}, {holm(row['p_holm'])}.",
            tone="alarm",
        )
    if rest := len(tested) - len(apart) if len(apart) else 0:
        others = "other label is" if rest == 1 else f"other {rest:,} labels are"
        text = f"Tested on {whom}, the {others} not, which is not the same as no difference."
        yield Line(text=text)
    missed = verdicts[verdicts["p_holm"].isna()]
    if len(missed):
        names = (f"{row['label']} ({reason(row['note'])})" for _, row in missed.iterrows())
        yield Line(text=f"Tested on {whom}, not judged: {few(names)}.", tone="caution")


def _exposure(about: Mapping[str, Any]) -> Iterator[Line]:
    """Yield how many films the model had been trained on, or may have been."""
    asked, folds = about.get("exposure", {}), about.get("trained_any")
    parts = [
        *_seen(asked.get("films"), "test film", "part of the model's training"),
        *_seen(asked.get("patients"), "test film", "of patients of whom it was trained on films"),
        *_seen(folds, "film for training on one sex", "part of the model's training"),
    ]
    if not parts:
        return
    counted = [counts for counts in (*asked.values(), folds) if counts]
    touched = any(counts.get(word) for counts in counted for word in (YES, UNKNOWN))
    caution = f" {SEEN}" if touched else ""
    yield Line(text=f"{' '.join(parts)}{caution}", tone="caution" if touched else "")


def _seen(counts: Mapping[str, int] | None, one: str, what: str) -> Iterator[str]:
    total = sum(counts.get(word, 0) for word in (YES, NO, UNKNOWN)) if counts else 0
    if not counts or not total:
        return
    seen, unknown = counts.get(YES, 0), counts.get(UNKNOWN, 0)
    films = many(total, one, one.replace("film", "films", 1))
    told = f"Of {films}, {seen:,} {'was' if seen == 1 else 'were'} {what}"
    yield f"{told}; of {unknown:,} it is not known." if unknown else f"{told}."
