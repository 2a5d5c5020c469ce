"""Who was asked for: load, collect, look up.

Loading imports the built-ins and the plugins that were named, one by one, so that a broken plugin
can stop only the run that names it.
"""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from ark_framework import hooks
from ark_framework.discovery import API, GROUP, PluginRecord, canonical, discover
from ark_framework.errors import ArkError, ConfigError, PluginError, did_you_mean
from ark_framework.specs import (
    BackboneSpec,
    DatasetSpec,
    HeadSpec,
    LabelSchema,
    LossSpec,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

BUILTIN = "ark-builtin"
LIKE = "like"  # the key of an entry of ``data`` that is read as another dataset is
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
Serving = TypeVar("Serving", HeadSpec, LossSpec)
Building = TypeVar("Building", HeadSpec, LossSpec, BackboneSpec)
log = logging.getLogger(__name__)

__all__ = [
    "BUILTIN",
    "GROUP",
    "LIKE",
    "PluginRecord",
    "Registry",
    "canonical",
    "discover",
    "load",
    "parse_options",
]


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
        return self._answering("backbone", _find("backbone", name, self.backbones))

    def head(self, name: str, *, kind: str) -> HeadSpec:
        """Return a head that serves ``kind``; ConfigError if there is none or it does not."""
        return self._answering("head", _serving("head", _find("head", name, self.heads), kind))

    def loss(self, name: str, *, kind: str) -> LossSpec:
        """Return a loss that serves ``kind``; ConfigError if there is none or it does not."""
        return self._answering("loss", _serving("loss", _find("loss", name, self.losses), kind))

    def _answering(self, kind: str, spec: Building) -> Building:
        """Return a spec whose ``build`` names its plugin when it fails."""
        return replace(spec, build=self.blamed(kind, spec.name, "build()", spec.build))

    def blamed(self, kind: str, name: str, doing: str, call: Callable[..., Any]) -> Any:
        """Return a plugin's function as one that names the plugin when it fails."""

        def answering(*given: Any) -> Any:
            with self.blaming(kind, name, doing):
                return call(*given)

        return answering

    def schema_of(self, spec: DatasetSpec, options: Any = None) -> LabelSchema:
        """Return a dataset's schema: its own, a registered one, or one made from its options."""
        schema: Any = spec.schema
        if callable(schema):
            with self.blaming("dataset", spec.name, "schema()"):
                schema = schema(options)
        if isinstance(schema, LabelSchema):
            return schema
        if not isinstance(schema, str):
            what = f"returned {type(schema).__name__} from schema(), not LabelSchema"
            raise _broken(self.owners["dataset", spec.name], what)
        return _find("label schema", schema, self.schemas)

    @contextmanager
    def blaming(self, kind: str, name: str, doing: str) -> Iterator[None]:
        """Turn what a plugin's own code raises into a PluginError that names the plugin."""
        try:
            yield
        except (ArkError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit too: nobody else ends a run
            raise _broken(self.owners[kind, name], f"failed in {doing}: {_why(error)}") from error

    def with_observers(self, *observers: object) -> Registry:
        """Return a registry whose events also go to ``observers``, for one run.

        Raises:
            PluginError: an observer implements a hook that there is not.
        """
        manager = _manager()
        for name, plugin in self.manager.list_name_plugin():
            manager.register(plugin, name)
        try:
            for observer in observers:
                manager.register(observer)
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise PluginError(f"observer {_label(error.plugin)}: {_why(error)}") from error
        return replace(self, manager=manager)

    def notify(self, hook: str, event: object) -> None:
        """Give an event to every observer, each alone; one that fails is warned of and detached."""
        for implementation in list(getattr(self.manager.hook, hook).get_hookimpls()):
            try:
                implementation.function(*([event] if implementation.argnames else []))
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                log.warning(
                    "observer %s failed in %s and is detached: %s",
                    _label(implementation.plugin),
                    hook,
                    _why(error),
                )
                self.manager.unregister(implementation.plugin)


def load(
    names: Sequence[str], *, data: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
) -> Registry:
    """Load the built-ins and the named plugins.

    Args:
        names: The plugins.
        data: Options per dataset; an entry with ``like`` is a dataset of its own, read as the one
            that it is like.

    Raises:
        ConfigError: a name that is not installed, or an entry that is like no dataset.
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
        for kind, spec in _specs(module, record):
            other = owners.setdefault((kind, spec.name), record)
            if spec.name in tables[kind]:
                whose = "this plugin already" if other is record else f"{_signature(other)} too"
                raise _broken(
                    record, f"provides {kind} {spec.name!r}, which is provided by {whose}"
                )
            tables[kind][spec.name] = spec
    _add_likes(tables["dataset"], owners, data)
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


def _add_likes(
    datasets: dict[str, DatasetSpec],
    owners: dict[tuple[str, str], PluginRecord],
    data: Mapping[str, Mapping[str, Any]],
) -> None:
    """Add the datasets that are like another; one that merely serves as their model goes."""
    provided = dict(datasets)
    for name, values in data.items():
        if LIKE not in values:
            continue
        if name in provided:
            raise ConfigError(f"data.{name}.{LIKE}: {name!r} is a dataset of its own already")
        spec = _find("dataset", str(values[LIKE]), provided)
        try:
            datasets[name] = replace(spec, name=name)
        except PluginError as error:  # a name that no dataset can have
            raise ConfigError(f"data.{name}: {error}") from error
        owners["dataset", name] = owners["dataset", spec.name]
        if spec.needs_root and spec.name not in data:
            datasets.pop(spec.name, None)


def parse_options(
    spec: DatasetSpec | BackboneSpec, values: Mapping[str, Any], where: str
) -> BaseModel:
    """Check a plugin's options against the plugin's own type.

    Raises:
        ConfigError: one line with the key and what is accepted.
    """
    from pydantic import ValidationError

    from ark_framework.wording import explain

    _check_keys(spec.options, values, where)
    try:
        return spec.options.model_validate(dict(values), strict=False)
    except ValidationError as error:
        raise ConfigError(explain(error, spec.options, where=where)) from error


def _check_keys(options: type[BaseModel], values: Mapping[str, Any], where: str) -> None:
    # pydantic ignores unknown keys unless told otherwise; a plugin may not have told it.
    if options.model_config.get("extra") == "allow":
        return
    known = {field.alias or name for name, field in options.model_fields.items()}
    known |= set(options.model_fields)
    for key in values:
        if key not in known:
            hint = did_you_mean(key, known) or f"; known: {', '.join(sorted(known)) or 'none'}"
            raise ConfigError(f"{where}: unknown key {key!r}{hint}")


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    return manager


def _choose(name: str, records: Sequence[PluginRecord]) -> PluginRecord:
    installed = [record for record in records if record.name == name]
    if not installed:
        package = name.replace("ark-", "ark-plugin-", 1)
        # The prefix that all share would make any two names look alike.
        known = {record.name.removeprefix("ark-") for record in records}
        raise ConfigError(
            f"no plugin {name!r} is installed (to install it: pip install {package})"
            f"{did_you_mean(name.removeprefix('ark-'), known)}"
        )
    record = next((record for record in installed if record.api == API), installed[0])
    if record.problem:
        raise _broken(record, record.problem)
    return record


def _signature(record: PluginRecord) -> str:
    return f"{record.name} ({record.distribution} {record.version})"


def _broken(record: PluginRecord, why: str) -> PluginError:
    return PluginError(f"plugin {_signature(record)} {why}")


def _why(error: BaseException) -> str:
    reason = " ".join(str(error).split())
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


def _label(plugin: object) -> str:
    return str(getattr(plugin, "__name__", type(plugin).__name__))


def _import(record: PluginRecord) -> ModuleType:
    name, _, attribute = (part.strip() for part in record.module.partition(":"))
    try:
        module = import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a third party's module may raise anything
        raise _broken(record, f"cannot be imported: {_why(error)}") from error
    if attribute and not hasattr(module, attribute):
        raise _broken(record, f"cannot be imported: {name} has no {attribute!r}")
    return module


def _check_hooks(module: ModuleType, manager: pluggy.PluginManager, record: PluginRecord) -> None:
    """Refuse what pluggy would silently ignore, then register the module's observers."""
    for name, value in vars(module).items():
        if not inspect.isroutine(value):
            continue
        options = manager.parse_hookimpl_opts(module, name)
        if options is None and not _own(module, name, value):
            continue
        if name in HOOKS and options is None:
            raise _broken(record, f"defines {name!r} without @hookimpl, so it would be ignored")
        if name not in HOOKS and not (options and options["optionalhook"]):
            near = difflib.get_close_matches(name, HOOKS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise _broken(record, f"implements {name!r}, which is no hook{hint}")
        if options and (options["wrapper"] or options["hookwrapper"]):
            raise _broken(record, f"implements {name!r} as a wrapper; hooks here are not wrapped")
    try:
        manager.register(module, record.name)
    except pluggy.PluginValidationError as error:  # arguments that the hook does not have
        raise _broken(record, f"has a hook that does not fit: {_why(error)}") from error


def _own(module: ModuleType, name: str, value: object) -> bool:
    """Whether a function named like a hook was written by the plugin, not imported by it."""
    home = str(getattr(value, "__module__", ""))
    return name.startswith("ark_") and f"{home}.".startswith(f"{module.__name__}.")


def _specs(module: ModuleType, record: PluginRecord) -> Iterator[tuple[str, Any]]:
    """Yield ``(kind, spec)`` of all that a module provides, in declared order."""
    for hook, (kind, type_) in PROVIDERS.items():
        function: Callable[[], Any] | None = getattr(module, hook, None)
        if function is None:
            continue
        try:
            specs = function()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise _broken(record, f"failed in {hook}(): {_why(error)}") from error
        if not isinstance(specs, list | tuple):
            given = type(specs).__name__
            raise _broken(record, f"returned {given} from {hook}(), not a list of {type_.__name__}")
        for spec in specs:
            if not isinstance(spec, type_):
                given = type(spec).__name__
                raise _broken(
                    record, f"returned a list with {given} from {hook}(), not {type_.__name__}"
                )
            yield kind, spec


def _find(kind: str, name: str, known: Mapping[str, Spec]) -> Spec:
    if name not in known:
        raise ConfigError(
            f"no {kind} {name!r}{did_you_mean(name, known)}; the named plugins "
            f"provide: {', '.join(sorted(known)) or 'none'}"
        )
    return known[name]


def _serving(what: str, spec: Serving, kind: str) -> Serving:
    if kind not in spec.kinds:
        raise ConfigError(f"{what} {spec.name!r} serves {', '.join(spec.kinds)}, not {kind}")
    return spec
