"""A comparison as tables of text, for a page, a terminal and Markdown alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from ark_framework.exposure import NO, UNKNOWN, YES
from ark_framework.statistics import BEST, SECOND, TIED
from ark_framework.transfer.arms import Arm, mean_sd
from ark_framework.transfer.cells import GLUE, Cell, Sheet, bounds, cells, gain, number, p_value
from ark_framework.transfer.compare import (
    FILMS,
    FOLDS,
    PUBLISHED,
    SEEDS,
    Column,
    Comparison,
    Curve,
    Point,
    Standing,
)

TITLES = {
    "finetune": "Fine-tuning",
    "probe": "Linear probe",
    "knn": "Nearest neighbors",
    "few-shot": "Few-shot",
    "segment": "Segmentation",
}
UNITS = {
    "shots": "films of each label or class",
    "fraction": "% of the training patients",
    "films": "training films",
}
REPEATS = {
    "draw": "Draws of the training films",
    "seed": "Seeds draw the training films and start the network",
}
UNDECIDED = "≈"  # not distinguished from the best
SEEN = {YES: "†", UNKNOWN: "‡"}
SCORE_NOTES = (
    "Mean ± SD (number of seeds, folds or draws). Bold: best; underlined: second; "
    f"{UNDECIDED}: not distinguished from the best (Holm's p of 0.05 or more).",
    f"{SEEN[YES]}: test films, or other films of their patients, were trained on; "
    f"{SEEN[UNKNOWN]}: not known. The counts are below.",
)

STRUCTURE = {
    "Dice per film": "dice",
    "95 %, one seed": "dice_low",
    "Dice over the set": "dice_set",
    "IoU": "iou",
    "HD95": "hd95",
    "films drawn": "drawn",
    "empty": "empty",
    "unmatched": "unmatched",
}
STRUCTURE_NOTES = (
    "Means over seeds and folds, ± SD; Dice per film, IoU and HD95 are means over the films on "
    "which the structure was drawn or marked as absent. HD95: 95th percentile of the distances "
    "between boundaries, the larger of both directions, in mm where the dataset says how large a "
    "film is, else in pixels (px) of the masks that are found.",
    "95 %: of Dice per film over patients, for the first seed or fold (bootstrap, BCa).",
    "Empty: neither mask has a pixel, which counts as Dice 1, IoU 1, HD95 0. Unmatched: one of "
    "the two has none, which counts as Dice 0 and IoU 0 and is left out of HD95.",
)


def score_sheets(found: Comparison) -> Iterator[Sheet]:
    """Yield Table 2: each protocol's scores and the differences behind the marks."""
    protocols: dict[str, list[Column]] = {}
    for column in found.columns:
        protocols.setdefault(column.protocol, []).append(column)
    for protocol, columns in protocols.items():
        yield Sheet(
            title=f"{TITLES[protocol]}: scores",
            columns=("model", *(_header(found, column) for column in columns)),
            rows=tuple(_scores(model, columns) for model in found.models if _has(model, columns)),
            notes=SCORE_NOTES,
        )
        rows = tuple(
            _difference(c, each) for c in columns for each in c.standings if each.difference
        )
        if rows:
            yield _differences(protocol, columns, rows)
        if protocol == "segment":
            yield _structures(columns)


def curve_sheets(found: Comparison) -> Iterator[Sheet]:
    """Yield Figure 2's numbers, a table for each chart."""
    for curve in found.curves:
        first, repeats = next(iter(curve.lines)), curve.first.repeats
        yield Sheet(
            title=f"{title(curve)}: {curve.first.metric}, n = {curve.first.films:,} test films",
            columns=(
                "model",
                UNITS[curve.over],
                "mean ± SD",
                "95 %",
                f"{repeats}s",
                f"gain over {first}",
            ),
            rows=tuple(_point(each) for line in curve.lines.values() for each in line),
            notes=(
                f"{REPEATS[repeats]}; gains are paired over {repeats}s. The test films are the "
                f"same in all {repeats}s: intervals are not about other patients.",
            ),
        )


