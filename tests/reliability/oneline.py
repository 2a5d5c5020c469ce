"""How a refusal looks: the documented exit code, one line that names what is wrong, no more."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ark_framework import cli
from ark_framework.text import printable

LONGEST = 600  # letters: what is wrong, not what a file holds


EACH = 5  # of a corpus, one in so many is tried in a hurry


def some(cases: Iterable[str]) -> list[Any]:
    """Return the names of a corpus, most of them to be tried only when there is time."""
    return [
        name if index % EACH == 0 else pytest.param(name, marks=pytest.mark.long)
        for index, name in enumerate(cases)
    ]


def refused(
    words: Sequence[object],
    code: int | tuple[int, ...],
    capfd: pytest.CaptureFixture[str],
    *said: str,
) -> str:
    """Run ``ark`` and return its error; it is one line of text with all that must be ``said``."""
    capfd.readouterr()
    given = cli.run([str(word) for word in words])
    captured = capfd.readouterr()
    error = captured.err.strip().splitlines()[-1:]  # packing says what it does before
    assert error, f"exit {given}, nothing said: {captured.out}"
    assert given in (code if isinstance(code, tuple) else (code,)), error
    assert_one_line(error[0].removeprefix("error: "), *said)
    assert error[0].startswith("error: ")
    assert "Traceback" not in captured.err
    return error[0]


def assert_one_line(error: str, *said: str) -> None:
    """Check an error: one line of printable text, not endless, with all that must be said."""
    assert error
    assert "\n" not in error
    assert printable(error) == error
    assert len(error) < LONGEST, f"{len(error)} letters: {error[:200]}"
    for part in said:
        assert part in error, f"{part!r} is not said: {error}"


def files(folder: Path) -> dict[str, str]:
    """Return a digest of everything below a folder, links and pipes by what they are."""
    return {str(path.relative_to(folder)): _digest(path) for path in _below(folder)}


def _below(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        yield from (Path(root) / name for name in (*folders, *names))


def _digest(path: Path) -> str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return "folder" if path.is_dir() else "neither file nor folder"
