"""The gains and the page of ``gain.py``: pure functions of its scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from hospitals import CURVE, SHARED

from ark_framework.statistics import paired_t

RANDOM, PERMUTED, ALONE = "random", "permuted", "alone-"
FINE_TUNE, PROBE, FEW = "fine-tune", "probe", "few-shot {}"
# Of AUROC by measure, arm, seed and draw.
Scores = Mapping[str, Mapping[str, Sequence[Sequence[float]]]]
Gain = Mapping[str, Any]
# A name, arms, and the arms that they are compared with.
Comparison = tuple[str, tuple[str, ...], tuple[str, ...]]


def curve(count: int) -> str:
    """Return the arm of the first ``count`` hospitals."""
    return f"curve-{count}"


def singles() -> tuple[str, ...]:
    """Return the arms of one hospital."""
    return (curve(1), *(f"{ALONE}{name}" for name in CURVE[1:]))


def by_seed(scores: Scores, measure: str, *arms: str) -> np.ndarray:
    """Return the mean over draws, then over arms, ``(seeds,)``."""
    found = [[np.mean(draws) for draws in scores[measure][arm]] for arm in arms]
    return np.asarray(np.mean(found, axis=0))


def gains(scores: Scores, comparisons: Iterable[Comparison]) -> dict[str, dict[str, Any]]:
    """Return by measure and comparison the paired difference over seeds and its 95 % interval."""
    asked = list(comparisons)
    return {
        measure: {
            name: asdict(paired_t(by_seed(scores, measure, *ours), by_seed(scores, measure, *base)))
            for name, ours, base in asked
        }
        for measure in scores
    }


def comparisons() -> Iterator[Comparison]:
    """Yield the comparisons of the curve's seeds."""
    counts = range(1, len(CURVE) + 1)
    starts = [curve(n) for n in counts]
    for arm in (*starts, *singles()[1:], SHARED, PERMUTED):
        yield over(arm, RANDOM), (arm,), (RANDOM,)
    for arm in starts:
        yield over(arm, "singles"), (arm,), singles()
    yield over(starts[-1], PERMUTED), (starts[-1],), (PERMUTED,)


def over(arm: str, base: str) -> str:
    """Return the name of a comparison."""
    return f"{arm} over {base}"


CONTROLS = tuple((over(arm, RANDOM), (arm,), (RANDOM,)) for arm in (SHARED, PERMUTED))


def verdict(gain: Gain) -> str:
    """Say where an interval lies."""
    if gain["reason"]:
        return str(gain["reason"])
    return "above 0" if gain["low"] > 0 else "below 0" if gain["high"] < 0 else "contains 0"


def shown(gain: Gain) -> str:
    """Return a gain with its interval, three decimals."""
    if gain["reason"]:
        return f"{gain['value']:+.3f} ({gain['reason']})"
    return f"{gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"


def title(arm: str) -> str:
    """Return what the page calls an arm."""
    names = {
        RANDOM: "random start",
        SHARED: "one hospital that labels the held-out concept",
        PERMUTED: f"the {len(CURVE)} hospitals, labels permuted",
    }
    if arm.startswith(ALONE):
        return f"`{arm.removeprefix(ALONE)}` alone"
    if arm == curve(1):
        return f"1: `{CURVE[0]}` alone"
    if arm in names:
        return names[arm]
    count = int(arm.rpartition("-")[2])
    return f"{count}: and `{CURVE[count - 1]}`"


def page(result: Mapping[str, Any]) -> str:
    """Return the page as Markdown."""
    parts = [_opening(result), _sentences(result), _by_seed(result["scores"])]
    parts += [_tables(result), _closing(result)]
    return "\n\n".join(parts) + "\n"


