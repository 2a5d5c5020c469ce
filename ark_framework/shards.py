"""A part of a pack: which films it has, and where they lie until the parts are joined.

Each of ``n`` machines packs whole chunks of films into a folder of its own beside the stores,
``.<dataset>-<key>.<i>-of-<n>.partial``, for two machines must not write into one memory map.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ark_framework.errors import ConfigError

# The file that says that a part is whole.
COMPLETE = "complete"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Part ``number`` of ``count``, from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        """As it is typed: ``2/4``."""
        return f"{self.number}/{self.count}"

    @property
    def name(self) -> str:
        """As it is in file names."""
        return f"{self.number}-of-{self.count}"

    def chunks(self, total: int) -> range:
        """Return which of ``total`` chunks are its own: neighbors."""
        first, stop = ((self.number - 1) * total, self.number * total)
        return range(first // self.count, stop // self.count)

    def folder(self, partial: Path) -> Path:
        """Return where it lies, beside what the whole is built in."""
        return partial.with_name(f"{partial.stem}.{self.name}.partial")

    def complete(self, partial: Path) -> bool:
        """Whether it is packed."""
        return (self.folder(partial) / COMPLETE).is_file()


def parse(text: str) -> Shard:
    """Read ``i/n``.

    Raises:
        ConfigError: it is not a part of a whole.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--shard {text!r}: write i/n, such as 2/4, i from 1 to n")
    return Shard(number=int(match[1]), count=int(match[2]))


def begun(partial: Path) -> Iterator[Shard]:
    """Yield the shards that have a folder beside ``partial``."""
    pattern = re.compile(re.escape(partial.stem) + r"\.(\d+)-of-(\d+)\.partial")
    for path in sorted(partial.parent.glob(f"{partial.stem}.*.partial")):
        if match := pattern.fullmatch(path.name):
            yield Shard(number=int(match[1]), count=int(match[2]))


def missing(partial: Path, count: int) -> list[Shard]:
    """Return which of ``count`` shards are not packed yet."""
    every = (Shard(number=number, count=count) for number in range(1, count + 1))
    return [shard for shard in every if not shard.complete(partial)]
