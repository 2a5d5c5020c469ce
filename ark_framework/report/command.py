"""A command as it may be shown to others: what was typed, without whose disk it was on."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path


def bare(word: str) -> str:
    """Leave out of a path whose disk it is on: a page is for others too."""
    return "".join(Path(part).name if "/" in part else part for part in re.split("([=:,])", word))


def typed(words: Sequence[str]) -> str:
    """Return a command line of bare words, without where data and stores lie."""
    return shlex.join(map(bare, _without_places(words)))


def _without_places(words: Iterable[str]) -> Iterator[str]:
    """Leave out where data and stores lie: ``--data`` takes several words, ``--store`` one."""
    left = 0
    for word in words:
        option, equals, _ = word.partition("=")
        if word.startswith("-"):
            left = {"--data": sys.maxsize, "--store": 0 if equals else 1}.get(option, 0)
            if option not in ("--data", "--store"):
                yield word
        elif left:
            left -= 1
        else:
            yield word
