"""A plugin's package as it begins: installable, tested, linted, with three places to fill in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from types import MappingProxyType

from ark_framework import registry
from ark_framework.discovery import canonical, discover
from ark_framework.errors import ConfigError, did_you_mean

# What PyPI, Python and the specs all take as a name.
_PLAIN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_PLACE = re.compile(r"^ *# ([123]\. .*(?:\n *#    .*)*)", re.MULTILINE)
_LONGEST = 40
# A first run with each kind; leaks are dropped, for two of the phantom's hospitals share patients.
_PHANTOM = "--plugins $plugin ark-phantom"
TRIALS: Mapping[str, str] = MappingProxyType(
    {
        "dataset": f"ark train {_PHANTOM} --data $name=PATH --leaks drop",
        "schema": "ark plugins show $plugin",
        "head": f'ark train {_PHANTOM} --set "tasks=[{{dataset: phantom-north, head: $name}}]" '
        "--leaks drop",
        "loss": f"ark train {_PHANTOM} --set losses.multilabel=$name --leaks drop",
        "backbone": f"ark train {_PHANTOM} --set model.backbone=$name --leaks drop",
    }
)
KINDS = tuple(TRIALS)
# What every kind has, path to template.
COMMON: Mapping[str, str] = MappingProxyType(
    {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        "LICENSE": "LICENSE",
        ".gitignore": "gitignore",
        ".github/workflows/test.yml": "test.yml",
    }
)


@dataclass(frozen=True, kw_only=True)
class Scaffold:
    """What will be written.

    Attributes:
        name: The spec's name, such as ``mine``.
        plugin: As after ``--plugins``: ``ark-mine``.
        distribution: As after ``pip install``: ``ark-plugin-mine``.
        module: As after ``import``: ``ark_plugin_mine``.
        files: Text by path below the package's folder.
        places: What there is to fill in, as its comments say.
        trial: The command for a first run with it.
    """

    name: str
    plugin: str
    distribution: str
    module: str
    files: Mapping[str, str]
    places: tuple[str, ...]
    trial: str


def plan(name: str, *, kind: str) -> Scaffold:
    """Return the package of a new plugin; nothing is written.

    Args:
        name: In any of the forms that ``--plugins`` takes.
        kind: One of :data:`KINDS`.

    Raises:
        ConfigError: no such kind, a name that cannot be one, or one that is taken.
    """
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise ConfigError(f"no kind {kind!r} of plugin{did_you_mean(kind, KINDS)}; it is {known}")
    plugin = _usable(name)
    plain = plugin.removeprefix("ark-")
    _must_be_free(plugin, plain, kind)
    module = f"ark_plugin_{plain.replace('-', '_')}"
    names = {
        "name": plain,
        "plugin": plugin,
        "distribution": f"ark-plugin-{plain}",
        "module": module,
    }
    trial = Template(TRIALS[kind]).substitute(names)
    code = _text(f"{kind}.py", names)
    places = tuple(" ".join(each.replace("#", "").split()) for each in _PLACE.findall(code))
    words = {**names, "kind": kind, "trial": trial, "places": "\n".join(places)}
    files = {
        f"{module}.py": code,
        f"tests/test_{module}.py": _text(f"{kind}_test.py", words),
        **{path: _text(template, words) for path, template in COMMON.items()},
    }
    return Scaffold(**names, files=MappingProxyType(files), places=places, trial=trial)


def write(scaffold: Scaffold, folder: Path) -> None:
    """Write a package into a folder that is new or empty.

    Raises:
        ConfigError: the folder holds something, or is a file; nothing is ever overwritten.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder} exists and is not empty; choose another folder with --out")
    try:
        for name, text in scaffold.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(
            f"cannot write to {folder}: {error.filename} is in the way; choose another folder "
            "with --out"
        ) from error


def _usable(name: str) -> str:
    plugin = canonical(name)
    plain = plugin.removeprefix("ark-")
    if not _PLAIN.fullmatch(plain) or len(plain) > _LONGEST:
        raise ConfigError(
            f"plugin name {name!r} must be lower-case letters and digits, with single '-' between "
            f"words, at most {_LONGEST} characters: such as my-films"
        )
    # `ark-plugin-` and `ark-` are taken off wherever a name is read, so it must not begin so.
    if canonical(plugin) != plugin or canonical(f"ark-plugin-{plain}") != plugin:
        raise ConfigError(f"plugin name {name!r} must not begin with 'ark-' or 'plugin-' itself")
    return plugin


def _must_be_free(plugin: str, plain: str, kind: str) -> None:
    for record in discover():
        if plugin in (record.name, canonical(record.distribution)):
            raise ConfigError(
                f"plugin name {plain!r} is taken by {record.distribution} {record.version}, which "
                "is installed here; choose another name"
            )
    # The built-ins are in every run and the phantom in the first one; a clash would stop both.
    built = registry.load(["ark-phantom"]).owners
    if (kind, plain) in built:
        owner = built[kind, plain]
        raise ConfigError(
            f"plugin name {plain!r} is taken: {owner.name} of {owner.distribution} has a {kind} "
            "of that name; choose another name"
        )


def _text(template: str, words: Mapping[str, str]) -> str:
    # The ending keeps tools from taking a template for the code of this package.
    file = resources.files(__name__) / "templates" / f"{template}.txt"
    return Template(file.read_text("utf-8")).substitute(words)
