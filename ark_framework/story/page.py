"""The page on runs and studies: sections in order, with what there is or what would fill them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

from ark_framework.report import page
from ark_framework.story import studies
from ark_framework.story.folders import Folders, Given
from ark_framework.story.links import Links
from ark_framework.story.parts import Part, Section, Text
from ark_framework.story.scores import Say
from ark_framework.story.sections import environment, of_runs

FILE = "report.html"
RESEARCH = "Research use only; not for diagnosis. These numbers say nothing about a patient."
PRIVATE = (
    "This page names no film and no patient. Its links lead to files that do: they are for whoever "
    "has the folders."
)
SHOWN = "It shows films: their datasets' terms go with it."


def html(found: Folders, *, folder: Path, films: bool = False, say: Say | None = None) -> str:
    """Return the page; ``folder`` is where it will lie, and ``films`` lets it show some."""
    links = Links(folder=folder)
    runs = found.runs
    sections = [
        *(of_runs(runs, links, films=films, say=say) if runs else ()),
        *(studies.studied(each, links, films=films) for each in found.studies),
        *(studies.evaluation(each, links) for each in found.evaluations),
        *(studies.audit(each, links) for each in found.audits),
    ]
    sections += list(_lacking(found))
    if runs:
        sections.append(environment(runs, links))
    code = (resources.files("ark_framework.report") / "templates" / "sort.js").read_text("utf-8")
    return page.render(
        "story.html",
        heading=_heading(found),
        about=[RESEARCH, _given(found)],
        sections=_numbered(sections),
        script=code,
        digest=base64.b64encode(hashlib.sha256(code.encode()).digest()).decode(),
        foot=f"{PRIVATE} {SHOWN}" if "data:image/" in str(sections) else PRIVATE,
    )


def _heading(found: Folders) -> str:
    names = [each.name for each in found.runs or found.every]
    return f"{'Runs compared' if len(found.runs) > 1 else 'Report'}: {', '.join(names)}"


def _given(found: Folders) -> str:
    kinds: dict[str, Sequence[Given]] = {
        "run": found.runs,
        "study": found.studies,
        "evaluation": found.evaluations,
        "audit": found.audits,
    }
    told = [f"{kind} {each.name}" for kind, of in kinds.items() for each in of]
    return f"Made from: {', '.join(told)}."


def _numbered(sections: Sequence[Section]) -> list[dict[str, object]]:
    """Return sections with names of their own, for links to them."""
    return [
        {"name": f"{each.name}-{number}", "title": each.title, "parts": each.parts}
        for number, each in enumerate(sections, start=1)
    ]


LACKING = {
    "Fine-tuning on targets (Table 2)": (
        "finetune",
        "ark finetune RUN random:RUN --plugins ... --seeds 5 --out FOLDER",
    ),
    "Few films (Figure 2)": (
        "probe",
        "ark probe RUN random:RUN --plugins ... --shots 1 4 16 --out FOLDER",
    ),
    "Whom it fails (Figure 3)": ("fairness", "ark fairness RUN --plugins ... --out FOLDER"),
}


def _lacking(found: Folders) -> Iterator[Section]:
    """Yield a section that says which command would fill the places that stay empty."""
    there = {each.protocol for study in found.studies for each in study.outcomes}
    if any(
        "shots" in each.setting or each.setting.get("fraction", 1) != 1
        for study in found.studies
        for each in study.outcomes
    ):
        there.add("probe")
    else:
        there.discard("probe")
    if found.audits:
        there.add("fairness")
    lines: list[Part] = [
        Text(text=f"{title}: {command}, and give FOLDER to ark report, too.", tone="lacking")
        for title, (name, command) in LACKING.items()
        if name not in there
    ]
    if lines:
        yield Section(name="lacking", title="Not in this report", parts=lines)
