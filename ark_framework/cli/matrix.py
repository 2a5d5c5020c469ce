"""Which dataset annotates what: labels x datasets, and labels that look alike."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from rich.table import Table

from ark_framework.annotations import AnnotationTable
from ark_framework.cli.census import entries
from ark_framework.cli.console import sheet

# Share of letters in common from which two names are pointed out: "Edema" and "Oedema" have 0.91,
# "Nodule" and "Nodules" 0.92; "Consolidation" and "Calcification", which differ, 0.62.
ALIKE = 0.85
NOTES = (
    "Cells: positives / annotated (positives and negatives) in the training split.",
    # What people must not read into a row.
    "A row joins labels whose names differ in case, '_' or spaces only. That is for reading: each "
    "dataset trains its own labels on its own head, and no label is merged with another.",
)


def matrix(tables: Sequence[AnnotationTable]) -> dict[str, Any]:
    """Count who annotates what in the training split.

    Returns:
        ``datasets``: by name its ``kind`` and training ``films``; ``labels``: in order of first
        appearance, ``label`` as displayed and ``cells``, by dataset the ``label`` in its own
        words, its ``kind`` and, but for masks, the counts of :func:`census.entries`; ``alike``:
        pairs of displayed labels that look alike and are not the same text.
    """
    shown: dict[str, dict[str, Any]] = {}
    for table in tables:
        targets, taken = table.targets()[table.rows("train")], set()
        for column, label in enumerate(table.schema.labels):
            name = displayed(label)
            if name.casefold() in taken:  # two labels of one dataset stay two
                name = f"{label!r} of {table.dataset}"
            taken.add(name.casefold())
            row = shown.setdefault(name.casefold(), {"label": name, "cells": {}})
            counts = entries(targets[:, column]) if targets.shape[1] else {}
            row["cells"][table.dataset] = {"label": label, "kind": table.schema.kind, **counts}
    labels = list(shown.values())
    return {
        "datasets": {
            table.dataset: {"kind": table.schema.kind, "films": len(table.rows("train"))}
            for table in tables
        },
        "labels": labels,
        "alike": alike(
            {
                row["label"]: set(row["cells"])
                for row in labels
                # A structure's name, "lung", is in half of all findings' names.
                if any(one["kind"] != "mask" for one in row["cells"].values())
            }
        ),
    }


def displayed(label: str) -> str:
    """Return a label for reading: ``_`` and runs of spaces become one space."""
    return " ".join(label.replace("_", " ").split())


def alike(labels: dict[str, set[str]]) -> list[list[str]]:
    """Return pairs of labels of different datasets that look alike.

    One's words are all in the other (``Effusion``, ``Pleural Effusion``), or nearly all letters
    agree.  Labels that the same datasets tell apart are not doubted.

    Args:
        labels: The datasets that have each label.
    """
    found = []
    for (one, mine), (two, theirs) in combinations(labels.items(), 2):
        if mine != theirs and _look_alike(one.casefold(), two.casefold()):
            found.append([one, two])
    return found


def layout(found: dict[str, Any]) -> Table:
    """Lay a matrix out for a terminal."""
    made = sheet("label", *found["datasets"])
    for row in found["labels"]:
        cells = (cell(row["cells"].get(name)) for name in found["datasets"])
        made.add_row(row["label"], *cells)
    films = (f"{each['films']} training films" for each in found["datasets"].values())
    made.add_section()
    made.add_row("", *films)
    return made


def notes(found: dict[str, Any]) -> list[str]:
    """Return what must be said beside a matrix, a line each."""
    pairs = "; ".join(f"{one!r} and {two!r}" for one, two in found["alike"])
    alike_said = f"Alike but not the same text, so in rows of their own: {pairs}."
    return [*NOTES, alike_said] if pairs else [*NOTES]


def cell(one: dict[str, Any] | None) -> str:
    """Return one cell in words, empty where a dataset lacks the label."""
    if one is None:
        return ""
    if one["kind"] == "mask":
        return "mask"
    counts = f"{one['positive']} / {one['positive'] + one['negative']}"
    if one["uncertain"]:
        counts += f", {one['uncertain']} uncertain"
    return counts if one["kind"] == "multilabel" else f"exclusive class, {counts}"


def _look_alike(one: str, two: str) -> bool:
    words, others = (set(re.findall(r"\w+", each)) for each in (one, two))
    if words and others and (words <= others or others <= words):
        return True
    return difflib.SequenceMatcher(None, one, two, autojunk=False).ratio() >= ALIKE
