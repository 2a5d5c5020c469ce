"""YAML: plain data of bounded size, each key once, numbers as people write them.

YAML 1.1 reads ``1e-3`` as text, ``010`` as eight, ``1:30`` as ninety and ``2024-01-31`` as a date;
here the first is a number and the others are text.  Keys are text as they are written.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

LARGEST = 256 * 1024  # bytes of a file: a hundred times what anybody writes
MOST = 100_000  # values, once anchors are written out
DEEPEST = 64
TAG = "tag:yaml.org,2002:"
PLAIN = {f"{TAG}{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")} | {None}
FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)

BOOL = r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF"


class _Loader(yaml.SafeLoader):
    """Plain data alone: no dates, no bytes, no sets."""

    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: made for tag, made in yaml.SafeLoader.yaml_constructors.items() if tag in PLAIN
    }
    yaml_implicit_resolvers = {}  # noqa: RUF012 - as in its base


class _Dumper(yaml.SafeDumper):
    """Quotes whatever the loader would take for something else."""


for _name, _pattern, _first in (
    ("bool", BOOL, "yYnNtTfFoO"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)", "-+0123456789"),
    ("float", FLOAT.pattern, "-+.0123456789"),
):  # fmt: skip
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(f"{TAG}{_name}", re.compile(f"^(?:{_pattern})$"), list(_first))


def read_text(path: Path) -> str:
    """Read a file that may be a pipe, but is not endless.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large, or no UTF-8.
    """
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST // 1024} KiB")
    return content.decode("utf-8-sig")


def parse(text: str) -> Any:
    """Return the plain data of one document.

    Raises:
        ValueError: one line with the place and the reason.
    """
    try:
        return _constructed(_Loader(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        reason = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        raise ValueError(f"{where}{reason[:200]}") from error
    except RecursionError as error:
        raise ValueError(f"more than {DEEPEST} levels of nesting") from error
    except (yaml.YAMLError, ValueError, KeyError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split())[:200]) from error


def _constructed(loader: _Loader) -> Any:
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def dump(values: Any) -> str:
    """Return plain data as YAML that reads back to the same."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _check(root: yaml.Node) -> None:
    """Refuse what would be endless, large or ambiguous, before any of it is built."""
    sizes: dict[int, int] = {}
    path: set[int] = set()

    def size(node: yaml.Node, depth: int) -> int:
        """Return how many values a node is when every alias in it is written out."""
        if id(node) in path:
            raise ValueError(f"{_line(node)}: it holds itself")
        if depth > DEEPEST:
            raise ValueError(f"{_line(node)}: more than {DEEPEST} levels of nesting")
        if id(node) not in sizes:
            path.add(id(node))
            _check_keys(node)
            sizes[id(node)] = 1 + sum(size(each, depth + 1) for each in _below(node))
            path.discard(id(node))
        if sizes[id(node)] > MOST:
            raise ValueError(f"{_line(node)}: it stands for more than {MOST} values")
        return sizes[id(node)]

    size(root, 0)


def _below(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _check_keys(node: yaml.Node) -> None:
    if isinstance(node, yaml.ScalarNode) and "\0" in node.value:
        raise ValueError(f"{_line(node)}: a NUL character")
    seen = set()
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if not isinstance(key, yaml.ScalarNode):
            raise ValueError(f"{_line(key)}: a key must be text")
        if key.tag != f"{TAG}merge":
            key.tag = f"{TAG}str"
        if key.value in seen:
            raise ValueError(f"{_line(key)}: the key {key.value[:80]!r} stands twice")
        seen.add(key.value)


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"
