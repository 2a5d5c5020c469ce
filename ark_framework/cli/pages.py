"""What pages, Markdown and tables of commands share: where they come from, and how they look."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from ark_framework.cli.console import sheet as open_sheet

if TYPE_CHECKING:
    from rich.console import Console

    from ark_framework.transfer.cells import Cell, Sheet

RESEARCH = "Research use only; not for diagnosis."


def origin(*libraries: str) -> Iterator[str]:
    """Yield when and by which command it was made, and with what."""
    typed = shlex.join(map(bare, sys.argv[1:]))
    yield f"{datetime.now().astimezone():%Y-%m-%d %H:%M %z}: ark {typed}"
    used = ("ark-framework", "torch", "numpy", *libraries)
    named = (f"{name} {version(name)}" for name in used)
    yield f"{', '.join(named)}, Python {platform.python_version()}"


def bare(word: str) -> str:
    """Leave out of a path whose disk it is on: a page is for others too."""
    head, sign, path = word.rpartition("=" if "=" in word else ":")
    return f"{head}{sign}{Path(path).name}" if "/" in path else word


def show(console: Console, sheet: Sheet) -> None:
    """Print a table and its notes."""
    made = open_sheet(*map(escape, sheet.columns), title=escape(sheet.title))
    for row in sheet.rows:
        made.add_row(*map(_cell, row))
    console.print(made)
    for note in sheet.notes:
        console.print(f"[dim]{escape(note)}[/dim]", highlight=False, soft_wrap=True)


def _cell(cell: Cell) -> str:
    tag = {"best": "bold", "second": "underline"}.get(cell.place)
    return f"[{tag}]{escape(cell.text)}[/{tag}]" if tag else escape(cell.text)


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted names; what is not set is left out."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        elif value is not None:
            yield f"{prefix}{name}", str(value)


def listed(told: Mapping[str, str]) -> str:
    """Return settings as a section of Markdown."""
    lines = "\n".join(f"{name}: {value}" for name, value in told.items())
    return f"## Settings\n\n```text\n{lines}\n```\n"
