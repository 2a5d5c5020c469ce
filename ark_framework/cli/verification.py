"""Whether a dataset's files and store are what its table and card say, and what to do if not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ark_framework.annotations import SPLITS, AnnotationTable
from ark_framework.builtin.table import TableOptions
from ark_framework.cli.census import shared_patients
from ark_framework.config import StoreConfig
from ark_framework.specs import DatasetCard, DatasetSpec
from ark_framework.store import Source, open_store
from ark_framework.store import verify as compare

# Films of a store that are named one by one before the rest is counted.
SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is not as expected, and what to do about it."""

    message: str
    mend: str


def examine(
    spec: DatasetSpec,
    table: AnnotationTable,
    options: Any,
    *,
    config: StoreConfig,
    folder: Path,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """Return counts, notes and problems of one dataset as plain data.

    A number of films that differs from the card's is a note, since people download parts, and so
    are files that no row names.  Problems are missing and empty films, other positives than the
    card's where the number of films is the card's, and a store that disagrees with the files.
    ``progress(done, total)`` is called in MB as a store is read.
    """
    source = Source(
        spec=spec, options=options, images=tuple(table.films), size=config.size, fit=config.fit,
        structures=table.structures,
    )  # fmt: skip
    sizes, _ = source.stats()
    # A plugin that reads its own films may keep them in archives, where no file can be looked for.
    files = source.root is not None and spec.read_image is None
    problems, notes = [*_positives(spec.card, table)], [*_rows(spec.card, table)]
    if files:
        problems += _absent(source, sizes)
        notes += _extra(replace(source, images=tuple(table.frame["image"])))
    path = folder / f"{spec.name}-{source.fingerprint(sizes)}"
    packed = (path / "manifest.json").is_file()
    if packed:
        problems += _stale(path, source, progress)
    return {
        "dataset": spec.name,
        "films": len(table),
        "splits": {split: len(table.rows(split)) for split in SPLITS},
        "patients": len(set(table.groups().tolist())),
        "files checked": files,
        "store": str(path) if packed else None,
        "notes": [asdict(each) for each in [*notes, *_leaks(table)]],
        "problems": [asdict(each) for each in problems],
    }


def lines(found: dict[str, Any]) -> list[str]:
    """Say what was found, a line each."""
    splits = ", ".join(f"{split} {count}" for split, count in found["splits"].items())
    said = [f"{found['dataset']}: {found['films']} films of {found['patients']} patients: {splits}"]
    said.append(f"  store: {found['store'] or 'not packed with these settings'}")
    if not found["files checked"]:
        said.append("  files: not looked for; the plugin reads its films itself")
    for word, findings in (("note", found["notes"]), ("PROBLEM", found["problems"])):
        said += [f"  {word}: {say(each)}" for each in findings]
    return said if found["problems"] else [*said, "  ok"]


def say(finding: dict[str, str]) -> str:
    """Return one finding on one line."""
    return f"{finding['message']}; {finding['mend']}"


def _rows(card: DatasetCard, table: AnnotationTable) -> Iterator[Finding]:
    for split, expected in card.rows.items():
        if (count := len(_split(table, split))) != expected:
            yield Finding(
                message=f"{split}: {count} films, the card says {expected}",
                mend=f"right for a part of the dataset; else get the rest from {card.home}",
            )
    patients = len(set(table.groups().tolist()))
    if card.patients is not None and patients != card.patients:
        yield Finding(
            message=f"{patients} patients, the card says {card.patients}",
            mend="right for a part of the dataset; else look at the patient column of its list",
        )


def _positives(card: DatasetCard, table: AnnotationTable) -> Iterator[Finding]:
    for split, expected in card.positives.items():
        rows = _split(table, split)
        if len(rows) != card.rows[split] or table.schema.kind == "mask":
            continue  # a part of the dataset has its own prevalence
        counts = dict(
            zip(table.schema.labels, (table.targets()[rows] == 1).sum(axis=0).tolist(), strict=True)
        )
        wrong = [label for label in expected if counts.get(label) != expected[label]]
        if wrong:
            first = wrong[0]
            others = f" (and {len(wrong) - 1} more labels)" if len(wrong) > 1 else ""
            yield Finding(
                message=f"{split}: {counts.get(first, 'no')} positives of {first!r}, the card "
                f"says {expected[first]}{others}",
                mend="the label file is damaged or of another edition than the plugin expects; get "
                f"it again from {card.home}",
            )


def _absent(source: Source, sizes: np.ndarray) -> Iterator[Finding]:
    films, name, root = len(source.images), source.spec.name, source.root
    missing, empty = sizes == -1, sizes == 0
    if missing.any():
        part = f"unpack what is missing below {root}"
        other = f"name the folder that image paths start at: ark data link {name} PATH"
        if issubclass(source.spec.options, TableOptions):
            other += f", or say where they lie in it: data.{name}.files: FOLDER/{{image}}.png"
        yield Finding(
            message=f"{int(missing.sum())} of {films} films are missing, first "
            f"{source.images[int(missing.argmax())]!r}",
            mend=other if missing.all() else part,
        )
    if empty.any():
        yield Finding(
            message=f"{int(empty.sum())} of {films} films are empty, first "
            f"{source.images[int(empty.argmax())]!r}",
            mend="their copying was cut short: copy or unpack them again",
        )


def _extra(source: Source) -> Iterator[Finding]:
    """Find images that no row names: of a known ending, below a folder that holds a row's image."""
    known = set(source.images)
    endings = {PurePosixPath(image).suffix.lower() for image in known}
    extra = sorted(
        path
        for path in _files(source)
        if path not in known and PurePosixPath(path).suffix.lower() in endings
    )
    if extra:
        yield Finding(
            message=f"{len(extra)} files beside the films are in no row, first {extra[0]!r}",
            mend="right if the list leaves films out on purpose; else it is not these films' list",
        )


def _files(source: Source) -> Iterator[str]:
    root = Path(source.root or "")
    folders = {PurePosixPath(image).parent for image in source.images}
    for folder in sorted(folders):
        if folders.intersection(folder.parents) - {PurePosixPath(".")}:
            continue  # a folder above it is walked already
        for path, below, names in os.walk(root / folder):
            if folder == PurePosixPath("."):
                below.clear()  # all that a dataset has lies below its root, masks for one
            start = PurePosixPath(Path(path).relative_to(root).as_posix())
            yield from (str(start / name) for name in names)


def _stale(path: Path, source: Source, progress: Callable[[int, int], None]) -> Iterator[Finding]:
    mend = f"delete {path} and pack again: ark data pack"
    found = compare(open_store(path), source, progress=progress)
    for line in found[:SHOWN]:
        yield Finding(message=f"store {path}: {line}", mend=mend)
    if len(found) > SHOWN:
        yield Finding(message=f"store {path}: {len(found) - SHOWN} more such films", mend=mend)


def _leaks(table: AnnotationTable) -> Iterator[Finding]:
    for pair, count in shared_patients(table).items():
        yield Finding(
            message=f"{count} patients are in both {pair}",
            mend="scores will be too good; split by patient",
        )


def _split(table: AnnotationTable, split: str) -> np.ndarray:
    return np.arange(len(table)) if split == "all" else table.rows(split)
