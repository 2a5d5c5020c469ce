"""Sections on runs: how each was trained, on what, what leaked, how it went, how good it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ark_framework.fairness.words import Line
from ark_framework.story import curves, facts, scores
from ark_framework.story.films import examples
from ark_framework.story.limits import limits
from ark_framework.story.links import Links
from ark_framework.story.parts import Figure, Fold, Part, Said, Section, Source, Table, Text, Title
from ark_framework.story.runs import Run
from ark_framework.transfer.cells import Sheet, cells

OVERLAPS = "Overlaps, and labels that go with sex or one patient"


def of_runs(
    runs: Sequence[Run], links: Links, *, films: bool, say: scores.Say | None
) -> Iterator[Section]:
    """Yield the sections, all but the last one, :func:`environment`."""
    yield _glance(runs, links)
    yield _data(runs, links)
    yield _leaks(runs, links)
    yield from _curves(runs, links)
    tested = [each for run in runs for each in scores.scored(run, models=_models(runs), say=say)]
    yield _tested(runs, tested, links)
    yield _sexes(runs, links)
    yield _minded(runs, links)
    yield examples(runs, links, films=films)


def _models(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return whose scores are shown: of several runs the teacher's alone, which is the model."""
    return scores.MODELS if len(runs) == 1 else scores.MODELS[1:]


def _from(runs: Sequence[Run], links: Links, *files: str) -> tuple[Source, ...]:
    return tuple(links.to(run.name, run.path, file) for run in runs for file in files)


def _glance(runs: Sequence[Run], links: Links) -> Section:
    files = _from(runs, links, "run.json", "plan.json", "metrics.jsonl")
    return Section(
        name="run",
        title="At a glance",
        parts=[Table(sheet=facts.overview(runs), sources=files, sorted=False)],
    )


def _data(runs: Sequence[Run], links: Links) -> Section:
    plans, abouts = _from(runs, links, "plan.json"), _from(runs, links, "run.json")
    strictest = max((run.access for run in runs), key=[*facts.TERMS].index)
    parts: list[Part] = [
        Text(text=f"Strictest terms of all: {facts.TERMS[strictest]}.", tone="note"),
        Table(sheet=facts.data(runs), sources=plans),
        Table(sheet=facts.terms(runs), sources=abouts, sorted=False),
        Fold(
            title="Labels",
            parts=[
                Table(
                    sheet=Sheet(
                        title="Labels by task",
                        columns=("task", "labels"),
                        rows=tuple(cells(*each) for each in facts.labels(runs)),
                    ),
                    sources=plans,
                    sorted=False,
                )
            ],
        ),
        Fold(
            title="Plugins", parts=[Table(sheet=facts.plugins(runs), sources=abouts, sorted=False)]
        ),
    ]
    return Section(name="data", title="What was trained on what", parts=parts)


def _leaks(runs: Sequence[Run], links: Links) -> Section:
    if not any(run.leaks for run in runs):
        lacking = Text(text="No audit is in run.json; every ark train makes one.", tone="lacking")
        return Section(name="leaks", title="Leaks", parts=[lacking])
    parts: list[Part] = [
        Text(
            text="Training films, or their patients, that are held out for validation or test in "
            "any dataset that was known.",
            tone="soft",
        ),
        Table(sheet=facts.leaks(runs), sources=_from(runs, links, "run.json"), sorted=False),
    ]
    allowed = [
        run.name
        for run in runs
        if run.leaks and run.leaks["policy"] == "allow" and run.leaks["films"]
    ]
    if allowed:
        text = (
            f"{', '.join(allowed)}: scores on held-out films are partly of films seen in training."
        )
        parts.insert(0, Text(text=text, tone="note"))
    return Section(name="leaks", title="Leaks", parts=parts)


