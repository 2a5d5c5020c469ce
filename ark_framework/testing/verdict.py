"""What one check says of one spec."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ark_framework.errors import ArkError
from ark_framework.registry import Registry


class Failed(AssertionError):
    """A check that did not hold."""


class Skipped(Exception):
    """A check that does not apply; its text says why."""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What one check found: ``name`` is ``<kind> <spec>: <check>``."""

    name: str
    ok: bool
    message: str = ""
    skipped: bool = False


Check = Callable[[Registry, Any], None]


def verdict(
    check: Check, registry: Registry, kind: str, spec: Any, expected: str | None = None
) -> CheckResult:
    """Run one check; ``expected`` is the reason why it may fail, and then it must."""
    found = _run(check, registry, kind, spec)
    if expected is None or found.skipped:
        return found
    if found.ok:
        message = "holds, though it was expected to fail: take it out of expected_failures"
        return CheckResult(name=found.name, ok=False, message=message)
    message = f"expected to fail: {expected}"
    return CheckResult(name=found.name, ok=True, skipped=True, message=message)


def title(kind: str, spec: Any, check: Check) -> str:
    """Return ``<kind> <spec>: <check>``."""
    return f"{kind} {spec.name}: {check.__name__.replace('_', ' ')}"


def must(holds: object, otherwise: str) -> None:
    """Raise :class:`Failed` with ``otherwise`` unless it holds."""
    if not holds:
        raise Failed(otherwise)


@contextmanager
def untouched_chance(doing: str) -> Iterator[None]:
    """Fail if what is done draws from, or seeds, a global random generator."""
    kept = np.random.get_state(legacy=False), random.getstate(), torch.random.get_rng_state()  # noqa: NPY002
    try:
        # A state of its own, so that seeding to what was there already is seen too.
        np.random.random(3)  # noqa: NPY002
        random.random()  # noqa: S311 - its state is looked at, its number is not
        torch.rand(3)
        before = _global_state()
        yield
        names = [name for name, state in _global_state().items() if state != before[name]]
        must(not names, f"{doing} uses {names[0] if names else ''}'s global random generator")
    finally:
        np.random.set_state(kept[0])  # noqa: NPY002
        random.setstate(kept[1])
        torch.random.set_rng_state(kept[2])


def _global_state() -> dict[str, str]:
    return {
        "numpy": str(np.random.get_state(legacy=False)),  # noqa: NPY002 - it is checked
        "random": str(random.getstate()),
        "torch": str(torch.random.get_rng_state().tolist()),
    }


def _run(check: Check, registry: Registry, kind: str, spec: Any) -> CheckResult:
    name = title(kind, spec, check)
    try:
        check(registry, spec)
    except Skipped as reason:
        return CheckResult(name=name, ok=True, skipped=True, message=str(reason))
    except (Failed, ArkError) as error:
        return CheckResult(name=name, ok=False, message=" ".join(str(error).split()))
    except Exception as error:  # a plugin's code may raise anything
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return CheckResult(name=name, ok=False, message=text[:400])
    return CheckResult(name=name, ok=True)
