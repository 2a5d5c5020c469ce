"""Gaps between groups in words: which are distinguished, what may be hidden, what is not judged."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from ark_framework.fairness.audit import DERIVED
from ark_framework.fairness.groupings import OTHERS
from ark_framework.fairness.words import (
    MEASURES,
    Line,
    few,
    holm,
    interval,
    listed,
    many,
    named,
    people,
    reason,
)
from ark_framework.statistics import TESTED

SHOWN = 8  # of a kind; the tables have all
NOT_NONE = "which is no evidence that there is none"
WORSE = {
    "fnr": "{label} is missed more often in {worse} than in {better}",
    "fpr": "{label} is called where it is not more often in {worse} than in {better}",
    "auroc": "{label} is told apart less well in {worse} than in {better}",
}
CLEAR_WORSE = {
    **WORSE,
    "fnr": "Films without findings are called abnormal more often in {worse} than in {better}",
    "fpr": "Films with findings are called free of them more often in {worse} than in {better}",
}


def lines(attribute: str, gaps: pd.DataFrame, scores: pd.DataFrame, clear: str) -> Iterator[Line]:
    """Yield what is said of one model's gaps on one dataset between the groups of one grouping.

    Args:
        attribute: The grouping.
        gaps: Its rows of the frame ``gaps``.
        scores: The model's on the dataset.
        clear: The label of films without findings; empty where there is none.
    """
    by, tested = f"By {named(attribute)}", gaps[gaps["p_holm"].notna()]
    alarms = tested[tested["alarm"]].sort_values("p_holm", kind="stable")
    rest = len(tested) - len(alarms)
    if not len(tested):
        yield Line(text=f"{by}, no gap could be tested.", tone="caution")
    elif not len(alarms):
        yield Line(
            text=f"{by}, no gap is distinguished among {len(tested):,} tested, {NOT_NONE}."
            f"{_hidden(tested)}"
        )
    else:
        verb = "is" if len(alarms) == 1 else "are"
        yield Line(
            text=f"{by}, {len(alarms):,} of {many(len(tested), 'tested gap')} {verb} distinguished "
            "from none after Holm's correction:"
        )
        yield from (
            Line(text=alarm(gap, scores, clear), tone="alarm")
            for _, gap in alarms.head(SHOWN).iterrows()
        )
        if len(alarms) > SHOWN:
            yield Line(text=f"And {len(alarms) - SHOWN:,} more, in the table.", tone="alarm")
        if rest:
            other = f"other {rest:,} are" if rest > 1 else "other one is"
            hidden = _hidden(tested[~tested["alarm"]])
            yield Line(text=f"{by}, the {other} not distinguished, {NOT_NONE}.{hidden}")
    if missed := _unjudged(gaps):
        yield Line(text=f"{by}, {missed}", tone="caution")


def alarm(gap: pd.Series, scores: pd.DataFrame, clear: str) -> str:
    """Say which group a gap is to the disadvantage of, how large it is, and on how many films."""
    measure, attribute = gap["measure"], gap["attribute"]
    worse, better = "first", "second"
    sign = 1
    if (gap["value"] > 0) == (measure == "auroc"):
        worse, better, sign = better, worse, -1
    low, high = sorted((sign * gap["low"], sign * gap["high"]))
    told = (CLEAR_WORSE if gap["label"] == clear else WORSE)[measure].format(
        label=gap["label"],
        worse=people(attribute, gap[worse]),
        better=people(attribute, gap[better]),
    )
    values = _values(gap, scores, worse, better)
    size = f"a gap of {sign * gap['value']:+.2f}{interval(low, high)}, {holm(gap['p_holm'])}"
    return f"{told}: {MEASURES[measure]} {values}{size}{_sizes(gap, worse, better)}."


def _values(gap: pd.Series, scores: pd.DataFrame, worse: str, better: str) -> str:
    """Return ``0.62 against 0.41, ``, as far as the groups have values."""
    same = (scores["label"] == gap["label"]) & (scores["attribute"] == gap["attribute"])
    values = scores[same & (scores["measure"] == gap["measure"])].set_index("group")["value"]
    found = [float(values.get(gap[side], math.nan)) for side in (worse, better)]
    if all(map(math.isfinite, found)):
        return f"{found[0]:.2f} against {found[1]:.2f}, "
    known = [(side, v) for side, v in zip((worse, better), found, strict=True) if math.isfinite(v)]
    return "".join(f"{v:.2f} in {people(gap['attribute'], gap[side])}, " for side, v in known)


def _sizes(gap: pd.Series, worse: str, better: str) -> str:
    """Return on how many films a gap rests, in the order of its groups in the sentence."""
    told = []
    for kind, text in (("positives", "with it"), ("negatives", "without it")):
        counts = [gap[f"{side}_{kind}"] for side in (worse, better)]
        if all(map(math.isfinite, counts)) and gap["measure"] in _RESTS_ON[kind]:
            told.append(f"{counts[0]:,.0f} and {counts[1]:,.0f} films {text}")
    return f"; {listed(told)}" if told else ""


_RESTS_ON = {"positives": ("fnr", "auroc"), "negatives": ("fpr", "auroc")}


def _hidden(tested: pd.DataFrame) -> str:
    """Say how large a gap may be there all the same: the median of the farther interval ends."""
    told, counts = [], set()
    for measure in TESTED:
        found = tested[tested["measure"] == measure]
        ends = found[["low", "high"]].abs().max(axis=1, skipna=False).dropna()
        if len(ends):
            told.append(f"of {MEASURES[measure]} up to ±{ends.median():.2f}")
            counts.add(len(ends))
    if not told:
        return ""
    of = "labels" if (tested["second"] != OTHERS).all() else "comparisons"
    whom = f"half of the {of}" if max(counts) > 1 else f"the only {of[:-1]}"
    return f" For {whom}, gaps {listed(told)} cannot be excluded."


def _unjudged(gaps: pd.DataFrame) -> str:
    """Say which labels have a measure without a test, and why; counts, where groups are many."""
    gaps = gaps[gaps["measure"].isin(TESTED) & (gaps["label"] != DERIVED)]
    missed = gaps[gaps["p_holm"].isna()]
    if not len(missed):
        return ""
    if (gaps["second"] == OTHERS).any():
        return (
            f"{len(missed):,} of {many(len(gaps), 'comparison')} could not be judged; "
            "the table says why."
        )
    reasons: dict[tuple[str, str], list[str]] = {}
    for label, rows in missed.groupby("label", sort=False):
        whole = len(rows) == (gaps["label"] == label).sum()
        what = "" if whole else f"{listed([MEASURES[each] for each in rows['measure']])} of "
        reasons.setdefault((what, reason(rows["note"].iloc[0])), []).append(str(label))
    told = (f"{what}{few(names)} ({why})" for (what, why), names in reasons.items())
    return f"not judged: {few(told)}."
