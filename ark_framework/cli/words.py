"""Options that take several words: ``--plugins a b``, ``--plugins a,b`` or the option repeated.

click refuses ``nargs=-1`` on an option, so the words are rewritten before click sees them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

WORDY = (
    *("--plugins", "--tasks", "--data"),
    *("--shots", "--fractions", "--structures"),
    *("--by", "--shares"),
)


class WordsCommand(click.Command):
    """A command whose ``--plugins``, ``--tasks``, ``--data`` and the like take several words."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Rewrite the words into click's repeated form, in order."""
        return super().parse_args(ctx, list(spread(args)))


def spread(args: Iterable[str]) -> Iterator[str]:
    """Yield ``--plugins a --plugins b`` for ``--plugins a b`` or ``--plugins a,b``.

    Words stop at the next word that begins with ``-``; ``--`` ends all options.
    """
    option, empty = "", False
    rest = iter(args)
    for word in rest:
        if word == "--":
            yield word
            yield from rest
            return
        name, equals, value = word.partition("=")
        if name in WORDY:
            if empty:
                yield option  # click says that it needs an argument
            option, empty = name, not equals
            for part in _parts(name, value) if equals else ():
                yield from (name, part)
        elif word.startswith("-"):
            if empty:
                yield option
            option, empty = "", False
            yield word
        elif option:
            empty = False
            for part in _parts(option, word):
                yield from (option, part)
        else:
            yield word
    if empty:
        yield option


def pending(args: Iterable[str]) -> str:
    """Return the option that takes one more word after ``args``; empty where none does."""
    option = ""
    for word in args:
        if word == "--":
            return ""
        name = word.partition("=")[0]
        option = name if name in WORDY else "" if word.startswith("-") else option
    return option


def _parts(option: str, word: str) -> list[str]:
    if option in ("--data", "--structures"):  # a path may hold a comma; there it joins masks
        return [word]
    return [part for part in word.split(",") if part]