def external_sheet(found: Comparison) -> Sheet | None:
    """Return what models were trained on by what they were tested on; ``None`` without heads."""
    if not found.external:
        return None
    datasets = list(dict.fromkeys(arm.dataset for arm in found.external))
    shown: dict[tuple[str, str], dict[str, str]] = {}
    for arm in found.external:
        text = f"{number(arm.first.auroc)} ({found.shared(arm)}){_mark(arm)}"
        shown.setdefault((arm.model, str(arm.condition[1])), {})[arm.dataset] = text
    films = {arm.dataset: arm.films for arm in found.external}
    return Sheet(
        title="External: trained on, tested on",
        columns=("model", "head", *(f"{name}, n = {films[name]:,}" for name in datasets)),
        rows=tuple(
            cells(*where, *(row.get(name, "-") for name in datasets))
            for where, row in sorted(shown.items(), key=lambda item: found.models.index(item[0][0]))
        ),
        notes=(
            "Mean AUROC of the labels that a head and a dataset share by name (their number). "
            "Means in one column are of the same labels only where the numbers agree.",
            SCORE_NOTES[1],
        ),
    )


def exposure_sheet(found: Comparison) -> Sheet:
    """Return, for every score, how many test films and patients' films were trained on."""
    rows: dict[tuple[str, ...], None] = {}
    for arm in every_arm(found):
        counts = arm.exposure()
        answers = (
            f"{counts[what].get(word, 0):,}" if what in counts else "-"
            for what in ("films", "patients")
            for word in (YES, NO, UNKNOWN)
        )
        rows[arm.model, arm.dataset, f"{arm.films:,}", *answers] = None
    heads = [
        f"{what}: {word}" for what in ("films", "patients' films") for word in (YES, NO, UNKNOWN)
    ]
    return Sheet(
        title="Were the test films trained on?",
        columns=("model", "dataset", "test films", *heads),
        rows=tuple(cells(*row) for row in rows),
        notes=("Patients' films: test films of patients of whom any film was trained on.",),
    )


def every_arm(found: Comparison) -> Iterator[Arm]:
    """Yield each arm that any table shows; one of a chart and a table comes twice."""
    for column in found.columns:
        yield from (each.arm for each in column.standings)
    for curve in found.curves:
        yield from (point.arm for line in curve.lines.values() for point in line)
    yield from found.external


def title(curve: Curve) -> str:
    """Return what a chart is called."""
    dataset = curve.first.dataset
    if curve.over != "fraction":
        return f"{TITLES[curve.protocol]}, {dataset}"
    return f"{TITLES[curve.protocol]} on shares of the training patients, {dataset}"


def tick(over: str, x: float) -> str:
    """Return a point on a chart's axis: films, or percent."""
    return f"{100 * x:g}" if over == "fraction" else f"{x:g}"


def _header(found: Comparison, column: Column) -> str:
    arm = column.standings[0].arm
    count = found.shared(arm)
    what = "structure" if arm.metric == "mean Dice" else "label"
    labels = "" if arm.metric == "accuracy" else f", {count} {what}{'s' if count > 1 else ''}"
    over, x = column.condition
    share = f", {tick(over, x)} % of training" if over == "fraction" and x != 1 else ""
    return f"{column.dataset}: {arm.metric}{labels}, n = {arm.films:,}{share}"


def _has(model: str, columns: Sequence[Column]) -> bool:
    return any(each.arm.model == model for column in columns for each in column.standings)


def _scores(model: str, columns: Sequence[Column]) -> tuple[Cell, ...]:
    row = [Cell(text=model)]
    for column in columns:
        own = [each for each in column.standings if each.arm.model == model]
        row.append(_score(own[0]) if own else Cell(text="-"))
    return tuple(row)


def _score(standing: Standing) -> Cell:
    arm = standing.arm
    mean, sd, count = mean_sd(arm.values)
    of = f" of {len(arm.values)}" if count < len(arm.values) else ""
    spread = f" ± {number(sd)} ({count}{of})" if count > 1 else ""
    beside = ""
    if arm.metric == "accuracy":
        area, _, _ = mean_sd([each.auroc for each in arm.outcomes.values()])
        beside = f"; AUROC {number(area)}"
    undecided = f" {UNDECIDED}" if TIED in standing.marks else ""
    place = next((mark for mark in standing.marks if mark in (BEST, SECOND)), "")
    return Cell(
        text=f"{number(mean)}{spread}{beside}{undecided}{_mark(arm)}",
        place="best" if place == BEST else "second" if place == SECOND else "",
    )


