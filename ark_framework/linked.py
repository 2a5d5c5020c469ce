"""Datasets known here beside those of a run: what they hold out must not be trained on.

Linking a dataset (or setting its ``ARK_DATA_`` variable) names its plugin for this purpose: it is
imported, its table is read and its films are packed once, so that a twin is recognised by pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ark_framework import registry as plugins
from ark_framework import roots as places
from ark_framework.annotations import AnnotationTable
from ark_framework.audit import Audited
from ark_framework.config import RunConfig, ValidationConfig
from ark_framework.corpus import Corpus, Progress, open_corpus, read_split
from ark_framework.discovery import discover
from ark_framework.errors import ArkError
from ark_framework.registry import Registry
from ark_framework.specs import DatasetSpec

Say = Callable[[str], None]


def linked(
    config: RunConfig,
    registry: Registry,
    taken: Sequence[str],
    *,
    roots: Mapping[str, Path],
    progress: Progress | None,
    say: Say,
) -> tuple[Audited, ...]:
    """Open every dataset that has a root here and is not in ``taken``.

    None where all that is taken is drawn by a program, as in the demo: no film of it can be held
    out elsewhere, and packing real films for it would be a surprise.  One that cannot be packed is
    known by what its table declares; one that cannot be read is said to be left out, and the run
    goes on.
    """
    if not any(registry.dataset(name).needs_root for name in taken):
        return ()
    # A split that the core would make for a run of its own is nobody's test.
    config = config.model_copy(update={"validation": ValidationConfig(fraction=0.0)})
    found = []
    for spec, owner in _specs(config, registry, taken, roots=roots, say=say):
        try:
            table = read_split(spec, owner, config, roots=roots)[0]
        except ArkError as error:
            say(f"{spec.name} is linked, but not audited: {error}")
            continue
        if not any(len(table.rows(split)) for split in ("val", "test")):
            continue
        found.append(_audited(spec, owner, config, table, roots=roots, progress=progress, say=say))
    return tuple(found)


def audited(corpus: Corpus) -> Audited:
    """Return a dataset of the run as the audit takes it."""
    return Audited(table=corpus.table, store=corpus.store, index=corpus.index)


def _audited(
    spec: DatasetSpec,
    owner: Registry,
    config: RunConfig,
    table: AnnotationTable,
    *,
    roots: Mapping[str, Path],
    progress: Progress | None,
    say: Say,
) -> Audited:
    try:
        return audited(open_corpus(spec, owner, config, roots=roots, progress=progress))
    except ArkError as error:
        say(f"{spec.name} is linked, but audited by its declared identities alone: {error}")
        return Audited(table=table)


def _specs(
    config: RunConfig,
    registry: Registry,
    taken: Sequence[str],
    *,
    roots: Mapping[str, Path],
    say: Say,
) -> Iterator[tuple[DatasetSpec, Registry]]:
    """Yield the datasets that have a root, each with the registry that provides it."""
    known = set(places.told())
    for spec in registry.datasets.values():
        configured = config.data.get(spec.name, {})
        rooted = places.locate(spec.name, given=roots, configured=configured)[0]
        if spec.needs_root and rooted and spec.name not in taken:
            yield spec, registry
    for name in sorted(known - set(registry.datasets) - set(taken)):
        plugin = _plugin_of(name)
        if plugin is None:
            say(f"{name} is linked, but not audited: no installed plugin is called after it")
            continue
        try:
            owner = plugins.load([plugin])
            yield owner.dataset(name), owner
        except ArkError as error:
            say(f"{name} is linked, but not audited: {error}")


def _plugin_of(dataset: str) -> str | None:
    """Return the installed plugin that a dataset is named after, ``ark-siim`` for ``siim-mask``."""
    names = {record.name for record in discover() if not record.problem}
    words = dataset.split("-")
    tries = (f"ark-{'-'.join(words[:count])}" for count in range(len(words), 0, -1))
    return next((each for each in tries if each in names), None)
