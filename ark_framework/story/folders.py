"""Which folders a report is about, and what each of them is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ark_framework.errors import ConfigError
from ark_framework.story import results, runs
from ark_framework.story.results import Audited, Evaluated, Study
from ark_framework.story.runs import Run

Given = Run | Study | Audited | Evaluated


@dataclass(frozen=True, kw_only=True)
class Folders:
    """What was given, by kind, in order."""

    runs: tuple[Run, ...] = ()
    studies: tuple[Study, ...] = ()
    audits: tuple[Audited, ...] = ()
    evaluations: tuple[Evaluated, ...] = ()

    @property
    def every(self) -> tuple[Given, ...]:
        """All of them."""
        return (*self.runs, *self.studies, *self.evaluations, *self.audits)


def open_folders(paths: Sequence[Path]) -> Folders:
    """Read folders; what each is stands in its files.

    Raises:
        ConfigError: one is neither a run nor a study, or is given twice.
        DataError: a file is damaged.
    """
    resolved = [path.resolve() for path in paths]
    twice = next((path for path in resolved if resolved.count(path) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is given twice")
    found = [_open(path, name) for path, name in zip(paths, names(resolved), strict=True)]
    return Folders(
        runs=tuple(each for each in found if isinstance(each, Run)),
        studies=tuple(each for each in found if isinstance(each, Study)),
        audits=tuple(each for each in found if isinstance(each, Audited)),
        evaluations=tuple(each for each in found if isinstance(each, Evaluated)),
    )


def names(paths: Sequence[Path]) -> list[str]:
    """Name folders by the end of their paths: as much of it as tells them apart."""
    depth = 1
    ends = [path.name for path in paths]
    while len(set(ends)) < len(ends):
        depth += 1
        ends = ["/".join(path.parts[-depth:]) for path in paths]
    return ends


def _open(path: Path, name: str) -> Given:
    if not path.is_dir():
        raise ConfigError(f"{path} is no folder; give the folder of a run or of a study")
    if runs.is_run(path):
        return runs.read(path, name)
    if (path / results.OUTCOMES).is_file():
        return results.study(path, name)
    if (path / results.FINDINGS).is_file():
        return results.audited(path, name)
    if results.evaluations(path):
        return results.evaluated(path, name)
    again = " (its command, given again, writes it)" if (path / "outcomes.csv").is_file() else ""
    raise ConfigError(
        f"{path} is no run (config.yaml, run.json, plan.json), no study ({results.OUTCOMES}"
        f"{again}), no audit ({results.FINDINGS}) and no evaluation"
    )
