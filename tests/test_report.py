"""Reports are well-formed single files that run nothing, fetch nothing and name no film."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from jinja2 import UndefinedError

from ark_framework import ConfigError, LabelSchema, cli
from ark_framework.annotations import validate
from ark_framework.cli import census, matrix
from ark_framework.report import page

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "{{ 7 * 7 }}",
    "a & b",
    "long_" * 30,
)
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Tree(HTMLParser):
    """Checks that every tag is closed by its own end tag, and keeps tags and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
def pages() -> dict[str, str]:
    """Every report of three datasets: hostile names, masks, and one without ages."""
    hostile = pd.DataFrame(
        {
            "image": ["secret/1.png", "secret/2.png", "secret/3.png"],
            "split": ["train", "val", None],
            "patient": "patient-77",
            "view": ["PA", '"><b>odd</b>', None],
            "sex": ["M", None, "F"],
            "age": [3, 150, np.nan],
            "source_id": ["nih:known.png", None, None],
        }
    ).join(pd.DataFrame({label: [1, -1, np.nan] for label in HOSTILE}))
    plain = pd.DataFrame({"image": ["x.png", "y.png"], "split": "test", "A and B": [1, 0], "c": 0})
    masks = pd.DataFrame({"image": ["z.png"], "split": ["train"]})
    tables = [
        validate(frame, dataset=name, schema=LabelSchema(name=name, kind=kind, labels=labels))
        for name, frame, kind, labels in (
            ("hostile", hostile, "multilabel", HOSTILE),
            ("plain", plain, "multilabel", ("A and B", "c")),
            ("masks", masks, "mask", ("<i>lung</i>",)),
        )
    ]
    found = {table.dataset: census.census(table) for table in tables}
    titles = {name: f"<u>{name}</u>" for name in found}
    return {
        "stats": page.render(
            "stats.html", titles=titles, datasets=found, union=census.union(tables)
        ),
        "labels": page.render("labels.html", notes=matrix.NOTES, **matrix.matrix(tables)),
    }


def test_well_formed(pages: dict[str, str]) -> None:
    """Tags nest, there is one heading and one table row per row, and bars stay inside."""
    for html in pages.values():
        tree = Tree(html)
        names = [tag for tag, _ in tree.tags]
        assert (names[0], names.count("h1"), names.count("main")) == ("html", 1, 1)
        assert ("meta", {"charset": "utf-8"}) in tree.tags
        for tag, attributes in tree.tags:
            if tag == "rect":
                start, width = (float(attributes.get(key) or 0) for key in ("x", "width"))
                assert 0 <= start <= start + width <= 400.01


def test_hostile_names_are_text(pages: dict[str, str]) -> None:
    """Whatever a label, view or title is called, a reader sees it and a browser does nothing."""
    for html in pages.values():
        tree = Tree(html)
        text = " ".join("".join(tree.text).split())
        for label in (*HOSTILE[:4], "<i>lung</i>" if "annotates" in text else "<b>odd</b>"):
            assert label in text
        assert not {"script", "img", "b", "i", "u", "iframe", "a"} & {tag for tag, _ in tree.tags}


def test_nothing_is_fetched_or_run(pages: dict[str, str]) -> None:
    """No script, link, image, import or handler; and the browser is told so, too."""
    for html in pages.values():
        tree = Tree(html)
        allowed = {"class", "style", "lang", "rowspan", "charset", "name", "content", "http-equiv"}
        drawing = {"viewbox", "preserveaspectratio", "aria-hidden", "aria-label", "role", "width"}
        drawing |= {"height", "x", "y", "x1", "x2", "y1", "y2", "text-anchor", "stroke"}
        used = {name for _, attributes in tree.tags for name in attributes}
        assert used <= allowed | drawing | {"stroke-opacity"}
        style = html.split("<style>")[1].split("</style>")[0]
        assert not re.search(r"url\(|@import|expression", style)
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        assert ("Content-Security-Policy", policy) in [
            (each.get("http-equiv"), each.get("content")) for _, each in tree.tags
        ]
        assert "prefers-color-scheme: dark" in style


def test_no_film_or_patient_is_named(pages: dict[str, str]) -> None:
    """A page can be shared: no image, patient or shared identity is on it."""
    for html in pages.values():
        for secret in ("secret", ".png", "patient-77", "nih:known"):
            assert secret not in html


def test_a_value_that_is_lacking() -> None:
    """A template that is given too little is our bug, not an empty place on a page."""
    with pytest.raises(UndefinedError):
        page.render("labels.html", datasets={})


def test_numbers() -> None:
    """Counts are grouped; a small share is not none, and nothing counted is neither."""
    assert page.count(1234567) == "1,234,567"
    assert [page.percent(x) for x in (0, 0.0004, 0.001, 0.5, None)] == [
        "0.0%", "<0.1%", "0.1%", "50.0%", "-",
    ]  # fmt: skip


def test_tones() -> None:
    """The commonest names have colors of their own, in one order, and what is missing has none."""
    colors = page.tones({"d": 1, "c": 2, "missing": 99, "a": 9, "b": 9, "e": 1})
    assert colors == {
        "a": "one", "b": "two", "c": "three", "d": "plain", "e": "plain", "missing": "faint",
    }  # fmt: skip
    assert page.shown(colors, [{"c": 1}, {"missing": 0}]) == {"c": "three", "missing": "faint"}


def test_shares() -> None:
    """The parts of a bar lie end to end over its whole width; what counts nothing is left out."""
    colors = {"a": "one", "b": "two", "c": "three"}
    parts = page.shares({"a": 1, "c": 2, "other": 5}, colors)
    assert [part["name"] for part in parts] == ["a", "c"]
    assert parts[1]["start"] == parts[0]["width"]
    assert parts[-1]["start"] + parts[-1]["width"] == pytest.approx(100, abs=0.01)
    assert page.shares({"a": 0}, colors) == []


def test_write(tmp_path: Path) -> None:
    """A page goes to a new .html file in a folder that exists."""
    place = tmp_path / "a.html"
    page.write(place, "é")
    assert place.read_bytes() == "é".encode()
    with pytest.raises(ConfigError, match="not overwritten"):
        page.write(place, "again")
    assert place.read_bytes() == "é".encode()
    for wrong in (tmp_path / "a.txt", tmp_path / "none" / "a.html"):
        with pytest.raises(ConfigError, match=r"\.html file in a folder"):
            page.write(wrong, "x")


@pytest.mark.parametrize("command", ["stats", "labels"])
def test_command(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """``--html`` writes the page beside what is printed, and never over another file."""
    monkeypatch.chdir(tmp_path)
    base = ["data", command, "--plugins", "ark-phantom", "--html", "page.html"]
    assert cli.run([*base, "--json"]) == 0
    assert capfd.readouterr().out.startswith("{")
    html = Path("page.html").read_text(encoding="utf-8")
    Tree(html)
    assert "phantom-north" in html
    assert cli.run(base) == 2
    assert "page.html exists and is not overwritten" in capfd.readouterr().err
    Path("page.html").unlink()
    assert cli.run(base) == 0
    assert "wrote page.html" in capfd.readouterr().out
