"""What the audits of the bias benchmark amount to, and the page that says it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from planted import FAINT, FINDING, KINDS, MARK, MARKED, NOTHING, PREVALENCE, RATES, SEEN

Audit = Mapping[str, Any]
ALARM = 0.05
# Which way women's gap points where the planting makes them the worse off.
WORSE = {"fnr": 1, "auroc": -1}
NAMES = {"auroc": "AUROC", "fnr": "FNR", "fpr": "FPR"}
MOST_NULL, LEAST_FOUND = 16, 80


def kept(labels: Mapping[str, Mapping[str, Any]], kind: str) -> dict[str, Any]:
    """Return what of an audit is counted: its alarms, and all of the planted label."""
    alarms = [
        [label, measure, gap[0], gap[3]]
        for label, found in labels.items()
        for measure, gap in found["gaps"].items()
        if gap[3] is not None and gap[3] < ALARM
    ]
    return {"alarms": alarms, **({"planted": labels[FINDING[kind]]} if kind in FINDING else {})}


def mean_gaps(audits: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return each label's gaps in the mean of audits, each with its 95 % t interval."""
    from scipy.stats import t

    means: dict[str, dict[str, Any]] = {}
    for label in audits[0]:
        for measure in NAMES:
            every = [audit[label]["gaps"][measure][0] for audit in audits]
            gaps = np.array([gap for gap in every if gap is not None])
            reach = t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / len(gaps) ** 0.5
            ends = (gaps.mean(), gaps.mean() - reach, gaps.mean() + reach)
            means.setdefault(label, {})[measure] = [round(float(end), 4) for end in ends]
    return means


def found(audit: Audit, kind: str) -> bool:
    """Whether the planted label alarms with the right sign, and never with the wrong one."""
    signs = [
        np.sign(value) * WORSE[measure]
        for label, measure, value, _ in audit["alarms"]
        if label == FINDING[kind] and measure in WORSE
    ]
    return bool(signs and min(signs) > 0)


def elsewhere(audit: Audit, kind: str) -> bool:
    """Whether a label alarms that is not the planted one."""
    return any(label != FINDING.get(kind) for label, *_ in audit["alarms"])


def alarms(audits: Sequence[Audit]) -> int:
    """Count the audits with any alarm."""
    return sum(bool(each["alarms"]) for each in audits)


def share(count: int, audits: int) -> str:
    """Return a count, how many there are, and Clopper and Pearson's 95 % interval in percent."""
    from scipy.stats import binomtest

    ends = binomtest(count, audits).proportion_ci()
    return f"{count} of {audits} ({100 * ends.low:.1f} to {100 * ends.high:.1f} %)"


def by_chance(audits: int) -> str:
    """Return how many alarms a family-wise rate of exactly 0.05 makes, and in which 95 %."""
    low, high = _chance(audits)
    return f"{ALARM * audits:g} expected, {low:.0f} to {high:.0f} in 95 %"


def _chance(audits: int) -> tuple[float, float]:
    from scipy.stats import binom

    low, high = binom.ppf([0.025, 0.975], audits, ALARM)
    return float(low), float(high)


def _silent(count: int, audits: int) -> str:
    return _holds(count <= _chance(audits)[1])


def lines(result: Mapping[str, Any]) -> str:
    """Return a result as JSON, an entry a line."""
    entries = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in result.items())
    return "{\n" + ",\n".join(entries) + "\n}\n"


def page(result: Mapping[str, Any]) -> str:
    """Return the page as Markdown."""
    parts = [_opening(result), tables(result), _elsewhere(result), CLOSING]
    return "\n\n".join(parts) + "\n"


