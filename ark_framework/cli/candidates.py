"""What a word on the command line may become: for the completion of shells.

No plugin is imported but those that the line names, and torch is not.  What cannot be found out is
left out: a shell that completes must not fail.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from pydantic import BaseModel

Items = list[CompletionItem[str]]
Candidates = Callable[[click.Context, click.Parameter, str], Items]

# Commands whose settings are a study's; those of ``ark fairness`` are an audit's.
STUDIES = frozenset({"probe", "finetune", "segment", "compare", "embed", "eval"})
# Files that tell a run, a model for others, and what ark segment keeps, from other folders.
RUN, MODEL = ("run.json",), ("run.json", "preprocess.json", "segmenter.json")


def plugins(context: click.Context, parameter: click.Parameter, text: str) -> Items:
    """Return installed plugins that can be used, by their whole or short names."""
    from ark_framework.discovery import discover

    del parameter
    found = [record for record in discover() if record.problem is None]
    names = {each.name: f"{each.distribution} {each.version}" for each in found}
    *_, last = text.rpartition(",")
    if last and not any(name.startswith(last) for name in names):
        names = {name.removeprefix("ark-"): text for name, text in names.items()}
    typed = {*_typed(context, "plugins")}
    return _after_commas(text, {name: text for name, text in names.items() if name not in typed})


def datasets(context: click.Context, parameter: click.Parameter, text: str) -> Items:
    """Return datasets of the plugins on the line; without any, those whose place is known."""
    del parameter
    return _after_commas(text, dict.fromkeys(_datasets(context)))


def places(context: click.Context, parameter: click.Parameter, text: str) -> Items:
    """Return ``NAME=`` of datasets, and behind it folders."""
    del parameter
    name, equals, path = text.partition("=")
    if equals:
        above = Path(path) if path.endswith("/") else Path(path).parent
        return _starting(text, {f"{name}={each}/": None for each in _inside(above)})
    return _starting(text, dict.fromkeys(f"{name}=" for name in _datasets(context)))


def linkable(context: click.Context, parameter: click.Parameter, text: str) -> Items:
    """Return what a dataset of an installed plugin is likely called: as the plugin is."""
    from ark_framework.discovery import CORE, discover

    del context, parameter
    found = [record for record in discover() if record.distribution != CORE]
    return _starting(text, {each.name.removeprefix("ark-"): each.distribution for each in found})


def recipes(context: click.Context, parameter: click.Parameter, text: str) -> Items:
    """Return the recipes, each with what it is."""
    from ark_framework.cli.recipes import about
    from ark_framework.config import recipes as known

    del context, parameter
    return _starting(text, {name: about(name) for name in known()})


def recipes_or_files(context: click.Context, parameter: click.Parameter, text: str) -> Items:
    """Return the recipes; where none fits, files."""
    return recipes(context, parameter, text) or [CompletionItem(text, type="file")]


def keys(context: click.Context, parameter: click.Parameter, text: str) -> Items:
    """Return ``KEY=`` of settings; behind it the values, where there are few."""
    del parameter
    known = dict(_keys(_model(context.command.name or "")))
    key, equals, _ = text.partition("=")
    if equals:
        return _starting(text, {f"{key}={value}": None for value in _values(known.get(key))})
    return _starting(text, {f"{name}=": field.description for name, field in known.items()})


def runs(context: click.Context, parameter: click.Parameter, text: str) -> Items:
    """Return folders of runs; where there is none, folders."""
    del context, parameter
    return _folders(text, RUN) or [CompletionItem(text, type="dir")]


def models(context: click.Context, parameter: click.Parameter, text: str) -> Items:
    """Return folders of runs and models; where there is none, files."""
    del context, parameter
    for scheme in ("random:", "timm:"):
        if text.startswith(scheme):
            return _starting(text, {scheme + item.value: None for item in _folders("", RUN)})
    fresh = {"random:": "random weights", "timm:": "a model of timm"} if text else {}
    found = [*_folders(text, MODEL), *_starting(text, fresh)]
    return found or [CompletionItem(text, type="file")]


def _folders(text: str, signs: Iterable[str]) -> Items:
    """Return folders that hold one of the files, below what is typed, ``runs`` or ``models``."""
    above = Path(text) if text.endswith("/") else Path(text).parent
    tops = [above] if "/" in text else [Path("runs"), Path("models")]
    inner = [each for top in tops for each in _inside(top)]
    found = [str(each) for each in inner if any((each / sign).is_file() for sign in signs)]
    return _starting(text, dict.fromkeys(found))


def _inside(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(each for each in folder.iterdir() if each.is_dir())
    return []


def _datasets(context: click.Context) -> list[str]:
    from ark_framework.roots import told

    typed = [name for word in _typed(context, "plugins") for name in word.split(",")]
    found = [name for plugin in typed for name in _provided(plugin)]
    if not typed:
        with contextlib.suppress(Exception):  # a damaged file of links
            found = list(told())
    return list(dict.fromkeys(found))


def _provided(plugin: str) -> Iterator[str]:
    """Yield the datasets of a plugin that the line names, which imports it."""
    from ark_framework.discovery import canonical, discover

    for record in discover():
        if record.name != canonical(plugin) or record.problem:
            continue
        # What it prints is no candidate, and what it raises is said when the command runs.
        with contextlib.suppress(Exception, SystemExit), contextlib.redirect_stdout(io.StringIO()):
            module = importlib.import_module(record.module.partition(":")[0])
            yield from [spec.name for spec in module.ark_datasets()]


def _typed(context: click.Context, name: str) -> tuple[str, ...]:
    found = context.params.get(name) or ()
    return (found,) if isinstance(found, str) else tuple(found)


def _model(command: str) -> type[BaseModel]:
    if command in STUDIES:
        from ark_framework.transfer.settings import StudyConfig

        return StudyConfig
    if command == "fairness":
        from ark_framework.fairness.settings import FairnessConfig

        return FairnessConfig
    from ark_framework.config import RunConfig

    return RunConfig


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    from ark_framework.config import Section

    for name, field in model.model_fields.items():
        if isinstance(field.default, Section):
            yield from _keys(type(field.default), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _values(field: Any) -> Iterator[str]:
    """Yield what a setting of few values may be."""
    kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
    for kind in kinds:
        if getattr(kind, "__origin__", None) is Literal:
            yield from map(str, get_args(kind))
        elif kind is bool:
            yield from ("true", "false")
        elif kind is type(None):
            yield "null"


def _after_commas(text: str, names: Mapping[str, str | None]) -> Items:
    before, comma, _ = text.rpartition(",")
    return _starting(text, {f"{before}{comma}{name}": about for name, about in names.items()})


def _starting(text: str, names: Mapping[str, str | None]) -> Items:
    return [
        CompletionItem(name, help=about) for name, about in names.items() if name.startswith(text)
    ]
