"""What ``ark doctor`` says of one thing that it looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at; ``mend`` is a command, for all that is not ``ok``."""

    name: str
    state: Literal["ok", "note", "broken"]
    message: str
    mend: str | None = None


Check = Callable[[], Iterator[Finding]]


def look(check: Check) -> Iterator[Finding]:
    """Yield what a check finds; one that fails is a finding itself."""
    try:
        yield from check()
    except Exception as error:  # a doctor must not die of what he finds
        yield unusable(
            check.__name__,
            error,
            said="could not be checked",
            mend="pip install --force-reinstall ark-framework",
        )


def unusable(name: str, error: Exception, *, mend: str, said: str = "cannot be used") -> Finding:
    """Return the finding for what raised ``error``."""
    reason = " ".join(str(error).split())
    message = f"{said}: {type(error).__name__}: {reason}"
    return Finding(name=name, state="broken", message=message, mend=mend)
