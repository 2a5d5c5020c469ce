"""Links from a page to the files that its numbers came from, without whose disk they are on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ark_framework.story.parts import Source

UP = 2  # folders that a link may climb: to a study beside a run, and no farther


@dataclass(frozen=True, kw_only=True)
class Links:
    """Makes sources; ``folder`` is where the page will lie."""

    folder: Path

    def to(self, owner: str, path: Path, name: str) -> Source:
        """Return the source of a file ``name`` within the folder ``path``, called ``owner``.

        A file that lies far from the page is named and not linked: the way to it would tell whose
        disk both are on.
        """
        here, there = self.folder.resolve(), path.resolve()
        way = Path(os.path.relpath(there / name, here))
        common = Path(os.path.commonpath([here, there]))
        near = way.parts.count("..") <= UP and common not in (
            Path(common.anchor),
            Path.home().parent,
        )
        return Source(name=f"{owner}/{name}", href=quote(way.as_posix()) if near else "")
