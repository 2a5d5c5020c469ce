"""``ark plugins``: who is installed, what each provides, whether it keeps the rules; a new one."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from typing import TYPE_CHECKING, Any

import click

from ark_framework import registry as plugin_registry
from ark_framework.cli import candidates
from ark_framework.cli.new import new
from ark_framework.cli.plain import echo

if TYPE_CHECKING:
    from ark_framework.registry import PluginRecord, Registry
    from ark_framework.specs import DatasetSpec


@click.group("plugins")
def plugins() -> None:
    """List, show and check plugins, or begin one.

    \b
    ark plugins list
    """


plugins.add_command(new)


@plugins.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def list_(as_json: bool) -> None:
    """List every installed plugin; none is imported.

    \b
    ark plugins list --json
    """
    records = plugin_registry.discover()
    if as_json:
        echo(json.dumps([dataclasses.asdict(record) for record in records], indent=1))
        return
    rows = [("name", "distribution", "version", "API")]
    rows += [(each.name, each.distribution, each.version, each.api) for each in records]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    problems = ["", *(each.problem for each in records)]
    for row, problem in zip(rows, problems, strict=True):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        echo(f"{'  '.join(cells)}  {f'cannot be used: it {problem}' if problem else ''}".rstrip())


@plugins.command("show")
@click.argument("name", shell_complete=candidates.plugins)
@click.option("--json", "as_json", is_flag=True, help="Print what it provides as JSON.")
def show(name: str, as_json: bool) -> None:
    """Import one plugin and show what it provides, with the terms of its datasets.

    \b
    ark plugins show ark-rsna
    """
    registry = plugin_registry.load([name])
    wanted = plugin_registry.canonical(name)
    record = next(record for record in registry.plugins if record.name == wanted)
    provided = _provided(registry, record)
    if as_json:
        echo(json.dumps({**dataclasses.asdict(record), **provided}, indent=1))
        return
    echo(f"{record.name}: {record.distribution} {record.version}, API {record.api}")
    for what, entries in provided.items():
        for each, facts in entries.items():
            echo(f"\n{what} {each}")
            for fact, value in facts.items():
                if value not in (None, "", [], {}):
                    echo(_line(fact, value))


@plugins.command("check")
@click.argument("name", shell_complete=candidates.plugins)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def check(name: str, as_json: bool) -> int:
    """Run the conformance kit on one plugin; exit 4 if it fails.

    \b
    ark plugins check ark-rsna
    """
    from ark_framework.testing import check_plugin

    results = check_plugin(name)
    failed = sum(not result.ok and not result.skipped for result in results)
    if as_json:
        keys = ("name", "ok", "skipped", "message")
        echo(json.dumps([{key: getattr(r, key) for key in keys} for r in results], indent=1))
    else:
        for result in results:
            state = "skipped" if result.skipped else "ok" if result.ok else "FAILED"
            echo(f"{state:<8} {result.name}{f': {result.message}' * bool(result.message)}")
        echo(f"{len(results)} checks, {failed} failed")
    return 4 if failed else 0


def _provided(registry: Registry, record: PluginRecord) -> dict[str, dict[str, dict[str, Any]]]:
    def own(kind: str, table: Any) -> list[Any]:
        return [spec for name, spec in table.items() if registry.origin(kind, name) == record]

    module = registry.manager.get_plugin(record.name)
    observed = [hook.name for hook in registry.manager.get_hookcallers(module) or ()]
    return {
        "dataset": {s.name: _dataset(registry, s) for s in own("dataset", registry.datasets)},
        "schema": {
            s.name: {"kind": s.kind, "labels": list(s.labels)}
            for s in own("schema", registry.schemas)
        },
        "head": {
            s.name: {"kinds": list(s.kinds), "input": s.input} for s in own("head", registry.heads)
        },
        "loss": {s.name: {"kinds": list(s.kinds)} for s in own("loss", registry.losses)},
        "backbone": {
            s.name: {"options": list(s.options.model_fields)}
            for s in own("backbone", registry.backbones)
        },
        "observer": {
            name: {} for name in sorted(observed) if name not in plugin_registry.PROVIDERS
        },
    }


def _dataset(registry: Registry, spec: DatasetSpec) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if callable(spec.schema):
        facts["kind"] = "set by its options"
    else:
        schema = registry.schema_of(spec)
        facts |= {"kind": schema.kind, "labels": list(schema.labels)}
    facts["options"] = list(spec.options.model_fields)
    return facts | dataclasses.asdict(spec.card)


def _line(fact: str, value: object) -> str:
    if isinstance(value, dict):
        value = [f"{key} {count}" for key, count in value.items()]
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return textwrap.fill(
        f"{fact:<10}{text}",
        98,
        initial_indent="  ",
        subsequent_indent=" " * 12,
        break_long_words=False,
        break_on_hyphens=False,
    )
