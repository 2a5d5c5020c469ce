"""Checks of a whole plugin: what its hooks return, and what importing it brings."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from typing import Any

from ark_framework import registry as plugins
from ark_framework.registry import PROVIDERS, Registry
from ark_framework.testing.verdict import Check, must, untouched_chance


def hooks_are_pure(_: Registry, record: plugins.PluginRecord) -> None:
    """Calling a provider hook twice gives equal specs in the same order, and draws no chance."""
    for name, hook in _providers(record):
        with untouched_chance(f"{name}()"):
            first, second = [[spec.name for spec in hook()] for _ in range(2)]
        must(first == second, f"{name}() gave {first} and then {second}; return the same each time")


def hooks_return_a_fresh_list(_: Registry, record: plugins.PluginRecord) -> None:
    """Whoever changes the list that a hook returned changes nothing for the next caller."""
    for name, hook in _providers(record):
        given = hook()
        if not isinstance(given, list):
            continue  # a tuple cannot be changed
        kept = list(given)
        given.clear()
        after = list(hook())
        given.extend(kept)
        must(len(after) == len(kept), f"{name}() returns one list to all; return a new one")


def importing_it_brings_no_torch(_: Registry, record: plugins.PluginRecord) -> None:
    """Importing the plugin is light: torch is imported inside ``build``."""
    module = _module(record)
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    must(done.returncode == 0, f"importing {module} imports torch; import it inside build()")


def _module(record: plugins.PluginRecord) -> str:
    return record.module.partition(":")[0].strip()


def _providers(record: plugins.PluginRecord) -> list[tuple[str, Any]]:
    module = import_module(_module(record))
    found = ((name, getattr(module, name, None)) for name in PROVIDERS)
    return [(name, hook) for name, hook in found if hook is not None]


CHECKS: tuple[Check, ...] = (
    hooks_are_pure,
    hooks_return_a_fresh_list,
    importing_it_brings_no_torch,
)
