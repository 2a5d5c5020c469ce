"""Broken configurations: files, values of every numeric key, and misused options."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ark_framework.config import RunConfig


def doubled(first: str, next_: str, levels: int = 40) -> str:
    """Return anchors of which each holds the one before ten times: 10^40 values in 2 KB."""
    lines = [first]
    for level in range(1, levels):
        lines.append(next_.format(level=level, before=",".join([f"*a{level - 1}"] * 10)))
    return "\n".join(lines)


LISTS = doubled("a0: &a0 [x, x, x, x, x, x, x, x, x, x]", "a{level}: &a{level} [{before}]")
MAPS = doubled("a0: &a0 {x: 1}", "a{level}: &a{level} {{y: [{before}]}}")
MERGES = doubled("a0: &a0 {x: 1}", "a{level}: &a{level}\n  <<: [{before}]")

# A file's content, and what must be said of it.
TEXTS: dict[str, tuple[str | bytes, str]] = {
    "aliases of lists": (LISTS, "more than 100000 values"),
    "aliases of maps": (MAPS, "more than 100000 values"),
    "aliases merged": (MERGES, "more than 100000 values"),
    "aliases in a setting": (LISTS + "\nplugins: *a39", "more than 100000 values"),
    "a list that holds itself": ("plugins: &a [*a]", "holds itself"),
    "a map that holds itself": ("data: &a {x: *a}", "holds itself"),
    "a map merged with itself": ("data: &a\n  <<: *a", "holds itself"),
    "an alias of nothing": ("plugins: *a", "undefined alias"),
    "an anchor twice": ("a: &a 1\nb: &a 2\nc: *a", "duplicate anchor"),
    "10,000 lists in lists": ("a: " + "[" * 10_000 + "]" * 10_000, "levels of nesting"),
    "10,000 maps in maps": ("{a: " * 10_000, "levels of nesting"),
    "10,000 items in items": ("- " * 10_000, "levels of nesting"),
    "100 levels": ("a: " + "[" * 100 + "]" * 100, "levels of nesting"),
    "1,000 indents": ("\n".join(" " * level + "a:" for level in range(400)), "levels of nesting"),
    "a command": ("cycles: !!python/object/apply:os.system ['x']", "python/object/apply"),
    "a module": ("cycles: !!python/module:os", "python/module"),
    "a name": ("cycles: !!python/name:os.system", "python/name"),
    "an object": ("cycles: !!python/object/new:os.system ['x']", "python/object/new"),
    "an unknown tag": ("cycles: !dial 7", "!dial"),
    "bytes": ("cycles: !!binary aGk=", "binary"),
    "a set": ("plugins: !!set {a, b}", "set"),
    "a tag that lies": ("cycles: !!int seven", "int"),
    "a tag of another kind": ("cycles: !!map [1]", "map"),
    "a truth that is none": ("log: {tensorboard: !!bool perhaps}", "perhaps"),
    "a key twice": ("cycles: 1\ncycles: 2", "line 2: the key 'cycles' stands twice"),
    "a nested key twice": ("optim: {lr: 0.1, lr: 0.2}", "'lr' stands twice"),
    "a dataset twice": ("data:\n  rsna: {}\n  rsna: {}", "line 3"),
    "two documents": ("cycles: 1\n---\ncycles: 2", "document"),
    "a list": ("- cycles\n- 7", "must hold keys and values, not a list"),
    "text": ("cycles", "must hold keys and values, not a str"),
    "a number": ("7", "must hold keys and values, not a int"),
    "a key that is a list": ("? [a]\n: 1", "a key must be text"),
    "a key that is a map": ("? {a: 1}\n: 1", "a key must be text"),
    "a key that is a truth": ("on: 1", "unknown key 'on'"),
    "a key that is a number": ("1: 1", "unknown key '1'"),
    "a key that is nothing": ("~: 1", "unknown key '~'"),
    "a NUL": ("cycles: 1\0", "special characters"),
    "a NUL that is spelled": ('store: {folder: "a\\0b"}', "a NUL character"),
    "a bell": ("cycles: \x07", "special characters"),
    "a terminal's command": ('"\\e[2J": 1', "unknown key"),
    "a half of a pair": ('plugins: ["\\ud800"]', "hex escape"),
    "UTF-16": ("cycles: 1".encode("utf-16"), "utf-8"),
    "UTF-32": ("cycles: 1".encode("utf-32"), "utf-8"),
    "Latin-1": ("plugins: [Röntgen]".encode("latin-1"), "utf-8"),
    "binary": (bytes(range(256)), "utf-8"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(99), "utf-8"),
    "an archive": (b"PK\x03\x04" + bytes(99), "special characters"),
    "257 KiB": ("#" * (257 * 1024), "larger than 256 KiB"),
    "an open bracket": ("plugins: [a, b", "line 1"),
    "an open quote": ('plugins: "a', "line 1"),
    "a tab": ("optim:\n\tlr: 1", "line 2"),
    "another indent": ("optim:\n  lr: 1\n momentum: 0", "line"),
    "a colon missing": ("cycles 7\nseed: 1", "line"),
    "a later YAML": ("%YAML 9.1\n---\ncycles: 1", "incompatible"),
    "eight, as octal": ("cycles: 010", "cycles = '010'"),
    "ninety, as time": ("cycles: 1:30", "cycles = '1:30'"),
    "a date": ("cycles: 2024-01-31", "cycles = '2024-01-31'"),
    "a number as text": ('cycles: "7"', "cycles = '7'"),
    "a truth as number": ("log: {tensorboard: 1}", "log.tensorboard = 1"),
    "a number as truth": ("cycles: yes", "cycles = True"),
    "no as a name": ("order: no", "order = False"),
    "a fraction": ("cycles: 1.5", "cycles = 1.5"),
    "a number of 5,000 digits": ("seed: " + "9" * 5000, "5000 digits"),
    "a number of 3,000 digits": ("seed: " + "9" * 3000, "seed = 999"),
    "beyond floats": ("optim: {lr: 1e400}", "optim.lr"),
    "an unknown key": ("cycels: 3", "did you mean 'cycles'"),
    "an unknown nested key": ("optim: {learning_rate: 1}", "optim.learning_rate"),
    "a key of another section": ("lr: {momentum: 0.5}", "lr.momentum"),
    "a long key": ("x" * 900 + ": 1", "unknown key"),
    "a long value": ("order: " + "x" * 50_000, "order = 'xxx"),
    "a section that is a number": ("optim: 5", "optim = 5"),
    "a section that is a list": ("optim: [1]", "optim = [1]"),
    "a section that is nothing": ("optim:", "optim = None"),
    "tasks of text": ("tasks: rsna", "tasks"),
    "a task without dataset": ("tasks: [{name: a}]", "dataset"),
    "a path as a task's name": ("tasks: [{dataset: a, name: ../../x}]", "name"),
    "a recipe in the file": ("recipe: ark5", "unknown key 'recipe'"),
    "views beyond the store": ("views: {size: 512}", "larger than store.size"),
    "bounds turned": ("views: {scale: [0.9, 0.1]}", "lower bound first"),
    "a crop beyond the film": ("views: {scale: [0.5, 2]}", "at most the whole film"),
    "a bound of three": ("views: {gamma: [1, 2, 3]}", "views.gamma"),
    "a weight below zero": ("tasks: [{dataset: a, class_weights: {x: -1}}]", "class_weights"),
    "betas beyond one": ("optim: {betas: [0.9, 1.5]}", "optim.betas"),
}


def gone(path: Path) -> None:
    """Leave no file."""


def folder(path: Path) -> None:
    """Put a folder there."""
    path.mkdir()


def link_to_nothing(path: Path) -> None:
    """Put a link there whose end is missing."""
    path.symlink_to("nowhere")


def link_to_itself(path: Path) -> None:
    """Put a link there that never ends."""
    path.symlink_to(path.name)


def below_a_file(path: Path) -> None:
    """Put a link through a file there."""
    path.symlink_to("/etc/hostname/x.yaml")


def large(path: Path) -> None:
    """Put 100 MB there, which take no room on the disk."""
    path.touch()
    os.truncate(path, 100_000_000)


def endless(path: Path) -> None:
    """Put what has no end there."""
    path.symlink_to("/dev/zero")


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (gone, "No such file"),
    "a folder": (folder, "directory"),
    "a link to nothing": (link_to_nothing, "No such file"),
    "a link to itself": (link_to_itself, "Too many"),
    "below a file": (below_a_file, "Not a directory"),
    "100 MB": (large, "larger than"),
    "endless": (endless, "larger than"),
}

# Options, and what must be said of them.
OPTIONS: dict[str, tuple[list[str], str]] = {
    "set: no equals": (["--set", "cycles"], "write key=value"),
    "set: no key": (["--set", "=7"], "write key=value"),
    "set: nothing": (["--set", ""], "write key=value"),
    "set: a dot": (["--set", ".=7"], "write key=value"),
    "set: a key that begins with a dot": (["--set", ".cycles=7"], "write key=value"),
    "set: two dots": (["--set", "optim..lr=7"], "write key=value"),
    "set: no value": (["--set", "cycles="], "cycles = None"),
    "set: an unknown key": (["--set", "optim.learning_rate=7"], "optim.learning_rate"),
    "set: below a number": (["--set", "cycles.first=7"], "cycles = {'first': 7}"),
    "set: below a list": (["--set", "views.scale.0=0.5"], "views.scale"),
    "set: an index": (["--set", "views.scale[0]=0.5"], "views.scale[0]"),
    "set: a section": (["--set", "optim=7"], "optim = 7"),
    "set: aliases": (["--set", "data={" + LISTS.replace("\n", ", ") + "}"], "more than 100000"),
    "set: a command": (["--set", "cycles=!!python/name:os.system"], "python/name"),
    "set: an open bracket": (["--set", "plugins=[a"], "--set 'plugins=[a'"),
    "set: nesting": (["--set", "plugins=" + "[" * 5000], "levels of nesting"),
    "set: two documents": (["--set", "cycles=1\n---\n2"], "document"),
    "set: a key twice": (["--set", "optim={lr: 1, lr: 2}"], "stands twice"),
    "set: not a number": (["--set", "optim.lr=.nan"], "optim.lr"),
    "set: 257 KiB": (["--set", "order=" + "x" * 263_168], "order = 'xxx"),
    "recipe: unknown": (["--recipe", "ark7"], "no recipe 'ark7'; did you mean"),
    "recipe: a path": (["--recipe", "../../../etc/passwd"], "no recipe"),
    "recipe: a file": (["--recipe", "/etc/hostname"], "no recipe"),
    "recipe: nothing": (["--recipe", ""], "no recipe ''"),
    "plugins: a path": (["--plugins", "../x"], "no plugin"),
    "plugins: blank": (["--plugins", " "], "no plugin"),
    "data: no equals": (["--data", "north"], "write NAME=PATH"),
    "data: no name": (["--data", "=north"], "write NAME=PATH"),
    "data: no path": (["--data", "north="], "write NAME=PATH"),
    "limit: zero": (["--limit", "0"], "--limit"),
    "limit: text": (["--limit", "few"], "--limit"),
    "max-bad: below zero": (["--max-bad", "-1"], "--max-bad"),
    "leaks: unknown": (["--leaks", "perhaps"], "--leaks"),
    "store: a file": (["--store", "/etc/hostname"], "--store"),
}

NUMBERS: tuple[Any, ...] = (
    *(-1, 0, 10**9, 10**30, -(10**30), 0.5, -0.5, 1.5, 1e-300, 1e300),
    *(float("nan"), float("inf"), float("-inf"), True, "1", None, [1], [], {}, {"a": 1}, "nan"),
)


def numeric_keys(model: type[BaseModel] = RunConfig, above: str = "") -> Iterator[str]:
    """Yield every key of a number, or of two."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from numeric_keys(kind, f"{above}{name}.")
        elif re.search("int|float", str(kind)) and not re.search("dict|TaskConfig", str(kind)):
            yield f"{above}{name}"


def setting(key: str, value: Any) -> str:
    """Return ``--set``'s word."""
    text = json.dumps(value)
    for theirs, yaml in (("-Infinity", "-.inf"), ("Infinity", ".inf"), ("NaN", ".nan")):
        text = text.replace(theirs, yaml) if isinstance(value, float) else text
    return f"{key}={text}"
