"""Who is installed and who was asked for: discover, load, collect, look up.

Discovery reads installed metadata only.  Loading imports the built-ins and the plugins that were
named, one by one, so that a broken plugin can stop only the run that names it.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module, metadata
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from ark_framework import hooks
from ark_framework.errors import ConfigError, PluginError, did_you_mean
from ark_framework.specs import (
    BackboneSpec,
    DatasetSpec,
    HeadSpec,
    LabelSchema,
    LossSpec,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

API = "v1"
FAMILY = "ark_framework."
GROUP = FAMILY + API
BUILTIN = "ark-builtin"
PROVIDERS: Mapping[str, tuple[str, type]] = MappingProxyType(
    {
        "ark_label_schemas": ("schema", LabelSchema),
        "ark_datasets": ("dataset", DatasetSpec),
        "ark_heads": ("head", HeadSpec),
        "ark_losses": ("loss", LossSpec),
        "ark_backbones": ("backbone", BackboneSpec),
    }
)
HOOKS = frozenset(name for name in vars(hooks) if name.startswith("ark_"))
Spec = TypeVar("Spec")
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PluginRecord:
    """One installed entry point; ``problem`` says why it cannot be loaded, if it cannot."""

    name: str
    distribution: str
    version: str
    module: str
    api: str
    problem: str | None = None


def canonical(name: str) -> str:
    """Return ``ark-vindr`` for ``vindr``, ``ark-vindr``, ``ark-plugin-vindr``, ``ark_plugin_vindr``."""
    plain = re.sub(r"[-_.]+", "-", name.strip().lower())
    for prefix in ("ark-plugin-", "ark-"):
        plain = plain.removeprefix(prefix)
    return f"ark-{plain}"


def discover() -> tuple[PluginRecord, ...]:
    """List every installed plugin by name; nothing is imported."""
    found: dict[tuple[str, str, str], PluginRecord] = {}
    for distribution in metadata.distributions():
        points = [p for p in distribution.entry_points if p.group.startswith(FAMILY)]
        for point in points:
            api = point.group.removeprefix(FAMILY)
            record = PluginRecord(
                name=canonical(point.name),
                distribution=distribution.metadata["Name"],
                version=distribution.version,
                module=point.value,
                api=api,
                problem=None if api == API else _other_major(api),
            )
            # sys.path may show one distribution twice; the first wins, as it does for imports.
            found.setdefault((record.name, record.distribution, api), record)
    names = Counter(record.name for record in found.values() if record.api == API)
    records = [
        replace(record, problem=_clash(record, found.values()))
        if record.api == API and names[record.name] > 1
        else record
        for record in found.values()
    ]
    return tuple(sorted(records, key=lambda record: (record.name, record.api)))


def _other_major(api: str) -> str:
    return (
        f"was built for plugin API {api} and this ark-framework speaks {API}: install an "
        f"ark-framework that speaks {api}, or a release of the plugin for {API}"
    )


def _clash(record: PluginRecord, others: Iterable[PluginRecord]) -> str:
    owners = sorted(o.distribution for o in others if o.name == record.name and o.api == API)
    return (
        f"is the name of {len(owners)} installed distributions ({', '.join(owners)}): "
        "uninstall all but one"
    )


@dataclass(frozen=True, kw_only=True)
class Registry:
    """What the loaded plugins provide; read-only.

    Attributes:
        plugins: The loaded plugins, the built-ins first, then as they were named.
        datasets: Name to spec, in plugin order, then declared order; likewise the others.
        owners: ``(kind, name)`` to the plugin that provides it.
        manager: The pluggy manager that observers are registered with.
    """

    plugins: tuple[PluginRecord, ...]
    schemas: Mapping[str, LabelSchema]
    datasets: Mapping[str, DatasetSpec]
    heads: Mapping[str, HeadSpec]
    losses: Mapping[str, LossSpec]
    backbones: Mapping[str, BackboneSpec]
    owners: Mapping[tuple[str, str], PluginRecord]
    manager: pluggy.PluginManager

    def origin(self, kind: str, name: str) -> PluginRecord:
        """Return the plugin that provides ``name`` of ``kind``."""
        return self.owners[kind, name]

    def dataset(self, name: str) -> DatasetSpec:
        """Return a dataset; ConfigError with the nearest names if there is none."""
        return _find("dataset", name, self.datasets)

    def backbone(self, name: str) -> BackboneSpec:
        """Return a backbone; ConfigError with the nearest names if there is none."""
        return _find("backbone", name, self.backbones)

    def head(self, name: str, *, kind: str) -> HeadSpec:
        """Return a head that serves ``kind``; ConfigError if there is none or it does not."""
        return _serving("head", _find("head", name, self.heads), kind)

    def loss(self, name: str, *, kind: str) -> LossSpec:
        """Return a loss that serves ``kind``; ConfigError if there is none or it does not."""
        return _serving("loss", _find("loss", name, self.losses), kind)

    def schema_of(self, spec: DatasetSpec, options: Any = None) -> LabelSchema:
        """Return a dataset's schema: its own, a registered one, or one made from its options."""
        schema = spec.schema
        if callable(schema):
            schema = schema(options)
        if isinstance(schema, LabelSchema):
            return schema
        return _find("label schema", schema, self.schemas)

    def with_observers(self, *observers: object) -> Registry:
        """Return a registry whose events also go to ``observers``, for one run."""
        manager = _manager()
        for name, plugin in self.manager.list_name_plugin():
            manager.register(plugin, name)
        for observer in observers:
            manager.register(observer)
        return replace(self, manager=manager)

    def notify(self, hook: str, event: object) -> None:
        """Give an event to every observer, each alone; one that fails is detached with a warning."""
        for implementation in list(getattr(self.manager.hook, hook).get_hookimpls()):
            try:
                implementation.function(*([event] if implementation.argnames else []))
            except Exception as error:
                log.warning(
                    "observer %s failed in %s and is detached: %s: %s",
                    implementation.plugin_name,
                    hook,
                    type(error).__name__,
                    error,
                )
                self.manager.unregister(implementation.plugin)