def _curves(runs: Sequence[Run], links: Links) -> Iterator[Section]:
    files = _from(runs, links, "metrics.jsonl")
    drawn, of_runs = curves.styles(runs), curves.run_styles(runs)
    panels = curves.validation(runs, drawn)
    note = (
        "A mark for each time that it was scored; the shade is what had been lost since the best "
        "score so far. Hold the pointer over a mark to see after which task it was taken."
    )
    parts: list[Part] = [Figure(panels=panels, styles=drawn, sources=files, note=note)]
    lost = curves.forgetting(runs)
    parts.append(
        Table(sheet=lost, sources=files)
        if lost
        else Text(
            text="Forgetting was not measured; eval.forgetting_every measures it.", tone="lacking"
        )
    )
    if not panels:
        parts = [
            Text(
                text="No validation scores yet; eval.every says in which cycles they are taken.",
                tone="lacking",
            )
        ]
    yield Section(name="curves", title="Validation scores and forgetting", parts=parts)
    several = of_runs if len(runs) > 1 else {}
    groups = (
        ("Losses", curves.losses(runs, of_runs)),
        ("Rates as they were applied", curves.schedules(runs, of_runs)),
        ("Speed", curves.speed(runs, of_runs)),
    )
    parts = []
    for title, made in groups:
        if made:
            parts += [Title(text=title), Figure(panels=made, styles=several, sources=files)]
    speeds = curves.speeds(runs)
    if speeds:
        parts.append(Table(sheet=speeds, sources=files))
    if not parts:
        parts = [Text(text="No steps are logged in metrics.jsonl yet.", tone="lacking")]
    yield Section(name="steps", title="Losses, rates and speed", parts=parts)


def _tested(runs: Sequence[Run], tested: Sequence[scores.Scored], links: Links) -> Section:
    parts: list[Part] = []
    by_name = {run.name: run for run in runs}
    panels = list(scores.panels(tested))
    for panel, (_, sheet, files) in zip(panels, scores.sheets(tested), strict=True):
        pairs = dict.fromkeys(tuple(each.split("\n")) for each in files)
        sources = tuple(links.to(run, by_name[run].path, file) for run, file in pairs)
        groups = panel.groups
        parts += [
            Figure(panels=[panel], groups=groups, sources=sources, narrowest=30),
            Table(sheet=sheet, sources=sources, foot=scores.foot(sheet)),
        ]
    if not parts:
        text = "No test predictions; a run writes them at its end (eval.test)."
        parts = [Text(text=text, tone="lacking")]
    return Section(name="test", title="Test scores, label by label", parts=parts)


def _sexes(runs: Sequence[Run], links: Links) -> Section:
    parts: list[Part] = []
    for run in runs:
        for _, sheet, files in scores.sheets(scores.by_sex(run)):
            sources = tuple(
                links.to(run.name, run.path, each)
                for each in dict.fromkeys(f.split("\n")[1] for f in files)
            )
            of = f"{run.name}, " if len(runs) > 1 else ""
            titled = Sheet(
                title=f"{of}{sheet.title.partition(':')[0]}: the teacher on women and on men",
                columns=sheet.columns,
                rows=sheet.rows,
                notes=sheet.notes,
            )
            parts.append(Table(sheet=titled, sources=sources, foot=scores.foot(sheet)))
    if parts:
        said = (
            "Described, not tested: ark fairness compares groups, with cuts chosen on validation."
        )
        parts.insert(0, Text(text=said, tone="soft"))
    else:
        text = "No test predictions of both women and men are here; ark fairness RUN says more."
        parts = [Text(text=text, tone="lacking")]
    return Section(name="sexes", title="Women and men", parts=parts)


def _minded(runs: Sequence[Run], links: Links) -> Section:
    """Return the overlaps and confounds that were found in runs' films."""
    parts: list[Part] = []
    for run in runs:
        lines = [Line(text=text) for text in limits(run)]
        title = run.name if len(runs) > 1 else OVERLAPS
        none = [Line(text="Nothing of the kind was found.")]
        parts.append(Said(title=title, lines=lines or none))
    files = [f"predictions/{task['name']}-test.csv" for run in runs for task in run.plan["tasks"]]
    there = [
        links.to(run.name, run.path, file)
        for run in runs
        for file in ("run.json", *dict.fromkeys(files))
        if (run.path / file).is_file()
    ]
    parts.append(Figure(panels=[], sources=tuple(there)))
    return Section(name="minded", title="What to mind", parts=parts)


def environment(runs: Sequence[Run], links: Links) -> Section:
    """Return the command, the machine, versions and settings."""
    abouts, configs = _from(runs, links, "run.json"), _from(runs, links, "config.yaml")
    return Section(
        name="environment",
        title="Environment",
        parts=[
            Table(sheet=facts.environment(runs), sources=abouts, sorted=False),
            Fold(
                title="Settings",
                parts=[Table(sheet=facts.settings(runs), sources=configs, sorted=False)],
            ),
        ],
    )
