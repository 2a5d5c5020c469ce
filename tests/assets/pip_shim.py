"""The ``pip`` of a documentation page: into a folder of its own, and never from the network.

``pip install [-e] FOLDER`` or a wheel is installed into ``$ARK_DOCS_SITE`` without dependencies.
With ``-e`` the modules there are links, so that a change is seen.  A name is taken to be there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path


def main(args: list[str]) -> int:
    """Install what is a file or folder; of a name, check that it is there."""
    if args[:1] != ["install"]:
        print(f"pip {' '.join(args)}: a page may only install", file=sys.stderr)
        return 2
    site = Path(os.environ["ARK_DOCS_SITE"])
    for each in args[1:]:
        if each.startswith("-"):
            continue
        if Path(each).exists():
            _install(Path(each), site)
            if "-e" in args or "--editable" in args:
                _link(Path(each), site)
        else:
            metadata.distribution(re.split(r"[\[=<>~!]", each)[0])
    return 0


def _install(source: Path, site: Path) -> None:
    words = "install --quiet --no-deps --no-build-isolation --no-index --no-cache-dir"
    words += " --disable-pip-version-check --upgrade --target"
    command = [sys.executable, "-m", "pip", *words.split(), str(site), str(source.resolve())]
    subprocess.run(command, check=True)


def _link(source: Path, site: Path) -> None:
    for module in site.rglob("*.py"):
        original = source / module.relative_to(site)
        if original.is_file():
            module.unlink()
            module.symlink_to(original.resolve())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
