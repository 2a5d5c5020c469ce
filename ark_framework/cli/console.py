"""Where people read: a terminal of its own width, or a pipe that has none."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ark_framework.text import printable

# rich would fold what goes into a pipe to 80 columns.
PIPE = 200


class _Plain(Console):
    """Takes every text as it stands: names from data are neither markup nor commands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """Return the console to print on; a quiet one prints nothing."""
    made = _Plain(stderr=stderr, quiet=quiet)
    return made if made.is_terminal else _Plain(stderr=stderr, quiet=quiet, width=PIPE)


def sheet(*columns: str, title: str | None = None) -> Table:
    """Return a table of these columns, narrow enough for a terminal; names fold, not vanish."""
    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0))
    for column in columns:
        made.add_column(column, overflow="fold")
    return made
