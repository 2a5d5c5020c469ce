"""The conformance kit: what a plugin must hold, checked without any data of its own.

In a plugin's tests::

    from ark_framework.testing import conformance

    test_conformance = conformance("ark-mine")

or ``ark plugins check ark-mine`` on the command line.  Every check is a plain function over one
spec that returns when all is well and raises :class:`Failed` with what is wrong and what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, cast

from ark_framework import registry as plugins
from ark_framework.errors import ConfigError, did_you_mean
from ark_framework.registry import Registry
from ark_framework.testing import backbones, datasets, heads, hooks, learning, losses
from ark_framework.testing.verdict import Check, CheckResult, Failed, Skipped, title, verdict

CHECKS: Mapping[str, tuple[Check, ...]] = MappingProxyType(
    {
        "plugin": hooks.CHECKS,
        "dataset": (*datasets.CHECKS, learning.twenty_steps_lower_the_loss),
        "head": (*heads.CHECKS, learning.a_head_learns_in_twenty_steps),
        "loss": (*losses.CHECKS, learning.a_loss_falls_in_twenty_steps),
        "backbone": (*backbones.CHECKS, learning.a_backbone_learns_in_twenty_steps),
    }
)


def check_plugin(
    name: str, *, expected_failures: Mapping[str, str] = MappingProxyType({})
) -> list[CheckResult]:
    """Run every check that applies to a plugin.

    Args:
        name: As after ``--plugins``.
        expected_failures: Name of a check, such as ``"odd_sizes_work_or_are_refused"``, to the
            reason why it need not hold here.  One that holds all the same fails: take it out.

    Raises:
        ConfigError: it is not installed, or ``expected_failures`` names no check.
        PluginError: it cannot be loaded.
    """
    registry, found = _subjects(name)
    _known(expected_failures)
    return [
        verdict(check, registry, kind, spec, expected_failures.get(check.__name__))
        for kind, spec, check in found
    ]


def conformance(
    name: str, *, expected_failures: Mapping[str, str] = MappingProxyType({})
) -> Callable[..., None]:
    """Return a pytest test with one case per check of the plugin; needs pytest."""
    import pytest

    registry, found = _subjects(name)
    _known(expected_failures)
    names = [title(kind, spec, check) for kind, spec, check in found]

    @pytest.mark.parametrize(("kind", "spec", "check"), found, ids=names)
    def test(kind: str, spec: Any, check: Check) -> None:
        result = verdict(check, registry, kind, spec, expected_failures.get(check.__name__))
        if result.skipped:
            pytest.skip(result.message)
        assert result.ok, result.message

    return cast("Callable[..., None]", test)


def _known(expected: Mapping[str, str]) -> None:
    names = {check.__name__ for checks in CHECKS.values() for check in checks}
    for name, reason in expected.items():
        if name not in names:
            raise ConfigError(f"expected_failures: no check {name!r}{did_you_mean(name, names)}")
        if not reason.strip():
            raise ConfigError(f"expected_failures: {name!r} needs a reason")


def _subjects(name: str) -> tuple[Registry, list[tuple[str, Any, Check]]]:
    registry = plugins.load([name])
    own = plugins.canonical(name)
    tables: dict[str, Mapping[str, Any]] = {
        "dataset": registry.datasets,
        "head": registry.heads,
        "loss": registry.losses,
        "backbone": registry.backbones,
    }
    found: list[tuple[str, Any, Check]] = []
    for record in registry.plugins:
        if record.name == own:
            found += [("plugin", record, check) for check in CHECKS["plugin"]]
    for kind, table in tables.items():
        for spec in table.values():
            if registry.origin(kind, spec.name).name == own:
                found += [(kind, spec, check) for check in CHECKS[kind]]
    return registry, found


__all__ = ["CHECKS", "CheckResult", "Failed", "Skipped", "check_plugin", "conformance"]