def _opening(result: Mapping[str, Any]) -> str:
    films, areas = result["films"], result["network"]
    told = ", ".join(f"{name} {area:.2f}" for name, area in areas.items())
    return f"""\
<!-- Written by benchmarks/bias.py; run it again instead of editing. -->
# Bias, planted and found

Does the audit of [`ark fairness`](fairness.md) by sex find a bias that is there, and stay silent
where there is none? Measured on drawn films (generator `{result["generator"]}`, plantings
`{result["planted"]}`), where the truth is known: figures of the audit, not of patients.

A `tiny` network is pretrained on the phantom's north and frozen. AUROC of its own heads:
{told}.

Every seed draws a hospital of its own with {sum(films.values()):,} films of new patients, one to
four films each: {films["train"]:,} train linear probes of six labels, {films["val"]:,} choose each
label's cut at specificity 0.90, {films["test"]:,} are audited with {result["replicates"]:,} draws.
A family is 18 tests: six labels, gaps of AUROC, FNR and FPR, women minus men; Holm, 0.05. The body
is drawn alike for both sexes, so that a film says nothing of the sex but by what is planted, in
training, validation and test films alike:

- **{NOTHING}**: the sexes differ in nothing.
- **{FAINT}**: women's {FINDING[FAINT]}s have {100 * SEEN:.0f} % of their brightness.
- **{MARK}**: a bright tube on {100 * MARKED[True]:.0f} % of men's films with {FINDING[MARK]} and \
{100 * MARKED[False]:.0f} % of those without;
  none on women's. The probe learns the tube, which helps men alone.
- **{PREVALENCE}**: {100 * RATES["F"]:.0f} % of women's films show {FINDING[PREVALENCE]} and \
{100 * RATES["M"]:.0f} % of men's, at the age of 55.

What is planted, and how much, was chosen on other seeds. All of it took
{result["CPU seconds"] / 60:.0f} minutes of processor time."""


def tables(result: Mapping[str, Any]) -> str:
    """Return what came out, as Markdown."""
    audits, dealt = result["audits"], result["dealt"]
    count = alarms(dealt)
    rows = ["| audits | what is counted | how many | to be |", "|---|---|---|---|"]
    rows.append(
        f"| sexes dealt out anew among the patients, on the predictions of '{NOTHING}' | any alarm "
        f"| {share(count, len(dealt))}; {by_chance(len(dealt))} "
        f"| at most {MOST_NULL} in 200: {_holds(count * 200 <= MOST_NULL * len(dealt))} |"
    )
    plain = audits[NOTHING]
    rows.append(
        f"| {NOTHING} | any alarm | {share(alarms(plain), len(plain))}; {by_chance(len(plain))} | |"
    )
    for kind in (FAINT, MARK):
        these = audits[kind]
        good = sum(found(each, kind) for each in these)
        rows.append(
            f"| {kind} | {FINDING[kind]} alarms, women worse off | {share(good, len(these))} "
            f"| at least {LEAST_FOUND} in 100: {_holds(good * 100 >= LEAST_FOUND * len(these))} |"
        )
    these = audits[PREVALENCE]
    on_it = sum(any(label == FINDING[PREVALENCE] for label, *_ in a["alarms"]) for a in these)
    rows.append(
        f"| {PREVALENCE} | any alarm | {share(alarms(these), len(these))}; "
        f"{by_chance(len(these))} | as by chance: {_silent(alarms(these), len(these))} |"
    )
    rows.append(
        f"| {PREVALENCE} | {FINDING[PREVALENCE]} alarms | {share(on_it, len(these))} "
        f"| as by chance: {_silent(on_it, len(these))} |"
    )
    clear = result["without"]
    rows.append(
        f"| {PREVALENCE}, films without {FINDING[PREVALENCE]} only, the other 5 labels | any alarm "
        f"| {share(alarms(clear), len(clear))}; {by_chance(len(clear))} "
        f"| as by chance: {_silent(alarms(clear), len(clear))} |"
    )
    head = "Intervals are Clopper and Pearson's."
    return "\n\n".join(["## What came out", "\n".join(rows), head, _gaps(audits)])


def _holds(yes: bool) -> str:  # noqa: FBT001
    return "holds" if yes else "**does not hold**"


