"""What is made for sharing names no patient, no film and no folder, and obeys no name."""

from __future__ import annotations

import base64
import hashlib
import importlib
import io
import json
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ark_framework import LabelSchema, cli, exposure
from ark_framework.annotations import validate
from ark_framework.audit import patient_keys
from ark_framework.report.command import bare

# Nobody's: who looks for these finds only what this module planted.
PERSON = "Mustermann-Erika-1949"
FILMS = [f"{PERSON}/ward7-film{number:03d}.png" for number in range(48)]
PATIENTS = [f"MRN7744{number // 2:04d}" for number in range(48)]
SOURCES = [f"ACCESSION99{number:05d}" for number in range(48)]
PEOPLE = [f"HKID-Z{number // 2:06d}" for number in range(48)]
USER, ROOT = "home-of-prof-planted", "radiology-share-xq7"
HOSTILE = [
    "<script>alert(1)</script>",
    "</style><img src=x onerror=alert(2)>",
    "\"'><b onmouseover=alert(3)>",
    "{{7*7}}{% raw %}",
    "javascript:alert(4)",
    "=HYPERLINK(5)",
    "[red]markup[/link]",
    "x" * 3000,
]
PLUGIN = """
from pathlib import Path

import pandas as pd
from pydantic import BaseModel

from ark_framework import DatasetCard, DatasetSpec, LabelSchema, hookimpl


class Options(BaseModel):
    root: Path


def read(options):
    return pd.read_csv(options.root / "table.csv").rename(columns=lambda name: name.strip())


def spec(name, access):
    return DatasetSpec(
        name=name,
        schema=LabelSchema(name=name, kind="multilabel", labels=LABELS),
        options=Options,
        read=read,
        fixture=lambda folder: Options(root=folder),
        card=DatasetCard(
            title=TITLE, home=TITLE, licence=TITLE, access=access, citation=TITLE
        ),
    )


@hookimpl
def ark_datasets():
    return [spec("planted-open", "open"), spec("planted-kept", "credentialed")]
"""


@dataclass(frozen=True)
class Made:
    """A folder with all that the commands wrote."""

    path: Path

    def shared(self) -> Iterator[tuple[str, bytes]]:
        """Yield what is for others: the export, pages, tables; archives also member by member."""
        mine = ("predictions", "pieces", "models")
        for top in ("export", "compare", "fairness", "pages"):
            for path in sorted((self.path / top).rglob("*")):
                below = path.relative_to(self.path)
                if path.is_dir() or below.parts[1] in mine:
                    continue
                content = path.read_bytes()
                yield str(below), content
                if zipfile.is_zipfile(io.BytesIO(content)):
                    with zipfile.ZipFile(io.BytesIO(content)) as archive:
                        for name in archive.namelist():
                            yield f"{below}/{name}", archive.read(name)

    def pages(self) -> Iterator[tuple[str, str]]:
        """Yield the HTML."""
        for name, content in self.shared():
            if name.endswith(".html"):
                yield name, content.decode()


