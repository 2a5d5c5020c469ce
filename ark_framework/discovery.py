"""Who is installed: read from installed metadata only, so no plugin is ever imported here."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata

API = "v1"
FAMILY = "ark_framework."
GROUP = FAMILY + API
CORE = "ark-framework"
_MAJOR = re.compile(re.escape(FAMILY) + r"(v\d+)")


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
    """Return ``ark-vindr`` for ``vindr``, ``ark-vindr``, ``ark-plugin-vindr``, in any case.

    ``_`` and ``.`` count as ``-``.
    """
    plain = re.sub(r"[-_.]+", "-", name.strip().lower())
    for prefix in ("ark-plugin-", "ark-"):
        plain = plain.removeprefix(prefix)
    return f"ark-{plain}"


def discover() -> tuple[PluginRecord, ...]:
    """List every installed plugin by name; nothing is imported.

    ``ARK_DISABLE_PLUGINS`` (names, or ``all``) gives third parties a problem, never the built-ins.
    """
    found: dict[tuple[str, str, str], PluginRecord] = {}
    for distribution in metadata.distributions():
        for record in _records(distribution):
            # sys.path may show one distribution twice; the first wins, as it does for imports.
            found.setdefault((record.name, canonical(record.distribution), record.api), record)
    known = tuple(found.values())
    names = Counter(record.name for record in known if record.api == API)
    judged = [
        replace(record, problem=_problem(record, known, clash=names[record.name] > 1))
        for record in known
    ]
    return tuple(sorted(judged, key=lambda record: (record.name, record.api, record.distribution)))


def _records(distribution: metadata.Distribution) -> Iterator[PluginRecord]:
    try:
        text = distribution.read_text("entry_points.txt") or ""
    except (OSError, UnicodeError):
        return  # not ours to report: it may be anybody's package
    if FAMILY not in text:
        return
    name = str(distribution.metadata["Name"])
    version = str(distribution.version)
    try:
        points = list(distribution.entry_points)
    except Exception:  # what a malformed file raises differs by Python version
        yield PluginRecord(
            name=canonical(name),
            distribution=name,
            version=version,
            module="",
            api=API,
            problem="has an entry_points.txt that cannot be read: "
            f"pip install --force-reinstall {name}",
        )
        return
    for point in points:
        if match := _MAJOR.fullmatch(point.group):
            yield PluginRecord(
                name=canonical(point.name),
                distribution=name,
                version=version,
                module=point.value,
                api=match[1],
            )


def _problem(record: PluginRecord, known: Iterable[PluginRecord], *, clash: bool) -> str | None:
    if record.problem:
        return record.problem
    words = os.environ.get("ARK_DISABLE_PLUGINS", "").split(",")
    disabled = {canonical(word) for word in words if word.strip()}
    if record.distribution != CORE and disabled & {record.name, "ark-all"}:
        return "is disabled by ARK_DISABLE_PLUGINS"
    if record.api != API:
        return (
            f"was built for plugin API {record.api} and this ark-framework speaks {API}: install "
            f"an ark-framework that speaks {record.api}, or a release of the plugin for {API}"
        )
    if clash:
        owners = sorted(o.distribution for o in known if o.name == record.name and o.api == API)
        return (
            f"is the name of {len(owners)} installed distributions ({', '.join(owners)}): "
            "uninstall all but one"
        )
    return None