def _gaps(audits: Mapping[str, Sequence[Audit]]) -> str:
    """Return the planted label's gaps by measure, means over audits."""
    rows = [
        "| planted | label | positives F, M | measure | women | men | gap | its 95 % interval "
        "| alarms |",
        "|---" * 9 + "|",
    ]
    for kind in KINDS:
        if kind in FINDING:
            rows += _rows(audits[kind], kind)
    text = (
        "The planted label's gaps, women minus men: means over audits, of the ends of intervals "
        "too, and how many audits alarm."
    )
    return "\n\n".join([text, "\n".join(rows)])


def _rows(audits: Sequence[Audit], kind: str) -> Iterator[str]:
    planted = [each["planted"] for each in audits]
    positives = np.mean([each["positives"] for each in planted], axis=0)
    for number, (measure, name) in enumerate(NAMES.items()):
        gap = np.array([each["gaps"][measure][:3] for each in planted], dtype=np.float64)
        value, low, high = np.nanmean(gap, axis=0)
        rates = [np.mean([each["rates"][sex][number] for each in planted]) for sex in "FM"]
        count = sum([FINDING[kind], measure] in [a[:2] for a in each["alarms"]] for each in audits)
        yield (
            f"| {kind} | {FINDING[kind]} | {positives[0]:.0f}, {positives[1]:.0f} | {name} "
            f"| {rates[0]:.2f} | {rates[1]:.2f} | {value:+.3f} | {low:+.3f} to {high:+.3f} "
            f"| {count} of {len(audits)} |"
        )


def _mean(result: Mapping[str, Any], kind: str, label: str, measure: str) -> str:
    value, low, high = result["mean gaps"][kind][label][measure]
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def _elsewhere(result: Mapping[str, Any]) -> str:
    """Say which labels alarm where nothing was planted on them."""
    rows = [
        "| planted | audits with an alarm on another label | most often, women minus men |",
        "|---|---|---|",
    ]
    for kind in (FAINT, MARK, PREVALENCE):
        audits = result["audits"][kind]
        count = sum(elsewhere(each, kind) for each in audits)
        often = Counter(
            (label, measure)
            for each in audits
            for label, measure, *_ in each["alarms"]
            if label != FINDING[kind]
        ).most_common(3)
        told = "; ".join(
            f"{label} {NAMES[measure]}: {times}, mean gap {_mean(result, kind, label, measure)}"
            for (label, measure), times in often
        )
        rows.append(f"| {kind} | {share(count, len(audits))} | {told or 'none'} |")
    return "\n\n".join(
        [
            "## Alarms on other labels",
            "What is planted on one label need not stay there: where a probe of another label "
            "takes the tube, or a faint finding, for its own, its rates differ between the sexes "
            "as well. The mean gap over all audits, with its 95 % t interval, says whether such "
            "alarms are of a difference that is there. An audit says where rates differ, not why.",
            "\n".join(rows),
            _mix(result["mean gaps"]),
        ]
    )


def _mix(means: Mapping[str, Mapping[str, Any]]) -> str:
    """Say what a difference in prevalence does to other labels' negative films."""
    name = FINDING[PREVALENCE]
    every, clear = (
        max(abs(gaps["fpr"][0]) for label, gaps in means[which].items() if label != name)
        for which in (PREVALENCE, "without")
    )
    return (
        f"A difference in prevalence does this too: {name}, three times as frequent in women, is "
        "more frequent among the negative films of every other label, and a probe that calls it "
        "has more false positives in women. It is the mix of films that differs: the largest mean "
        f"gap in FPR of another label is {every:.3f} on all films and {clear:.3f} on those without "
        f"{name}, whose audits are the last row of the first table (with fewer films, so with less "
        "power as well). Whoever sees such an alarm does well to look at the mix first."
    )


CLOSING = """\
## What this does not show

One drawn world, one small network, two ways to be biased, and gaps of one size. Real films show the
sex: there a classifier can learn that a finding is more frequent in women, and then it misses it
less often in women and calls it more often in women without it. That is a difference in its rates,
and an alarm. Here films say nothing of the sex, so a label's prevalence leaves its own rates
alone."""
