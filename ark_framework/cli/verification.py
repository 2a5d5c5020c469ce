"""Whether a dataset's files and store are what its table and card say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ark_framework.annotations import SPLITS, AnnotationTable
from ark_framework.cli.census import shared_patients
from ark_framework.config import StoreConfig
from ark_framework.specs import DatasetSpec
from ark_framework.store import Source, open_store
from ark_framework.store import verify as compare


def examine(
    spec: DatasetSpec, table: AnnotationTable, options: Any, *, config: StoreConfig, folder: Path
) -> dict[str, Any]:
    """Return counts, notes and problems of one dataset as plain data.

    A number of films that differs from the card's is a note, since people download parts; missing
    and empty files, and a store that no longer agrees with them, are problems.
    """
    images = tuple(table.frame["image"])
    source = Source(spec=spec, options=options, images=images, size=config.size, fit=config.fit)
    sizes, _ = source.stats()
    # A plugin that reads its own films may keep them in archives, where no file can be looked for.
    files = source.root is not None and spec.read_image is None
    problems = []
    for what, wrong in (("missing", sizes == -1), ("empty", sizes == 0)):
        if files and wrong.any():
            first = images[int(wrong.argmax())]
            problems.append(
                f"{int(wrong.sum())} of {len(images)} films are {what}, first {first!r}"
            )
    path = folder / f"{spec.name}-{source.fingerprint(sizes)}"
    packed = (path / "manifest.json").is_file()
    if packed:
        problems += [f"store {path}: {line}" for line in compare(open_store(path), source)[:20]]
    return {
        "dataset": spec.name,
        "films": len(table),
        "splits": {split: len(table.rows(split)) for split in SPLITS},
        "patients": len(set(table.groups().tolist())),
        "files checked": files,
        "store": str(path) if packed else None,
        "notes": _notes(spec, table),
        "problems": problems,
    }


def lines(found: dict[str, Any]) -> list[str]:
    """Say what was found, a line each."""
    splits = ", ".join(f"{split} {count}" for split, count in found["splits"].items())
    said = [f"{found['dataset']}: {found['films']} films of {found['patients']} patients: {splits}"]
    said.append(f"  store: {found['store'] or 'not packed with these settings'}")
    if not found["files checked"]:
        said.append("  files: not looked for; the plugin reads its films itself")
    said += [f"  note: {note}" for note in found["notes"]]
    said += [f"  PROBLEM: {problem}" for problem in found["problems"]]
    return said if found["problems"] else [*said, "  ok"]


def _notes(spec: DatasetSpec, table: AnnotationTable) -> list[str]:
    notes = []
    for split, expected in spec.card.rows.items():
        count = len(table) if split == "all" else len(table.rows(split))
        if count != expected:
            notes.append(f"{split}: {count} films, the card says {expected}")
    notes += [
        f"{count} patients are in both {pair}" for pair, count in shared_patients(table).items()
    ]
    return notes
