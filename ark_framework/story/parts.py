"""What a page is made of: sections of parts, each of which says which file it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ark_framework.transfer.cells import Sheet


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file that numbers came from: its name, and the link to it where one can be given."""

    name: str
    href: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A sheet; one that is ``sorted`` by readers keeps its last ``foot`` rows at the bottom."""

    sheet: Sheet
    sources: tuple[Source, ...] = ()
    foot: int = 0
    sorted: bool = True
    kind: Literal["table"] = "table"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A chart that the macro ``kind`` draws; ``groups`` are what the dots of a row are."""

    kind: Literal["lines", "means", "dots", "bars", "boxes"]
    title: str
    chart: Mapping[str, Any]
    across: str = ""
    groups: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Charts with one legend: ``styles`` of lines by name, or ``groups`` of rows."""

    panels: Sequence[Panel]
    sources: tuple[Source, ...] = ()
    styles: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    groups: Sequence[str] = ()
    note: str = ""
    narrowest: int = 20
    kind: Literal["figure"] = "figure"


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph; ``note`` stands out, ``lacking`` says what would fill the place."""

    text: str
    tone: Literal["", "soft", "note", "lacking"] = ""
    kind: Literal["text"] = "text"


@dataclass(frozen=True, kw_only=True)
class Said:
    """Sentences below a heading; each has a ``text`` and a ``tone``."""

    title: str
    lines: Sequence[Any]
    kind: Literal["said"] = "said"


@dataclass(frozen=True, kw_only=True)
class Title:
    """A heading within a section."""

    text: str
    kind: Literal["title"] = "title"


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Parts that a reader opens."""

    title: str
    parts: Sequence[Any]
    kind: Literal["fold"] = "fold"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image within the page, and what it shows."""

    data: str
    alt: str
    lines: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Images side by side; ``wide`` ones take a row each."""

    title: str
    pictures: Sequence[Picture]
    sources: tuple[Source, ...] = ()
    wide: bool = False
    kind: Literal["pictures"] = "pictures"


Part = Table | Figure | Text | Said | Title | Fold | Pictures


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what stands below it."""

    name: str
    title: str
    parts: Sequence[Part]
