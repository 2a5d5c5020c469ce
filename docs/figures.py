"""Draw the pictures of the documentation: `python docs/figures.py`.

The same code gives the same bytes; a test compares them with ``docs/assets``.  A picture follows
the reader's light or dark setting by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

ASSETS = Path(__file__).parent / "assets"
STYLE = """
text { font: 14px system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1b1f24; }
.small { font-size: 12px; fill: #57606a; }
.code { font: 12px ui-monospace, Menlo, Consolas, monospace; fill: #57606a; }
.name { font-weight: 600; }
.page { fill: #ffffff; }
.box { fill: #f6f8fa; stroke: #8c959f; }
.student { fill: #ddebfb; stroke: #3b78b8; }
.teacher { fill: #fbe9d5; stroke: #b5701f; }
.head { fill: #e0f2e3; stroke: #3d8a4a; }
.line { stroke: #57606a; stroke-width: 1.6; fill: none; }
.dash { stroke-dasharray: 6 4; }
.tip { fill: #57606a; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
.small, .code { fill: #a9b4c0; }
.page { fill: #1b1d26; }
.box { fill: #262a35; stroke: #7d8590; }
.student { fill: #16324f; stroke: #6ca8e6; }
.teacher { fill: #4a3013; stroke: #e0a25a; }
.head { fill: #173a20; stroke: #66b877; }
.line { stroke: #a9b4c0; }
.tip { fill: #a9b4c0; }
}
"""
WIDTH, HEIGHT = 1000, 490


def design() -> str:
    """Figure 1 of the paper with the names of our modules."""
    parts = [*_data(), *_views(), *_networks(), *_heads(), *_between()]
    return _picture("Films of several datasets, a student with a head for each, a teacher", parts)


FIGURES: dict[str, Callable[[], str]] = {"design.svg": design}


def _data() -> list[str]:
    parts = [_text(95, 34, "datasets", "name", middle=True)]
    rows = (("dataset A", "14 findings"), ("dataset B", "3 exclusive classes"),
            ("dataset C", "1 label"))  # fmt: skip
    for index, (name, labels) in enumerate(rows):
        parts += _box(15, 50 + 92 * index, 160, 70, "box", name, labels, "its plugin")
    return [
        *parts,
        *_box(15, 342, 160, 70, "box", "packed once", "one byte a pixel", "packing, store"),
        *(_line(f"M 175 {y} H 190 V 377 H 181") for y in (85, 177, 269)),
        _tip(175, 377, "left"),
        _text(95, 438, "in turn, cycle after cycle", "small", middle=True),
        _text(95, 456, "plan.visits, pretrain", "code", middle=True),
    ]


def _views() -> list[str]:
    return [
        _line("M 175 395 H 215 V 267 H 231"),
        _tip(238, 267, "right"),
        *_box(238, 220, 130, 94, "box", "two views", "one geometry, tone", "views.make_views",
              more="for the student only"),
        _line("M 303 220 V 120 H 417"),
        _tip(424, 120, "right"),
        _line("M 303 314 V 404 H 417"),
        _tip(424, 404, "right"),
    ]  # fmt: skip


def _networks() -> list[str]:
    parts = []
    for kind, y in (("student", 78), ("teacher", 362)):
        parts += _box(424, y, 140, 84, kind, "encoder", f"of the {kind}", "builtin, timm")
        parts += _box(612, y, 140, 84, kind, "projector", f"of the {kind}", "model.ArkModel")
        parts += [_line(f"M 564 {y + 42} H 605"), _tip(612, y + 42, "right")]
    return [
        *parts,
        _text(588, 50, "student: learns by gradients", "name", middle=True),
        _text(588, 474, "teacher: no gradients, and in the end the model", "name", middle=True),
    ]


def _heads() -> list[str]:
    parts = [_text(885, 34, "a head for each dataset", "name", middle=True)]
    for index, name in enumerate("ABC"):
        y = 50 + 56 * index
        parts += [
            f'<rect class="head" x="805" y="{y}" width="160" height="44" rx="6"/>',
            _text(817, y + 27, f"head {name}"),
            _text(880, y + 27, "task loss", "small"),
            _line(f"M 752 120 H 778 V {y + 22} H 798"),
            _tip(805, y + 22, "right"),
        ]
    return [
        *parts,
        _text(885, 230, "builtin.heads", "code", middle=True),
        _text(885, 247, "builtin.losses", "code", middle=True),
    ]


def _between() -> list[str]:
    return [
        _line("M 494 162 V 355", "line dash"),
        _tip(494, 362, "down"),
        _text(486, 236, "EMA at the end", "small", end=True),
        _text(486, 252, "of each visit", "small", end=True),
        _text(486, 272, "teacher.Teacher", "code", end=True),
        _line("M 682 169 V 355"),
        _tip(682, 162, "up"),
        _tip(682, 362, "down"),
        _text(696, 256, "consistency", "small"),
        _text(696, 276, "builtin.losses", "code"),
    ]


def _box(
    x: int, y: int, width: int, height: int, kind: str, name: str, about: str, module: str,
    *, more: str = "",
) -> list[str]:  # fmt: skip
    lines = [(name, "name"), (about, "small"), *([(more, "small")] if more else []),
             (module, "code")]  # fmt: skip
    first = y + height / 2 - 9 * (len(lines) - 1) + 4
    return [
        f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>',
        *(
            _text(x + width / 2, first + 18 * index, text, style, middle=True)
            for index, (text, style) in enumerate(lines)
        ),
    ]


def _text(
    x: float, y: float, text: str, style: str = "", *, middle: bool = False, end: bool = False
) -> str:
    anchor = ' text-anchor="middle"' if middle else ' text-anchor="end"' if end else ""
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x:g}" y="{y:g}"{kind}{anchor}>{escape(text)}</text>'


def _line(path: str, style: str = "line") -> str:
    return f'<path class="{style}" d="{path}"/>'


def _tip(x: int, y: int, way: str) -> str:
    """Draw an arrow's head whose point is at x, y."""
    dx, dy = {"right": (-9, 0), "left": (9, 0), "down": (0, -9), "up": (0, 9)}[way]
    side = (0, 5) if dx else (5, 0)
    one, two = (x + dx + side[0], y + dy + side[1]), (x + dx - side[0], y + dy - side[1])
    return f'<path class="tip" d="M {x} {y} L {one[0]} {one[1]} L {two[0]} {two[1]} Z"/>'


def _picture(title: str, parts: list[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="8"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def main() -> int:
    """Write every picture."""
    for name, draw in FIGURES.items():
        (ASSETS / name).write_text(draw(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
