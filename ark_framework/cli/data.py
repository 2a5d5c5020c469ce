"""``ark data``: which datasets there are, where they lie, whether they are what they should be."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ark_framework import roots as places
from ark_framework.cli import candidates
from ark_framework.cli.audit import audit
from ark_framework.cli.choice import Chosen, choose, choosing
from ark_framework.cli.console import console as open_console
from ark_framework.cli.packing import PackingBar, packed, summary
from ark_framework.cli.plain import echo
from ark_framework.cli.words import WordsCommand
from ark_framework.errors import ConfigError, DataError, did_you_mean
from ark_framework.registry import canonical, discover, parse_options

if TYPE_CHECKING:
    from rich.console import Console

    from ark_framework.annotations import AnnotationTable
    from ark_framework.specs import DatasetSpec
    from ark_framework.store import Store

Report = Callable[[int, int], None]

paged = click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Also write a page with plots, to a new file.",
)  # fmt: skip


@click.group("data")
def data() -> None:
    """List, link, verify, pack, audit and look at datasets.

    \b
    ark data verify --plugins ark-rsna --data rsna=/data/rsna
    """


data.add_command(audit)


@data.command("list", cls=WordsCommand)
@choosing
def list_(data: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """List the datasets of the named plugins and where they lie; without plugins, the links.

    \b
    ark data list --plugins ark-chestxray14 ark-rsna
    """
    if given["plugins"] or given["file"] or given["recipe"]:
        chosen = choose(data, **given)
        found = [_entry(chosen, spec) for spec in chosen.specs]
    else:
        found = [
            {"dataset": name, "root": str(root), "from": "link"}
            for name, root in places.links().items()
        ]
    if as_json:
        echo(json.dumps(found, indent=1))
        return
    if not found:
        echo("no dataset is linked; name plugins to list theirs: ark data list --plugins ...")
    width = max((len(each["dataset"]) for each in found), default=0)
    for each in found:
        facts = (each.get("kind"), f"{each.get('labels')} labels", each.get("access"))
        known = f"  {', '.join(map(str, facts))}" if "kind" in each else ""
        echo(f"{each['dataset']:<{width}}{known}  {each['root'] or 'no root'} ({each['from']})")


def _entry(chosen: Chosen, spec: DatasetSpec) -> dict[str, Any]:
    configured = chosen.config.data.get(spec.name, {})
    root, where = places.locate(spec.name, given=chosen.roots, configured=configured)
    kind, labels = "set by its options", "?"
    try:
        options = None
        if callable(spec.schema):
            values = places.resolve(spec, given=chosen.roots, configured=configured)
            options = parse_options(spec, values, where=f"data.{spec.name}")
        schema = chosen.registry.schema_of(spec, options)
        kind, labels = schema.kind, str(len(schema.labels))
    except (ConfigError, DataError):
        pass  # its labels are not said yet: that is no reason not to list it
    return {
        "dataset": spec.name,
        "plugin": chosen.registry.origin("dataset", spec.name).name,
        "kind": kind,
        "labels": labels,
        "access": spec.card.access,
        "root": str(root) if root else None,
        "from": where if spec.needs_root else "needs no files",
    }


@data.command("link")
@click.argument("name", shell_complete=candidates.linkable)
@click.argument("path", type=click.Path(path_type=Path))
def link(name: str, path: Path) -> None:
    """Remember where a dataset's official files lie.

    \b
    ark data link rsna /data/rsna
    """
    dataset = places.dataset_name(name)
    places.link(dataset, path)
    echo(f"linked {dataset} to {path.resolve()}")
    installed = [record.name.removeprefix("ark-") for record in discover()]
    if canonical(dataset).removeprefix("ark-") not in installed:
        near = did_you_mean(dataset, installed)
        echo(f"note: no installed plugin is called {canonical(dataset)}{near}")


@data.command("pack", cls=WordsCommand)
@choosing
@click.option(
    "--shard", metavar="I/N", help="Pack part I of N alone; whoever packs the last one joins them."
)
def pack(data: tuple[str, ...], as_json: bool, shard: str | None, **given: Any) -> None:
    """Pack the films into the store that training reads; what is packed already is kept.

    \b
    ark data pack --plugins ark-rsna --data rsna=/data/rsna --size 128
    ark data pack --plugins ark-mimic --store /shared/stores --shard 3/16
    """
    from ark_framework import shards

    part = shards.parse(shard) if shard else None
    chosen, found = _every_film(data, given), []
    with _packing(as_json) as (console, report):

        def say(line: str) -> None:
            console.print(line, highlight=False, soft_wrap=True)

        for spec in chosen.specs:
            table, options = chosen.read(spec)
            store: Store | None
            if part:
                bar = report(spec.name)
                store = chosen.pack_shard(spec, options, table, part, report=bar, say=say)
            else:
                store = chosen.pack(spec, options, table, report=report(spec.name))
            if store is None:
                found.append({"dataset": spec.name, "shard": str(part)})
                continue
            found.append(packed(spec.name, store))
            if not as_json:
                say(summary(spec.name, store))
    if as_json:
        echo(json.dumps(found, indent=1))


@data.command("verify", cls=WordsCommand)
@choosing
def verify(data: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Check tables, files and stores against one another and the card; exit 3 on a problem.

    Each problem and note comes with what mends it.

    \b
    ark data verify --plugins ark-chestxray14
    """
    from ark_framework.cli.verification import examine, lines, say

    chosen = _every_film(data, given)
    found = []
    with _bar() as bar:
        for spec in bar.each(chosen.specs, "verifying"):
            table, options = chosen.read(spec)
            findings = examine(
                spec,
                table,
                options,
                config=chosen.config.store,
                folder=chosen.folder,
                progress=partial(bar.show, f"reading the store of {spec.name}, MB"),
            )
            found.append(findings)
            if not as_json:
                echo("\n".join(lines(findings)))
    if as_json:
        echo(json.dumps(found, indent=1))
    wrong = [f"{each['dataset']}: {say(bad)}" for each in found for bad in each["problems"]]
    if wrong:
        others = f" (and {len(wrong) - 1} more problems)" if len(wrong) > 1 else ""
        raise DataError(wrong[0] + others)


