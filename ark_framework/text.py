"""Text that is shown and not obeyed: names come from files that anybody may have made."""

from __future__ import annotations

import re

# Control characters but tabs and line ends, marks that turn the direction of writing, separators
# of lines, and bytes of a file's name that are no text.
_OBEYED = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Return text in which what a terminal or page would obey is spelled out, as in ``\\x1b``."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def is_name(text: str) -> bool:
    """Whether a text can be shown as a name: on one line, not blank, nothing to obey in it."""
    return bool(text.strip()) and not re.search(r"[\t\n]", text) and printable(text) == text


def counted(count: int, one: str) -> str:
    """Return a count and what is counted: ``1 film``, ``1,000 films``."""
    return f"{count:,} {one}" if count == 1 else f"{count:,} {one}s"


def file_stem(*words: str) -> str:
    """Return words as the beginning of a file's name, in at most 200 of the 255 bytes that it has.

    Letters, digits, points and dashes stay.  Other words may give the same: add what tells them
    apart.
    """
    plain = ("".join(c if c.isalnum() or c in ".-" else "-" for c in word) for word in words)
    return "_".join(plain).encode()[:200].decode(errors="ignore")


def markdown(text: str) -> str:
    """Return text that Markdown takes as it is: no tag, no further column, no markup."""
    for mark in ("\\", "|", "*", "_", "`", "["):
        text = text.replace(mark, f"\\{mark}")
    return printable(text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", " "))
