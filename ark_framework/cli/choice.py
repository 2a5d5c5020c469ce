"""The datasets that an ``ark data`` command is about, and the options that choose them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ark_framework import roots as places
from ark_framework.cli.settings import gather, packing, roots
from ark_framework.errors import ConfigError
from ark_framework.registry import BUILTIN, Registry, discover, load

if TYPE_CHECKING:
    from ark_framework.annotations import AnnotationTable
    from ark_framework.config import RunConfig
    from ark_framework.shards import Shard
    from ark_framework.specs import DatasetSpec
    from ark_framework.store import Store

Command = TypeVar("Command", bound=Callable[..., Any])


def choosing(command: Command) -> Command:
    """Add the options that say which datasets, and how they are packed."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
        click.option("--fit", type=click.Choice(["squash", "pad", "crop"]), help="To the square."),
        click.option("--size", type=click.IntRange(16, 4096), help="Stored side in pixels."),
    ):
        command = option(command)
    return packing(command)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The datasets that a command is about, and the settings that they are read with."""

    config: RunConfig
    registry: Registry
    specs: tuple[DatasetSpec, ...]
    roots: dict[str, Path]

    def read(self, spec: DatasetSpec) -> tuple[AnnotationTable, Any]:
        """Read one dataset's table; a plugin that fails in it is named."""
        from ark_framework.corpus import read_table

        return read_table(spec, self.registry, self.config, roots=self.roots)

    @property
    def folder(self) -> Path:
        """Where stores are."""
        from ark_framework.store import default_folder

        told = self.config.store.folder
        return Path(told) if told else default_folder()

    def pack(
        self,
        spec: DatasetSpec,
        options: Any,
        table: AnnotationTable,
        *,
        report: Callable[..., None],
    ) -> Store:
        """Open a dataset's store, or pack it."""
        from ark_framework.packing import ensure

        store = self.config.store
        return ensure(
            spec,
            options,
            table.films,
            folder=self.folder,
            size=store.size,
            fit=store.fit,
            structures=table.structures,
            workers=store.workers,
            max_bad=store.max_bad,
            progress=report,
        )

    def pack_shard(
        self,
        spec: DatasetSpec,
        options: Any,
        table: AnnotationTable,
        shard: Shard,
        *,
        report: Callable[..., None],
        say: Callable[[str], None],
    ) -> Store | None:
        """Pack one part of a dataset's films; return the store once all parts are there."""
        from ark_framework.packing import pack_shard
        from ark_framework.store import Source

        store = self.config.store
        source = Source(
            spec=spec,
            options=options,
            images=tuple(table.films),
            size=store.size,
            fit=store.fit,
            structures=table.structures,
        )
        return pack_shard(
            source,
            shard,
            folder=self.folder,
            workers=store.workers,
            max_bad=store.max_bad,
            progress=report,
            say=say,
        )


def choose(data: tuple[str, ...], *, size: int | None, fit: str | None, **given: Any) -> Chosen:
    """Load the named plugins and pick their datasets, or those of ``--tasks``.

    Raises:
        ConfigError: no plugin or an unknown dataset was named.
    """
    more = [f"store.fit={fit}"] if fit is not None else []
    if size is not None:  # the views must not be larger than what is stored
        more += [f"store.size={size}", f"views.size={size}"]
    config = gather(**{**given, "assignments": (*given["assignments"], *more)})
    if not config.plugins:
        usable = [r.name for r in discover() if not r.problem and r.name != BUILTIN]
        raise ConfigError(
            f"name the plugins whose datasets you mean: --plugins; installed: {', '.join(usable)}"
        )
    registry, said = load(config.plugins, data=config.data), roots(data)
    places.check_names(said, registry.datasets)
    names = [task.dataset for task in config.tasks or ()] or list(registry.datasets)
    specs = tuple(registry.dataset(name) for name in dict.fromkeys(names))
    if not specs:
        raise ConfigError(f"{', '.join(config.plugins)}: no datasets; is it the right plugin?")
    return Chosen(config=config, registry=registry, specs=specs, roots=said)
