"""The page on strategies: what is compared, and what its intervals allow to say.

Everything comes from the results; a sentence is chosen by a rule, never by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ark_framework.statistics import Difference, holm, paired_t

TEMPLATE = Path(__file__).parent / "strategies.md"
MODELS = ("student", "teacher")
SIGNIFICANT = 0.05  # as the 95 % intervals
Record = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    strategy: str
    consistency: bool

    @property
    def name(self) -> str:
        return f"{self.strategy} {'with' if self.consistency else 'without'} consistency"


REFERENCE = Arm("cyclic", consistency=True)
ARMS = tuple(
    Arm(strategy, consistency)
    for strategy in ("cyclic", "concurrent", "sequential")
    for consistency in (True, False)
)
# Every arm against the reference; then what leaving consistency out does to the other strategies.
PAIRS = tuple((arm, REFERENCE) for arm in ARMS if arm != REFERENCE) + tuple(
    (arm, Arm(arm.strategy, consistency=True))
    for arm in ARMS
    if not arm.consistency and arm.strategy != REFERENCE.strategy
)


@dataclass(frozen=True)
class Measure:
    key: str
    name: str
    digits: int = 3


MEASURES = (
    Measure("last", "last AUROC"),
    Measure("steps", "steps to target", digits=0),
    Measure("forgetting", "forgetting at the end"),
    Measure("between", "forgetting after visits"),
    Measure("gradient", "gradient norm"),
)


def key(arm: Arm, rate: float, seed: int) -> str:
    """Return the name of a run."""
    return f"{arm.name}, rate {rate}, seed {seed}"


def steps_to(curve: Sequence[Sequence[float]], goal: float) -> int | None:
    """Return the first step of a curve of (step, score) at which the goal is reached, if any."""
    return next((int(step) for step, score in curve if score >= goal), None)


def values(results: Record, arm: Arm, model: str, measure: Measure) -> list[float | None]:
    """Return a measure by seed; `None` where the target was not reached or no such thing is."""
    runs = [
        results["runs"][key(arm, results["rates"][arm.name], seed)] for seed in results["seeds"]
    ]
    if measure.key == "steps":
        return [steps_to(run[model]["curve"], results["target"]) for run in runs]
    if measure.key == "gradient":
        return [run["gradient"][-1] if model == "student" else None for run in runs]
    return [run[model][measure.key] for run in runs]


def difference(mine: Sequence[float | None], others: Sequence[float | None]) -> Difference:
    """Compare two arms seed by seed; not estimable where a seed has no number."""
    if None in (*mine, *others):
        return Difference(value=float("nan"), reason="not estimable: a seed has no number")
    return paired_t(np.array(mine, dtype=np.float64), np.array(others, dtype=np.float64))


@dataclass(frozen=True)
class Compared:
    """One arm against another; `p` is Holm's, over the pairs of one measure and model."""

    first: Arm
    second: Arm
    difference: Difference
    p: float

    @property
    def verdict(self) -> str:
        """Say what the interval allows."""
        each = self.difference
        if each.reason:
            return "not estimable"
        if each.low <= 0 <= each.high:
            return "not distinguished"
        if not self.p < SIGNIFICANT:
            return "not distinguished once corrected for several tests"
        return "higher" if each.value > 0 else "lower"


def compare(results: Record, model: str, measure: Measure) -> list[Compared]:
    found = {arm: values(results, arm, model, measure) for arm in ARMS}
    apart = [difference(found[first], found[second]) for first, second in PAIRS]
    adjusted = holm([each.p for each in apart])
    return [
        Compared(*pair, each, float(p))
        for pair, each, p in zip(PAIRS, apart, adjusted, strict=True)
    ]


def sentence(verdicts: Mapping[str, str]) -> str:
    """Return what was found of the names, those of one verdict together."""
    groups: dict[str, list[str]] = {}
    for name, verdict in verdicts.items():
        groups.setdefault(verdict, []).append(name)
    said = [
        f"{verdict}: {'all' if len(names) == len(verdicts) > 1 else ', '.join(names)}"
        for verdict, names in sorted(groups.items())  # higher, lower, not ...
    ]
    return "; ".join(said)


def against_reference(compared: Sequence[Compared]) -> str:
    return sentence(
        {each.first.name: each.verdict for each in compared if each.second == REFERENCE}
    )


def without_consistency(compared: Sequence[Compared]) -> str:
    """Compare each strategy without consistency to the same one with it."""
    same = (each for each in compared if each.first.strategy == each.second.strategy)
    return sentence({each.first.strategy: each.verdict for each in same})


# --- tables --------------------------------------------------------------------------------------


def interval(found: Sequence[float | None], digits: int) -> str:
    """Return mean and t interval over seeds, or in how many there is no number."""
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        others = f" (else {', '.join(f'{each:.{digits}f}' for each in known)})" if known else ""
        return f"not reached in {len(found) - len(known)} of {len(found)}{others}"
    return shown(paired_t(np.array(known, dtype=np.float64), np.zeros(len(known))), digits)


