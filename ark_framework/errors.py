"""What the user did wrong, and the exit code that says so.

Every error a user can cause is an :class:`ArkError`: one line that names what, where and what to
do.  The command line prints it without a traceback and exits with the class's ``exit_code``.
Anything else is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class ArkError(Exception):
    """Base of everything that is the user's to mend."""

    exit_code: ClassVar[int] = 1


class ConfigError(ArkError):
    """Usage, configuration or an unknown name."""

    exit_code = 2


class DataError(ArkError):
    """Something in the data: a missing root, a broken file, a wrong table."""

    exit_code = 3


class PluginError(ArkError):
    """A plugin that was named and is broken."""

    exit_code = 4


class MachineError(ArkError):
    """The machine lacks something: weights, a GPU, disk space."""

    exit_code = 5


class CheckpointError(ArkError):
    """A checkpoint that cannot be read or does not belong here."""


class RunError(ArkError):
    """A run that could not go on, such as a loss that is not finite."""


class Interrupted(ArkError):
    """A run that was stopped and can be resumed."""

    exit_code = 75


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest of ``known``, or an empty string."""
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.6)
    if not near:
        return ""
    return "; did you mean " + " or ".join(repr(match) for match in near) + "?"
