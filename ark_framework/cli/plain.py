"""The one place that prints lines for people."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import TextIO

import click

from ark_framework.text import printable

_answers: ContextVar[TextIO | None] = ContextVar("answers", default=None)


def echo(text: str, *, err: bool = False) -> None:
    """Print a line, or lines; a terminal shows them and does not obey them."""
    click.echo(printable(text), file=None if err else answers(), err=err)


def answers() -> TextIO:
    """Return standard output as the user sees it, whoever else prints."""
    return _answers.get() or sys.stdout


@contextmanager
def answers_alone() -> Iterator[None]:
    """Keep standard output for what is echoed; what a plugin prints goes to standard error."""
    kept = _answers.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _answers.reset(kept)
