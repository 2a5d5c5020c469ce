"""Say whether what is here can be released as a tag: `python .ci/release.py v1.2.3`.

Versions come from one place each: the core's from ``ark_framework.__version__``, a plugin's from
its ``pyproject.toml``.  What repeats the core's for people must agree with it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def version(root: Path) -> str:
    """Return the core's version, without importing it."""
    text = (root / "ark_framework" / "__init__.py").read_text("utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if found is None:
        raise SystemExit("ark_framework/__init__.py has no __version__")
    return found[1]


def newest(root: Path) -> str:
    """Return what the newest heading of the changelog says: a version, or Unreleased."""
    found = re.search(r"^## (\S+)", (root / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit("CHANGELOG.md has no heading")
    return found[1]


def cited(root: Path) -> str:
    """Return the version that CITATION.cff gives."""
    found = re.search(r"^version: (\S+)$", (root / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit("CITATION.cff has no version")
    return found[1]


def wrong(root: Path, tag: str | None) -> list[str]:
    """Return what does not agree, a line each; without a tag the changelog may say Unreleased."""
    own, heading = version(root), newest(root)
    found = []
    if cited(root) != own:
        found.append(f"CITATION.cff says {cited(root)}, ark_framework.__version__ {own}")
    if heading != own and (tag is not None or heading != "Unreleased"):
        found.append(f"CHANGELOG.md's newest heading is {heading}, ark_framework.__version__ {own}")
    if tag is not None and tag != f"v{own}":
        found.append(f"the tag is {tag}, ark_framework.__version__ {own}")
    return found


def main(args: list[str]) -> int:
    """Print what does not agree; return 1 if there is something."""
    found = wrong(ROOT, args[0] if args else None)
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
