"""The report in a real browser: nothing fetched, tables sorted, text legible, nothing cut off."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from PIL import Image

from ark_framework import cli
from ark_framework.launch import train

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
LIMIT = 60.0  # seconds for an answer

# The text that is shown, with its color and the one behind it; what is folded is opened first.
CONTRAST = """
(() => {
  for (const each of document.querySelectorAll("details")) each.open = true;
  const rgb = (told) => (told.match(/[\\d.]+/g) || []).map(Number);
  const light = (color) => {
    const part = color.slice(0, 3).map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = rgb(getComputedStyle(each).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const each of document.body.querySelectorAll("*")) {
    const own = [...each.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || ["SCRIPT", "title"].includes(each.tagName)) continue;
    const style = getComputedStyle(each);
    const color = rgb(each.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(color), light(behind(each))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([ratio, each.textContent.trim().slice(0, 40)]);
  }
  return found;
})()
"""
COLUMN = """[...[...document.querySelectorAll("table.sort")]
  .find((table) => table.caption.textContent.includes(TABLE)).tBodies[0].rows]
  .map((row) => row.cells[0].textContent)"""
HEAD = """[...document.querySelectorAll("table.sort")]
  .find((table) => table.caption.textContent.includes(TABLE)).tHead.rows[0].cells[PLACE]"""


TABLE = "phantom-north: "


class Browser:
    """A page in headless Chromium, spoken to over a pipe."""

    def __init__(self, home: Path) -> None:
        ours, theirs = zip(*(os.pipe() for _ in range(2)), strict=True)
        # bash gives the browser the numbers that it expects; these must be others.
        child = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (ours[0], theirs[1])]
        self._in, self._out = os.fdopen(theirs[0], "wb", 0), os.fdopen(ours[1], "rb", 0)
        words = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        words += ["--remote-debugging-pipe", f"--user-data-dir={home}", "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{child[0]} 4>&{child[1]}', "bash", *words],
            pass_fds=child,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (ours[0], theirs[1], *child):
            os.close(fd)
        self._numbers, self._rest, self._session = itertools.count(1), b"", None
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its answer; events that come before it are kept."""
        number = next(self._numbers)
        told = {"id": number, "method": method, "params": params}
        told |= {"sessionId": self._session} if self._session else {}
        self._in.write(json.dumps(told).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == number:
                assert "error" not in found, found
                return dict(found["result"])
            self.events.append(found)

    def value(self, code: str) -> Any:
        """Evaluate an expression in the page."""
        found = self.ask("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, path: Path) -> None:
        """Load a page, and wait until it stands."""
        self.events.clear()
        self.ask("Page.navigate", url=path.as_uri())
        while not any(each["method"] == "Page.loadEventFired" for each in self.events):
            self.events.append(self._next())

    def shot(self, path: Path, *, width: int, scheme: str) -> Image.Image:
        """Write a picture of the whole page."""
        self.look(width=width, scheme=scheme)
        height = self.value("document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, 8000), "scale": 1}
        told = self.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(told["data"]))
        return Image.open(path)

    def look(self, *, width: int, scheme: str) -> None:
        """Set the window's width, and whether it is light or dark."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900,
                 deviceScaleFactor=1, mobile=False)  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", features=features)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(LIMIT)
        self._in.close()
        self._out.close()

    def _next(self) -> dict[str, Any]:
        until = monotonic() + LIMIT
        while b"\0" not in self._rest:
            assert monotonic() < until
            found = self._out.read(65536)
            assert found, "the browser is gone"
            self._rest += found
        told, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(told))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, shared_stores: Path) -> Path:
    """The page of a run, with films."""
    folder = tmp_path_factory.mktemp("report")
    names = [f"phantom-{name}" for name in ("north", "south", "east")]
    config: dict[str, Any] = {
        "plugins": ["ark-phantom"],
        "leaks": "drop",
        "data": {name: {"films": 150, "size": 32} for name in names},
        "cycles": 3,
        "batch_size": 16,
        "store": {"size": 32, "folder": str(shared_stores), "workers": 1},
        "views": {"size": 24},
        "model": {"backbone": "tiny", "options": {"width": 4}, "features": 8, "init": "random"},
        "teacher": {"momentum": 0.5},
        "eval": {"every": 1, "forgetting_every": 1},
        "log": {"every": 4, "tensorboard": False},
        "runtime": {"threads": 1, "device": "cpu"},
    }
    run = train(config, out=folder / "first").folder
    assert cli.run(["report", str(run), "--films"]) == 0
    return run / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, report: Path) -> Iterator[Browser]:
    made = Browser(tmp_path_factory.mktemp("chromium"))
    try:
        made.open(report)
        yield made
    finally:
        made.close()


@pytest.fixture
def fresh(browser: Browser, report: Path) -> Browser:
    """The page as it is loaded."""
    browser.open(report)
    browser.look(width=1200, scheme="light")
    return browser


def place(code: str, table: str, column: int = 0) -> str:
    return code.replace("TABLE", json.dumps(table)).replace("PLACE", str(column))


def test_it_asks_for_nothing_and_complains_of_nothing(fresh: Browser, report: Path) -> None:
    """The one request is the page's own; the console stays empty."""
    kinds = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}
    assert [each for each in fresh.events if each["method"] in kinds] == []
    asked = [
        each["params"]["request"]["url"]
        for each in fresh.events
        if each["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith("data:image/jpeg;base64,")] == [
        report.as_uri()
    ]
    assert fresh.value("[...document.images].every((image) => image.naturalWidth > 0)")


def test_a_complaint_would_be_noticed(browser: Browser, tmp_path: Path) -> None:
    """A page that logs, and one whose script its policy forbids, leave what the test looks for."""
    for name, head in (
        ("logs", "<script>console.error('x')</script>"),
        ("forbidden", "<meta http-equiv='Content-Security-Policy' content=\"script-src 'none'\">"
                      "<script>document.title = 'x'</script>"),
    ):  # fmt: skip
        path = tmp_path / f"{name}.html"
        path.write_text(f"<!doctype html><title>a</title>{head}", "utf-8")
        browser.open(path)
        assert browser.value("document.title") == "a"
        found = {each["method"] for each in browser.events}
        assert found & {"Runtime.consoleAPICalled", "Log.entryAdded"}


def click(browser: Browser, table: str, column: int) -> None:
    browser.value(f"{place(HEAD, table, column)}.querySelector('button').click()")


def press(browser: Browser, table: str, column: int, key: str, code: int) -> None:
    browser.value(f"{place(HEAD, table, column)}.querySelector('button').focus()")
    about = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
    text = {"text": "\r" if key == "Enter" else key}
    browser.ask("Input.dispatchKeyEvent", type="keyDown", **about, **text)
    browser.ask("Input.dispatchKeyEvent", type="keyUp", **about)


@pytest.mark.parametrize("by", ["mouse", "enter", "space"])
def test_tables_are_sorted(fresh: Browser, by: str) -> None:
    """A header sorts its column up, then down, by number; what is at the foot stays there."""
    act: dict[str, Callable[[int], None]] = {
        "mouse": lambda column: click(fresh, TABLE, column),
        "enter": lambda column: press(fresh, TABLE, column, "Enter", 13),
        "space": lambda column: press(fresh, TABLE, column, " ", 32),
    }
    labels = fresh.value(place(COLUMN, TABLE))
    assert len(labels) == 6
    act[by](0)
    assert fresh.value(place(COLUMN, TABLE)) == sorted(labels, key=str.casefold)
    assert fresh.value(f"{place(HEAD, TABLE, 0)}.getAttribute('aria-sort')") == "ascending"
    act[by](0)
    assert fresh.value(place(COLUMN, TABLE)) == sorted(labels, key=str.casefold, reverse=True)
    act[by](1)
    counts = place(COLUMN, TABLE).replace("row.cells[0]", "row.cells[1]")
    found = [int(each.replace(",", "")) for each in fresh.value(counts)]
    assert found == sorted(found)
    assert fresh.value(f"{place(HEAD, TABLE, 0)}.getAttribute('aria-sort')") == "none"
    foot = place(COLUMN, TABLE).replace("tBodies[0]", "tFoot")
    assert fresh.value(foot) == ["mean"]


def test_it_is_whole_without_the_script(browser: Browser, report: Path) -> None:
    """Where scripts are off every table and chart is there, and no header looks like a button."""
    rows = "document.querySelectorAll('tbody tr').length"
    browser.open(report)
    whole = browser.value(rows)
    browser.ask("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(report)
        assert browser.value(rows) == whole > 50
        assert browser.value("document.querySelectorAll('th button').length") == 0
        assert browser.value("document.querySelectorAll('svg polyline').length") > 10
    finally:
        browser.ask("Emulation.setScriptExecutionDisabled", value=False)


def test_what_those_need_who_do_not_see_it(fresh: Browser) -> None:
    """Charts are named, tables have captions, header cells a scope, images words."""
    named = "every((e) => e.getAttribute('aria-hidden') || (e.getAttribute('role') === 'img' && "
    named += "e.getAttribute('aria-label').length > 10))"
    assert fresh.value(f"[...document.querySelectorAll('svg')].{named}")
    assert fresh.value("document.querySelectorAll('svg[role=img]').length") > 10
    for code in (
        "[...document.querySelectorAll('table')].every((e) => e.caption.textContent.trim())",
        "[...document.querySelectorAll('th')].every((e) => e.scope)",
        "[...document.images].every((e) => e.alt.length > 10)",
        "document.querySelectorAll('h1').length === 1",
        "document.documentElement.lang === 'en'",
        "[...document.querySelectorAll('nav a')].every((e) => document.querySelector(e.hash))",
        "new Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size === "
        "document.querySelectorAll('[id]').length",
    ):
        assert fresh.value(code), code


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(fresh: Browser, scheme: str) -> None:
    """Every text has a contrast of 4.5 at least to what is behind it (WCAG AA)."""
    fresh.look(width=1200, scheme=scheme)
    found = fresh.value(CONTRAST)
    assert len(found) > 300
    assert min(found)[0] >= 4.5, min(found)


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [("light", 1200, "light"), ("dark", 1200, "dark"), ("narrow", 420, "light")],
)
def test_pictures(fresh: Browser, tmp_path: Path, name: str, width: int, scheme: str) -> None:
    """The page fills its window and no more; a wide table scrolls by itself."""
    picture = fresh.shot(tmp_path / f"{name}.png", width=width, scheme=scheme)
    assert picture.width == width
    assert fresh.value("document.documentElement.scrollWidth") == width
    corner = picture.convert("L").getpixel((2, 2))
    assert isinstance(corner, int)
    assert (corner > 200) == (scheme == "light")
    assert len(set(picture.convert("L").resize((64, 256)).tobytes())) > 30  # not an empty page


def test_it_prints(fresh: Browser, tmp_path: Path) -> None:
    """On paper, what was folded is open and the whole page is there."""
    told = fresh.ask("Page.printToPDF", preferCSSPageSize=True)
    (tmp_path / "report.pdf").write_bytes(base64.b64decode(told["data"]))
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    assert fresh.value("[...document.querySelectorAll('details')].every((each) => each.open)")
