"""What studies have left: comparisons, audits and evaluations, read from their folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ark_framework.errors import DataError
from ark_framework.fairness.results import TABLES, Findings
from ark_framework.transfer.outcome import Outcome

OUTCOMES, FINDINGS = "outcomes.json", "fairness.json"


@dataclass(frozen=True, kw_only=True)
class Study:
    """A folder of ``ark probe``, ``finetune``, ``segment`` or ``compare``.

    ``access`` are the terms of its datasets by name, as far as they were known.
    """

    name: str
    path: Path
    outcomes: tuple[Outcome, ...]
    folds: int
    settings: Mapping[str, str]
    access: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Audited:
    """A folder of ``ark fairness``."""

    name: str
    path: Path
    findings: Findings


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A folder of ``ark eval``: by the name of its files, the outcome and its intervals."""

    name: str
    path: Path
    found: Mapping[str, tuple[Outcome, pd.DataFrame]]


def study(path: Path, name: str) -> Study:
    """Read a study's folder.

    Raises:
        DataError: its file is damaged.
    """
    told = _read(path / OUTCOMES)
    try:
        return Study(
            name=name,
            path=path,
            outcomes=tuple(Outcome.from_json(each) for each in told["outcomes"]),
            folds=int(told["folds"]),
            settings=dict(told["settings"]),
            access=dict(told["access"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path / OUTCOMES} is damaged: no {error}") from error


def audited(path: Path, name: str) -> Audited:
    """Read an audit's folder.

    Raises:
        DataError: its file is damaged.
    """
    told = _read(path / FINDINGS)
    try:
        about = {
            (each["model"], each["dataset"]): {
                key: value for key, value in each.items() if key not in ("model", "dataset")
            }
            for each in told["about"]
        }
        tables = {table: pd.DataFrame(told[table]) for table in TABLES}
        if "cut" in (cuts := tables["thresholds"]):
            cuts["cut"] = pd.to_numeric(cuts["cut"])  # one that calls nobody is "inf"
        notes, settings = tuple(told["notes"]), dict(told["settings"])
        found = Findings(about=about, notes=notes, settings=settings, **tables)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path / FINDINGS} is damaged: no {error}") from error
    return Audited(name=name, path=path, findings=found)


def evaluations(path: Path) -> list[str]:
    """Return the names of a folder's evaluations; none where it is no such folder."""
    return [
        file.stem
        for file in sorted(path.glob("*.json"))
        if file.with_suffix(".csv").is_file()
        and (path / "predictions" / f"{file.stem}.csv").is_file()
    ]


def evaluated(path: Path, name: str) -> Evaluated:
    """Read a folder of evaluations.

    Raises:
        DataError: a file of it is damaged.
    """
    found = {}
    for each in evaluations(path):
        told = {
            key: value for key, value in _read(path / f"{each}.json").items() if key != "unseen"
        }
        try:
            table = pd.read_csv(path / f"{each}.csv")
            found[each] = (Outcome.from_json(told), table)
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise DataError(f"{path / each}.csv or .json is damaged: {error}") from error
    return Evaluated(name=name, path=path, found=found)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text("utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it is no mapping")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    return values
