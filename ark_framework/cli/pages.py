"""What pages, Markdown and tables of commands share: where they come from, and how they look."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ark_framework.cli.console import sheet as open_sheet
from ark_framework.report.command import typed
from ark_framework.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from ark_framework.transfer.cells import Cell, Sheet

RESEARCH = "Research use only; not for diagnosis."


def origin(*libraries: str) -> Iterator[str]:
    """Yield when and by which command it was made, and with what."""
    yield f"{datetime.now().astimezone():%Y-%m-%d %H:%M %z}: ark {typed(sys.argv[1:])}"
    used = ("ark-framework", "torch", "numpy", *libraries)
    named = (f"{name} {version(name)}" for name in used)
    yield f"{', '.join(named)}, Python {platform.python_version()}"


def show(console: Console, sheet: Sheet) -> None:
    """Print a table and its notes."""
    made = open_sheet(*sheet.columns, title=sheet.title)
    for row in sheet.rows:
        made.add_row(*map(_cell, row))
    console.print(made)
    for note in sheet.notes:
        console.print(note, style="dim", highlight=False, soft_wrap=True)


def _cell(cell: Cell) -> Text:
    style = {"best": "bold", "second": "underline"}.get(cell.place, "")
    return Text(printable(cell.text), style=style)


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
    # On a line of its own none of them can end the block.
    lines = "\n".join(printable(f"{k}: {v}".replace("\n", " ")) for k, v in told.items())
    return f"## Settings\n\n```text\n{lines}\n```\n"