def load(names: Sequence[str]) -> Registry:
    """Load the built-ins and the named plugins.

    Raises:
        ConfigError: a name that is not installed.
        PluginError: a named plugin that is broken, disabled or clashes with another.
    """
    records = discover()
    wanted = [_choose(BUILTIN, records)]
    for name in dict.fromkeys(canonical(each) for each in names):
        if name != BUILTIN:
            wanted.append(_choose(name, records))
    manager = _manager()
    tables: dict[str, dict[str, Any]] = {kind: {} for kind, _ in PROVIDERS.values()}
    owners: dict[tuple[str, str], PluginRecord] = {}
    for record in wanted:
        module = _import(record)
        _check_hooks(module, manager, record)
        for hook, (kind, type_) in PROVIDERS.items():
            for spec in _provided(module, hook, type_, record):
                if (kind, spec.name) in owners:
                    other = owners[kind, spec.name]
                    raise _broken(
                        record,
                        f"provides {kind} {spec.name!r}, which "
                        f"{other.name} ({other.distribution}) provides too",
                    )
                owners[kind, spec.name] = record
                tables[kind][spec.name] = spec
        manager.register(module, record.name)
    return Registry(
        plugins=tuple(wanted),
        schemas=MappingProxyType(tables["schema"]),
        datasets=MappingProxyType(tables["dataset"]),
        heads=MappingProxyType(tables["head"]),
        losses=MappingProxyType(tables["loss"]),
        backbones=MappingProxyType(tables["backbone"]),
        owners=MappingProxyType(owners),
        manager=manager,
    )


def parse_options(
    spec: DatasetSpec | BackboneSpec, values: Mapping[str, Any], where: str
) -> BaseModel:
    """Check a plugin's options against the plugin's own type.

    Raises:
        ConfigError: one line with the key and what is accepted.
    """
    from pydantic import ValidationError

    from ark_framework.config import explain

    try:
        return spec.options.model_validate(dict(values), strict=False)
    except ValidationError as error:
        raise ConfigError(explain(error, spec.options, where=where)) from error


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    return manager


def _choose(name: str, records: Sequence[PluginRecord]) -> PluginRecord:
    installed = [record for record in records if record.name == name]
    if not installed:
        known = [record.name for record in records]
        raise ConfigError(
            f"no plugin {name!r} is installed{did_you_mean(name, known)}; if it exists: "
            f"pip install {name.replace('ark-', 'ark-plugin-', 1)}"
        )
    usable = [record for record in installed if record.api == API]
    record = usable[0] if usable else installed[0]
    disabled = {
        canonical(each)
        for each in os.environ.get("ARK_DISABLE_PLUGINS", "").split(",")
        if each.strip()
    }
    if name in disabled or ("ark-all" in disabled and record.distribution != "ark-framework"):
        raise PluginError(f"plugin {name!r} is disabled by ARK_DISABLE_PLUGINS")
    if record.problem:
        raise _broken(record, record.problem)
    return record


def _broken(record: PluginRecord, why: str) -> PluginError:
    return PluginError(f"plugin {record.name} ({record.distribution} {record.version}) {why}")


def _import(record: PluginRecord) -> ModuleType:
    try:
        return import_module(record.module.partition(":")[0])
    except Exception as error:  # whatever a third party's module raises is its own
        reason = " ".join(str(error).split())
        raise _broken(record, f"cannot be imported: {type(error).__name__}: {reason}") from error


def _check_hooks(module: ModuleType, manager: pluggy.PluginManager, record: PluginRecord) -> None:
    """Refuse hooks that pluggy would silently ignore: misspelt, or without the decorator."""
    for name, value in vars(module).items():
        if not inspect.isfunction(value) or value.__module__ != module.__name__:
            continue
        marked = manager.parse_hookimpl_opts(module, name) is not None
        if (marked or name.startswith("ark_")) and name not in HOOKS:
            near = difflib.get_close_matches(name, HOOKS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise _broken(record, f"implements {name!r}, which is no hook{hint}")
        if name in HOOKS and not marked:
            raise _broken(record, f"defines {name!r} without @hookimpl, so it would be ignored")


def _provided(
    module: ModuleType, hook: str, type_: type[Spec], record: PluginRecord
) -> Sequence[Any]:
    function: Callable[[], Any] | None = getattr(module, hook, None)
    if function is None:
        return ()
    try:
        specs = function()
    except Exception as error:
        reason = " ".join(str(error).split())
        raise _broken(record, f"failed in {hook}(): {type(error).__name__}: {reason}") from error
    if not isinstance(specs, list | tuple):
        raise _broken(
            record, f"returned {type(specs).__name__} from {hook}(), not a list of {type_.__name__}"
        )
    for spec in specs:
        if not isinstance(spec, type_):
            raise _broken(
                record,
                f"returned a list with {type(spec).__name__} from {hook}(), not {type_.__name__}",
            )
    return specs


def _find(kind: str, name: str, known: Mapping[str, Spec]) -> Spec:
    if name not in known:
        raise ConfigError(
            f"no {kind} {name!r}{did_you_mean(name, known)}; the named plugins "
            f"provide: {', '.join(sorted(known)) or 'none'}"
        )
    return known[name]


def _serving(what: str, spec: Any, kind: str) -> Any:
    if kind not in spec.kinds:
        raise ConfigError(f"{what} {spec.name!r} serves {', '.join(spec.kinds)}, not {kind}")
    return spec
