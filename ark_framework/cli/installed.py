"""Which data are linked and which plugins installed, for ``ark doctor``; none is imported."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Iterator
from importlib import metadata

from ark_framework.cli.finding import Finding
from ark_framework.discovery import CORE, FAMILY, canonical, discover
from ark_framework.errors import ConfigError


def links() -> Iterator[Finding]:
    """Every linked dataset."""
    from ark_framework.roots import links as known
    from ark_framework.roots import links_file

    try:
        linked = known()
    except ConfigError as error:
        yield Finding(name="links", state="broken", message=str(error), mend=f"rm {links_file()}")
        return
    for name, root in linked.items():
        there = root.is_dir()
        yield Finding(
            name=f"data {name}",
            state="ok" if there else "note",
            message=str(root) + (", which is gone" if not there else ""),
            mend=None if there else f"ark data link {name} PATH",
        )


def plugins() -> Iterator[Finding]:
    """Every installed plugin, and why it cannot be used."""
    for record in discover():
        problem, mend = record.problem, f"pip install --upgrade {record.distribution}"
        package = record.module.partition(":")[0].partition(".")[0]
        if problem is None and importlib.util.find_spec(package) is None:
            problem = f"its module {package!r} is not there"
            mend = f"pip install --force-reinstall {record.distribution}"
        if problem and "ARK_DISABLE_PLUGINS" in problem:
            mend = "unset ARK_DISABLE_PLUGINS"
        elif problem and "uninstall all but one" in problem:
            mend = f"pip uninstall {record.distribution}"
        disabled = mend.startswith("unset")
        yield Finding(
            name=f"plugin {record.name}",
            state="ok" if problem is None else "note" if disabled else "broken",
            message=f"{record.distribution} {record.version}" + (f": {problem}" if problem else ""),
            mend=mend if problem else None,
        )


def twice() -> Iterator[Finding]:
    """Ours that two folders of the import path hold: which one is used depends on the folder."""
    found: dict[str, list[metadata.Distribution]] = defaultdict(list)
    for each in metadata.distributions():
        if FAMILY in (each.read_text("entry_points.txt") or ""):
            found[canonical(str(each.metadata["Name"]))].append(each)
    for copies in found.values():
        places = list(dict.fromkeys(str(each.locate_file("")) for each in copies))
        if len(places) < 2:
            continue
        name = str(copies[0].metadata["Name"])
        versions = ", ".join(f"{each.version} in {each.locate_file('')}" for each in copies)
        source = " and what belongs to it" if name == CORE else ""
        yield Finding(
            name=f"plugin {canonical(name)}" if name != CORE else CORE,
            state="broken",
            message=f"{name}{source} is installed {len(places)} times: {versions}",
            mend=f"pip uninstall -y {name}; pip uninstall -y {name}; pip install {name}",
        )
