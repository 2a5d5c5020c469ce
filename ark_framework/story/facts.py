"""Tables on runs, a column each: what was trained on what, what leaked, and on which machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ark_framework.report.command import bare, typed
from ark_framework.story.runs import Run
from ark_framework.transfer.cells import Cell, Sheet, cells

NONE = "-"
TERMS = {
    "open": "open",
    "registered": "registered: its owners ask who has it",
    "credentialed": "credentialed: under a data-use agreement; no film of it may be passed on",
}
REFUSED = ("data", "store", "runtime", "plugins", "tasks", "log", "checkpoint")


def overview(runs: Sequence[Run]) -> Sheet:
    """Return what kind of training each run was."""
    return _sheet("How it was trained", runs, _overview)


def data(runs: Sequence[Run]) -> Sheet:
    """Return each task's films by split, for every run."""
    tasks = _union(task["name"] for run in runs for task in run.plan["tasks"])
    heads = [
        f"{f'{run.name}: ' if len(runs) > 1 else ''}{what}"
        for run in runs
        for what in ("training films", "validation", "test")
    ]
    rows = []
    for name in tasks:
        texts = []
        for run in runs:
            task = next((each for each in run.plan["tasks"] if each["name"] == name), None)
            counts = ("rows", "val_rows", "test_rows")
            texts += [f"{task[each]:,}" if task else NONE for each in counts]
        first = next(t for run in runs for t in run.plan["tasks"] if t["name"] == name)
        about = (first["kind"], str(len(first["labels"])), first["head"], first["loss"])
        rows.append(cells(name, first["dataset"], *about, *texts))
    return Sheet(
        title="Tasks",
        columns=("task", "dataset", "kind", "labels", "head", "loss", *heads),
        rows=tuple(rows),
        notes=("Training films are those left after leaks were dealt with.",),
    )


def terms(runs: Sequence[Run]) -> Sheet:
    """Return each dataset's terms as they stood when it was trained on, the strictest last."""
    found = datasets(runs)
    rows = tuple(
        cells(
            name,
            str(told.get("title", NONE)),
            str(told.get("access", "not known: taken for credentialed")),
            str(told.get("licence", NONE)),
            str(told.get("home", NONE)),
            str(told.get("citation", NONE)),
        )
        for name, told in found.items()
    )
    return Sheet(
        title="Datasets and their terms",
        columns=("dataset", "title", "access", "licence", "home", "to be cited"),
        rows=rows,
    )


def datasets(runs: Sequence[Run]) -> dict[str, Mapping[str, Any]]:
    """Return every dataset that any of the runs was trained on."""
    found: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        for name, told in run.datasets.items():
            found.setdefault(name, told)
    return found


def labels(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return each task and its labels in words."""
    found: dict[str, str] = {}
    for run in runs:
        for task in run.plan["tasks"]:
            found.setdefault(task["name"], ", ".join(task["labels"]))
    return [*found.items()]


def plugins(runs: Sequence[Run]) -> Sheet:
    """Return the plugins and their versions."""
    return _sheet("Plugins", runs, _plugins)


def leaks(runs: Sequence[Run]) -> Sheet:
    """Return what was found to be held out somewhere, and what was done about it."""
    return _sheet("What was found, and what was done", runs, _leaks)


def environment(runs: Sequence[Run]) -> Sheet:
    """Return versions, the machine and the command."""
    return _sheet("Command, machine and versions", runs, _environment)


def settings(runs: Sequence[Run]) -> Sheet:
    """Return every setting that is not a place on a disk."""
    return _sheet("Settings", runs, _settings)


def seconds(run: Run) -> float:
    """Return how long the steps took: not packing, scoring and saving."""
    return float(run.log.speed["seconds"].sum())


def duration(value: float) -> str:
    """Return ``2 h 05 min``, ``3 min 20 s`` or ``12 s``."""
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


Told = Iterator[tuple[str, str]]


def _sheet(title: str, runs: Sequence[Run], told: Callable[[Run], Told]) -> Sheet:
    """Return what is told of each run, a row for each name and a column for each run."""
    columns = [dict(told(run)) for run in runs]
    names = _union(name for column in columns for name in column)
    rows = tuple(
        (Cell(text=name), *(Cell(text=column.get(name, NONE)) for column in columns))
        for name in names
    )
    heads = [run.name for run in runs] if len(runs) > 1 else ["value"]
    return Sheet(title=title, columns=("what", *heads), rows=rows)


def _overview(run: Run) -> Told:
    plan, config, about = run.plan, run.config, run.about
    model, optim = config["model"], config["optim"]
    done = about.get("step", len(run.log.steps["step"]))
    yield "status", f"{about['status']}, {done:,} of {plan['total_steps']:,} steps"
    yield "started", str(about.get("started", NONE))
    yield "training took", duration(seconds(run)) if seconds(run) else NONE
    films = sum(task["rows"] for task in plan["tasks"])
    yield "trained on", f"{films:,} films of {len(run.datasets)} datasets"
    yield "strictest terms", TERMS[run.access]
    yield "strategy", f"{plan['strategy']}, {plan['cycles']} cycles"
    name = model["options"].get("name") or model["backbone"]
    start = about.get("init_from") or model["init"]
    yield "backbone", f"{name}, {config['views']['size']} pixels, from {bare(str(start))} weights"
    yield "optimizer", f"{optim['name']}, peak learning rate {optim['lr']:g}"
    first, updates = plan["momentum"]["first"], plan["momentum"]["updates"]
    left = plan["initial_weights_left_in_teacher"]
    yield "teacher", f"momentum from {first:g}, {updates:,} updates, {left:.2g} of its start left"
    peak = plan["consistency_weight"]["peak"]
    yield "consistency weight", f"up to {peak:g}"
    yield "seed", str(plan["seed"])


def _plugins(run: Run) -> Told:
    for each in run.about.get("plugins", ()):
        yield each["name"], f"{each['distribution']} {each['version']}"


def _leaks(run: Run) -> Told:
    found = run.leaks
    if found is None:
        return
    yield "policy", str(found["policy"])
    yield "datasets compared", ", ".join(found["compared"])
    yield "training films that are held out somewhere", f"{found['films']:,}"
    yield "training films of patients who are held out somewhere", f"{found['patients']:,}"
    for where, count in found["told"].items():
        train, held, split = where.split(" > ")
        yield f"training films of {train} in {held}, {split}", f"{count:,}"
    for name, count in found["dropped"].items():
        yield f"left out of {name}", f"{count:,}"
    if not found["dropped"]:
        yield "left out", "none"
    yield "known by declared identities alone", ", ".join(found["unseen"]) or "none"
    yield "searched for re-encoded films only", ", ".join(found["narrow"]) or "none"


def _environment(run: Run) -> Told:
    about = run.about
    yield "command", f"ark {typed(about['command'][1:])}"
    yield "device", str(about.get("device", NONE))
    yield "precision", str(run.config["runtime"]["precision"])
    yield "platform", str(about.get("platform", NONE))
    yield "Python", str(about.get("python", NONE))
    for name, version in about.get("versions", {}).items():
        yield name, version or "not installed"


def _settings(run: Run) -> Told:
    kept = {name: value for name, value in run.config.items() if name not in REFUSED}
    yield from _flat(kept)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Told:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield f"{prefix}{name}", ", ".join(bare(str(each)) for each in value)
        elif value is not None:
            yield f"{prefix}{name}", bare(str(value))


def _union(names: Iterator[str]) -> list[str]:
    return [*dict.fromkeys(names)]