def shown(each: Difference, digits: int, *, sign: str = "") -> str:
    if each.reason:
        return f"{each.value:{sign}.{digits}f}" if np.isfinite(each.value) else "not estimable"
    bounds = f"{each.low:{sign}.{digits}f}, {each.high:{sign}.{digits}f}"
    return f"{each.value:{sign}.{digits}f} [{bounds}]"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def outcomes(results: Record) -> str:
    rows = [
        [
            arm.name,
            model,
            *(
                interval(values(results, arm, model, each), each.digits)
                if applies(each, model)
                else ""
                for each in MEASURES
            ),
        ]
        for arm in ARMS
        for model in MODELS
    ]
    return table(["arm", "model", *(each.name for each in MEASURES)], rows)


def applies(measure: Measure, model: str) -> bool:
    """The teacher has no gradient."""
    return measure.key != "gradient" or model == "student"


def differences(results: Record) -> str:
    rows = []
    columns = {
        (model, each.key): compare(results, model, each)
        for model in MODELS
        for each in MEASURES
        if applies(each, model)
    }
    for index, (first, second) in enumerate(PAIRS):
        for model in MODELS:
            cells = []
            for each in MEASURES:
                one = columns[model, each.key][index] if applies(each, model) else None
                text = shown(one.difference, each.digits, sign="+") if one else ""
                cells.append(f"**{text}**" if one and one.verdict in ("higher", "lower") else text)
            rows.append([f"{first.name} - {second.name}", model, *cells])
    return table(["difference", "model", *(each.name for each in MEASURES)], rows)


def by_task(results: Record) -> str:
    names = [task["dataset"] for task in results["settings"]["tasks"]]
    rows = []
    for arm in ARMS:
        rate = results["rates"][arm.name]
        runs = [results["runs"][key(arm, rate, seed)] for seed in results["seeds"]]
        for model in MODELS:
            means = np.mean([run[model]["tasks"] for run in runs], axis=0)
            rows.append([arm.name, model, *(f"{mean:.3f}" for mean in means)])
    return table(["arm", "model", *(f"`{name}`" for name in names)], rows)


def tuning(results: Record) -> str:
    rows = []
    for arm in ARMS:
        cells = []
        for rate in results["grid"]:
            run = results["runs"][key(arm, rate, results["tuning_seed"])]
            text = "diverged"
            if "diverged" not in run:
                text = " / ".join(f"{run[model]['last']:.3f}" for model in MODELS)
            cells.append(f"**{text}**" if rate == results["rates"][arm.name] else text)
        rows.append([arm.name, *cells])
    return table(["arm", *(f"{rate}" for rate in results["grid"])], rows)


def at_edge(results: Record) -> str:
    """Name the arms for which a wider grid might have done better."""
    ends = (min(results["grid"]), max(results["grid"]))
    names = [arm.name for arm in ARMS if results["rates"][arm.name] in ends]
    if not names:
        return "No arm's rate lies at an edge of the grid."
    return f"A wider grid might do better; the rate lies at an edge of it: {', '.join(names)}."


# --- the page ------------------------------------------------------------------------------------


def page(results: Record) -> str:
    """Return the page as Markdown: the template with its numbers, tables and sentences."""
    pairs = [(model, each) for model in MODELS for each in MEASURES if applies(each, model)]
    found = {f"{model}, {each.name}": compare(results, model, each) for model, each in pairs}
    return TEMPLATE.read_text("utf-8").format(
        **_numbers(results),
        tuning=tuning(results),
        edge=at_edge(results),
        outcomes=outcomes(results),
        by_task=by_task(results),
        differences=differences(results),
        against_reference=listed(found, against_reference),
        without_consistency=listed(found, without_consistency),
    )


def listed(
    found: Mapping[str, Sequence[Compared]], say: Callable[[Sequence[Compared]], str]
) -> str:
    return "\n".join(f"- {name}: {say(compared)}." for name, compared in found.items())


def _numbers(results: Record) -> Mapping[str, Any]:
    settings = results["settings"]
    steps = settings["cycles"] * sum(task["steps"] for task in settings["tasks"])
    return {
        "tasks": len(settings["tasks"]),
        "films": next(iter(settings["data"].values()))["films"],
        "store": settings["store"]["size"],
        "view": settings["views"]["size"],
        "width": settings["model"]["options"]["width"],
        "cycles": settings["cycles"],
        "visit": settings["tasks"][0]["steps"],
        "steps": steps,
        "batch": settings["batch_size"],
        "seen": f"{steps * settings['batch_size']:,}",
        "momentum": settings["teacher"]["momentum"],
        "every": settings["eval"]["forgetting_every"],
        "tuning_seed": results["tuning_seed"],
        "seeds": len(results["seeds"]),
        "pairs": len(PAIRS),
        "share": results["share"],
        "target": results["target"],
        "generator": results["generator"],
        "date": results["date"],
        "versions": ", ".join(f"{name} {each}" for name, each in results["versions"].items()),
    }
