"""Malformed label files against every first-party dataset plugin that is installed.

Each plugin's miniature is written once; then its label files are spoilt, one way at a time.
Whatever stands in a file, reading gives either a DataError on one line that names the dataset, the
file and, where there is one, the place, or a correct read: no other exception, no warning, no film
that is silently lost, and no film changed whose own lines were left alone.
"""

from __future__ import annotations

import gzip
import json
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import process_time
from typing import Any, Literal
from zlib import crc32

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from ark_framework import DataError
from ark_framework import registry as plugins
from ark_framework.annotations import validate
from ark_framework.discovery import discover
from ark_framework.specs import DatasetCard, DatasetSpec, LabelSchema

FOLDERS = sorted(p.name for p in (Path(__file__).parents[1] / "plugins").glob("ark-plugin-*"))
ENDINGS = (".csv", ".txt", ".json", ".tsv", ".gz")
BAD_CELLS = ("2", "yes", "nan", "1e400", "\uff0d1", "", '"')
BAD_PATHS = ("../../etc/passwd", "/etc/passwd", "..\\..\\boot.ini", "C:/boot.ini")

# No file here has a hundred lines, so that a read which takes this long would take hours.
SECONDS = 5.0

# What may come of a wrong file; all but "same" may be a DataError.
#   same      the table of the right file, and nothing else
#   refused   nothing else
#   layout    a table without some of the films, as of an official layout that lacks the file
#   either    the table of the right file
#   part      a table in which all films are as they were that the wrong lines do not name
#   cell      likewise, and the films that they do name are not lost and keep labels and a split
Want = Literal["same", "refused", "layout", "either", "part", "cell"]


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """A wrong file: what is in it, which lines are wrong, and what may come of it.

    Args:
        name: What is wrong.
        data: What is in it; ``None``: it is missing, ``"folder"``: it is one.
        want: What may come of it.
        core: Sex, age, view and identities may differ: columns that a list need not have.
        lines: The numbers of the wrong lines, and of those that say something of the same films.
        touched: The text of the lines that differ.
        keys: Of these an error names one: in a file where lines mean nothing.
        cell: The wrong value, where it is one.
    """

    name: str
    data: bytes | Literal["folder"] | None
    want: Want
    core: bool = False
    lines: frozenset[int] = frozenset()
    touched: str = ""
    keys: tuple[str, ...] = ()
    cell: str = ""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A dataset's miniature, with one of its label files."""

    spec: DatasetSpec
    options: Any
    schema: LabelSchema
    path: Path

    @cached_property
    def right(self) -> bytes:
        return self.path.read_bytes()

    @cached_property
    def text(self) -> str:
        packed = self.right.startswith(b"\x1f\x8b")
        return (gzip.decompress(self.right) if packed else self.right).decode()

    @cached_property
    def table(self) -> pd.DataFrame:
        return self.read()

    @cached_property
    def optional(self) -> bool:
        """Whether the dataset can be read without the file, but for what is not its core."""
        found = outcome(self, None)
        return isinstance(found, pd.DataFrame) and same(self.core(found), self.core(self.table))

    @property
    def is_read(self) -> bool:
        """Whether anything comes of the file."""
        found = (outcome(self, data) for data in (None, b"\xff\0"))
        return not all(same(self.table, each) for each in found)

    @cached_property
    def names(self) -> dict[str, set[str]]:
        """Which films each word of the text may mean; words that many share mean none."""
        found: dict[str, set[str]] = defaultdict(set)
        for image in self.table.index:
            for part in Path(image).parts:
                for word in {part, Path(part).stem, part.lstrip("ps")}:
                    found[word].add(image)
        return {word: films for word, films in found.items() if len(films) <= 4 < len(word)}

    @cached_property
    def header(self) -> int:
        """How many header lines the file has: none where its first line names a film."""
        return int(not self.named(self.text.split("\n", 1)[0]))

    @cached_property
    def lines(self) -> list[str]:
        return self.text.rstrip("\n").split("\n")

    @cached_property
    def prose(self) -> bool:
        """Whether the text names no film; the file may be of one."""
        return not self.named(self.text)

    @cached_property
    def several(self) -> bool:
        """Whether a film has more than one line."""
        films = [film for line in self.lines for film in self.named(line)]
        return len(set(films)) < len(films)

    @property
    def labels(self) -> list[str]:
        return ["mask"] if self.draws else [] if self.spec.read_mask else list(self.schema.labels)

    @property
    def draws(self) -> bool:
        """Whether the file may be one that masks are drawn from."""
        return self.spec.read_mask is not None and self.path.suffix in (".csv", ".json")

    def read(self) -> pd.DataFrame:
        frame = self.spec.read(self.options)
        frame = validate(frame, dataset=self.spec.name, schema=self.schema).frame
        if self.draws and self.spec.read_mask:
            masks = (self.spec.read_mask(row, self.options) for row in frame.itertuples())
            frame = frame.assign(mask=[float(crc32(mask.tobytes())) for mask in masks])
        return frame.set_index("image").sort_index()

    def core(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame[["split", *self.labels]]

    def named(self, text: str) -> set[str]:
        """Return the films that a text names."""
        words = set(re.findall(r"[\w.\-]+", text))
        words |= {Path(word).stem for word in words}
        return set().union(*(self.names.get(word, ()) for word in words))

    def pack(self, text: str | bytes) -> bytes:
        data = text.encode() if isinstance(text, str) else text
        return gzip.compress(data, 1) if self.right.startswith(b"\x1f\x8b") else data


def same(one: pd.DataFrame, other: pd.DataFrame | Exception) -> bool:
    if isinstance(other, Exception):
        return False
    return one.equals(other) and list(one.index) == list(other.index)


def outcome(subject: Subject, data: bytes | str | None) -> pd.DataFrame | Exception:
    """Read the dataset with other bytes in one of its files, then put that right again."""
    path, right = subject.path, subject.right
    path.unlink()
    try:
        if isinstance(data, bytes):
            path.write_bytes(data)
        elif data == "folder":
            path.mkdir()
        start = process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = subject.read()
        if (took := process_time() - start) > SECONDS:
            return TimeoutError(f"took {took:.0f} s")
        return found
    except Exception as error:
        took = process_time() - start
        return error if took < SECONDS else TimeoutError(f"took {took:.0f} s")
    finally:
        if path.is_dir():
            path.rmdir()
        path.write_bytes(right)


def fault(subject: Subject, wrong: Wrong) -> str | None:
    """Return what is wrong with a plugin's answer to a wrong file, or nothing."""
    found = outcome(subject, wrong.data)
    if isinstance(found, DataError):
        return f"refused: {found}" if wrong.want == "same" else _message(subject, wrong, found)
    if isinstance(found, Exception):
        return f"{type(found).__name__}: {' '.join(str(found).split())[:160]}"
    return _table(subject, wrong, found)


def _message(subject: Subject, wrong: Wrong, error: DataError) -> str | None:
    text = str(error)
    if len(text.splitlines()) != 1 or len(text) > 800:
        return f"{len(text.splitlines())} lines, {len(text)} characters: {text[:80]!r}"
    for needed in (subject.spec.name.removesuffix("-mask"), subject.path.name):
        if needed not in text:
            return f"does not name {needed}: {text}"
    place = {int(number) for number in re.findall(r"\bline (\d+)", text)}
    rest = text.replace(str(subject.path), "")
    words = set(re.findall(r"[\w.\-]{5,}", wrong.touched))
    film = not place and any(word in rest for word in words)
    if wrong.lines and not (place & wrong.lines or film):
        return f"names no place of {sorted(wrong.lines)}: {text}"
    if wrong.keys and not any(key in rest for key in wrong.keys):
        return f"names none of {wrong.keys}: {text}"
    return None


def _table(subject: Subject, wrong: Wrong, found: pd.DataFrame) -> str | None:
    right = subject.table
    if same(found, right) and wrong.want != "refused":
        return None
    if wrong.core or subject.prose:
        found, right = subject.core(found), subject.core(right)
    if wrong.want == "layout":
        kept = set(found.index) <= set(right.index) and same(
            found[subject.labels], right.loc[found.index, subject.labels]
        )
        return None if kept else "read with other films or labels"
    if wrong.want == "either" and subject.several:  # a drawing more is no contradiction
        found, right = (each.drop(columns="mask", errors="ignore") for each in (found, right))
    if same(found, right) and (wrong.want != "refused" or subject.optional):
        return None
    if wrong.want in ("part", "cell"):
        return _films(subject, wrong, found, right)
    return "read as if it were right"


def _films(subject: Subject, wrong: Wrong, found: pd.DataFrame, right: pd.DataFrame) -> str | None:
    named = subject.named(wrong.touched)
    others = right.index.difference(list(named))
    if lost := others.difference(found.index).tolist():
        return f"lost {lost[0]}, which stands on another line"
    if not same(found.loc[others], right.loc[others]):
        return "changed a film that stands on another line"
    if wrong.want == "part":
        return None
    kept = found.index.intersection(list(named))
    value = wrong.cell.strip()
    if len(kept) < len(named) and not any(value and value in image for image in found.index):
        return f"lost {sorted(named - set(kept))[0]}"
    before, after = right.loc[kept], found.loc[kept]
    if (before["split"].notna() & after["split"].isna()).any():
        return f"lost the split of {kept[0]}"
    marks, wanted = (each[subject.labels].to_numpy(dtype=float) for each in (after, before))
    blank = np.isnan(marks)
    equal = (marks == wanted) | (blank & np.isnan(wanted)) | (blank & (value == ""))
    # With another key a film may lose all its labels, which then stand under that key.
    if not (equal.all(axis=1) | (blank.all(axis=1) & ("key" in wrong.name))).all():
        return f"read {value!r} as a label of {kept[0]}"
    return None


# Ways in which a file can be wrong ---------------------------------------------------------------


def whole_files(subject: Subject) -> Iterator[Wrong]:
    """Yield what can happen to a file as a whole."""
    text, pack, lines = subject.text, subject.pack, subject.lines
    ended = "\n".join(lines) + "\n"
    middle = len(lines) // 2
    later = "\n".join(lines[middle - 1 :])
    yield Wrong(name="missing", data=None, want="layout")
    yield Wrong(name="a folder", data="folder", want="layout")
    yield Wrong(name="empty", data=pack(""), want="refused")
    yield Wrong(name="blank lines only", data=pack("\n\n \n"), want="refused")
    yield Wrong(name="UTF-8 with BOM", data=pack("\ufeff" + text), want="same")
    yield Wrong(name="CRLF", data=pack(text.replace("\n", "\r\n")), want="same")
    yield Wrong(name="CR", data=pack(text.replace("\n", "\r")), want="either")
    yield Wrong(name="no last newline", data=pack(text.removesuffix("\n")), want="same")
    yield Wrong(name="a blank line at the end", data=pack(ended + "\n"), want="same")
    yield Wrong(name="UTF-16", data=pack(text.encode("utf-16")), want="either")
    yield Wrong(name="NUL bytes", data=pack("\0" * 400), want="refused")
    yield Wrong(name="not text", data=bytes(range(256)) * 4, want="refused")
    head = "\n".join(lines[: subject.header])
    if subject.path.suffix != ".json" and subject.header:
        yield Wrong(name="header only", data=pack(head + "\n"), want="refused")
        yield Wrong(name="no header", data=pack("\n".join(lines[1:])), want="refused")
        yield Wrong(name="header twice", data=pack(f"{head}\n{ended}"), want="either")
    half = "\n".join(lines[:middle]) + lines[middle][: len(lines[middle]) // 2]
    want: Want = "refused" if subject.path.suffix == ".json" else "part"
    yield Wrong(name="cut off", data=pack(half), want=want, touched=later)
    packed = gzip.compress(text.encode())
    yield Wrong(name="gzip cut off", data=packed[: len(packed) // 2], want="refused")
    spoilt = packed[: len(packed) // 2] + b"\xff\0" + packed[len(packed) // 2 + 2 :]
    yield Wrong(name="gzip spoilt", data=spoilt, want="refused")


def headers(subject: Subject) -> Iterator[Wrong]:
    """Yield what can happen to the names and the order of columns."""
    if not subject.header or subject.prose or "," not in subject.text.split("\n", 1)[0]:
        return
    rows = [line.split(",") for line in subject.lines]
    names, pack = rows[0], subject.pack
    for column in _some(len(names)):
        for name, new in (("renamed", "Other"), ("blank", ""), ("twice", names[column - 1])):
            changed = [*names[:column], new, *names[column + 1 :]]
            data = pack("\n".join([",".join(changed), *map(",".join, rows[1:])]))
            yield Wrong(
                name=f"column {names[column]!r} {name}", data=data, want="either", core=True
            )
    if len({len(row) for row in rows}) == 1:
        data = pack("\n".join(",".join(row[::-1]) for row in rows))
        yield Wrong(name="columns in reverse", data=data, want="same")
        data = pack("\n".join(",".join([*row, "x"]) for row in rows))
        yield Wrong(name="a column more", data=data, want="same")


def rows(subject: Subject) -> Iterator[Wrong]:
    """Yield what can happen to a row."""
    if subject.path.suffix == ".json":
        return
    lines, count = subject.lines, len(subject.lines)
    mark = _mark(lines)
    want: Want
    for at in sorted({subject.header, count - 1}):
        line, rest = lines[at], [*lines[:at], *lines[at + 1 :]]
        make = _maker(subject, line)
        twice = {at + 1, at + 2, count + 1} | _siblings(subject, line)
        yield make("row deleted", rest, "part", frozenset())
        yield make(
            "row twice, together", [*lines[: at + 1], line, *lines[at + 1 :]], "either", twice
        )
        yield make("row twice, apart", [*lines, line], "either", twice)
        fields, place = line.split(mark), {at + 1}
        for column in _some(len(fields)):
            values = (each.split(mark) for each in lines[subject.header :])
            others = {v[column] for v in values if len(v) == len(fields)} - {fields[column]}
            if others and not subject.named(fields[column]):
                other = [*fields[:column], min(others), *fields[column + 1 :]]
                name = f"row twice, field {column} is {min(others)!r} then"
                alone = subject.pack("\n".join([*lines[:at], mark.join(other), *lines[at + 1 :]]))
                # Where the field matters one of the two rows is wrong, and nobody knows which.
                matters = not same(subject.table, outcome(subject, alone))
                want = "refused" if matters else "either"
                yield make(name, [*lines, mark.join(other)], want, twice)
        for name, new in (
            ("first field only", fields[0] + mark * (len(fields) == 1)),
            ("last field missing", mark.join(fields[:-1]) or fields[0][:-1]),
            ("a field more in front", mark + line),
            ("a field more in the middle", mark.join([*fields[:1], "1", *fields[1:]])),
            ("a field more", line + mark + "1"),
            ("many fields more", line + mark.join(["1"] * 100_000)),
            ("a long field", "x" * 1_000_000 + line),
            ("a quote in front", '"' + line),
            ("a quote at the end", line + '"'),
            ("quotes around a mark", f'"{line}"'),
            ("a NUL byte", line[:3] + "\0" + line[3:]),
            ("other text", "Lorem ipsum dolor sit amet"),
        ):
            # A list is one field a line, or labels that are not read follow it.
            want = "either" if subject.header else "cell"
            yield make(name, [*lines[:at], new, *lines[at + 1 :]], want, place)
        latin = [each.encode() for each in lines]
        latin[at] = b"\xe9" + latin[at]
        data = subject.pack(b"\n".join(latin))
        yield replace(make("Latin-1", lines, "refused", place), data=data)


def cells(subject: Subject) -> Iterator[Wrong]:
    """Yield bad values in some of the cells of some rows."""
    if subject.path.suffix == ".json":
        return
    lines, mark = subject.lines, _mark(subject.lines)
    for at in sorted({min(subject.header + 5, len(lines) - 1), len(lines) - 1}):
        fields = lines[at].split(mark)
        make = _maker(subject, lines[at])
        for column in _some(len(fields)):
            key = "key " if subject.named(fields[column]) else ""
            for value in (*BAD_CELLS, *(BAD_PATHS if key else ())):
                if value == fields[column] or (value == "" and len(fields) == 1):
                    continue  # a list without one of its lines is a list
                new = mark.join([*fields[:column], value, *fields[column + 1 :]])
                name = f"line {at + 1}, {key}field {column} is {value!r}"
                changed = [*lines[:at], new, *lines[at + 1 :]]
                yield replace(make(name, changed, "cell", {at + 1}), cell=value)


def json_files(subject: Subject) -> Iterator[Wrong]:
    """Yield what can happen to the structure of a JSON file."""
    if subject.path.suffix != ".json":
        return
    whole = json.loads(subject.text)
    values: tuple[Any, ...] = (
        None,
        [],
        {},
        5,
        "x",
        1e400,
        float("nan"),
        "../../etc/passwd",
        "/etc/passwd",
        [[]],
    )
    texts = {"a number": "1", "nothing": "null", "deep": "[" * 100_000, "a list": "[]", "{}": "{}"}
    for name, text in texts.items():
        yield Wrong(name=name, data=subject.pack(text), want="refused")
    for name in list(whole)[:3]:
        part = whole[name]
        rest = {key: value for key, value in whole.items() if key != name}
        yield _dumped(subject, f"no {name!r}", rest, "refused", name)
        yield _dumped(subject, f"{name!r} renamed", {"other": part, **rest}, "refused", name)
        for value in values:
            yield _dumped(
                subject, f"{name!r} is {value!r}", {**whole, name: value}, "refused", name
            )
        first, *others = part
        less = {key: part[key] for key in others}
        yield _dumped(subject, f"no {name}[{first}]", {**whole, name: less}, "either", name)
        # Of a structure, null may say that it was not drawn; another film's outline is an outline.
        names = subject.named(str(part[first]))
        for value in (*values, part[others[0]]) if names else values[1:]:
            more = {**whole, name: {**part, first: value}}
            yield _dumped(subject, f"{name}[{first}] is {str(value)[:30]!r}", more, "either", name)


def _dumped(subject: Subject, name: str, value: Any, want: Want, key: str) -> Wrong:
    return Wrong(name=name, data=subject.pack(json.dumps(value)), want=want, keys=(key,))


def _mark(lines: list[str]) -> str:
    return "," if "," in lines[-1] else "\t" if "\t" in lines[-1] else " "


def _some(count: int) -> list[int]:
    """Return some columns: the first four and the last two."""
    return sorted({*range(min(count, 4)), *range(max(count - 2, 0), count)})


def _maker(subject: Subject, line: str) -> Callable[..., Wrong]:
    known = set(subject.lines)

    def make(name: str, lines: list[str], want: Want, place: Any) -> Wrong:
        # Of a line that is very long the end says nothing of films.
        touched = "\n".join([line, *(each[-2000:] for each in lines if each not in known)])
        return Wrong(
            name=f"{name} ({line[:24]!r})",
            data=subject.pack("\n".join(lines) + "\n"),
            want=want,
            lines=frozenset(place),
            touched=touched,
        )

    return make


def _siblings(subject: Subject, line: str) -> set[int]:
    """Return the numbers of the lines that name the same films as one of them."""
    films, lines = subject.named(line), subject.lines
    return {
        n for n, other in enumerate(lines, 1) if n > subject.header and subject.named(other) & films
    }


# The tests ---------------------------------------------------------------------------------------

Subjects = Callable[[str], list[Subject]]


@pytest.fixture(scope="session")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Subjects:
    """Return ``subjects(folder)``: a plugin's label files; the miniatures are written once."""
    known: dict[str, list[Subject]] = {}

    def get(folder: str) -> list[Subject]:
        records = [r for r in discover() if r.distribution == folder and not r.problem]
        if not records:
            pytest.skip(f"{folder} is not installed")
        if folder not in known:
            registry = plugins.load([record.name for record in records])
            names = {record.name for record in records}
            known[folder] = [
                subject
                for spec in registry.datasets.values()
                if registry.origin("dataset", spec.name).name in names
                for subject in _subjects(registry, spec, tmp_path_factory.mktemp(spec.name))
            ]
        return known[folder]

    return get


def _subjects(registry: plugins.Registry, spec: DatasetSpec, folder: Path) -> list[Subject]:
    options = spec.fixture(folder)
    subject = Subject(
        spec=spec, options=options, schema=registry.schema_of(spec, options), path=folder
    )
    groups: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix in ENDINGS and path.is_file():
            groups[path.parent, path.suffix].append(path)
    # Of a folder with a file for each film, two.
    chosen = [
        p for found in groups.values() for p in (found if len(found) < 8 else found[::40][:2])
    ]
    files = [each for path in chosen if (each := replace(subject, path=path)).is_read]
    if "split_files" in spec.options.model_fields:
        files.append(_lists(subject, folder / "my lists"))
    return files


def _lists(subject: Subject, folder: Path) -> Subject:
    """Write the split of the miniature as lists of its films; return that of the test films."""
    table, files = subject.read(), {}
    folder.mkdir()
    for split, name in (("train", "own train.txt.gz"), ("test", "own test.txt")):
        films = "".join(f"{film}\n" for film in table.index[table["split"] == split]).encode()
        files[split] = folder / name
        files[split].write_bytes(gzip.compress(films) if name.endswith(".gz") else films)
    values = {**subject.options.model_dump(), "split_files": files}
    options = type(subject.options).model_validate(values)
    return replace(subject, options=options, path=files["test"])


def _report(faults: list[str]) -> str:
    return f"{len(faults)} wrong answers:\n" + "\n".join(faults[:40])


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("kind", [whole_files, headers, rows, cells, json_files])
def test_wrong_label_files(
    subjects: Subjects, folder: str, kind: Callable[[Subject], Iterator[Wrong]]
) -> None:
    """A wrong label file is one line that names dataset, file and place, or it is read right."""
    faults = [
        f"{subject.path.name}: {wrong.name}: {found}"
        for subject in subjects(folder)
        for wrong in kind(subject)
        if (found := fault(subject, wrong))
    ]
    assert not faults, _report(faults)


@pytest.mark.parametrize("folder", FOLDERS)
def test_right_label_files(subjects: Subjects, folder: str) -> None:
    """Rows in another order, and a file that is touched and put right, give the same table."""
    for subject in subjects(folder):
        if subject.path.suffix != ".json" and not subject.prose:
            head, body = subject.lines[: subject.header], subject.lines[subject.header :]
            data = subject.pack("\n".join([*head, *body[::-1]]))
            assert not fault(subject, Wrong(name="in reverse", data=data, want="same"))
        pd.testing.assert_frame_equal(subject.read(), subject.table)


class CarelessOptions(BaseModel):
    root: Path


def careless(folder: Path) -> Subject:
    """Return a dataset that reads its list as one would in a notebook."""

    def read(options: CarelessOptions) -> pd.DataFrame:
        frame = pd.read_csv(options.root / "films.csv", index_col=False)
        frame = frame.drop_duplicates("image")
        return frame.assign(finding=(frame["finding"] == 1).astype(float))

    def fixture(folder: Path) -> CarelessOptions:
        lines = [f"film{n:04d}.png,{('train', 'test')[n % 2]},{n // 2 % 2}\n" for n in range(24)]
        (folder / "films.csv").write_text("image,split,finding\n" + "".join(lines))
        return CarelessOptions(root=folder)

    schema = LabelSchema(name="careless", kind="multilabel", labels=("finding",))
    card = DatasetCard(title="-", home="-", licence="-", access="open", citation="-")
    spec = DatasetSpec(
        name="careless",
        schema=schema,
        options=CarelessOptions,
        read=read,
        fixture=fixture,
        card=card,
    )
    return Subject(spec=spec, options=fixture(folder), schema=schema, path=folder / "films.csv")


@pytest.mark.parametrize("kind", [whole_files, headers, rows, cells])
def test_a_careless_reader_is_caught(
    tmp_path: Path, kind: Callable[[Subject], Iterator[Wrong]]
) -> None:
    """A plain ``read_csv`` answers some of each kind wrongly: passing them says something."""
    subject = careless(tmp_path)
    answers = {wrong.name: fault(subject, wrong) for wrong in kind(subject)}
    assert any(answers.values())
    assert not all(answers.values())


Edit = tuple[str, float, float, bytes]
edits: st.SearchStrategy[list[Edit]] = st.lists(
    st.tuples(
        st.sampled_from(
            ["flip", "cut", "insert", "drop line", "repeat line", "swap lines", "line"]
        ),
        st.floats(0, 1, exclude_max=True),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=3,
)


def edited(data: bytes, changes: list[Edit]) -> bytes:
    """Return bytes after random edits, each at a share of their length or number of lines."""
    for what, share, other, new in changes:
        at, lines = int(share * len(data)), data.split(b"\n")
        one, two = int(share * len(lines)), int(other * len(lines))
        if what == "flip":
            data = data[:at] + new[:1] + data[at + 1 :]
        elif what == "cut":
            data = data[:at] + data[at + 1 + int(other * 40) :]
        elif what == "insert":
            data = data[:at] + new + data[at:]
        else:
            if what == "drop line":
                del lines[one]
            elif what == "swap lines":
                lines[one], lines[two] = lines[two], lines[one]
            else:
                lines.insert(two, lines[one] if what == "repeat line" else new)
            data = b"\n".join(lines)
    return data


@pytest.mark.parametrize("folder", FOLDERS)
@settings(
    max_examples=40, derandomize=True, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(which=st.integers(0, 99), changes=edits)
def test_random_edits(subjects: Subjects, folder: str, which: int, changes: list[Edit]) -> None:
    """After random edits films whose lines are untouched are as they were, or a line says why."""
    files = subjects(folder)
    subject = files[which % len(files)]
    right = subject.text.encode()
    data = edited(right, changes)
    before, after = Counter(right.split(b"\n")), Counter(data.split(b"\n"))
    changed = b"\n".join([*(before - after), *(after - before)]).decode("utf-8", "replace")
    header = subject.header == 1 and data.split(b"\n", 1)[0] != right.split(b"\n", 1)[0]
    if subject.path.suffix == ".json":
        changed = subject.text
    found = fault(
        subject, Wrong(name="", data=subject.pack(data), want="part", core=header, touched=changed)
    )
    assert not found, f"{subject.path.name}: {changed[:300]!r}: {found}"