def write_films(root: Path, labels: list[str], *, groups: dict[str, list[str]]) -> None:
    """Write 48 films whose names, metadata and rows say who they are of."""
    (root / PERSON).mkdir(parents=True)
    rng = np.random.default_rng(7)
    rows = []
    for number, film in enumerate(FILMS):
        left, right = number % 2, number // 2 % 2
        pixels = rng.normal(70, 12, (32, 32))
        pixels[8:24, 2:14] += 120 * left
        pixels[8:24, 18:30] += 120 * right
        about = PngInfo()
        about.add_text("PatientName", PERSON)
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        picture.save(root / film, pnginfo=about)
        row = {"image": film, "patient": PATIENTS[number], "source_id": SOURCES[number]}
        row |= {"source_patient": PEOPLE[number], "sex": "MF"[number // 2 % 2], "age": 40 + number}
        row["split"] = ("train", "train", "val", "test")[number // 2 % 4]
        row |= {name: values[number % len(values)] for name, values in groups.items()}
        row |= {label: (left, right)[place % 2] for place, label in enumerate(labels)}
        rows.append(row)
    pd.DataFrame(rows).to_csv(root / "table.csv", index=False)


def write_plugin(site: Path, labels: list[str], title: str) -> None:
    """Install the plugin of the two datasets."""
    (site / "ark_plugin_planted.py").write_text(
        f"LABELS, TITLE = {tuple(labels)!r}, {title!r}\n{PLUGIN}"
    )
    info = site / "ark_plugin_planted-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: ark-plugin-planted\nVersion: 1.0\n"
    )
    points = "[ark_framework.v1]\nark-planted = ark_plugin_planted\n"
    (info / "entry_points.txt").write_text(points)


def make(
    folder: Path, labels: list[str], title: str, groups: dict[str, list[str]], run: str = "first"
) -> Made:
    """Run every command that makes something for others; all are typed with whole paths."""
    home = folder / USER
    site, out = folder / "site", folder / "out"
    for each in (site, out / "pages"):
        each.mkdir(parents=True)
    roots = {name: home / f"{ROOT}-{name[-4:]}" for name in ("planted-open", "planted-kept")}
    for root in roots.values():
        write_films(root, labels, groups=groups)
    write_plugin(site, labels, title)
    config = {
        "plugins": ["ark-planted"],
        "data": {name: {"root": str(root)} for name, root in roots.items()},
        "leaks": "allow",
        "cycles": 1,
        "batch_size": 16,
        "store": {"size": 32, "folder": str(home / "stores"), "workers": 1},
        "views": {"size": 24},
        "model": {"backbone": "tiny", "options": {"width": 4}, "features": 8, "init": "random"},
        "log": {"tensorboard": False},
        "runtime": {"device": "cpu", "threads": 1},
    }
    study = {key: config[key] for key in ("plugins", "data", "store", "runtime")}
    first = str(home / "runs" / run)
    study["models"] = {f"{labels[0]} model": first, "random": "random:tiny"}
    study["protocols"] = ["probe", "external"]
    for name, each in (("run", config), ("study", study)):
        (home / f"{name}.yaml").write_text(json.dumps(each))
    names = [word for name, root in roots.items() for word in ("--data", f"{name}={root}")]
    data = ["--plugins", "ark-planted", *names]
    stored = ["--store", str(home / "stores")]
    size = ["--size", "32"]
    for args in (
        ["train", "-c", str(home / "run.yaml"), "--out", first],
        ["export", first, "--out", str(out / "export")],
        ["compare", str(home / "study.yaml"), "--out", str(out / "compare")],
        ["fairness", first, *data, *stored, "--folds", "2", "--out", str(out / "fairness")],
        ["data", "stats", *data, "--html", str(out / "pages" / "stats.html")],
        ["data", "labels", *data, "--html", str(out / "pages" / "labels.html")],
        ["data", "audit", *data, *stored, *size, "--html", str(out / "pages" / "audit.html")],
    ):
        sys.argv = ["ark", *args]
        assert cli.run(args) == 0, args
    return Made(out)


@pytest.fixture(scope="module")
def making(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Made]]:
    """Return ``making(labels, title, groups)``; what it installs is forgotten afterwards."""
    typed, path = list(sys.argv), list(sys.path)

    def made(*given: Any, **more: Any) -> Made:
        folder = tmp_path_factory.mktemp("made")
        sys.modules.pop("ark_plugin_planted", None)
        sys.path[:] = [str(folder / "site"), *path]
        importlib.invalidate_caches()
        try:
            return make(folder, *given, **more)
        finally:
            sys.argv = typed

    yield made
    sys.path[:] = path
    sys.modules.pop("ark_plugin_planted", None)


@pytest.fixture(scope="module")
def plain(making: Callable[..., Made]) -> Made:
    """All that is for sharing, of datasets with decent labels and telling names."""
    return making(["Left", "Right"], "A dataset", {})


def forms(word: str) -> Iterator[tuple[str, bytes]]:
    """Yield what a word may hide as: itself, encoded, or hashed without a key."""
    text = word.encode()
    yield "plain", text
    yield "UTF-16", word.encode("utf-16-le")
    yield "hexadecimal", text.hex().encode()
    for shift in range(3):  # base64 goes by threes of bytes
        whole = base64.b64encode(b"\0" * shift + text)
        yield "base64", whole[4 if shift else 0 : len(whole) // 4 * 4 - 4]
    for kind in ("md5", "sha1", "sha256", "blake2b", "blake2s"):
        digest = hashlib.new(kind, text).digest()
        yield kind, digest.hex()[:16].encode()
        yield f"{kind} in bytes", digest[:8]
        yield f"{kind} in bytes, turned", digest[:8][::-1]
    number = int(pd.util.hash_array(np.array([word], dtype=object))[0])  # pandas' own key
    yield "pandas' hash", number.to_bytes(8, "little")


def test_nothing_shared_names_a_patient_a_film_or_a_folder(plain: Made, ledger) -> None:
    """Neither plainly nor encoded, nor hashed without a key; in no file and no archive's part."""
    words = [*FILMS, *PATIENTS, *SOURCES, *PEOPLE, PERSON, USER, ROOT, str(plain.path.parent)]
    words += [f"{name}:{film}" for name in ("planted-open", "planted-kept") for film in FILMS]
    needles = {form: (word, how) for word in words for how, form in forms(word)}
    pattern = re.compile(b"|".join(map(re.escape, sorted(needles, key=len, reverse=True))))
    files = dict(plain.shared())
    assert {"export/trained_on.npz", "compare/compare.html", "fairness/fairness.html"} <= set(files)
    for name, content in files.items():
        found = pattern.search(content)
        assert not found, f"{name} holds {needles[found[0]]}"
        assert b"data:image" not in content, name
    with np.load(io.BytesIO(files["export/trained_on.npz"])) as kept:
        about = json.loads(kept["about"].tobytes())
    assert [part["dataset"] for part in about["parts"]] == ["planted-open"]  # not planted-kept
    for _ in files:
        ledger.survived("planted identifier")


def test_an_identity_without_a_space_is_no_space(ledger) -> None:
    """A dataset of one patient would give that patient's name away as what all films share."""
    schema = LabelSchema(name="s", kind="multilabel", labels=("a",))
    films = {"image": ["a.png", "b.png"], "split": "train", "a": 1}
    for given, spaces in ((PEOPLE[0], ()), (f"nih:{PEOPLE[0]}", ("nih",))):
        frame = pd.DataFrame({**films, "source_patient": given})
        table = validate(frame, dataset="d", schema=schema)
        assert exposure._spaces(patient_keys(table), table, "source_patient") == spaces
    ledger.survived("planted identifier")


class Parsed(HTMLParser):
    """What a browser would make of a page: its elements, their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []
        self.styles = 0
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.text += [value for _, value in attrs if value]
        self.styles += tag == "style"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


RUN = "<script>alert(6)"
TURNED, RUNG = "\u202eturned", "\x1b[31mrung\x07"


@pytest.fixture(scope="module")
def hostile(making: Callable[..., Made]) -> Made:
    """All that is for sharing, where every name is an attack."""
    groups = {"view": [HOSTILE[0], TURNED, RUNG], f"group:{HOSTILE[1]}": [HOSTILE[2], HOSTILE[3]]}
    return making(HOSTILE, HOSTILE[0], groups, run=RUN)


def test_pages_show_names_and_obey_none(hostile: Made, ledger) -> None:
    """A label, group, value, title or model is text: no element, attribute or address is its."""
    pages = dict(hostile.pages())
    assert len(pages) == 5
    for name, page in pages.items():
        found = Parsed(page)
        assert not found.tags & {"script", "img", "b", "iframe", "object", "link", "base", "form"}
        assert not {each for each in found.attributes if each.startswith("on")}, name
        assert not found.attributes & {"href", "src", "action", "xlink:href", "srcdoc"}, name
        assert found.styles == 1, name
        assert not re.search(r"url\(|@import|http-equiv=.refresh", page), name
        assert "\x1b" not in page, name
        assert "\u202e" not in page, name
        ledger.survived("hostile name")
    shown = "".join(Parsed(pages["pages/stats.html"]).text)
    for each in HOSTILE:
        assert each in shown
    for each in ("\\u202eturned", "\\x1b[31mrung"):
        assert each in shown


def test_markdown_shows_names_and_obeys_none(hostile: Made, ledger) -> None:
    """The card and the tables have no tag but the underlining of the second best."""
    texts = {n: c.decode() for n, c in hostile.shared() if n.endswith(".md")}
    assert len(texts) == 3
    for name, text in texts.items():
        head = re.match(r"---\n.*?\n---\n", text, re.DOTALL)  # of the card: YAML, for programs
        prose = re.sub(r"```.*?```", "", text[head.end() if head else 0 :], flags=re.DOTALL)
        assert not re.search(r"<(?!/?u>|https?://[^\s<>]+>)", prose), name
        assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", text), name
        assert text.count("```") % 2 == 0, name
        ledger.survived("hostile name")


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("/home/me/runs/first", "first"),
        ("name=/home/me/runs/first", "name=first"),
        ("/home/me/a=b/c:d/e", "a=c:e"),
        ("timm:resnet10t=/home/me/w.pth", "timm:resnet10t=w.pth"),
        ("tb=vindr:TB", "tb=vindr:TB"),
        ("plain", "plain"),
    ],
)
def test_a_command_on_a_page_has_no_folders(typed: str, shown: str) -> None:
    """Whatever sign a path has in it."""
    assert bare(typed) == shown