def _opening(result: Mapping[str, Any]) -> str:
    given, seeds = result["pretraining"], result["seeds"]
    shots = " and ".join(str(each) for each in result["few-shot"]["shots"])
    tuning = result["fine-tuning"]
    rows = result["held-out films and positives"]
    controls = result["controls"]["seeds"]
    labels = "\n".join(
        f"| `{name}` | {', '.join(each)} |" for name, each in result["labels"].items()
    )
    return f"""\
<!-- Written by benchmarks/gain.py; run it again instead of editing. -->
# What more hospitals gain

Does pretraining on more hospitals, whose labels disagree in kind, help the task of a hospital that
it never saw? Measured on drawn films (generator `{result["generator"]}`, hospitals
`{result["hospitals"]}`), where the answer can be checked by controls. These are drawings: the
figures say that the method works as built, and nothing about patients.

| hospital | labels |
|---|---|
{labels}

The curve adds `{"`, `".join(CURVE)}` in this order. Every arm takes {given["steps"]} optimizer
steps of {given["batch_size"]} films ({given["films seen"]:,} films seen) in {given["visits"]}
visits, with `tiny` at {given["views"]["size"]} pixels; {given["films of a hospital"]:,} films are
drawn per hospital, 7 in 10 for training, so that more hospitals mean more different films, each
seen less often. The teacher is then measured on `heldout`, films of other equipment
({rows["train"][0]:,} for training and {rows["test"][0]} for testing at seed 0, {rows["test"][1]} of
these positive), in three ways: all layers fine-tuned for {tuning["steps"]} steps of
{tuning["batch_size"]} films; a linear probe on the projection with the whole training split; and
with k = {shots} films of each class, {result["few-shot"]["draws"]} nested draws.

{seeds} seeds, each with films, first weights, order and shots of its own; within a seed every arm
has the same held-out films, shots, order and first weights. A gain is the mean paired difference in
test AUROC, with its 95 % t interval over seeds. The two controls are judged on {controls} further
seeds: the first {seeds} had shown how widely a random start scatters when all of it is tuned; the
number was then fixed, before any of the further ones was drawn. Drawing, pretraining and measuring
took {result["CPU seconds"] / 60:.0f} minutes of processor time in all."""


def _sentences(result: Mapping[str, Any]) -> str:
    whole, count = curve(len(CURVE)), len(CURVE)
    gains, controls = result["gains"], result["controls"]["gains"]
    further = f"{result['controls']['seeds']} further seeds"
    lines = ["## What came out", ""]
    for text, found, name in (
        (f"{count} hospitals over a random start", gains, over(whole, RANDOM)),
        (f"{count} hospitals over a single one (mean of the {count})", gains, _over_one(whole)),
        ("True labels over permuted ones", gains, over(whole, PERMUTED)),
        (
            f"Positive control, to be above 0 ({further}): the concept itself, over a random start",
            controls,
            over(SHARED, RANDOM),
        ),
        (
            f"Negative control, to contain 0 in fine-tuning ({further}): permuted labels, "
            "over a random start",
            controls,
            over(PERMUTED, RANDOM),
        ),
    ):
        lines.append(f"- **{text}.** " + _each(found, name))
    return "\n".join(lines)


def _by_seed(scores: Scores) -> str:
    """Say what the intervals of fine-tuning are made of."""
    arms = (RANDOM, curve(len(CURVE)), SHARED, PERMUTED)
    rows = {title(arm): [f"{each:.3f}" for each in by_seed(scores, FINE_TUNE, arm)] for arm in arms}
    seeds = [f"seed {seed}" for seed in range(len(next(iter(rows.values()))))]
    return "Fine-tuned, seed by seed, in test AUROC:\n\n" + _table("start", seeds, rows)


def _over_one(arm: str) -> str:
    return over(arm, "singles")


def _each(gains: Mapping[str, Mapping[str, Gain]], name: str) -> str:
    return (
        "; ".join(
            f"{measure}: {shown(found[name])}, {verdict(found[name])}"
            for measure, found in gains.items()
        )
        + "."
    )


def _tables(result: Mapping[str, Any]) -> str:
    scores, gains = result["scores"], result["gains"]
    starts = [curve(n) for n in range(1, len(CURVE) + 1)]
    arms = [*starts, *singles()[1:], SHARED, PERMUTED]
    areas = {
        title(arm): [f"{by_seed(scores, measure, arm).mean():.3f}" for measure in scores]
        for arm in (RANDOM, *arms)
    }
    random = {
        title(arm): [shown(found[over(arm, RANDOM)]) for found in gains.values()] for arm in arms
    }
    single = {
        title(arm): [shown(found[_over_one(arm)]) for found in gains.values()] for arm in starts
    }
    return "\n\n".join(
        [
            "![Gain over a random start, by arm and measure](../assets/gain.svg)",
            "## Test AUROC on the held-out task, mean over seeds",
            _table("pretrained on", scores, areas),
            "## Gain over a random start",
            _table("pretrained on", gains, random),
            "## Gain over a single hospital",
            _table("pretrained on", gains, single),
        ]
    )