def _point(point: Point) -> tuple[Cell, ...]:
    arm = point.arm
    spread = f" ± {number(point.sd)}" if point.draws > 1 else ""
    return cells(
        f"{arm.model}{_mark(arm)}",
        tick(arm.condition[0], point.x),
        f"{number(point.mean)}{spread}",
        bounds(point.low, point.high) or "-",
        str(point.draws),
        gain(point.gain) if point.gain else "-",
    )


def _differences(
    protocol: str, columns: Sequence[Column], rows: tuple[tuple[Cell, ...], ...]
) -> Sheet:
    used = {column.method for column in columns}
    notes = [
        "Best minus model, 95 % interval (not adjusted), and Holm's p over a dataset's models."
    ]
    if SEEDS in used:
        notes.append(f"As published: the {PUBLISHED}, equal variances, not adjusted.")
    if FOLDS in used:
        notes.append("Folds share training films: the t test is Nadeau and Bengio's (2003).")
    if FILMS in used:
        notes.append(
            "The bootstrap compares the saved predictions of the first seed, in 1,000 draws."
        )
    notes.append("The best is chosen on these very scores: p-values are a guide.")
    heads: tuple[str, ...] = (
        "model",
        "dataset",
        "best",
        "best minus it",
        f"Holm's{GLUE}p",
        "method",
    )
    if SEEDS in used:
        heads = (*heads, "as published")
    return Sheet(
        title=f"{TITLES[protocol]}: differences to the best",
        columns=heads,
        rows=tuple(row[: len(heads)] for row in rows),
        notes=tuple(notes),
    )


def _difference(column: Column, standing: Standing) -> tuple[Cell, ...]:
    difference, published = standing.difference, standing.published
    reason = difference.reason if difference else ""
    shown = "-"
    if published and not published.reason:
        shown = f"{gain(published)}, p{GLUE}{p_value(published.p)}"
    return cells(
        standing.arm.model,
        column.dataset,
        column.best.model,
        gain(difference),
        p_value(standing.p),
        f"{column.method}; {reason}" if reason else column.method,
        shown,
    )


def _structures(columns: Sequence[Column]) -> Sheet:
    arms = [each.arm for column in columns for each in column.standings]
    return Sheet(
        title=f"{TITLES['segment']}: by structure",
        columns=("model", "dataset", "structure", *STRUCTURE),
        rows=tuple(_structure(arm, name) for arm in arms for name in arm.first.labels),
        notes=STRUCTURE_NOTES,
    )


def _structure(arm: Arm, name: str) -> tuple[Cell, ...]:
    found = [each.labels[name] for each in arm.outcomes.values()]
    texts = []
    for what in STRUCTURE.values():
        mean, sd, count = mean_sd([each.get(what, math.nan) for each in found])
        if what in ("drawn", "empty", "unmatched"):
            texts.append(f"{mean:,g}")
        elif what == "dice_low":
            texts.append(
                bounds(*(found[0].get(f"dice_{end}", math.nan) for end in ("low", "high")))
            )
        elif what == "hd95":
            unit = "mm" if arm.first.setting.get("unit") == "mm" else "px"
            texts.append(f"{number(mean)} {unit}")
        else:
            spread = f" ± {number(sd)}" if what == "dice" and count > 1 else ""
            texts.append(f"{number(mean)}{spread}")
    return cells(arm.model, arm.dataset, name, *texts)


def _mark(arm: Arm) -> str:
    return f" {SEEN[arm.seen]}" if arm.seen else ""


def sheets(found: Comparison) -> tuple[Sheet, ...]:
    """Return all tables, in the order of a page."""
    external: Iterable[Sheet | None] = (external_sheet(found),)
    every = [*score_sheets(found), *curve_sheets(found), *external, exposure_sheet(found)]
    return tuple(sheet for sheet in every if sheet is not None)
