"""One HTML file per report: every value escaped, nothing fetched, nothing run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import ark_framework
from ark_framework.errors import ConfigError
from ark_framework.run import write_text
from ark_framework.text import printable

MARK = '<meta name="generator" content="ark-framework">'


def environment() -> Environment:
    """Return the templates with their filters; a value that a template lacks is an error."""
    made = Environment(
        loader=PackageLoader("ark_framework.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"count": count, "percent": percent}
    made.globals |= {"version": ark_framework.__version__, "shares": shares}
    made.globals |= {"shown": shown, "tones": tones}
    return made


def _shown(value: Any) -> Any:
    """Spell out in a text from data what a page would obey; what templates made is as it is."""
    return printable(value) if type(value) is str else value


def render(template: str, **values: Any) -> str:
    """Return a report as HTML; the same values give the same bytes."""
    return environment().get_template(template).render(**values)


def check(path: Path) -> None:
    """Refuse a report's place before anything is counted for it.

    Raises:
        ConfigError: no ``.html``, no such folder, or a file that is there already.
    """
    if path.suffix.lower() != ".html" or not path.parent.is_dir():
        raise ConfigError(f"report {str(path)!r}: name a .html file in a folder that exists")
    if path.exists():
        raise ConfigError(f"{path} exists and is not overwritten; choose another name")


def write(path: Path, html: str) -> None:
    """Write a report to a new file.

    Raises:
        ConfigError: as :func:`check`, also where the file has come meanwhile.
    """
    check(path)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(html)
    except FileExistsError as error:
        raise ConfigError(f"{path} exists and is not overwritten; choose another name") from error


def replace(path: Path, html: str) -> None:
    """Write a report over an earlier one, whole or not at all.

    Raises:
        ConfigError: something is there that no report is.
        MachineError: the disk refuses.
    """
    if path.exists() and MARK not in path.read_text("utf-8", errors="replace")[:4000]:
        raise ConfigError(f"{path} is no report of ours and is not overwritten; give --out")
    write_text(path, html)


def count(number: int) -> str:
    """Return ``86524`` as ``86,524``."""
    return f"{number:,}"


def percent(share: float | None) -> str:
    """Return a share as a percentage; small is not none, and nothing counted is a dash."""
    if share is None:
        return "-"
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{share:.1%}"


def tones(counts: Mapping[str, int]) -> dict[str, str]:
    """Give the three commonest names a color of their own, the rest one for all, missing none."""
    known = sorted(counts.keys() - {"missing"}, key=lambda name: (-counts[name], name))
    colors = ("one", "two", "three", *("plain" for _ in known[3:]))
    return {**dict(zip(known, colors, strict=False)), "missing": "faint"}


def shown(colors: Mapping[str, str], counts: Iterable[Mapping[str, int]]) -> dict[str, str]:
    """Return the colors of names that are counted at all, for a legend."""
    names = {name for each in counts for name in each}
    return {name: tone for name, tone in colors.items() if name in names}


def shares(counts: Mapping[str, int], colors: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the parts of a stacked bar that is 100 wide, in the order of ``colors``."""
    names = [name for name in colors if counts.get(name)]
    total, start, found = sum(counts[name] for name in names), 0.0, []
    for name in names:
        width = 100 * counts[name] / total
        part = {"name": name, "count": counts[name], "tone": colors[name]}
        found.append({**part, "start": round(start, 3), "width": round(width, 3)})
        start += width
    return found