def _table(first: str, columns: Sequence[str] | Mapping[str, Any], rows: Any) -> str:
    lines = [f"| {first} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join(lines)


def _closing(result: Mapping[str, Any]) -> str:
    own = result["own"]
    arms = {curve(len(CURVE)): "among the four", PERMUTED: "labels permuted"}
    rows = {
        f"`{name}`": [_learned(own[alone], name), *(_learned(own[arm], name) for arm in arms)]
        for name, alone in zip(CURVE, singles(), strict=True)
    }
    return "\n\n".join(
        [
            "## What pretraining learned of its own tasks",
            "Mean AUROC of the teacher over labels and seeds, on the hospital's own test films.",
            _table("hospital", ("alone", *arms.values()), rows),
            "## What this does not show",
            "One kind of drawing, one small backbone and one budget. More hospitals come with more "
            "different films at the same number seen, so number and variety are not told apart. "
            "The order of the curve is fixed: what a step adds depends on which hospital it is. "
            "Permuted labels still move the weights, and nothing says that a start so moved is "
            "worth exactly a random one: the negative control is reported as it came out. "
            "Intervals are of single comparisons; nothing corrects for their number.",
        ]
    )


def _learned(tasks: Mapping[str, Sequence[Mapping[str, float]]], hospital: str) -> str:
    labels = next(each for task, each in tasks.items() if task.endswith(f"-{hospital}"))
    return f"{np.mean([list(each.values()) for each in labels]):.3f}"


WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 760, 360, 60, 40, 50
COLORS = ("#1b6ca8", "#c8553d", "#3c8d5a", "#8a5aa8")


def plot(gains: Mapping[str, Mapping[str, Gain]]) -> str:
    """Return the gains over a random start as SVG: the curve, then the two controls."""
    arms = [*(curve(n) for n in range(1, len(CURVE) + 1)), SHARED, PERMUTED]
    names = [*(str(n) for n in range(1, len(CURVE) + 1)), "shared concept", "permuted labels"]
    found = {m: [each[over(arm, RANDOM)] for arm in arms] for m, each in gains.items()}
    ends = [0.0, *(g[end] for each in found.values() for g in each for end in ("low", "high"))]
    low, high = np.floor(np.nanmin(ends) * 20) / 20, np.ceil(np.nanmax(ends) * 20) / 20

    def y(value: float) -> float:
        return float(TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM))

    def x(place: float) -> float:
        return LEFT + (place + 0.5) * (WIDTH - LEFT - 10) / len(arms)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for value in np.arange(low, high + 1e-9, 0.05):
        color = "#555" if abs(value) < 1e-9 else "#ddd"
        lines.append(f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - 10}" stroke="{color}"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">')
        lines.append(f"{round(value, 2) + 0.0:+.2f}</text>")
    for place, name in enumerate(names):
        lines.append(f'<text x="{x(place):.1f}" y="{HEIGHT - 28}" text-anchor="middle">')
        lines.append(f"{name}</text>")
    middle = x((len(CURVE) - 1) / 2)
    lines.append(f'<text x="{middle:.1f}" y="{HEIGHT - 8}" text-anchor="middle">hospitals</text>')
    for index, (measure, each) in enumerate(found.items()):
        color, shift = COLORS[index % len(COLORS)], (index - (len(found) - 1) / 2) * 0.12
        where = [(x(place + shift), y(gain["value"])) for place, gain in enumerate(each)]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in where[: len(CURVE)])
        lines.append(f'<polyline points="{line}" fill="none" stroke="{color}"/>')
        for (across, down), gain in zip(where, each, strict=True):
            lines.append(f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3.5" fill="{color}"/>')
            if not gain["reason"]:
                bar = f"M{across:.1f} {y(gain['low']):.1f}V{y(gain['high']):.1f}"
                lines.append(f'<path d="{bar}" stroke="{color}" stroke-width="1.5"/>')
        lines.append(f'<circle cx="{LEFT + 10 + 130 * index}" cy="16" r="4" fill="{color}"/>')
        lines.append(f'<text x="{LEFT + 18 + 130 * index}" y="20">{measure}</text>')
    lines.append(f'<text x="{WIDTH - 10}" y="20" text-anchor="end">gain in AUROC, 95 %</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"