@data.command("stats", cls=WordsCommand)
@choosing
@paged
def stats(data: tuple[str, ...], as_json: bool, html: Path | None, **given: Any) -> None:
    """Count labels, patients, sexes, views and ages per split, and of all datasets as one.

    No film is read but those of masks: they are packed, if they are not yet, and each structure's
    area is measured.  A film or patient that two datasets know as the same counts once in the
    whole.

    \b
    ark data stats --plugins ark-chestxray14 ark-rsna --html stats.html
    """
    from ark_framework.cli import areas, census

    chosen, both = _tables(data, given, html)
    read = [table for table, _ in both]
    found = {
        "datasets": {table.dataset: census.census(table) for table in read},
        "union": census.union(read),
    }
    measured = _areas(chosen, both, as_json)
    for name, splits in measured.items():
        for split, structures in splits.items():
            found["datasets"][name][split]["structures"] = structures
    _page(html, "stats.html", titles={s.name: s.card.title for s in chosen.specs}, **found)
    if as_json:
        echo(json.dumps(found, indent=1))
        return
    console = open_console(stderr=False)
    for name, counts in found["datasets"].items():
        for laid in census.tables(name, counts):
            console.print(laid)
        if name in measured:
            console.print(areas.layout(name, measured[name]))
    for laid in census.union_tables(found["union"]) if len(read) > 1 else ():
        console.print(laid)
    _wrote(html)


@data.command("labels", cls=WordsCommand)
@choosing
@paged
def labels(data: tuple[str, ...], as_json: bool, html: Path | None, **given: Any) -> None:
    """Show which dataset annotates what: labels x datasets, positives / annotated in training.

    Labels are matched for reading only, by name without case, '_' and spaces; training keeps each
    dataset's labels apart.

    \b
    ark data labels --plugins ark-chestxray14 ark-rsna
    """
    from ark_framework.cli import matrix

    _, both = _tables(data, given, html)
    found = matrix.matrix([table for table, _ in both])
    _page(html, "labels.html", notes=matrix.NOTES, **found)
    if as_json:
        echo(json.dumps(found, indent=1))
        return
    open_console(stderr=False).print(matrix.layout(found))
    echo("\n".join(matrix.notes(found)))
    _wrote(html)


@data.command("preview", cls=WordsCommand)
@choosing
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("preview.png"),
    show_default=True, help="The picture to write.",
)  # fmt: skip
def preview(data: tuple[str, ...], as_json: bool, out: Path, **given: Any) -> None:
    """Write a contact sheet: some training films as packed, and both views of each.

    Masks are drawn over the films, a color for each structure.

    \b
    ark data preview --plugins ark-rsna --limit 12 --out rsna.png
    """
    if out.exists():
        raise ConfigError(f"{out} exists and is not overwritten; choose another --out")
    if out.suffix.lower() != ".png" or not out.parent.is_dir():
        raise ConfigError(f"--out {out}: name a .png file in a folder that exists")
    from ark_framework.cli.sheet import contact_sheet, some_films

    chosen = choose(data, **given)
    strips, shown = [], []
    for spec in chosen.specs:
        names, strip = some_films(chosen, spec)
        strips.append(strip)
        shown.append({"dataset": spec.name, "films": names})
    contact_sheet(strips, chosen.config.views, seed=chosen.config.seed).save(out)
    echo(json.dumps(shown, indent=1) if as_json else f"wrote {out}")


def _tables(
    data: tuple[str, ...], given: dict[str, Any], html: Path | None
) -> tuple[Chosen, list[tuple[AnnotationTable, Any]]]:
    """Read tables and options; a page's place is refused before, since reading takes a while."""
    chosen = _every_film(data, given)
    if html is not None:
        from ark_framework.report import page

        page.check(html)
    with _bar() as bar:
        return chosen, [chosen.read(spec) for spec in bar.each(chosen.specs, "reading tables")]


def _areas(
    chosen: Chosen, read: list[tuple[AnnotationTable, Any]], as_json: bool
) -> dict[str, dict[str, Any]]:
    """Measure the structures of the datasets of masks, whose films are packed if need be."""
    from ark_framework.cli.areas import areas

    found = {}
    with _packing(as_json) as (_, report):
        for spec, (table, options) in zip(chosen.specs, read, strict=True):
            if table.structures:
                store = chosen.pack(spec, options, table, report=report(spec.name))
                found[spec.name] = areas(table, store)
    return found


def _page(html: Path | None, template: str, **values: Any) -> None:
    if html is not None:
        from ark_framework.report import page

        page.write(html, page.render(template, **values))


def _wrote(html: Path | None) -> None:
    if html is not None:
        echo(f"wrote {html}")


def _every_film(data: tuple[str, ...], given: dict[str, Any]) -> Chosen:
    if given["limit"] is not None:
        raise ConfigError(
            "--limit is for train, plan and data preview; this command takes all films"
        )
    return choose(data, **given)


def _bar() -> PackingBar:
    """Return a bar on standard error, so that what is printed stays whole."""
    return PackingBar(open_console(stderr=True))


@contextmanager
def _packing(as_json: bool) -> Iterator[tuple[Console, Callable[[str], Report]]]:
    console = open_console(stderr=as_json)
    with PackingBar(console) as bar:
        yield console, lambda name: lambda done, total: bar(name, done, total)
