"""A model card as Markdown below YAML, in the form of the Hugging Face Hub, filled from a run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from ark_framework.blueprint import Blueprint
from ark_framework.fairness.results import Findings
from ark_framework.fairness.summary import summary
from ark_framework.story import facts
from ark_framework.story.limits import limits
from ark_framework.story.runs import Run
from ark_framework.story.scores import METRICS, Scored, by_sex, scored, sheets
from ark_framework.text import markdown
from ark_framework.transfer.cells import Sheet
from ark_framework.transfer.intervals import MEAN

USE = (
    "Research use only. This is not a medical device, and its outputs say nothing about a patient."
)
PAPER = (
    "Ma D, Pang J, Gotway MB, Liang J. Foundation Ark: Accruing and Reusing Knowledge for "
    "Superior and Robust Performance. MICCAI 2023. https://doi.org/10.1007/978-3-031-43907-0_62"
)
TAGS = ("chest-x-ray", "radiology", "medical-imaging", "foundation-model", "research-only")
TEACHER = "teacher"  # what is exported
HUB = {"auroc": "roc_auc", "average_precision": "average_precision", "accuracy": "accuracy"}
LINK = re.compile(r"https?://[^\s<>()]+")


@dataclass(frozen=True, kw_only=True)
class About:
    """What a card is filled from.

    Attributes:
        title: Of the model.
        terms: Lines on datasets and their terms, where no run says them.
        run: Whose last teacher the model is; ``None`` for weights from elsewhere.
        tested: Whether the run's test scores are this model's.
        findings: Of an audit of the model.
    """

    title: str
    terms: Sequence[str] = ()
    run: Run | None = None
    tested: bool = True
    findings: Findings | None = None
    scores: list[Scored] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if self.run is not None and self.tested:
            self.scores.extend(scored(self.run, models=(TEACHER,)))


def card(blueprint: Blueprint, about: About) -> str:
    """Return the card."""
    front = yaml.safe_dump(_front(blueprint, about), sort_keys=False, allow_unicode=True)
    parts = [f"# {markdown(about.title)}", USE, *_model(blueprint)]
    if about.run is None:
        parts += ["## Data and their terms", _list(about.terms) or "Not known."]
    else:
        parts += [*_data(about.run), *_results(about), *_groups(about)]
    parts += [*_uses(), *_limits(about)]
    if about.run is not None:
        parts += [*_training(about.run), *_environment(about.run)]
    parts += [*_code(), "## Citations", _list(_citations(about))]
    return f"---\n{front}---\n\n" + "\n\n".join(parts) + "\n"


def _front(blueprint: Blueprint, about: About) -> dict[str, Any]:
    made: dict[str, Any] = {
        "license": "other",
        "license_name": "terms-of-the-datasets",
        "library_name": "ark-framework",
        "pipeline_tag": "image-classification" if blueprint.tasks else "image-feature-extraction",
        "tags": [*TAGS],
    }
    if about.run is None:
        return made
    metrics = {HUB[name] for each in about.scores for name in each.table["metric"]}
    made["datasets"] = [*about.run.datasets]
    made["metrics"] = sorted(metrics)
    made["model-index"] = [{"name": about.title, "results": [*_index(about)]}]
    return made


def _index(about: About) -> Iterator[dict[str, Any]]:
    assert about.run is not None
    datasets = {task["name"]: task["dataset"] for task in about.run.plan["tasks"]}
    for each in about.scores:
        name = datasets[each.task]
        title = about.run.datasets.get(name, {}).get("title", name)
        metrics = []
        for metric, words in METRICS.items():
            row = each.row(MEAN, metric)
            if row is not None and math.isfinite(row["value"]):
                mean = "" if metric == "accuracy" else "mean "
                told = {"type": HUB[metric], "name": f"{mean}{words}", "value": float(row["value"])}
                metrics.append(told)
        yield {
            "task": {"type": "image-classification", "name": each.task},
            "dataset": {"type": name, "name": title, "split": "test"},
            "metrics": metrics,
        }


def _model(blueprint: Blueprint) -> Iterator[str]:
    film = blueprint.preprocessing
    middle = f", of which the middle {film.size}" if film.size != film.resize else ""
    yield (
        f"Backbone `{blueprint.options.get('name', blueprint.backbone)}`, projector "
        f"`{blueprint.projector}`. Films: grey, fitted to {film.resize} x {film.resize} pixels "
        f"by `{film.fit}`{middle}."
    )
    yield "## Heads"
    rows = [
        (
            task.name,
            task.kind,
            ", ".join(task.labels) if task.named else f"{len(task.labels)}, names not known",
        )
        for task in blueprint.tasks
    ]
    yield _table(("task", "kind", "labels"), rows) if rows else "None."


def _data(run: Run) -> Iterator[str]:
    yield "## Data and their terms"
    yield (
        f"Strictest terms of all: **{facts.TERMS[run.access]}**. Weights are made of data: whoever "
        "passes them on must keep every dataset's terms."
    )
    terms = facts.terms([run])
    yield _table(terms.columns[:5], [row[:5] for row in _texts(terms)])
    yield (
        "Which films it was trained on is in `trained_on.npz`, as keyed hashes; of datasets under "
        "a data-use agreement nothing is in it."
    )
    yield "## Splits"
    yield _sheet(facts.data([run]))
    made = run.config["validation"]
    yield (
        f"A dataset without validation films of its own gave {made['fraction']:.0%} of its "
        f"training patients (seed {made['seed']})."
    )
    yield "## Leaks"
    yield (
        _sheet(facts.leaks([run]))
        if run.leaks
        else "Whether training films are held out somewhere was not looked at."
    )


def _results(about: About) -> Iterator[str]:
    yield "## Results"
    if not about.scores:
        yield "None: no test predictions of this very model are known."
        return
    yield (
        "Of the teacher, which this model is, on test films, taken once at the end of training; "
        "95 % intervals by patient."
    )
    for _, sheet, _ in sheets(about.scores):
        yield f"### {markdown(sheet.title)}"
        yield _sheet(sheet)


def _groups(about: About) -> Iterator[str]:
    yield "## Subgroups"
    if about.findings is not None:
        for account in summary(about.findings):
            yield f"### {markdown(account.title)}"
            yield _list(line.text for line in account.lines)
        return
    found = by_sex(about.run, model=TEACHER) if about.run is not None and about.tested else []
    if not found:
        yield "Not known: `ark fairness` scores women and men, ages and views apart."
        return
    yield "Described, not tested; `ark fairness` compares groups."
    for _, sheet, _ in sheets(found):
        yield f"### {markdown(sheet.title)}"
        yield _sheet(sheet)


def _uses() -> Iterator[str]:
    yield "## Intended use"
    yield (
        "Research on chest radiographs: embeddings for probes and search, a start for fine-tuning, "
        "and comparisons of models on held-out films."
    )
    yield "## Out of scope"
    yield (
        "Diagnosis, triage, or any decision about a patient; films of another body part, another "
        "modality or photographs of films; telling who a patient is; groups of patients, machines "
        "and countries that are not among the training data, without new tests."
    )


def _limits(about: About) -> Iterator[str]:
    yield "## Limits"
    lines = [
        "Labels are as their datasets give them, many by a program from reports: they are wrong "
        "for some films, and a score is agreement with them.",
        "Probabilities are not calibrated for another hospital.",
    ]
    if about.run is not None:
        lines += limits(about.run)
        lines += [
            f"{each.task}: no interval is claimed for {', '.join(rare)}: too few films or patients."
            for each in about.scores
            if (rare := [x for x in each.labels if not _estimated(each, x)])
        ]
        lines += [f"{each.task}: {note}" for each in about.scores for note in _changed(each)]
    yield _list(lines)


def _estimated(each: Scored, label: str) -> bool:
    row = each.row(label)
    return row is not None and math.isfinite(row["low"])


def _changed(each: Scored) -> Iterator[str]:
    if not each.agrees:
        yield (
            f"the run wrote down a mean AUROC of {each.recorded:.6f}, its predictions give "
            f"{each.mean:.6f}."
        )


def _training(run: Run) -> Iterator[str]:
    yield "## How it was trained"
    yield (
        "Tasks take turns, cycle after cycle, to train one encoder, a head each; a teacher follows "
        "as a moving average, and agreement with it is part of the loss (Foundation Ark)."
    )
    yield _sheet(facts.overview([run]))


def _environment(run: Run) -> Iterator[str]:
    yield "## Where it was trained"
    yield _sheet(facts.environment([run]))


def _code() -> Iterator[str]:
    yield "## Use"
    yield (
        '```python\nimport ark_framework\n\nmodel = ark_framework.load("THIS FOLDER")\n'
        'model.embed(["film.png"])\nmodel.predict(["film.png"])\n```'
    )
    yield (
        'A timm backbone alone: `timm.create_model("local-dir:THIS FOLDER", pretrained=True)`, '
        "with timm 1.0.31 or later where it is a Swin."
    )


def _citations(about: About) -> Iterator[str]:
    yield f"The method: {PAPER}"
    if about.run is not None:
        for name, told in about.run.datasets.items():
            if told.get("citation"):
                yield f"{told.get('title', name)}: {told['citation']}"


def _sheet(sheet: Sheet) -> str:
    columns = ("" if each == "what" else each for each in sheet.columns)
    notes = "".join(f"\n\n{markdown(note)}" for note in sheet.notes)
    return _table(tuple(columns), _texts(sheet)) + notes


def _texts(sheet: Sheet) -> list[tuple[str, ...]]:
    return [tuple(cell.text for cell in row) for row in sheet.rows]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns)]
    told = [*lines, *rows]
    return "\n".join(f"| {' | '.join(map(_marked, each))} |" for each in told)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_marked(line)}" for line in lines)


def _marked(text: str) -> str:
    """Return text as Markdown takes it, with links that work."""
    found, last = [], 0
    for match in LINK.finditer(text):
        found += [markdown(text[last : match.start()]), f"<{match[0]}>"]
        last = match.end()
    return "".join([*found, markdown(text[last:])])
